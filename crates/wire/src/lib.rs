//! Frames, register packets, sequence, ledger, assembly and image: bytes to events, without IO.
//!
//! Bytes in any chunking go in, events come out; the events never depend on the chunking. Nothing
//! here waits, reads a clock or owns a thread. The wire formats are `spec/frame-stream.md` and
//! `spec/register-packets.md`.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod frame;
pub mod ledger;
pub mod register;
pub mod sequence;
