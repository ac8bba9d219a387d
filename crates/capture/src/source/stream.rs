//! What byte-stream sources have in common: one connection, read to its end into the ring.

use std::io;
use std::time::{Duration, Instant};

use super::{DRAIN_BYTES, Stop};
use crate::receive::{Receiver, WriterGone, now_ns};

/// Least room for a read.
const LEAST: usize = 4096;

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

/// A connection on its way to its end.
pub(crate) struct Session {
    source: Box<dyn ByteStream + Send>,
    receiver: Receiver,
    patience: Patience,
    started: Instant,
    frames_before: u64,
    last_byte: Instant,
    next_look: Instant,
    drained: u64,
    outcome: Option<Outcome>,
}

impl Session {
    fn new(source: Box<dyn ByteStream + Send>, receiver: Receiver, patience: Patience) -> Self {
        let now = Instant::now();
        Self {
            source,
            patience,
            started: now,
            frames_before: receiver.frames_received(),
            receiver,
            last_byte: now,
            next_look: now,
            drained: 0,
            outcome: None,
        }
    }

    /// Whether it has come to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// One read, which waits a moment for bytes. True when it is time to look at the rest of the world.
    pub(crate) fn step(&mut self, stop: &Stop) -> bool {
        match self.read(stop) {
            Ok(look) => look,
            Err(outcome) => {
                self.outcome = Some(outcome);
                true
            }
        }
    }

    fn read(&mut self, stop: &Stop) -> Result<bool, Outcome> {
        let draining = stop.requested();
        let receiver = &mut self.receiver;
        let most = receiver.read_bytes();
        let space = receiver.space(LEAST)?;
        let room = space.len().min(most);
        let Some(buf) = space.get_mut(..room) else {
            return Err(Outcome::WriterGone);
        };
        match self.source.read(buf, draining) {
            Ok(Arrival::Bytes(n)) => {
                receiver.received(n, now_ns());
                receiver.pass_on_if_full(LEAST)?;
                if draining {
                    self.drained += n as u64;
                    if self.drained > DRAIN_BYTES {
                        return Err(Outcome::Stopped);
                    }
                }
                self.last_byte = Instant::now();
                if self.last_byte < self.next_look {
                    return Ok(false);
                }
            }
            Ok(Arrival::Nothing) if draining => return Err(Outcome::Stopped),
            Ok(Arrival::Nothing) => receiver.idle(),
            Ok(Arrival::End) => return Err(Outcome::Ended(None)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(e) => return Err(Outcome::Ended(Some(e.to_string()))),
        }
        let now = Instant::now();
        self.next_look = now + Duration::from_millis(50);
        if self.receiver.writer_gone() {
            return Err(Outcome::WriterGone);
        }
        if self.is_silent(now) {
            return Err(Outcome::Idle);
        }
        Ok(true)
    }

    fn is_silent(&self, now: Instant) -> bool {
        let silent = now.duration_since(self.last_byte);
        let patience = self.patience;
        let first_frame_late = patience
            .first_frame
            .is_some_and(|p| now.duration_since(self.started) > p)
            && self.receiver.frames_received() == self.frames_before;
        let stuck = patience.mid_frame.is_some_and(|p| silent > p) && self.receiver.pending() > 0;
        first_frame_late || stuck || patience.idle.is_some_and(|p| silent > p)
    }
}

/// Read a connection to its end. `meanwhile` is called now and then, at the latest after each silent moment.
pub(crate) fn pump(
    source: Box<dyn ByteStream + Send>,
    receiver: Receiver,
    stop: &Stop,
    patience: Patience,
    meanwhile: &mut dyn FnMut(&mut Receiver),
) -> (Outcome, Receiver) {
    let mut session = Session::new(source, receiver, patience);
    loop {
        let look = session.step(stop);
        if let Some(relay) = session.receiver.relay_due() {
            session = relay.turn(session);
            session.receiver.reuse_hot();
        }
        if look {
            meanwhile(&mut session.receiver);
        }
        if let Some(outcome) = session.outcome.take() {
            let mut receiver = session.receiver;
            if outcome != Outcome::WriterGone {
                receiver.end_of_stream(now_ns());
                receiver.idle();
                if let Some(relay) = receiver.relay_due() {
                    relay.last_turn();
                }
            }
            return (outcome, receiver);
        }
    }
}

impl From<WriterGone> for Outcome {
    fn from(WriterGone: WriterGone) -> Self {
        Self::WriterGone
    }
}
