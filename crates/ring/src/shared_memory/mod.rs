//! A ring of records in a file: one producer, any number of readers on the host (`spec/register-packets.md` 6).
//!
//! The producer never waits and overwrites what is oldest; each reader keeps its own position and learns how much it
//! missed. The layout is in `layout.rs` and `docs/reference/ring.md`, and in C in `include/tapeline_ring.h`. What
//! makes it right without a lock is argued in `writer.rs` and `reader.rs`.

mod backoff;
mod error;
mod header;
mod layout;
mod memory;
mod path;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use backoff::Backoff;
pub use error::Error;
pub use header::Header;
pub use layout::{
    ALIGNMENT, HEADER_BYTES, MAX_CAPACITY, MIN_CAPACITY, PAD, RECORD_HEADER_BYTES,
    max_payload_bytes,
};
pub use memory::{FileMemory, Memory};
pub use path::path_of;
pub use reader::{Counters, Progress, Reader, Record, Start, ring_bytes};
pub use writer::Writer;
