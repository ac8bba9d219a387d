//! The file operations that writing needs, behind traits, so that tests can make the n-th of them fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::source::ReadAt;

/// A file that can be written at any offset.
pub trait StoredFile: ReadAt {
    /// Write some bytes at `offset`; returns how many.
    ///
    /// # Errors
    ///
    /// As the operating system gives them.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Cut or extend the file.
    ///
    /// # Errors
    ///
    /// As the operating system gives them.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Return once everything written survives a power cut.
    ///
    /// # Errors
    ///
    /// As the operating system gives them. After one, what was written before may be lost for good.
    fn sync(&self) -> io::Result<()>;
}

/// A place with files.
pub trait Storage: Send + Sync {
    /// Create a file that must not exist.
    ///
    /// # Errors
    ///
    /// As the operating system gives them.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;

    /// Open a file for reading and writing.
    ///
    /// # Errors
    ///
    /// As the operating system gives them.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;

    /// Whether a file has this name.
    ///
    /// # Errors
    ///
    /// Something else has it, a folder, a device or a pipe, which must not be replaced by a file.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Rename, replacing what has the new name.
    ///
    /// # Errors
    ///
    /// As the operating system gives them.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Remove a file.
    ///
    /// # Errors
    ///
    /// As the operating system gives them.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Return once the names in the folder of `path` survive a power cut.
    ///
    /// # Errors
    ///
    /// As the operating system gives them.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl StoredFile for File {
    #[cfg(unix)]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(self, bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Storage for Disk {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)?,
        ))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(
            OpenOptions::new().read(true).write(true).open(path)?,
        ))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match path.metadata() {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{}: not a regular file", path.display()),
            )),
            Ok(_) => Ok(true),
            // A symbolic link that leads nowhere has the name all the same.
            Err(_) => Ok(path.symlink_metadata().is_ok()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let replaced = large_file(to);
        std::fs::rename(from, to)?;
        if let Some(replaced) = replaced {
            // Without a thread to be had, the closure and the file in it are dropped here.
            let thread = std::thread::Builder::new().name("tapeline-free".into());
            drop(thread.spawn(move || drop(replaced)));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        // Only Unix lets a folder be opened and synced.
        if cfg!(unix) {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// From here on, 0.1 ms here, another thread gives the bytes of a file that was replaced back to the file system.
const LARGE_BYTES: u64 = 1 << 20;

/// A file that is so large that its name's end should not be the end of it: who holds it pays for giving its bytes back,
/// 0.15 ms for each megabyte on tmpfs, and not who gives its name to another file.
fn large_file(path: &Path) -> Option<File> {
    let found = path.symlink_metadata().ok()?;
    let large = found.is_file() && found.len() >= LARGE_BYTES;
    large.then(|| File::open(path).ok()).flatten()
}

/// Write parts behind each other from `offset` on, the first `done` bytes of which have been written. `done` tells how
/// far it came, also when it fails.
pub(crate) fn write_parts(
    file: &dyn StoredFile,
    offset: u64,
    parts: [&[u8]; 3],
    done: &mut usize,
) -> io::Result<()> {
    let mut start = 0;
    for part in parts {
        if let Some(rest) = done.checked_sub(start).and_then(|at| part.get(at..)) {
            let (written, result) = write_fully(file, offset + *done as u64, rest);
            *done += written;
            result?;
        }
        start += part.len();
    }
    Ok(())
}

/// Write as much as possible from `offset` on; returns how much, and why no more. Interrupted and short writes go on.
pub(crate) fn write_fully(
    file: &dyn StoredFile,
    offset: u64,
    bytes: &[u8],
) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(offset + done as u64, rest) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => done += written.min(rest.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}
