//! `tcp://` listens and takes connections in turn; `tcp+connect://` dials, and dials again.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tapeline_sys::tcp::{self, TcpReceiver};

use super::stream::{Arrival, ByteStream, Outcome, Patience, pump};
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
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, stream: &StreamConfig) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address)?,
            patience: patience(stream.idle_timeout_seconds),
        })
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    pub(crate) fn run(self, mut receiver: Receiver, stop: &Stop) -> Ended {
        let mut waiting = std::collections::VecDeque::new();
        let result = loop {
            if waiting.is_empty() {
                match tcp::accept(
                    &self.listener,
                    if stop.requested() {
                        Duration::ZERO
                    } else {
                        WAIT
                    },
                ) {
                    Ok(Some(stream)) => waiting.push_back(stream),
                    // What connected and sent before the stop is still read: the loop ends when nobody waits.
                    Ok(None) if stop.requested() || receiver.writer_gone() => break Ok(()),
                    Ok(None) => {
                        receiver.idle();
                        continue;
                    }
                    Err(e) => break Err(Error::io_bare("accepting", e)),
                }
            }
            let Some(stream) = waiting.pop_front() else {
                continue;
            };
            receiver.counters.connections += 1;
            let Ok(mut connection) = Connection::new(stream) else {
                continue;
            };
            let outcome = pump(
                &mut connection,
                &mut receiver,
                stop,
                self.patience,
                &mut |receiver| {
                    // At most a batch a time, so that a flood of connections cannot hold up the feed.
                    for _ in 0..256 {
                        match tcp::accept(&self.listener, Duration::ZERO) {
                            Ok(Some(stream)) if waiting.len() < MAX_WAITING => {
                                waiting.push_back(stream)
                            }
                            Ok(Some(refused)) => {
                                receiver.counters.connections_refused += 1;
                                let _ = refused.shutdown(Shutdown::Both);
                            }
                            Ok(None) | Err(_) => break,
                        }
                    }
                },
            );
            if outcome == Outcome::WriterGone {
                break Ok(());
            }
        };
        receiver.finish();
        result
    }
}

/// Dials a producer that listens.
pub(crate) struct Connector {
    address: SocketAddr,
    backoff: [Duration; 2],
    patience: Patience,
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
        }
    }

    pub(crate) fn run(self, mut receiver: Receiver, stop: &Stop) -> Ended {
        let [first, longest] = self.backoff;
        let mut pause = first;
        while !stop.requested() && !receiver.writer_gone() {
            let attempt = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))
                .and_then(Connection::new);
            if let Ok(mut connection) = attempt {
                receiver.counters.connections += 1;
                let frames = receiver.frames_received();
                if pump(
                    &mut connection,
                    &mut receiver,
                    stop,
                    self.patience,
                    &mut |_| {},
                ) == Outcome::WriterGone
                {
                    break;
                }
                if receiver.frames_received() > frames {
                    pause = first;
                }
            } else {
                receiver.idle();
            }
            let until = Instant::now() + pause;
            while !stop.requested() && Instant::now() < until {
                std::thread::sleep(WAIT.min(until.saturating_duration_since(Instant::now())));
            }
            pause = (pause * 2).min(longest).max(first);
        }
        receiver.finish();
        Ok(())
    }
}
