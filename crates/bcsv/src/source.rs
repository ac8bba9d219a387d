//! Where bytes are read from: anything that can be read at an offset by several threads.

use std::fs::File;
use std::io;

use crate::error::{Error, ErrorKind, Result};
use crate::pool;

/// Bytes that can be read at any offset.
pub trait ReadAt: Send + Sync {
    /// Read some bytes from `offset` on; 0 means the end.
    ///
    /// # Errors
    ///
    /// As the operating system gives them.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Bytes there are now.
    ///
    /// # Errors
    ///
    /// As the operating system gives them.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|at| self.get(at..))
            .unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..bytes), rest.get(..bytes)) {
            to.copy_from_slice(from);
        }
        Ok(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// Room behind large contents of a [`Buffer`].
const SLACK_BYTES: usize = 64 << 10;

/// A buffer that is filled again and again; it grows, but is zeroed only where it has never been used.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.bytes));
    }
}

impl Buffer {
    /// What the last [`Buffer::fill`] read.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Bytes in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Read up to `len` bytes from `offset` on; fewer only at the end of the source.
    pub(crate) fn fill(&mut self, source: &dyn ReadAt, offset: u64, len: usize) -> Result<&[u8]> {
        self.filled = 0;
        if self.bytes.len() < len {
            // Packets of a file differ by a row: the next one should fit.
            let slack = if len > SLACK_BYTES { SLACK_BYTES } else { 0 };
            pool::give(std::mem::take(&mut self.bytes));
            self.bytes = match pool::find(len + slack) {
                Some(mut used) => {
                    if used.len() < len {
                        used.resize(len, 0);
                    }
                    used
                }
                // Zero pages of the system, which cost nothing before they are used.
                None => vec![0; len + slack],
            };
        }
        while let Some(room) = self
            .bytes
            .get_mut(self.filled..len)
            .filter(|room| !room.is_empty())
        {
            match source.read_at(offset + self.filled as u64, room) {
                Ok(0) => break,
                Ok(bytes) => self.filled += bytes.min(room.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.bytes())
    }

    /// As [`Buffer::fill`], but all of it: `inside` names what is cut otherwise.
    pub(crate) fn fill_exact(
        &mut self,
        source: &dyn ReadAt,
        offset: u64,
        len: usize,
        inside: &'static str,
    ) -> Result<&[u8]> {
        if self.fill(source, offset, len)?.len() < len {
            let end = offset + self.filled as u64;
            return Err(Error::new(ErrorKind::Truncated { inside }).at(end));
        }
        Ok(self.bytes())
    }
}
