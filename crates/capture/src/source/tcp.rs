//! `tcp://` listens and takes connections in turn; `tcp+connect://` dials, and dials again.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tapeline_sys::tcp::{self, TcpReceiver};

use super::stream::{Arrival, ByteStream, Outcome, Patience, Pump};
use super::{Ended, Stop, WAIT};
use crate::config::StreamConfig;
use crate::error::Error;
use crate::receive::Receiver;

/// Connections that may wait for their turn; more are closed at once (design/reliability.md N2).
const MAX_WAITING: usize = 256;

/// Wake for this many bytes or a timeout: a fast stream then arrives in few large reads.
const LOW_WATER: usize = 256 << 10;

struct Connection(TcpReceiver);

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Self> {
        let receiver = TcpReceiver::new(stream);
        receiver.set_low_water(LOW_WATER)?;
        Ok(Self(receiver))
    }
}

impl ByteStream for Connection {
    fn read(&mut self, buf: &mut [u8], draining: bool) -> io::Result<Arrival> {
        let timeout = if draining {
            Duration::from_millis(1)
        } else {
            WAIT
        };
        Ok(match self.0.receive(buf, timeout)? {
            Some(0) => Arrival::End,
            Some(n) => Arrival::Bytes(n),
            None => Arrival::Nothing,
        })
    }
}

fn patience(idle_timeout_seconds: Option<f64>) -> Patience {
    Patience {
        first_frame: Some(Duration::from_secs(10)),
        mid_frame: Some(Duration::from_secs(30)),
        idle: idle_timeout_seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()),
    }
}

/// A bound listener.
pub(crate) struct Listener {
    listener: TcpListener,
    patience: Patience,
    /// Connected, and not yet read from.
    waiting: VecDeque<TcpStream>,
    current: Option<(Connection, Pump)>,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, stream: &StreamConfig) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address)?,
            patience: patience(stream.idle_timeout_seconds),
            waiting: VecDeque::new(),
            current: None,
        })
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    pub(crate) fn step(&mut self, receiver: &mut Receiver, stop: &Stop) -> Option<Ended> {
        let Some((connection, pump)) = &mut self.current else {
            return self.next_connection(receiver, stop);
        };
        let (listener, waiting) = (&self.listener, &mut self.waiting);
        let outcome = pump.step(connection, receiver, stop, &mut |receiver| {
            // At most a batch a time, so that a flood of connections cannot hold up the feed.
            for _ in 0..256 {
                match tcp::accept(listener, Duration::ZERO) {
                    Ok(Some(stream)) if waiting.len() < MAX_WAITING => waiting.push_back(stream),
                    Ok(Some(refused)) => {
                        receiver.counters.connections_refused += 1;
                        let _ = refused.shutdown(Shutdown::Both);
                    }
                    Ok(None) | Err(_) => break,
                }
            }
        })?;
        self.current = None;
        (outcome == Outcome::WriterGone).then_some(Ok(()))
    }

    fn next_connection(&mut self, receiver: &mut Receiver, stop: &Stop) -> Option<Ended> {
        if self.waiting.is_empty() {
            let timeout = if stop.requested() {
                Duration::ZERO
            } else {
                WAIT
            };
            match tcp::accept(&self.listener, timeout) {
                Ok(Some(stream)) => self.waiting.push_back(stream),
                // What connected and sent before the stop is still read: the end is when nobody waits.
                Ok(None) if stop.requested() || receiver.writer_gone() => return Some(Ok(())),
                Ok(None) => receiver.idle(),
                Err(e) => return Some(Err(Error::io_bare("accepting", e))),
            }
        }
        if let Some(stream) = self.waiting.pop_front() {
            receiver.counters.connections += 1;
            let connection = Connection::new(stream).ok();
            self.current = connection.map(|c| (c, Pump::new(self.patience, receiver)));
        }
        None
    }
}

/// Dials a producer that listens.
pub(crate) struct Connector {
    address: SocketAddr,
    backoff: [Duration; 2],
    patience: Patience,
    pause: Duration,
    dial_at: Instant,
    current: Option<(Connection, Pump)>,
}

impl Connector {
    pub(crate) fn new(address: SocketAddr, stream: &StreamConfig) -> Self {
        let backoff = stream
            .connect_backoff_seconds
            .map(|s| Duration::try_from_secs_f64(s).unwrap_or(Duration::from_secs(1)));
        Self {
            address,
            backoff,
            patience: patience(stream.idle_timeout_seconds),
            pause: backoff[0],
            dial_at: Instant::now(),
            current: None,
        }
    }

    pub(crate) fn step(&mut self, receiver: &mut Receiver, stop: &Stop) -> Option<Ended> {
        if let Some((connection, pump)) = &mut self.current {
            let outcome = pump.step(connection, receiver, stop, &mut |_| {})?;
            if pump.brought_frames(receiver) {
                self.pause = self.backoff[0];
            }
            self.current = None;
            self.back_off();
            return (outcome == Outcome::WriterGone).then_some(Ok(()));
        }
        if stop.requested() || receiver.writer_gone() {
            return Some(Ok(()));
        }
        let early = self.dial_at.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            std::thread::sleep(WAIT.min(early));
            return None;
        }
        let dialled = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Ok(connection) = dialled.and_then(Connection::new) {
            receiver.counters.connections += 1;
            self.current = Some((connection, Pump::new(self.patience, receiver)));
        } else {
            receiver.idle();
            self.back_off();
        }
        None
    }

    fn back_off(&mut self) {
        let [first, longest] = self.backoff;
        self.dial_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(longest).max(first);
    }
}
