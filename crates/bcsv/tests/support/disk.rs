//! A disk in memory that can fail at its n-th operation.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tapeline_bcsv::{ReadAt, Storage, StoredFile};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO, once.
    Io,
    /// ENOSPC after half of the bytes, until [`Memory::heal`].
    Full,
    /// EINTR, once.
    Interrupted,
    /// Half of the bytes, once.
    Short,
}

#[derive(Default)]
struct State {
    files: HashMap<PathBuf, Arc<Mutex<Vec<u8>>>>,
    operations: u64,
    fault: Option<(u64, Fault)>,
}

/// Cheap to clone; clones share the files.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

impl Memory {
    /// What a file holds.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        state
            .files
            .get(path)
            .map(|file| file.lock().unwrap().clone())
            .unwrap_or_default()
    }

    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.0
            .lock()
            .unwrap()
            .files
            .insert(path.into(), Arc::new(Mutex::new(bytes)));
    }

    pub fn names(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap().files.keys().cloned().collect()
    }

    /// Fail the `n`-th operation from now on (0 is the next).
    pub fn fail(&self, n: u64, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        state.fault = Some((state.operations + n, fault));
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().fault = None;
    }

    pub fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    /// Count an operation; `Some` if it is to fail.
    fn operation(&self) -> Option<Fault> {
        let mut state = self.0.lock().unwrap();
        let number = state.operations;
        state.operations += 1;
        match state.fault {
            Some((at, Fault::Full)) if number >= at => Some(Fault::Full),
            Some((at, fault)) if number == at => Some(fault),
            _ => None,
        }
    }

    fn simple(&self) -> io::Result<()> {
        match self.operation() {
            None | Some(Fault::Interrupted | Fault::Short) => Ok(()),
            Some(Fault::Io) => Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Full) => Err(io::Error::from_raw_os_error(28)),
        }
    }
}

struct Stored {
    disk: Memory,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl ReadAt for Stored {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.lock().unwrap().read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
}

impl StoredFile for Stored {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let (count, error) = match self.disk.operation() {
            None => (bytes.len(), None),
            Some(Fault::Io) => (0, Some(5)),
            Some(Fault::Interrupted) => (0, Some(4)),
            // A write that stores half of it and then none, as a full disk does.
            Some(Fault::Full | Fault::Short) if bytes.len() > 1 => (bytes.len() / 2, None),
            Some(Fault::Full) => (0, Some(28)),
            Some(Fault::Short) => (bytes.len(), None),
        };
        if let Some(code) = error {
            return Err(io::Error::from_raw_os_error(code));
        }
        let mut file = self.bytes.lock().unwrap();
        let (start, end) = (offset as usize, offset as usize + count);
        let length = file.len().max(end);
        file.resize(length, 0);
        file[start..end].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        // A full disk can still be cut.
        if self.disk.operation() == Some(Fault::Io) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.bytes.lock().unwrap().resize(bytes as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.simple()
    }
}

impl Storage for Memory {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        self.simple()?;
        let mut state = self.0.lock().unwrap();
        if state.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Arc::new(Mutex::new(Vec::new()));
        state.files.insert(path.into(), Arc::clone(&bytes));
        Ok(Arc::new(Stored {
            disk: self.clone(),
            bytes,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        self.simple()?;
        let bytes = self
            .0
            .lock()
            .unwrap()
            .files
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Stored {
            disk: self.clone(),
            bytes,
        }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.lock().unwrap().files.contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.simple()?;
        let mut state = self.0.lock().unwrap();
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().files.remove(path);
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.simple()
    }
}
