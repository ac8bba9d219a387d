//! Receiving and writing by turns, in one thread, for as long as the disk follows.
//!
//! A stream's two threads pass every byte from one to the other. Where there are not cores enough for both and the
//! producer, that costs a switch of threads for every block and a second journey of its bytes into a core's cache. So
//! there the thread that has received and validated a block also writes it, while the block is in cache.
//!
//! The trap: a write that does not come back would hold up receiving, which is what the ring is there to prevent. So
//! whoever writes lends the connection to the other thread of the stream first. That one looks every `LOOK`; if a turn
//! lasts longer than that, it goes on receiving into the ring until the lender wants the connection back. Then both
//! threads work side by side as they do where there are cores enough, and return to this as soon as the disk follows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::error::Error;
use crate::source::Stop;
use crate::source::stream::Session;
use crate::write::StreamWriter;

/// How often the second thread looks whether the first one comes along: the longest that a slow write can keep a
/// connection from being read. A socket's buffer takes that much from a stream of 1 GB/s.
const LOOK: Duration = Duration::from_millis(2);
/// The same while nothing arrives.
const LOOK_IDLE: Duration = Duration::from_millis(25);

/// What the two threads of a stream share.
pub(crate) struct Relay {
    /// Held during a turn of writing; none once the writer has finished or failed.
    writer: Mutex<Option<StreamWriter>>,
    /// The connection, while its thread writes.
    lent: Mutex<Option<Session>>,
    /// The lender waits for it.
    wanted: AtomicBool,
    /// Counts what the receiving thread passed on.
    beats: AtomicU64,
    second: OnceLock<Thread>,
    stop: Stop,
    failed: Box<dyn Fn(Error) + Send + Sync>,
}

impl Relay {
    /// For a stream with one source. `failed` hears of the error that ends the writer.
    pub(crate) fn new(
        writer: StreamWriter,
        stop: Stop,
        failed: impl Fn(Error) + Send + Sync + 'static,
    ) -> Self {
        Self {
            writer: Mutex::new(Some(writer)),
            lent: Mutex::new(None),
            wanted: AtomicBool::new(false),
            beats: AtomicU64::new(0),
            second: OnceLock::new(),
            stop,
            failed: Box::new(failed),
        }
    }

    /// Writes what was published, in the receiving thread, which lends its session meanwhile.
    pub(crate) fn turn(&self, session: Session) -> Session {
        self.beats.fetch_add(1, Ordering::Release);
        let Some(mut writer) = try_lock(&self.writer) else {
            // The second thread writes: it is the faster way round that this one goes on receiving.
            return session;
        };
        *lock(&self.lent) = Some(session);
        self.write(&mut writer);
        drop(writer);
        self.wanted.store(true, Ordering::Release);
        let session = loop {
            // Nobody else takes it out; it is there.
            if let Some(session) = lock(&self.lent).take() {
                break session;
            }
        };
        self.wanted.store(false, Ordering::Release);
        session
    }

    /// Makes the second thread look now.
    pub(crate) fn wake(&self) {
        if let Some(second) = self.second.get() {
            second.unpark();
        }
    }

    /// The second thread: writes what the receiving one leaves, and receives while that one cannot.
    pub(crate) fn stand_by(&self) {
        let _ = self.second.set(thread::current());
        let mut seen = 0;
        let mut pause = LOOK_IDLE;
        loop {
            thread::park_timeout(pause);
            let beats = self.beats.load(Ordering::Acquire);
            if beats != seen {
                (seen, pause) = (beats, LOOK);
                continue;
            }
            if let Some(mut writer) = try_lock(&self.writer) {
                pause = LOOK_IDLE;
                self.write(&mut writer);
                if writer.is_none() {
                    return;
                }
            } else {
                self.receive();
            }
        }
    }

    /// One turn; the writer is gone after its last, or an error.
    fn write(&self, place: &mut Option<StreamWriter>) {
        let Some(writer) = place.as_mut() else {
            return;
        };
        let ended = match writer.turn(Duration::ZERO) {
            Ok(true) => return,
            Ok(false) => writer.end(Ok(())),
            Err(e) => writer.end(Err(e)),
        };
        // Its end of the ring goes with it, which the receiver notices.
        *place = None;
        if let Err(e) = ended {
            (self.failed)(e);
        }
    }

    /// Receives in the place of a thread that is writing, until that one is back.
    fn receive(&self) {
        while !self.wanted.load(Ordering::Acquire) {
            match lock(&self.lent).as_mut() {
                Some(session) if !session.is_over() => session.step(&self.stop),
                _ => return,
            };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(e)) => Some(e.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}
