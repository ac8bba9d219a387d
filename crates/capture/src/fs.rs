//! The disk as a recorder sees it: directories that are handles, files that are written once and synced.
//!
//! Everything that decides whether a recording survives goes through these two traits, so that tests can put
//! a simulated disk under the real code (`sim` in the tests): one that fails the n-th call, writes short, or
//! forgets what was not synced. Names are relative to the directory handle and never followed through links.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory that holds one recording or one stream of it.
pub trait Dir: Send + Sync {
    /// Make a file that is not there yet, for writing and reading.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Open a file for reading, and for cutting.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Give a file its final name; `to` must not be there unless `replace`.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn rename(&self, from: &str, to: &str, replace: bool) -> io::Result<()>;
    /// Remove a file.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names and sizes of the regular files.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Names of the directories below.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn list_dirs(&self) -> io::Result<Vec<String>>;
    /// Make what names point at durable.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn sync(&self) -> io::Result<()>;
    /// A directory below, made when `create`.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn subdir(&self, name: &str, create: bool) -> io::Result<Arc<dyn Dir>>;
    /// Free and total bytes of the disk.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn free_bytes(&self) -> io::Result<(u64, u64)>;
    /// Where it is, for messages.
    fn path(&self) -> &Path;
}

/// A file being written, or read back.
pub trait DiskFile: Send + Sync {
    /// Append all of `slices`; short writes and interruptions are carried on with.
    ///
    /// # Errors
    /// As the operating system gives them; `len` then tells how much arrived.
    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<()>;
    /// Fill `buf` from `offset` as far as the file goes.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Make the contents durable.
    ///
    /// # Errors
    /// As the operating system gives them. What it covered is unknown then; it is never tried again.
    fn sync_data(&self) -> io::Result<()>;
    /// Cut to `bytes`.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Size now.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn len(&self) -> io::Result<u64>;
    /// Whether there is nothing in it.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct RealDir {
    path: PathBuf,
    handle: File,
}

impl RealDir {
    /// Open `path`, made with its parents when `create`.
    ///
    /// # Errors
    /// As the operating system gives them; `NotADirectory` when something else is there.
    pub fn open(path: &Path, create: bool) -> io::Result<Self> {
        if create {
            std::fs::create_dir_all(path)?;
        }
        if !std::fs::metadata(path)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self {
            path: path.to_owned(),
            handle: File::open(path)?,
        })
    }

    /// Claim the directory for this process until the handle is dropped.
    ///
    /// # Errors
    /// `ResourceBusy` when another recorder has it.
    pub fn lock(&self) -> io::Result<()> {
        self.handle.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => io::Error::from(io::ErrorKind::ResourceBusy),
            std::fs::TryLockError::Error(e) => e,
        })
    }
}

impl Dir for RealDir {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(tapeline_sys::fs::create_at(
            &self.handle,
            name,
        )?)))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(tapeline_sys::fs::open_at(
            &self.handle,
            name,
        )?)))
    }
    fn rename(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        if replace {
            std::fs::rename(self.path.join(from), self.path.join(to))
        } else {
            tapeline_sys::fs::rename_at(&self.handle, from, to)
        }
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        tapeline_sys::fs::remove_at(&self.handle, name)
    }
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if let (true, Ok(name)) = (kind.is_file(), entry.file_name().into_string()) {
                names.push((name, entry.metadata()?.len()));
            }
        }
        names.sort();
        Ok(names)
    }
    fn list_dirs(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string())
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
    fn sync(&self) -> io::Result<()> {
        tapeline_sys::fs::sync_dir(&self.handle)
    }
    fn subdir(&self, name: &str, create: bool) -> io::Result<Arc<dyn Dir>> {
        let path = self.path.join(name);
        if create {
            match std::fs::create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        if std::fs::symlink_metadata(&path)?.file_type().is_symlink() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "a link stands where the stream's directory should be",
            ));
        }
        Ok(Arc::new(Self::open(&path, false)?))
    }
    fn free_bytes(&self) -> io::Result<(u64, u64)> {
        tapeline_sys::fs::free_bytes(&self.path)
    }
    fn path(&self) -> &Path {
        &self.path
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        tapeline_sys::fs::write_vectored_all(&self.0, slices)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            #[cfg(unix)]
            let n = std::os::unix::fs::FileExt::read_at(&self.0, rest, offset + done as u64);
            #[cfg(windows)]
            let n = std::os::windows::fs::FileExt::seek_read(&self.0, rest, offset + done as u64);
            match n {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
    fn sync_data(&self) -> io::Result<()> {
        tapeline_sys::fs::fdatasync(&self.0)
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
