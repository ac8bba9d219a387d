//! What byte-stream sources have in common: one connection, read to its end into the ring.

use std::io;
use std::time::{Duration, Instant};

use super::{DRAIN_BYTES, Stop};
use crate::receive::{Receiver, Room, WriterGone, now_ns};

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

/// A connection, or a file, that is being read.
pub(crate) struct Pump {
    patience: Patience,
    started: Instant,
    frames_before: u64,
    last_byte: Instant,
    next_look: Instant,
    drained: u64,
}

impl Pump {
    pub(crate) fn new(patience: Patience, receiver: &Receiver) -> Self {
        let now = Instant::now();
        Self {
            patience,
            started: now,
            frames_before: receiver.frames_received(),
            last_byte: now,
            next_look: now,
            drained: 0,
        }
    }

    /// Whether any frame came with it.
    pub(crate) fn brought_frames(&self, receiver: &Receiver) -> bool {
        receiver.frames_received() > self.frames_before
    }

    /// Read what is there, or wait a moment for it; how the connection ended, if it did. `meanwhile` is called now and
    /// then, at the latest after each silent moment.
    pub(crate) fn step(
        &mut self,
        source: &mut dyn ByteStream,
        receiver: &mut Receiver,
        stop: &Stop,
        meanwhile: &mut dyn FnMut(&mut Receiver),
    ) -> Option<Outcome> {
        let draining = stop.requested();
        match receiver.make_room(4096) {
            Ok(Room::Made) => {}
            Ok(Room::AfterTurn) => return None,
            Err(WriterGone) => return Some(Outcome::WriterGone),
        }
        let most = receiver.read_bytes();
        let space = receiver.space();
        let room = space.len().min(most);
        let Some(buf) = space.get_mut(..room) else {
            return Some(Outcome::WriterGone);
        };
        let outcome = 'ended: {
            match source.read(buf, draining) {
                Ok(Arrival::Bytes(n)) => {
                    receiver.received(n, n == room, now_ns());
                    if draining {
                        self.drained += n as u64;
                        if self.drained > DRAIN_BYTES {
                            break 'ended Outcome::Stopped;
                        }
                    }
                    self.last_byte = Instant::now();
                    if self.last_byte < self.next_look {
                        return None;
                    }
                }
                Ok(Arrival::Nothing) if draining => break 'ended Outcome::Stopped,
                Ok(Arrival::Nothing) => receiver.idle(),
                Ok(Arrival::End) => break 'ended Outcome::Ended(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => return None,
                Err(e) => break 'ended Outcome::Ended(Some(e.to_string())),
            }
            let now = Instant::now();
            self.next_look = now + Duration::from_millis(50);
            meanwhile(receiver);
            if receiver.writer_gone() {
                return Some(Outcome::WriterGone);
            }
            let silent = now.duration_since(self.last_byte);
            let patience = self.patience;
            let first_frame_late = patience
                .first_frame
                .is_some_and(|p| now.duration_since(self.started) > p)
                && !self.brought_frames(receiver);
            let stuck = patience.mid_frame.is_some_and(|p| silent > p) && receiver.pending() > 0;
            if !first_frame_late && !stuck && patience.idle.is_none_or(|p| silent <= p) {
                return None;
            }
            Outcome::Idle
        };
        receiver.end_of_stream(now_ns());
        receiver.idle();
        Some(outcome)
    }
}
