//! The C face of `tapeline-bcsv`: `include/tapeline_bcsv.h` is generated from this crate (`generate_header.py`).
//!
//! Contract, on which every unsafe block leans:
//! - a handle is null (refused) or came from this library and was not freed; its first word is a tag, so that a handle
//!   of another kind is refused rather than misread;
//! - a pointer to be written to is null (refused) or valid for one value of its type;
//! - a string is null (refused) or ends with NUL; a buffer is valid for the length stated beside it;
//! - structures start with their size: shorter ones than the first version are refused, longer ones are accepted if what
//!   we do not know is zero.
//!
//! Errors are a status; text and place lie in a thread-local, which needs no clean-up and survives a handle that never
//! came to be. No panic crosses: it becomes `TLB_INTERNAL`.

mod batch;
mod check;
mod error;
mod reader;
mod writer;
