//! How the reader gets at the bytes: through `pread`, so that nothing a producer does to the file can hurt it.
//!
//! A mapping would be a few hundred nanoseconds cheaper per batch, but a file that is cut while it is mapped kills
//! whoever touches it (`SIGBUS`). `pread` on a file in memory is a copy out of the same pages, and a cut file is a
//! short read. It also keeps the race with the producer out of the language's memory model: the reader's memory is
//! its own. The copy is validated like any other input. Measured: `benches/shared.rs`, figures in
//! `docs/reference/ring.md`.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::atomic::{Ordering, fence},
};

use tapeline_sys::shared_file::locked_elsewhere;

/// Bytes that somebody else may change or take away at any time.
pub trait Memory {
    /// Copies `out.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if there are fewer; what the system said.
    fn copy(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// How many bytes there are now.
    ///
    /// # Errors
    /// What the system said.
    fn bytes(&self) -> io::Result<u64>;

    /// Whether a producer is there.
    fn has_producer(&self) -> bool;

    /// Whether the name it was opened by leads elsewhere by now.
    fn is_unlinked(&self) -> bool;

    /// Reads a position, after everything read before and before everything read later.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    fn load(&self, offset: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        // The fences order the system's copies, which this processor does, like loads of our own.
        fence(Ordering::Acquire);
        self.copy(offset, &mut bytes)?;
        fence(Ordering::Acquire);
        Ok(u64::from_le_bytes(bytes))
    }
}

/// A file, usually in `/dev/shm`.
#[derive(Debug)]
pub struct FileMemory(pub(super) File);

impl Memory for FileMemory {
    fn copy(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn has_producer(&self) -> bool {
        // A system that cannot tell must not make a reader give up.
        locked_elsewhere(&self.0).unwrap_or(true)
    }

    fn is_unlinked(&self) -> bool {
        self.0
            .metadata()
            .is_ok_and(|metadata| metadata.nlink() == 0)
    }
}
