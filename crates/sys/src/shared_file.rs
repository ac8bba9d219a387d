//! A file that one process has mapped for writing while others read it, and the lock that says that one has.
//!
//! The lock belongs to the open file (an OFD lock), not to the process: a process may open the file again and
//! close it without losing the lock, and the system releases it when the process dies, however it dies. Asking for
//! it does not take it, so that readers never get in the way of a producer that starts.

use std::{fs::File, io, os::fd::AsRawFd, ptr, ptr::NonNull};

/// The first `bytes` bytes of a file, shared with every other process that has it mapped or reads it.
///
/// The file must not become shorter while this lives: the system answers an access beyond its end with `SIGBUS`.
#[derive(Debug)]
pub struct SharedMapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is owned and hands out nothing but a pointer; whoever reads or writes through that answers
// for it.
unsafe impl Send for SharedMapping {}
// SAFETY: as above.
unsafe impl Sync for SharedMapping {}

impl SharedMapping {
    /// Maps the file for reading and writing.
    ///
    /// # Errors
    /// `InvalidInput` if the file is shorter than `bytes`, or `bytes` is 0; otherwise what the system said.
    pub fn new(file: &File, bytes: usize) -> io::Result<Self> {
        if bytes == 0 || file.metadata()?.len() < bytes as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the file has no {bytes} bytes to map"),
            ));
        }
        // SAFETY: a new shared mapping at an address of the system's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }

    /// The first byte. Valid for reads and writes of [`bytes`](Self::bytes) bytes while the mapping lives.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The size asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this start and size; nobody uses it after the drop.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod command {
    pub(super) const SET: libc::c_int = libc::F_OFD_SETLK;
    pub(super) const ASK: libc::c_int = libc::F_OFD_GETLK;
}

/// Elsewhere the lock belongs to the process.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod command {
    pub(super) const SET: libc::c_int = libc::F_SETLK;
    pub(super) const ASK: libc::c_int = libc::F_GETLK;
}

/// A lock of the whole file. Kinds and origins are small constants whose type differs between systems.
#[allow(clippy::cast_possible_truncation)]
fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: a struct of integers, for which zero is a value; OFD locks ask for `l_pid` 0.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock
}

/// Takes the exclusive lock of the file for as long as it is open. False if somebody else has it.
///
/// # Errors
/// What the system said; the file must be open for writing.
pub fn lock_exclusive(file: &File) -> io::Result<bool> {
    let lock = whole_file(libc::c_int::from(libc::F_WRLCK));
    // SAFETY: the descriptor is open and the struct outlives the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), command::SET, &raw const lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether somebody else has the exclusive lock. Takes nothing.
///
/// # Errors
/// What the system said.
pub fn locked_elsewhere(file: &File) -> io::Result<bool> {
    let mut lock = whole_file(libc::c_int::from(libc::F_RDLCK));
    // SAFETY: the descriptor is open, and the struct is ours and outlives the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), command::ASK, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::from(lock.l_type) != libc::c_int::from(libc::F_UNLCK))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs::OpenOptions, io::Read};

    use super::*;

    fn open(path: &std::path::Path) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap()
    }

    #[test]
    fn what_is_written_to_the_mapping_is_in_the_file() {
        let path = std::env::temp_dir().join(format!("tapeline-mapping-{}", std::process::id()));
        let mut file = open(&path);
        file.set_len(8192).unwrap();
        assert!(SharedMapping::new(&file, 8193).is_err());
        assert!(SharedMapping::new(&file, 0).is_err());
        let mapping = SharedMapping::new(&file, 8192).unwrap();
        assert_eq!(mapping.bytes(), 8192);
        // SAFETY: inside the mapping, of which nobody has a reference.
        unsafe { mapping.start().as_ptr().add(8191).write(0x5A) };
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        assert_eq!((all.len(), all.last()), (8192, Some(&0x5A)));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn the_lock_goes_with_the_open_file() {
        let path = std::env::temp_dir().join(format!("tapeline-lock-{}", std::process::id()));
        let (first, second) = (open(&path), open(&path));
        assert!(!locked_elsewhere(&second).unwrap());
        assert!(lock_exclusive(&first).unwrap());
        assert!(lock_exclusive(&first).unwrap());
        assert!(!lock_exclusive(&second).unwrap());
        assert!(locked_elsewhere(&second).unwrap());
        drop(open(&path));
        assert!(
            locked_elsewhere(&second).unwrap(),
            "closing another handle does not release it"
        );
        drop(first);
        assert!(lock_exclusive(&second).unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
