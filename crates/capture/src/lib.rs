//! Threads, sources, sinks, rotation: the recorder.
//!
//! ```text
//! source ─▶ receive (ring blocks, scanned in place) ─▶ ring ─▶ write (sequence, assembly) ─▶ sink::segment
//!                                                                                              │
//!                                                            keeper: close, sync, manifest, retention ◀┘
//! ```
//!
//! Everything decidable from bytes is in `tapeline-wire`; here bytes move, threads wait, and counters are published.

#![forbid(unsafe_code)]

pub mod config;
mod detect;
mod digest;
pub mod doctor;
pub mod error;
pub mod fs;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod index_file;
mod keeper;
pub mod manifest;
#[macro_use]
mod metrics;
#[cfg(test)]
mod model_tests;
mod output;
mod receive;
mod recorder;
mod recover;
mod register_stream;
pub mod registers;
pub mod replay;
mod resume;
mod retention;
mod rings;
#[cfg(any(test, fuzzing))]
mod simdisk;
pub mod simulate;
mod sink;
mod source;
mod status;
mod turns;
mod write;

pub use recorder::Recorder;
pub use recover::Report;
pub use register_stream::LogPosition;
pub use resume::recover_directory;
