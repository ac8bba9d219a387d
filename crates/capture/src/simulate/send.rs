//! Destinations: gathering writes to connections and files, datagrams to UDP.

use std::{
    fs::File,
    io::{self, IoSlice, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tapeline_sys::fs::open_output;
use tapeline_sys::poll::{Interest, Poller};
use tapeline_sys::udp::{Message, UdpSender, max_segments};

use super::options::{Target, TargetKind};
use super::threads::Shared;

/// Parts of one gathering write (`IOV_MAX` on Linux).
const MOST_PARTS: usize = 1024;
/// Pause between attempts to connect.
const RETRY: Duration = Duration::from_millis(20);
/// Decades; an instant later than that may not exist.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1 << 30);
/// A blocked write looks this often whether it should stop.
const LOOK: Duration = Duration::from_millis(200);
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// An open destination.
pub(crate) enum Sink {
    /// Bytes in order.
    Stream(Box<dyn Write + Send>),
    /// Whole frames in each datagram.
    Datagrams(UdpSender),
}

impl Sink {
    /// Opens `target`. A connection is tried until someone listens, `patience` has passed, or a stop is asked for; a
    /// named pipe until someone reads, or that stop.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(target: &Target, patience: Duration, shared: &Shared) -> io::Result<Self> {
        let missing = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the destination has no address",
            )
        };
        match target.kind {
            TargetKind::Udp => {
                let address = target.address.ok_or_else(missing)?;
                Ok(Self::Datagrams(UdpSender::connect(
                    address,
                    SEND_BUFFER_BYTES,
                )?))
            }
            TargetKind::Tcp => {
                let stream = connect(target.address.ok_or_else(missing)?, patience, &shared.stop)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(LOOK))?;
                Ok(Self::Stream(Box::new(stream)))
            }
            TargetKind::File => {
                let path = target.path.as_deref().ok_or_else(missing)?;
                Ok(Self::Stream(if path == Path::new("-") {
                    standard_output()?
                } else {
                    create(path, &target.url, shared)?
                }))
            }
        }
    }

    /// Writes all of `parts` in order.
    ///
    /// # Errors
    /// What the system says; `Interrupted` when `stop` is set while the other side takes nothing.
    pub(crate) fn write_all(
        writer: &mut dyn Write,
        mut parts: &mut [IoSlice<'_>],
        stop: &AtomicBool,
    ) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let most = parts.len().min(MOST_PARTS);
            match writer.write_vectored(parts.get(..most).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    if stop.load(Ordering::Relaxed) {
                        return Err(io::Error::new(
                            io::ErrorKind::Interrupted,
                            "stopped while the receiver was not reading",
                        ));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A piece of a datagram: consecutive parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) parts: usize,
    pub(crate) bytes: usize,
    /// Shares a datagram with nothing.
    pub(crate) alone: bool,
}

/// Packs consecutive pieces into datagrams of at most `limit` bytes (`None`: one piece each), and equal datagrams
/// into messages that the kernel cuts if `gso`. Gives the number of datagrams.
pub(crate) fn pack(
    pieces: impl Iterator<Item = Piece>,
    limit: Option<usize>,
    gso: bool,
    messages: &mut Vec<Message>,
) -> u64 {
    messages.clear();
    let mut datagrams = 0;
    let mut part = 0;
    let mut pieces = pieces.peekable();
    // The message that may still take datagrams of this size, and how many it has.
    let mut open: Option<(usize, usize)> = None;
    while let Some(first) = pieces.next() {
        let (mut parts, mut bytes) = (first.parts, first.bytes);
        while let Some(next) = pieces.peek() {
            if first.alone || next.alone || limit.is_none_or(|limit| bytes + next.bytes > limit) {
                break;
            }
            parts += next.parts;
            bytes += next.bytes;
            pieces.next();
        }
        let range = part..part + parts;
        part += parts;
        datagrams += 1;
        let fits = |size: usize, count: usize| size == bytes && gso && count < max_segments(size);
        match (&mut open, messages.last_mut()) {
            (Some((size, count)), Some(message))
                if fits(*size, *count) && message.parts.len() + parts <= MOST_PARTS =>
            {
                message.parts.end = range.end;
                message.segment_bytes = bytes;
                *count += 1;
            }
            _ => {
                messages.push(Message {
                    parts: range,
                    segment_bytes: 0,
                });
                open = Some((bytes, 1));
            }
        }
    }
    datagrams
}

fn connect(address: SocketAddr, patience: Duration, stop: &AtomicBool) -> io::Result<TcpStream> {
    let deadline = Instant::now() + patience.min(LONGEST_PATIENCE);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match TcpStream::connect_timeout(&address, left.max(Duration::from_millis(1))) {
            // Connecting to a free port of this machine can meet itself; that is nobody.
            Ok(stream) if stream.local_addr()? != address => return Ok(stream),
            Ok(_) => {}
            Err(error) if left.is_zero() || stop.load(Ordering::Relaxed) => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
        thread::sleep(RETRY.min(left));
    }
}

/// Creates or empties a file, or opens a pipe or device.
fn create(path: &Path, url: &str, shared: &Shared) -> io::Result<Box<dyn Write + Send>> {
    let mut told = false;
    let file = loop {
        if let Some(file) = open_output(path)? {
            break file;
        }
        if shared.stopped() {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "stopped while nobody read the pipe",
            ));
        }
        if !told {
            shared.waits_for_reader(url);
            told = true;
        }
        thread::sleep(RETRY);
    };
    let mut poller = Poller::new()?;
    // What cannot be waited for (a file, the null device) does not block.
    let waits = !file.metadata()?.is_file() && poller.add(&file, 0, Interest::WRITE).is_ok();
    Ok(if waits {
        Box::new(Pipe { file, poller })
    } else {
        Box::new(file)
    })
}

/// A pipe or terminal, written to when it has room, so that a stop need not wait for its reader.
struct Pipe {
    file: File,
    poller: Poller,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// `WouldBlock` when there was no room for a moment.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.file.write_vectored(parts) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.poller.wait(&mut Vec::new(), LOOK)?;
                self.file.write_vectored(parts)
            }
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Standard output without the standard library's line buffer.
fn standard_output() -> io::Result<Box<dyn Write + Send>> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        Ok(Box::new(File::from(
            io::stdout().as_fd().try_clone_to_owned()?,
        )))
    }
    #[cfg(not(unix))]
    Ok(Box::new(io::stdout()))
}
