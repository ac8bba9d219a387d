//! Frames, sequence, ledger and assembly: bytes to events, without IO.

#![forbid(unsafe_code)]
