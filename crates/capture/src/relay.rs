//! Receiving and writing by turns, in one thread, for as long as the disk follows.
//!
//! A stream's two threads pass every byte from one to the other. Where there are not cores enough for both and the
//! producer, that costs a switch of threads for every block and a second journey of its bytes into a core's cache. So
//! there the thread that has received and validated a block also writes it, while the block is in cache.
//!
//! The trap: a write that does not come back would hold up receiving, which is what the ring is there to prevent. So
//! whoever writes lends the connection to the other thread of the stream first. That one looks every `LOOK`; if it finds
//! the first one waiting in a turn, it goes on receiving into the ring until the lender wants the connection back. Then
//! both threads work side by side as they do where there are cores enough, and return to this as soon as the disk
//! follows. A first thread that only waits for a core is no reason: a second one would take that core from it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use tapeline_sys::cpu::ThreadWatch;

use crate::error::Error;
use crate::source::Stop;
use crate::source::stream::Session;
use crate::write::StreamWriter;

/// How often the second thread looks whether the first one comes along: the longest that a waiting write can keep a
/// connection from being read. A socket's buffer takes that much from a stream of 1 GB/s.
const LOOK: Duration = Duration::from_millis(5);
/// The same while nothing arrives.
const LOOK_IDLE: Duration = Duration::from_millis(25);
/// A turn that lasts for so many of these is reason enough, whatever the thread does (or the system does not tell).
const LONG: u32 = 8;
/// How long to wait for more to write before asking for the connection again.
const TAKE_BACK: Duration = Duration::from_millis(1);

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
    first: OnceLock<ThreadWatch>,
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
            first: OnceLock::new(),
            second: OnceLock::new(),
            stop,
            failed: Box::new(failed),
        }
    }

    /// Writes what was published, in the receiving thread, which lends its session meanwhile. It waits in the ring only
    /// with the writer in its hands, and for the session only while it writes: neither thread waits for the other.
    pub(crate) fn turn(&self, session: Session) -> Session {
        self.beats.fetch_add(1, Ordering::Release);
        let Some(mut writer) = try_lock(&self.writer) else {
            // The second thread writes: it is the faster way round that this one goes on receiving.
            return session;
        };
        self.first.get_or_init(ThreadWatch::of_this_thread);
        *lock(&self.lent) = Some(session);
        self.write(&mut writer, Duration::ZERO);
        self.wanted.store(true, Ordering::Release);
        let session = loop {
            if let Some(session) = try_lock(&self.lent).and_then(|mut lent| lent.take()) {
                break session;
            }
            // The second thread has it, and may be waiting for a free block: only writing makes one.
            self.write(&mut writer, TAKE_BACK);
        };
        self.wanted.store(false, Ordering::Release);
        session
    }

    /// As `turn`, after the end of a connection: there is nothing to lend.
    pub(crate) fn last_turn(&self) {
        if let Some(mut writer) = try_lock(&self.writer) {
            self.write(&mut writer, Duration::ZERO);
        }
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
        let mut looks = 0;
        loop {
            thread::park_timeout(pause);
            let beats = self.beats.load(Ordering::Acquire);
            if beats != seen {
                (seen, pause, looks) = (beats, LOOK, 0);
                continue;
            }
            if let Some(mut writer) = try_lock(&self.writer) {
                pause = LOOK_IDLE;
                self.write(&mut writer, Duration::ZERO);
                if writer.is_none() {
                    return;
                }
            } else {
                looks += 1;
                if looks >= LONG || self.first_waits() {
                    self.receive();
                }
            }
        }
    }

    fn first_waits(&self) -> bool {
        let waits = self.first.get().and_then(ThreadWatch::is_waiting);
        waits == Some(true)
    }

    /// One turn, which waits at most so long for something to write; the writer is gone after its last, or an error.
    fn write(&self, place: &mut Option<StreamWriter>, wait: Duration) {
        let Some(writer) = place.as_mut() else {
            return thread::park_timeout(wait);
        };
        let ended = match writer.turn(wait) {
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
