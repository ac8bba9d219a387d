//! Sends a recording again: the same frames or register packets, bit for bit, in the same order, at the old pace or another.
//!
//! Each destination has a thread. Streams that share one are merged by the producer's time, each keeping its own
//! order. A frame is due when as much time has passed since the start as lies between its timestamp and the first
//! one, divided by the speed; a frame whose time lies before that of an earlier one is due at once.

mod packets;
mod reader;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice},
    ops::Range,
    path::PathBuf,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tapeline_sys::udp::Message;
use tapeline_wire::frame::FrameLayout;
use tapeline_wire::register::Kind;

use self::packets::{Log, PacketReader};
use self::reader::FrameReader;
use crate::simulate::{
    Target,
    send::{Piece, Sink, pack},
    threads::{Shared, Threads},
};

/// Frames of one send: a whole gathering write.
const BATCH_FRAMES: usize = 1024;
/// Bytes of one send; more than a socket buffer takes at once gains nothing.
const BATCH_BYTES: usize = 1 << 20;
/// A longer sleep would not notice a stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// What to send, where to, and how fast.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayOptions {
    /// Destinations.
    pub to: Vec<Target>,
    /// What goes there.
    pub streams: Vec<ReplayStream>,
    /// 1 is the producer's own pace, 2 twice as fast; `None`: as fast as the destination takes it.
    pub speed: Option<f64>,
    /// Most bytes of a datagram; `None`: one frame each.
    pub datagram_bytes: Option<usize>,
    /// Let the kernel cut datagrams out of larger messages.
    pub gso: bool,
    /// How long to try to connect.
    pub connect_timeout_s: f64,
}

/// One stream of a recording.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayStream {
    /// Its name.
    pub name: String,
    /// Its files, in order.
    pub files: Vec<PathBuf>,
    /// Its layout.
    pub layout: LayoutFields,
    /// Index of its destination.
    pub to: usize,
    /// What more must be known of logs of register packets; the layout counts for nothing then.
    #[serde(default)]
    pub packets: Option<PacketLogs>,
}

/// The logs of a register stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketLogs {
    /// `packet` or `simple`.
    pub wire: String,
    /// Of each file, the bytes of keyframes at its start.
    pub keyframe_bytes: Vec<u64>,
    /// When the keyframe of the oldest file is due: the time of the first packet that was received.
    pub first_us: u64,
}

/// A frame layout as the manifest writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutFields {
    /// 16 hexadecimal digits.
    pub magic: String,
    /// 2 or 4.
    pub version_flags: u8,
    /// 4 or 8.
    pub length_bytes: u8,
    /// Is there a header CRC?
    pub header_crc: bool,
    /// Largest payload.
    pub max_payload: u64,
}

impl LayoutFields {
    fn layout(&self) -> Result<FrameLayout, String> {
        let magic = u64::from_str_radix(&self.magic, 16)
            .ok()
            .filter(|_| self.magic.len() == 16);
        let magic = magic.ok_or_else(|| {
            format!(
                "magic is {:?}; it must be 16 hexadecimal digits",
                self.magic
            )
        })?;
        FrameLayout::new(
            magic.to_be_bytes(),
            self.version_flags,
            self.length_bytes,
            self.header_crc,
            self.max_payload,
        )
        .map_err(|error| error.to_string())
    }
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub struct ReplaySummary {
    /// From start to the last byte.
    pub elapsed_s: f64,
    /// By stream, in the order given.
    pub streams: Vec<ReplayedStream>,
    /// By destination, in the order given.
    pub destinations: Vec<ReplayedDestination>,
}

/// What became of one stream.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayedStream {
    /// Its name.
    pub name: String,
    /// Where it went.
    pub url: String,
    /// Frames sent.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Bytes of the files that belong to no valid frame, and were not sent.
    pub bytes_skipped: u64,
}

/// What became of one destination.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayedDestination {
    /// As given.
    pub url: String,
    /// Datagrams sent; 0 over TCP and to files.
    pub datagrams_sent: u64,
    /// Times the other machine said that nobody listens (UDP).
    pub datagrams_refused: u64,
    /// Why it ended early.
    pub error: Option<String>,
}

/// A replay that runs in threads of its own. Dropping it stops them.
#[derive(Debug)]
pub struct Replay {
    threads: Threads<(Vec<(usize, ReplayedStream)>, ReplayedDestination)>,
}

impl Replay {
    /// Starts sending.
    ///
    /// # Errors
    /// One line for options that cannot be; what the system said when asked for a thread.
    pub fn start(options: &ReplayOptions) -> Result<Self, String> {
        if options
            .speed
            .is_some_and(|speed| !(speed > 0.0 && speed.is_finite()))
        {
            return Err("speed must be a number above 0, or max".to_owned());
        }
        if let Some(stream) = options
            .streams
            .iter()
            .find(|stream| stream.to >= options.to.len())
        {
            return Err(format!("stream {} has no destination", stream.name));
        }
        let mut threads = Threads::new();
        for (index, target) in options.to.iter().enumerate() {
            let mut tracks = Vec::new();
            for (place, stream) in options
                .streams
                .iter()
                .enumerate()
                .filter(|(_, stream)| stream.to == index)
            {
                let reader = Reader::new(stream)
                    .map_err(|text| format!("stream {}: {text}", stream.name))?;
                tracks.push(Track {
                    place,
                    name: stream.name.clone(),
                    reader,
                    frames_sent: 0,
                    bytes_sent: 0,
                });
            }
            let player = Player {
                options: options.clone(),
                target: target.clone(),
                tracks,
                datagrams: 0,
                refused: 0,
            };
            threads
                .spawn(format!("replay-{index}"), move |shared| player.run(shared))
                .map_err(|error| format!("cannot start a thread: {error}"))?;
        }
        Ok(Self { threads })
    }

    /// Waits until everything is sent, at most `timeout`. True when it is.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.threads.wait(timeout)
    }

    /// Asks the threads to end after what they are sending now.
    pub fn stop(&self) {
        self.threads.stop();
    }

    /// URLs of named pipes for which it has begun to wait for a reader, each told once.
    pub fn take_unread(&self) -> Vec<String> {
        self.threads.take_unread()
    }

    /// Bytes given to the system so far.
    pub fn bytes_sent(&self) -> u64 {
        self.threads.sent_bytes()
    }

    /// Waits for the end and says what was sent.
    pub fn finish(self) -> ReplaySummary {
        let (outcomes, elapsed) = self.threads.join();
        let (mut streams, mut destinations) = (Vec::new(), Vec::new());
        for (tracks, destination) in outcomes {
            streams.extend(tracks);
            destinations.push(destination);
        }
        streams.sort_by_key(|(place, _)| *place);
        let streams = streams.into_iter().map(|(_, stream)| stream).collect();
        ReplaySummary {
            elapsed_s: elapsed.as_secs_f64(),
            streams,
            destinations,
        }
    }
}

/// Reads what a stream carries.
#[derive(Debug)]
enum Reader {
    Frames(Box<FrameReader>),
    Packets(Box<PacketReader>),
}

impl Reader {
    fn new(stream: &ReplayStream) -> Result<Self, String> {
        let Some(packets) = &stream.packets else {
            let layout = stream.layout.layout()?;
            let reader = FrameReader::new(stream.files.clone(), layout);
            return Ok(Self::Frames(Box::new(reader)));
        };
        let kind = Kind::from_name(&packets.wire)
            .ok_or_else(|| format!("wire is {:?}; it must be packet or simple", packets.wire))?;
        let bytes = packets.keyframe_bytes.iter().chain(std::iter::repeat(&0));
        let logs = stream.files.iter().zip(bytes).map(|(path, bytes)| Log {
            path: path.clone(),
            keyframe_bytes: *bytes,
        });
        let reader = PacketReader::new(kind, logs.collect(), packets.first_us);
        Ok(Self::Packets(Box::new(reader)))
    }

    fn due_ns(&self) -> Option<u64> {
        match self {
            Self::Frames(reader) => reader.peek().map(|frame| frame.timestamp_ns),
            Self::Packets(reader) => reader.due_ns(),
        }
    }

    fn pass(&mut self) -> Option<Range<usize>> {
        match self {
            Self::Frames(reader) => reader.pass(),
            Self::Packets(reader) => reader.pass(),
        }
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        match self {
            Self::Frames(reader) => reader.bytes(range),
            Self::Packets(reader) => reader.bytes(range),
        }
    }

    fn skipped_bytes(&self) -> u64 {
        match self {
            Self::Frames(reader) => reader.skipped_bytes(),
            Self::Packets(reader) => reader.skipped_bytes(),
        }
    }

    fn refill(&mut self) -> io::Result<bool> {
        match self {
            Self::Frames(reader) => reader.refill(),
            Self::Packets(reader) => reader.refill(),
        }
    }
}

/// One stream on its way.
#[derive(Debug)]
struct Track {
    place: usize,
    name: String,
    reader: Reader,
    frames_sent: u64,
    bytes_sent: u64,
}

/// What one thread owns.
struct Player {
    options: ReplayOptions,
    target: Target,
    tracks: Vec<Track>,
    datagrams: u64,
    refused: u64,
}

impl Player {
    fn run(mut self, shared: &Shared) -> (Vec<(usize, ReplayedStream)>, ReplayedDestination) {
        let patience =
            Duration::try_from_secs_f64(self.options.connect_timeout_s).unwrap_or(Duration::MAX);
        let error = Sink::open(&self.target, patience, shared)
            .and_then(|mut sink| self.play(&mut sink, shared))
            .err();
        let url = self.target.url;
        let tracks = self.tracks.into_iter().map(|track| {
            let stream = ReplayedStream {
                name: track.name,
                url: url.clone(),
                frames_sent: track.frames_sent,
                bytes_sent: track.bytes_sent,
                bytes_skipped: track.reader.skipped_bytes(),
            };
            (track.place, stream)
        });
        let tracks = tracks.collect();
        let error = error.map(|error| error.to_string());
        let destination = ReplayedDestination {
            url,
            datagrams_sent: self.datagrams,
            datagrams_refused: self.refused,
            error,
        };
        (tracks, destination)
    }

    fn play(&mut self, sink: &mut Sink, shared: &Shared) -> io::Result<()> {
        let mut batch = Vec::with_capacity(BATCH_FRAMES);
        let mut messages = Vec::new();
        let mut clock = None;
        while !shared.stopped() {
            for track in &mut self.tracks {
                track.reader.refill()?;
            }
            let Some(first_ns) = self.tracks.iter().filter_map(Track::due_ns).min() else {
                break;
            };
            let clock = clock.get_or_insert_with(|| Clock::new(first_ns, self.options.speed));
            batch.clear();
            let wait = self.gather(clock, &mut batch);
            self.send(sink, &batch, &mut messages, shared)?;
            if let Some(wait) = wait {
                thread::sleep(wait.min(LONGEST_SLEEP));
            }
        }
        if let Sink::Stream(writer) = sink {
            writer.flush()?;
        }
        Ok(())
    }

    /// Puts frames that are due into `batch`, oldest first, until one is not (the time to wait for it is given), the
    /// batch is full, or a track has to read on.
    fn gather(
        &mut self,
        clock: &mut Clock,
        batch: &mut Vec<(usize, Range<usize>)>,
    ) -> Option<Duration> {
        let mut bytes = 0;
        while batch.len() < BATCH_FRAMES && bytes < BATCH_BYTES {
            let heads = self.tracks.iter().enumerate();
            let (due_ns, index) = heads
                .filter_map(|(index, track)| Some((track.due_ns()?, index)))
                .min()?;
            if let Some(wait) = clock.until(due_ns) {
                return Some(wait);
            }
            let track = self.tracks.get_mut(index)?;
            let range = track.reader.pass()?;
            bytes += range.len();
            batch.push((index, range));
            track.due_ns()?;
        }
        None
    }

    fn send(
        &mut self,
        sink: &mut Sink,
        batch: &[(usize, Range<usize>)],
        messages: &mut Vec<Message>,
        shared: &Shared,
    ) -> io::Result<()> {
        let mut parts: Vec<IoSlice<'_>> = batch
            .iter()
            .filter_map(|(index, range)| {
                Some(IoSlice::new(
                    self.tracks.get(*index)?.reader.bytes(range.clone()),
                ))
            })
            .collect();
        match sink {
            Sink::Stream(writer) => Sink::write_all(&mut **writer, &mut parts, &shared.stop)?,
            Sink::Datagrams(sender) => {
                let pieces = parts.iter().map(|part| Piece {
                    parts: 1,
                    bytes: part.len(),
                    alone: false,
                });
                let gso = self.options.gso && sender.gso();
                let datagrams = pack(pieces, self.options.datagram_bytes, gso, messages);
                sender.send_messages(&parts, messages)?;
                self.datagrams += datagrams;
                self.refused = sender.refused();
            }
        }
        for (index, range) in batch {
            if let Some(track) = self.tracks.get_mut(*index) {
                track.frames_sent += 1;
                track.bytes_sent += range.len() as u64;
            }
        }
        let bytes: usize = batch.iter().map(|(_, range)| range.len()).sum();
        shared.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Track {
    fn due_ns(&self) -> Option<u64> {
        self.reader.due_ns()
    }
}

/// Turns the producer's time into ours.
#[derive(Debug)]
struct Clock {
    start: Instant,
    first_ns: u64,
    speed: Option<f64>,
    /// Time since the start when it was last looked at; looked at again only when a frame is not due by it.
    now: Duration,
}

impl Clock {
    fn new(first_ns: u64, speed: Option<f64>) -> Self {
        Self {
            start: Instant::now(),
            first_ns,
            speed,
            now: Duration::ZERO,
        }
    }

    /// How long until the frame of `timestamp_ns` is due; `None` if it is.
    #[allow(clippy::cast_precision_loss)] // seconds as f64 are exact to the microsecond for centuries
    fn until(&mut self, timestamp_ns: u64) -> Option<Duration> {
        let seconds = timestamp_ns.saturating_sub(self.first_ns) as f64 / 1e9 / self.speed?;
        let due = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        if due <= self.now {
            return None;
        }
        self.now = self.start.elapsed();
        due.checked_sub(self.now).filter(|wait| !wait.is_zero())
    }
}
