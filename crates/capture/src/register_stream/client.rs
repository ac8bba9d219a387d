//! A client of the server: what was read and not taken yet, what waits to be sent, and how long that may take.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tapeline_wire::register::{Kind, PacketScanner};

/// A packet larger than this is completed in the client's own buffer.
pub(super) const SMALL: usize = 4 << 10;
/// Before the first whole packet, once a byte of it came (design/reliability.md N3).
const FIRST_PACKET: Duration = Duration::from_secs(10);
/// In the middle of a packet.
const MID_PACKET: Duration = Duration::from_secs(30);
/// With answers that it does not read.
const NOT_READING: Duration = Duration::from_secs(30);
/// A client that never sent anything makes room for another when there are too many, after so long.
const UNUSED: Duration = Duration::from_secs(10);

/// Why a client goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    Ended,
    Framing,
    Idle,
    NotReading,
    Broken,
    Stopped,
}

/// A connection.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) scanner: PacketScanner,
    /// The beginning of a packet.
    pub(super) pending: Vec<u8>,
    /// Answers not sent yet, from `sent` on.
    pub(super) out: Vec<u8>,
    pub(super) sent: usize,
    /// Queries that wait until `out` is sent.
    pub(super) deferred: Vec<u8>,
    /// It sends nothing more, but waits for answers.
    pub(super) ended: bool,
    /// Packets it sent, and when it connected, sent and last took an answer.
    pub(super) packets: bool,
    pub(super) connected: Instant,
    pub(super) first_byte: Option<Instant>,
    pub(super) last_byte: Instant,
    pub(super) last_sent: Instant,
    pub(super) writing: bool,
}

impl Client {
    /// One that has just connected.
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, kind: Kind) -> Self {
        let now = Instant::now();
        Self {
            stream,
            peer,
            scanner: PacketScanner::new(kind),
            pending: Vec::new(),
            out: Vec::new(),
            sent: 0,
            deferred: Vec::new(),
            ended: false,
            packets: false,
            connected: now,
            first_byte: None,
            last_byte: now,
            last_sent: now,
            writing: false,
        }
    }

    /// Whether it never sent a packet, and had the time to.
    pub(super) fn unused(&self) -> bool {
        !self.packets && self.connected.elapsed() >= UNUSED
    }

    /// Why it has to go, if it is silent where it should not be; `idle`: how long it may be silent at any time.
    pub(super) fn overdue(&self, now: Instant, idle: Option<Duration>) -> Option<Closed> {
        if self.sent < self.out.len() {
            let patience = idle.unwrap_or(NOT_READING).min(NOT_READING);
            return (now.duration_since(self.last_sent) > patience).then_some(Closed::NotReading);
        }
        let silent = now.duration_since(self.last_byte);
        let first = self.first_byte.map(|at| now.duration_since(at));
        let late = (!self.packets && first.is_some_and(|t| t > FIRST_PACKET))
            || (!self.pending.is_empty() && silent > MID_PACKET)
            || idle.is_some_and(|idle| silent > idle);
        late.then_some(Closed::Idle)
    }

    /// Read a large packet into the client's own buffer, which grows with what arrives.
    pub(super) fn read_large(&mut self) -> io::Result<Option<usize>> {
        let held = self.pending.len();
        let missing = self.scanner.needed() - held.min(self.scanner.needed());
        let most = missing.min(held.max(SMALL)).max(1);
        self.pending.resize(held + most, 0);
        let got = read_some(
            &mut self.stream,
            self.pending.get_mut(held..).unwrap_or_default(),
        );
        self.pending
            .truncate(held + got.as_ref().map_or(0, |n| n.unwrap_or(0)));
        got
    }
}

/// `None`: nothing there. `Some(0)`: the end.
pub(super) fn read_some(stream: &mut TcpStream, buf: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(buf) {
            Ok(n) => return Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}
