//! What byte-stream sources have in common: one connection, read to its end into the ring.

use std::io;
use std::time::{Duration, Instant};

use super::{DRAIN_BYTES, Stop};
use crate::receive::{Receiver, WriterGone, now_ns};

/// One connection or file.
pub(crate) trait ByteStream {
    /// Read what is there into `buf`, waiting a moment for the first byte unless `draining`.
    fn read(&mut self, buf: &mut [u8], draining: bool) -> io::Result<Arrival>;
}

/// What a read brought.
pub(crate) enum Arrival {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The end.
    End,
}

/// How a connection came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The other side closed it, or it broke; the text says how.
    Ended(Option<String>),
    /// It was silent for too long.
    Idle,
    /// A stop was asked for, and what had arrived is read.
    Stopped,
    /// The writer is gone.
    WriterGone,
}

/// How long a connection may be silent.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// Before its first whole frame (design/reliability.md N3).
    pub(crate) first_frame: Option<Duration>,
    /// In the middle of a frame.
    pub(crate) mid_frame: Option<Duration>,
    /// At any time.
    pub(crate) idle: Option<Duration>,
}

impl Patience {
    /// For input that cannot be hostile.
    pub(crate) const ENDLESS: Self = Self {
        first_frame: None,
        mid_frame: None,
        idle: None,
    };
}

/// Read a connection to its end. `meanwhile` is called now and then, at the latest after each silent moment.
pub(crate) fn pump(
    source: &mut dyn ByteStream,
    receiver: &mut Receiver,
    stop: &Stop,
    patience: Patience,
    meanwhile: &mut dyn FnMut(&mut Receiver),
) -> Outcome {
    let started = Instant::now();
    let frames_before = receiver.frames_received();
    let mut last_byte = started;
    let mut next_look = started;
    let mut drained = 0_u64;
    let outcome = loop {
        let draining = stop.requested();
        let most = receiver.read_bytes();
        let space = match receiver.space(4096) {
            Ok(space) => space,
            Err(WriterGone) => return Outcome::WriterGone,
        };
        let room = space.len().min(most);
        let Some(buf) = space.get_mut(..room) else {
            return Outcome::WriterGone;
        };
        match source.read(buf, draining) {
            Ok(Arrival::Bytes(n)) => {
                receiver.received(n, n == room, now_ns());
                if draining {
                    drained += n as u64;
                    if drained > DRAIN_BYTES {
                        break Outcome::Stopped;
                    }
                }
                last_byte = Instant::now();
                if last_byte < next_look {
                    continue;
                }
            }
            Ok(Arrival::Nothing) if draining => break Outcome::Stopped,
            Ok(Arrival::Nothing) => receiver.idle(),
            Ok(Arrival::End) => break Outcome::Ended(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => break Outcome::Ended(Some(e.to_string())),
        }
        let now = Instant::now();
        next_look = now + Duration::from_millis(50);
        meanwhile(receiver);
        if receiver.writer_gone() {
            return Outcome::WriterGone;
        }
        let silent = now.duration_since(last_byte);
        let first_frame_late = patience
            .first_frame
            .is_some_and(|p| now.duration_since(started) > p)
            && receiver.frames_received() == frames_before;
        let stuck = patience.mid_frame.is_some_and(|p| silent > p) && receiver.pending() > 0;
        if first_frame_late || stuck || patience.idle.is_some_and(|p| silent > p) {
            break Outcome::Idle;
        }
    };
    receiver.end_of_stream(now_ns());
    receiver.idle();
    outcome
}
