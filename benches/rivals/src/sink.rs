//! Output as a recorder has it: files of 256 MiB, of which only the youngest are kept.
//!
//! Old files are deleted so that the pages of new ones are memory that this machine has touched before: the
//! first touch of memory in a virtual machine measures its hypervisor.

use std::collections::VecDeque;
use std::fs::{File, create_dir_all, remove_file};
use std::io::{self, Write};
use std::path::PathBuf;

/// Bytes after which a file is followed by the next (`spec/frame-stream.md` 7).
pub const ROTATE_BYTES: u64 = 256 << 20;

/// A set of files written one after the other.
pub struct RolledFiles {
    directory: PathBuf,
    stem: String,
    keep: usize,
    file: File,
    file_bytes: u64,
    number: usize,
    finished: VecDeque<PathBuf>,
    /// Bytes written to all files.
    pub bytes: u64,
    /// Calls of write.
    pub writes: u64,
}

impl RolledFiles {
    /// Starts the first file of a set of which `keep` finished ones stay.
    ///
    /// # Errors
    /// As the operating system gave them.
    pub fn create(directory: impl Into<PathBuf>, stem: &str, keep: usize) -> io::Result<Self> {
        let directory = directory.into();
        create_dir_all(&directory)?;
        let file = File::create_new(directory.join(format!("{stem}_000000.dat")))?;
        Ok(Self {
            directory,
            stem: stem.to_owned(),
            keep,
            file,
            file_bytes: 0,
            number: 0,
            finished: VecDeque::new(),
            bytes: 0,
            writes: 0,
        })
    }

    /// Writes whole frames; rolls the file first where it is full.
    ///
    /// # Errors
    /// As the operating system gave them.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file_bytes >= ROTATE_BYTES {
            self.roll()?;
        }
        self.file.write_all(bytes)?;
        self.file_bytes += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        self.writes += 1;
        Ok(())
    }

    fn path(&self, number: usize) -> PathBuf {
        self.directory
            .join(format!("{}_{number:06}.dat", self.stem))
    }

    fn roll(&mut self) -> io::Result<()> {
        self.finished.push_back(self.path(self.number));
        self.number += 1;
        self.file = File::create_new(self.path(self.number))?;
        self.file_bytes = 0;
        while self.finished.len() > self.keep {
            if let Some(oldest) = self.finished.pop_front() {
                remove_file(oldest)?;
            }
        }
        Ok(())
    }
}
