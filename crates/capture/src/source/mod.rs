//! Sources: they fill the ring's free space and say what arrived; they parse nothing.

pub(crate) mod file;
mod stream;
mod tcp;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::{SourceConfig, SourceKind, StreamConfig};
use crate::error::{Error, Result};
use crate::receive::Receiver;

/// How long a source waits for bytes before it looks at the rest of the world.
pub(crate) const WAIT: Duration = Duration::from_millis(20);

/// Bytes that may still be read after a stop: what the kernel can hold, so that a flood cannot keep a recorder alive.
pub(crate) const DRAIN_BYTES: u64 = 128 << 20;

/// Asks every thread of a recorder to finish.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::Release);
    }
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a source came to its end.
pub(crate) type Ended = std::result::Result<(), Error>;

/// A source that is bound or opened, ready for its thread.
pub(crate) enum Source {
    Udp(udp::Udp),
    Tcp(tcp::Listener),
    Connect(tcp::Connector),
    File(file::Reader),
}

impl Source {
    /// Bind or open; whatever can fail at once fails here.
    pub(crate) fn open(config: &SourceConfig, stream: &StreamConfig) -> Result<Self> {
        let refused = |doing: &'static str| {
            let (name, url) = (stream.name.clone(), config.url.clone());
            move |e: io::Error| {
                Error::io_bare(doing, io::Error::new(e.kind(), format!("{url}: {e}")))
                    .of_stream(&name)
            }
        };
        let address = config
            .address
            .ok_or_else(|| stream.bad(format!("{}: no address", config.url)));
        Ok(match config.kind {
            SourceKind::Udp => {
                Self::Udp(udp::Udp::bind(address?, config, stream).map_err(refused("binding"))?)
            }
            SourceKind::Tcp => {
                Self::Tcp(tcp::Listener::bind(address?, stream).map_err(refused("listening"))?)
            }
            SourceKind::TcpConnect => Self::Connect(tcp::Connector::new(address?, stream)),
            SourceKind::File => {
                let path = config
                    .path
                    .as_deref()
                    .ok_or_else(|| stream.bad(format!("{}: no path", config.url)))?;
                Self::File(
                    file::Reader::open(path)
                        .map_err(|e| Error::io("opening", path, e).of_stream(&stream.name))?,
                )
            }
            SourceKind::Stdin => Self::File(file::Reader::stdin().map_err(refused("opening"))?),
            SourceKind::Shm => {
                return Err(stream.bad("a ring carries data packets".into()));
            }
        })
    }

    /// The address it is bound to, with the port that the system chose, as a URL.
    pub(crate) fn url(&self, config: &SourceConfig) -> String {
        let bound = |scheme: &str, address: Option<SocketAddr>| {
            address.map_or_else(|| config.url.clone(), |a| format!("{scheme}://{a}"))
        };
        match self {
            Self::Udp(udp) => bound("udp", udp.local_addr()),
            Self::Tcp(listener) => bound("tcp", listener.local_addr()),
            Self::Connect(_) | Self::File(_) => config.url.clone(),
        }
    }
}

/// What is received from a little at a time, so that another thread can go on with it.
pub(crate) trait Step: Send {
    /// Receive what there is, or wait a moment for it; `Some` at the end: when a stop was asked for and what had arrived
    /// is read, when the input ends, or the writer is gone.
    fn step(&mut self, receiver: &mut Receiver, stop: &Stop) -> Option<Ended>;
}

impl Step for Source {
    fn step(&mut self, receiver: &mut Receiver, stop: &Stop) -> Option<Ended> {
        match self {
            Self::Udp(udp) => udp.step(receiver, stop),
            Self::Tcp(listener) => listener.step(receiver, stop),
            Self::Connect(connector) => connector.step(receiver, stop),
            Self::File(reader) => reader.step(receiver, stop),
        }
    }
}
