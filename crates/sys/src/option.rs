//! Socket options, typed.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Sets an option whose value is a plain C type.
pub(crate) fn set_option<T: Copy>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let bytes =
        libc::socklen_t::try_from(mem::size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `bytes` bytes of `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            bytes,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Reads an option made of integers.
pub(crate) fn option<const N: usize, T: Integer>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<[T; N]> {
    let mut value = [T::default(); N];
    let mut bytes = libc::socklen_t::try_from(mem::size_of::<[T; N]>())
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel writes at most `bytes` bytes into `value`; any bytes are a valid integer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// Types of which every bit pattern is a value.
pub(crate) trait Integer: Copy + Default {}
impl Integer for libc::c_int {}
impl Integer for u32 {}

/// Asks for a socket buffer (`SO_RCVBUF` or `SO_SNDBUF`) and gives what was granted.
///
/// Where the system's limit caps it, the forcing variant is tried, which needs `CAP_NET_ADMIN`.
pub(crate) fn set_buffer(
    socket: BorrowedFd<'_>,
    name: libc::c_int,
    bytes: usize,
) -> io::Result<usize> {
    // Linux keeps twice the value, and the double has to fit.
    let asked = libc::c_int::try_from(bytes)
        .unwrap_or(libc::c_int::MAX)
        .min(libc::c_int::MAX / 2);
    set_option(socket, libc::SOL_SOCKET, name, asked)?;
    let granted = buffer(socket, name)?;
    #[cfg(all(target_os = "linux", not(tapeline_portable)))]
    if granted < bytes {
        let force = if name == libc::SO_RCVBUF {
            libc::SO_RCVBUFFORCE
        } else {
            libc::SO_SNDBUFFORCE
        };
        // Refused without the capability; what was granted before stays.
        if set_option(socket, libc::SOL_SOCKET, force, asked).is_ok() {
            return buffer(socket, name);
        }
    }
    Ok(granted)
}

/// The size of a socket buffer, in the unit in which it is asked for.
pub(crate) fn buffer(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<usize> {
    let [bytes] = option::<1, libc::c_int>(socket, libc::SOL_SOCKET, name)?;
    let bytes = usize::try_from(bytes).unwrap_or(0);
    // Linux answers with the double it keeps for its own bookkeeping (socket(7), SO_RCVBUF).
    Ok(if cfg!(target_os = "linux") {
        bytes / 2
    } else {
        bytes
    })
}
