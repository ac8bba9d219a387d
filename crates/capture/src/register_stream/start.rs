//! Binding the source of a register stream, and starting its threads.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tapeline_ring::shared_memory::path_of;
use tapeline_sys::udp::UdpReceiver;
use tapeline_wire::register::{ImageLimits, Kind};

use super::batch::{BLOCK, LogBatch};
use super::image_store;
use super::inputs;
use super::intake::{Intake, Rotation};
use super::log::LogWriter;
use super::server::{Limits, Server};
use super::shared::RegisterShared;
use super::shm;
use crate::config::{SourceKind, StreamConfig};
use crate::error::{Error, Result};
use crate::fs::Dir;
use crate::keeper::Job;
use crate::manifest::SegmentEntry;
use crate::recorder::thread;
use crate::source::Stop;
use crate::source::file::Input;
use crate::write::{Failure, FramesLimit};

/// The source of a register stream, bound or opened.
pub(crate) enum Bound {
    Server(Server),
    Udp(UdpReceiver),
    Connect(SocketAddr),
    Input(Input),
    Ring(PathBuf),
}

impl Bound {
    /// Bind or open; whatever can fail at once fails here.
    pub(crate) fn open(stream: &StreamConfig) -> Result<Self> {
        let Some(source) = stream.sources.first() else {
            return Err(stream.bad("no source".into()));
        };
        let refused = |doing: &'static str| {
            let (name, url) = (stream.name.clone(), source.url.clone());
            move |e: std::io::Error| {
                Error::io_bare(doing, std::io::Error::new(e.kind(), format!("{url}: {e}")))
                    .of_stream(&name)
            }
        };
        let address = source
            .address
            .ok_or_else(|| stream.bad(format!("{}: no address", source.url)));
        Ok(match source.kind {
            SourceKind::Tcp => {
                let limits = Limits {
                    max_clients: stream.max_clients,
                    max_buffer_bytes: usize::try_from(stream.max_buffer_bytes)
                        .unwrap_or(usize::MAX),
                    idle: stream
                        .idle_timeout_seconds
                        .and_then(|s| Duration::try_from_secs_f64(s).ok()),
                };
                Self::Server(Server::bind(address?, limits).map_err(refused("listening"))?)
            }
            SourceKind::Udp => {
                Self::Udp(inputs::bind_udp(address?, stream).map_err(refused("binding"))?)
            }
            SourceKind::TcpConnect => Self::Connect(address?),
            SourceKind::File => {
                let path = source
                    .path
                    .as_deref()
                    .ok_or_else(|| stream.bad(format!("{}: no path", source.url)))?;
                Self::Input(
                    Input::open(path)
                        .map_err(|e| Error::io("opening", path, e).of_stream(&stream.name))?,
                )
            }
            SourceKind::Stdin => Self::Input(Input::stdin().map_err(refused("opening"))?),
            SourceKind::Shm => {
                let name = source.path.as_deref().and_then(Path::to_str);
                let name = name.ok_or_else(|| stream.bad(format!("{}: no name", source.url)))?;
                Self::Ring(path_of(name))
            }
        })
    }

    /// The address it is bound to, as a URL.
    fn url(&self, stream: &StreamConfig) -> String {
        let bound = match self {
            Self::Server(server) => server.local_addr().map(|a| format!("tcp://{a}")),
            Self::Udp(udp) => udp.local_addr().ok().map(|a| format!("udp://{a}")),
            _ => None,
        };
        let given = stream.sources.first().map(|s| s.url.clone());
        bound.or(given).unwrap_or_default()
    }
}

/// A register stream with its threads, which run when started.
pub(crate) struct Started {
    pub(crate) shared: Arc<RegisterShared>,
    pub(crate) threads: Vec<Box<dyn FnOnce() -> Result<JoinHandle<()>> + Send>>,
}

/// Load the image and prepare everything.
#[allow(clippy::too_many_arguments)] // what a recorder gives to a stream
pub(crate) fn start(
    bound: Bound,
    stream: &StreamConfig,
    kind: Kind,
    dir: &Arc<dyn Dir>,
    segments: &[SegmentEntry],
    next_number: u64,
    keeper: SyncSender<Job>,
    limit: Option<Arc<FramesLimit>>,
    failure: &Arc<Failure>,
    stop: &Stop,
    share_core: bool,
) -> Result<Started> {
    let (image, image_certain) = image_store::load(dir, kind, segments, ImageLimits::default())
        .map_err(|e| e.of_stream(&stream.name))?;
    let urls = vec![bound.url(stream)];
    let shared = RegisterShared::new(stream, kind, urls, image.reader(), next_number);
    let blocks = usize::try_from(stream.ring_bytes)
        .unwrap_or(usize::MAX)
        .div_euclid(BLOCK)
        .max(4);
    let (producer, consumer) = tapeline_ring::ring(BLOCK, blocks, LogBatch::default)
        .map_err(|e| Error::io_bare("making the ring", e).of_stream(&stream.name))?;
    let rotation = Rotation {
        bytes: stream.rotate_bytes,
        after: stream
            .rotate_seconds
            .and_then(|s| Duration::try_from_secs_f64(s).ok()),
    };
    let intake = Intake::new(
        kind,
        producer,
        (image, image_certain),
        rotation,
        Arc::clone(&shared),
        share_core,
        keeper.clone(),
    );
    let writer = LogWriter::new(
        consumer,
        Arc::clone(dir),
        Arc::clone(&shared),
        keeper,
        next_number,
        stream.sync_mode()?,
        limit,
    );
    let failing = |failure: &Arc<Failure>, stop: &Stop| {
        let (failure, stop, name) = (Arc::clone(failure), stop.clone(), stream.name.clone());
        move |result: Result<()>| {
            if let Err(e) = result {
                failure.set(e.of_stream(&name));
                stop.request();
            }
        }
    };
    let every = Duration::try_from_secs_f64(stream.image_seconds.max(0.05))
        .unwrap_or(Duration::from_secs(10));
    // The image thread ends, with a last image, when the write thread has dropped its end.
    let (log_ends, log_ended) = channel::<()>();
    let name = stream.name.clone();
    let receiving = {
        let (report, stop, stream, name) = (
            failing(failure, stop),
            stop.clone(),
            stream.clone(),
            name.clone(),
        );
        move || {
            thread(&format!("recv-{name}"), move || {
                report(match bound {
                    Bound::Server(server) => server.run(intake, &stop),
                    Bound::Udp(socket) => inputs::run_udp(socket, intake, &stop),
                    Bound::Connect(address) => inputs::run_connect(address, &stream, intake, &stop),
                    Bound::Input(input) => inputs::run_file(input, intake, &stop),
                    Bound::Ring(path) => shm::run(&path, intake, &stop),
                });
            })
        }
    };
    let writing = {
        let (report, name) = (failing(failure, stop), name.clone());
        move || {
            thread(&format!("write-{name}"), move || {
                report(writer.run());
                drop(log_ends);
            })
        }
    };
    let imaging = {
        let (report, dir, shared) = (failing(failure, stop), Arc::clone(dir), Arc::clone(&shared));
        move || {
            thread(&format!("image-{name}"), move || {
                report(image_store::keep(&dir, &shared, every, &log_ended));
            })
        }
    };
    Ok(Started {
        shared,
        threads: vec![Box::new(receiving), Box::new(writing), Box::new(imaging)],
    })
}
