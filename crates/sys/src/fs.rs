//! Files and directories: durability, preallocation, names that cannot lead elsewhere.
//!
//! Functions that take a directory take it as an open [`File`], and a name as one component, so that neither a
//! symbolic link planted later nor `..` leads out of it (`design/reliability.md`, N7).

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, IoSlice, Write},
    path::Path,
};

/// Makes the data of `file` (and what is needed to read it) survive a power cut.
///
/// # Errors
/// What the system says. After an error the data is not safe, and asking again does not make it so: the kernel
/// may have dropped the pages.
pub fn fdatasync(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Makes names created in, renamed in or removed from the directory survive a power cut.
///
/// # Errors
/// What the system says.
pub fn sync_dir(directory: &File) -> io::Result<()> {
    directory.sync_all()
}

/// Free bytes (for this user) and all bytes of the file system that `path` is on.
///
/// # Errors
/// What the system says; `Unsupported` where it does not tell.
pub fn free_bytes(path: &Path) -> io::Result<(u64, u64)> {
    imp::free_bytes(path)
}

/// Reserves space so that `file` can grow to `bytes` bytes without looking for space; its size stays.
///
/// # Errors
/// `StorageFull` if there is not so much; `Unsupported` where the file system or the system cannot.
pub fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    imp::preallocate(file, bytes)
}

/// Creates a file for reading and writing; never opens one that exists, nor follows a link.
///
/// # Errors
/// `AlreadyExists`; `InvalidInput` if `name` is not one plain component; what the system says.
pub fn create_at(directory: &File, name: &str) -> io::Result<File> {
    imp::create_at(directory, &component(name)?)
}

/// Opens an existing file for reading and writing without following a link.
///
/// # Errors
/// `NotFound`; `InvalidInput` if `name` is not one plain component; what the system says.
pub fn open_at(directory: &File, name: &str) -> io::Result<File> {
    imp::open_at(directory, &component(name)?)
}

/// Renames within a directory; never replaces what has the new name.
///
/// # Errors
/// `AlreadyExists`, `NotFound`; `InvalidInput` if a name is not one plain component; what the system says.
pub fn rename_at(directory: &File, from: &str, to: &str) -> io::Result<()> {
    imp::rename_at(directory, &component(from)?, &component(to)?)
}

/// Removes a file from a directory.
///
/// # Errors
/// `NotFound`; `InvalidInput` if `name` is not one plain component; what the system says.
pub fn remove_at(directory: &File, name: &str) -> io::Result<()> {
    imp::remove_at(directory, &component(name)?)
}

/// Opens a source for reading and does not wait for a named pipe to get a writer: reading one that has brought nothing
/// yet is `WouldBlock`. Of anything but pipes and devices it is a plain open.
///
/// # Errors
/// `IsADirectory`; what the system says.
pub fn open_input(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(file)
}

/// Opens a destination for writing, created or emptied, and does not wait for a named pipe to get a reader: `None`, as
/// long as it has none. Writing to a pipe or terminal that takes no more is `WouldBlock`.
///
/// # Errors
/// What the system says.
pub fn open_output(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
        options.custom_flags(libc::O_NONBLOCK);
        match options.open(path) {
            // Also what sockets and devices without a driver say.
            Err(error)
                if error.raw_os_error() == Some(libc::ENXIO)
                    && path.metadata()?.file_type().is_fifo() =>
            {
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }
    #[cfg(not(unix))]
    options.open(path).map(Some)
}

/// Writes all of `parts`, in as few calls as the system allows (`IOV_MAX` parts a call).
///
/// # Errors
/// What the system says; `WriteZero` if it takes nothing. How much was written before is then unknown to the
/// caller; the file's position tells.
pub fn write_vectored_all(mut file: &File, parts: &[IoSlice<'_>]) -> io::Result<()> {
    /// `IOV_MAX` on Linux and the BSDs.
    const MOST_PARTS: usize = 1024;
    let mut first = 0;
    // Bytes of `parts[first]` that a short write took.
    let mut taken = 0;
    while let Some(part) = parts.get(first) {
        if taken == part.len() {
            first += 1;
            taken = 0;
            continue;
        }
        let written = if taken > 0 {
            file.write(part.get(taken..).unwrap_or_default())
        } else {
            let stop = parts.len().min(first + MOST_PARTS);
            file.write_vectored(parts.get(first..stop).unwrap_or_default())
        };
        let mut written = match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        while let Some(part) = parts.get(first) {
            let left = part.len() - taken;
            if written < left {
                taken += written;
                break;
            }
            written -= left;
            taken = 0;
            first += 1;
        }
    }
    Ok(())
}

/// `name` as the system wants it, if it is one component that stays inside its directory.
fn component(name: &str) -> io::Result<CString> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\']);
    CString::new(name).ok().filter(|_| plain).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is not a plain file name"),
        )
    })
}

#[cfg(unix)]
mod imp {
    use std::{
        ffi::{CStr, CString},
        fs::File,
        io,
        mem::MaybeUninit,
        os::{
            fd::{AsRawFd, FromRawFd},
            unix::ffi::OsStrExt,
        },
        path::Path,
    };

    /// Turns the -1 of a call into the error it left.
    fn check(result: libc::c_int) -> io::Result<libc::c_int> {
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result)
        }
    }

    // The types of the fields differ between systems.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    pub(super) fn free_bytes(path: &Path) -> io::Result<(u64, u64)> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut stat = MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: a terminated path and room for the answer.
        check(unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, so it filled the struct.
        let stat = unsafe { stat.assume_init() };
        let unit = stat.f_frsize as u64;
        Ok((
            (stat.f_bavail as u64).saturating_mul(unit),
            (stat.f_blocks as u64).saturating_mul(unit),
        ))
    }

    #[cfg(all(target_os = "linux", not(tapeline_portable)))]
    pub(super) fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
        let bytes = libc::off64_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        loop {
            // SAFETY: the file keeps its descriptor open; no memory is passed.
            let result = check(unsafe {
                libc::fallocate64(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, bytes)
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    #[cfg(any(not(target_os = "linux"), tapeline_portable))]
    pub(super) fn preallocate(_: &File, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open(directory: &File, name: &CStr, flags: libc::c_int) -> io::Result<File> {
        let flags = flags | libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let mode: libc::c_uint = 0o666;
        // SAFETY: an open directory and a terminated name.
        let descriptor =
            check(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags, mode) })?;
        // SAFETY: the descriptor was just opened and has no other owner.
        Ok(unsafe { File::from_raw_fd(descriptor) })
    }

    pub(super) fn create_at(directory: &File, name: &CStr) -> io::Result<File> {
        open(directory, name, libc::O_CREAT | libc::O_EXCL)
    }

    pub(super) fn open_at(directory: &File, name: &CStr) -> io::Result<File> {
        open(directory, name, 0)
    }

    pub(super) fn remove_at(directory: &File, name: &CStr) -> io::Result<()> {
        // SAFETY: an open directory and a terminated name.
        check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
    }

    pub(super) fn rename_at(directory: &File, from: &CStr, to: &CStr) -> io::Result<()> {
        #[cfg(all(target_os = "linux", not(tapeline_portable)))]
        {
            let dir = directory.as_raw_fd();
            // SAFETY: an open directory and terminated names.
            let result = check(unsafe {
                libc::renameat2(dir, from.as_ptr(), dir, to.as_ptr(), libc::RENAME_NOREPLACE)
            });
            match result {
                // The file system cannot: do it in two steps.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                }
                result => return result.map(drop),
            }
        }
        rename_in_two_steps(directory, from, to)
    }

    /// A link fails if the new name exists, where a rename would replace it. Between the steps both names are there.
    pub(super) fn rename_in_two_steps(directory: &File, from: &CStr, to: &CStr) -> io::Result<()> {
        let dir = directory.as_raw_fd();
        // SAFETY: an open directory and terminated names.
        check(unsafe { libc::linkat(dir, from.as_ptr(), dir, to.as_ptr(), 0) })?;
        remove_at(directory, from)
    }
}

#[cfg(not(unix))]
mod imp {
    //! No calls relative to an open directory without reaching past the standard library: refused, not imitated.
    use std::{ffi::CStr, fs::File, io, path::Path};

    fn unsupported<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn free_bytes(_: &Path) -> io::Result<(u64, u64)> {
        unsupported()
    }

    pub(super) fn preallocate(_: &File, _: u64) -> io::Result<()> {
        unsupported()
    }

    pub(super) fn create_at(_: &File, _: &CStr) -> io::Result<File> {
        unsupported()
    }

    pub(super) fn open_at(_: &File, _: &CStr) -> io::Result<File> {
        unsupported()
    }

    pub(super) fn rename_at(_: &File, _: &CStr, _: &CStr) -> io::Result<()> {
        unsupported()
    }

    pub(super) fn remove_at(_: &File, _: &CStr) -> io::Result<()> {
        unsupported()
    }
}

#[cfg(all(test, unix))]
mod tests;
