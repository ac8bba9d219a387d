//! What the standard library's TCP lacks: waiting with a limit, and buffer sizes.

use std::{
    io::{self, Read},
    net::{TcpListener, TcpStream},
    time::Duration,
};

/// A stream that is read with a time limit in one system call a time.
#[derive(Debug)]
pub struct TcpReceiver {
    stream: TcpStream,
    timeout: Option<Duration>,
}

impl TcpReceiver {
    /// Takes over `stream`, which must be blocking (as it is by default, and as [`accept`] makes it).
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            timeout: None,
        }
    }

    /// The stream.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads into `buf`: `Some(n)` bytes, `Some(0)` at the end of the stream, `None` if `timeout` passed first.
    ///
    /// A signal counts as the timeout. A zero timeout is taken as the shortest there is.
    ///
    /// # Errors
    /// What the socket says, such as `ConnectionReset`.
    pub fn receive(&mut self, buf: &mut [u8], timeout: Duration) -> io::Result<Option<usize>> {
        let timeout = timeout.max(Duration::from_micros(1));
        if self.timeout != Some(timeout) {
            self.stream.set_read_timeout(Some(timeout))?;
            self.timeout = Some(timeout);
        }
        match self.stream.read(buf) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the kernel to wake a `receive` only once `bytes` are there (or its timeout passes, or the stream ends),
    /// so that a fast stream arrives in few large reads. Does nothing where the system has no such option.
    ///
    /// # Errors
    /// What the socket says.
    pub fn set_low_water(&self, bytes: usize) -> io::Result<()> {
        imp::set_low_water(&self.stream, bytes)
    }
}

/// Accepts a connection, or `None` if `timeout` passes (or a signal comes) first. The stream given is blocking.
///
/// # Errors
/// What the listener says.
pub fn accept(listener: &TcpListener, timeout: Duration) -> io::Result<Option<TcpStream>> {
    if !imp::wait_readable(listener, timeout)? {
        return Ok(None);
    }
    // The peer may be gone again, and then a blocking accept would wait for the next one.
    listener.set_nonblocking(true)?;
    let accepted = listener.accept();
    listener.set_nonblocking(false)?;
    match accepted {
        Ok((stream, _)) => {
            stream.set_nonblocking(false)?;
            Ok(Some(stream))
        }
        Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::ConnectionAborted => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// How many connections may wait to be accepted (at most what the system allows; the standard library asks for 128).
///
/// # Errors
/// What the system says.
pub fn set_backlog(listener: &TcpListener, connections: i32) -> io::Result<()> {
    imp::set_backlog(listener, connections)
}

/// Asks for a receive buffer of `bytes` bytes and gives what was granted, 0 if the system does not tell.
///
/// Setting it turns the kernel's own tuning off; call it only to get more than that gives.
///
/// # Errors
/// What the socket says.
pub fn set_receive_buffer(stream: &TcpStream, bytes: usize) -> io::Result<usize> {
    imp::set_receive_buffer(stream, bytes)
}

/// Asks for a send buffer of `bytes` bytes and gives what was granted, 0 if the system does not tell.
///
/// # Errors
/// What the socket says.
pub fn set_send_buffer(stream: &TcpStream, bytes: usize) -> io::Result<usize> {
    imp::set_send_buffer(stream, bytes)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(unix)]
mod imp {
    use std::{
        io,
        net::{TcpListener, TcpStream},
        os::fd::{AsFd, AsRawFd},
        time::Duration,
    };

    use crate::option::{set_buffer, set_option};

    pub(super) fn wait_readable(listener: &TcpListener, timeout: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // Rounded up, so that a short timeout does not spin.
        let millis = timeout.as_nanos().div_ceil(1_000_000);
        // SAFETY: one valid `pollfd` is passed, and the listener keeps its descriptor open.
        let ready =
            unsafe { libc::poll(&raw mut poll, 1, i32::try_from(millis).unwrap_or(i32::MAX)) };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted {
            Ok(false)
        } else {
            Err(error)
        }
    }

    pub(super) fn set_backlog(listener: &TcpListener, connections: i32) -> io::Result<()> {
        // SAFETY: takes two numbers and touches no memory of ours; the listener keeps its descriptor open.
        let result = unsafe { libc::listen(listener.as_raw_fd(), connections) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    pub(super) fn set_low_water(stream: &TcpStream, bytes: usize) -> io::Result<()> {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        set_option(stream.as_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
    }

    pub(super) fn set_receive_buffer(stream: &TcpStream, bytes: usize) -> io::Result<usize> {
        set_buffer(stream.as_fd(), libc::SO_RCVBUF, bytes)
    }

    pub(super) fn set_send_buffer(stream: &TcpStream, bytes: usize) -> io::Result<usize> {
        set_buffer(stream.as_fd(), libc::SO_SNDBUF, bytes)
    }
}

#[cfg(not(unix))]
mod imp {
    use std::{
        io,
        net::{TcpListener, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    /// Without poll, look every 10 ms: `accept` finds out whether there is anything.
    pub(super) fn wait_readable(_: &TcpListener, timeout: Duration) -> io::Result<bool> {
        thread::sleep(timeout.min(Duration::from_millis(10)));
        Ok(true)
    }

    pub(super) fn set_backlog(_: &TcpListener, _: i32) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn set_low_water(_: &TcpStream, _: usize) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn set_receive_buffer(_: &TcpStream, _: usize) -> io::Result<usize> {
        Ok(0)
    }

    pub(super) fn set_send_buffer(_: &TcpStream, _: usize) -> io::Result<usize> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{io::Write, net::Shutdown};

    use super::*;

    #[test]
    fn receive_tells_data_timeout_and_end_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(accept(&listener, Duration::ZERO).unwrap().is_none());
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut receiver =
            TcpReceiver::new(accept(&listener, Duration::from_secs(10)).unwrap().unwrap());
        let mut buf = [0; 16];
        assert_eq!(
            receiver
                .receive(&mut buf, Duration::from_millis(1))
                .unwrap(),
            None
        );
        peer.write_all(b"abc").unwrap();
        assert_eq!(
            receiver.receive(&mut buf, Duration::from_secs(10)).unwrap(),
            Some(3)
        );
        assert_eq!(&buf[..3], b"abc");
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(
            receiver.receive(&mut buf, Duration::from_secs(10)).unwrap(),
            Some(0)
        );
    }

    #[test]
    fn low_water_holds_a_short_read_back_until_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut receiver =
            TcpReceiver::new(accept(&listener, Duration::from_secs(10)).unwrap().unwrap());
        receiver.set_low_water(6).unwrap();
        peer.write_all(b"abc").unwrap();
        let sender = std::thread::spawn(move || peer.write_all(b"def"));
        let mut buf = [0; 16];
        // Six bytes as soon as both writes are there, or the first three at the timeout; never nothing.
        let first = receiver
            .receive(&mut buf, Duration::from_secs(2))
            .unwrap()
            .unwrap();
        assert!(first == 6 || first == 3, "{first}");
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn buffers_are_reported_as_granted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        if cfg!(target_os = "linux") {
            assert!(set_receive_buffer(&stream, 65_536).unwrap() >= 65_536);
            assert!(set_send_buffer(&stream, 65_536).unwrap() >= 65_536);
        }
    }
}
