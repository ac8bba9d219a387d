//! Frames, sequence, ledger and assembly: bytes to events, without IO.
//!
//! Bytes in any chunking go in, events come out; the events never depend on the chunking. Nothing
//! here waits, reads a clock or owns a thread. The wire format is `spec/frame-stream.md`.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod frame;
pub mod ledger;
pub mod sequence;
