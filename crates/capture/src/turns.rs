//! A writer that the two threads of a stream take by turns, where there are fewer than three cores for each stream: one
//! for each of its threads and one for who sends.
//!
//! There a block that is passed on has left the cache before the other thread gets a core, and that thread has to be
//! woken for it. So the receiving thread writes it itself, at once, if its sender waits for it anyway: the source had
//! all that was asked for, so the socket is full or nearly. A sender that does not wait is received from while the disk
//! takes its time, so its blocks are passed on, and the write thread, which stands by, is woken. The same holds for a
//! while after a turn that took long, because the disk may be slow, and while the write thread has the writer.
//!
//! The trap: neither thread may wait for the other. The receiving thread only ever tries to get the writer. The write
//! thread keeps it while there is something to write, and parks without it; a wake-up that comes meanwhile stays with
//! it (as the token of `unpark`), so no block is left lying.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::write::{StreamWriter, Turn, WAIT};

/// How much a receiving thread that writes takes a turn, and what keeps it from writing.
#[derive(Clone, Copy)]
pub(crate) struct TurnOptions {
    /// Most bytes to ask of the source at once.
    pub(crate) read_bytes: usize,
    /// Bytes after which a block is written: with the reading, what has to stay in a core's cache.
    pub(crate) block_bytes: usize,
    /// A turn of this length was held up by the disk. Waiting for a core takes some time slices of 3 ms.
    pub(crate) slow: Duration,
    /// For how long the write thread writes after that.
    pub(crate) rest: Duration,
}

impl Default for TurnOptions {
    fn default() -> Self {
        Self {
            read_bytes: 1 << 20,
            block_bytes: 1 << 20,
            slow: Duration::from_millis(100),
            rest: Duration::from_secs(1),
        }
    }
}

/// What the two threads share.
pub(crate) struct SharedWriter {
    /// None once the writer has ended or failed.
    writer: Mutex<Option<StreamWriter>>,
    write_thread: OnceLock<Thread>,
    failed: Box<dyn Fn(Error) + Send + Sync>,
}

impl SharedWriter {
    /// `failed` hears of the error that ends the writer.
    pub(crate) fn new(
        writer: StreamWriter,
        failed: impl Fn(Error) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            writer: Mutex::new(Some(writer)),
            write_thread: OnceLock::new(),
            failed: Box::new(failed),
        })
    }

    /// The write thread: write what the receiving thread leaves, until the end of the stream.
    pub(crate) fn stand_by(&self) {
        let _ = self.write_thread.set(thread::current());
        loop {
            thread::park_timeout(WAIT);
            let Some(mut writer) = self.try_take() else {
                continue;
            };
            while writer.is_some() {
                if !self.turn(&mut writer) {
                    break;
                }
            }
            if writer.is_none() {
                return;
            }
        }
    }

    fn try_take(&self) -> Option<MutexGuard<'_, Option<StreamWriter>>> {
        match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Write what is published; whether there was anything. After the last turn, or an error, the writer is gone, and
    /// with it its end of the ring, which the receiver notices.
    fn turn(&self, place: &mut Option<StreamWriter>) -> bool {
        let Some(writer) = place.as_mut() else {
            return false;
        };
        let ended = match writer.turn(Duration::ZERO) {
            Ok(Turn::Wrote) => return true,
            Ok(Turn::Nothing) => return false,
            Ok(Turn::Last) => writer.end(Ok(())),
            Err(e) => writer.end(Err(e)),
        };
        *place = None;
        if let Err(e) = ended {
            (self.failed)(e);
        }
        true
    }

    fn wake(&self) {
        if let Some(thread) = self.write_thread.get() {
            thread.unpark();
        }
    }
}

/// The receiving thread's side.
pub(crate) struct WriteHere {
    shared: Arc<SharedWriter>,
    options: TurnOptions,
    resting_until: Option<Instant>,
}

impl WriteHere {
    pub(crate) fn new(shared: Arc<SharedWriter>, options: TurnOptions) -> Self {
        Self {
            shared,
            options,
            resting_until: None,
        }
    }

    pub(crate) fn options(&self) -> &TurnOptions {
        &self.options
    }

    /// Write what was published, or see to it that the write thread does. How long the disk held the writing up, if it
    /// did.
    pub(crate) fn write(&mut self, sender_waits: bool) -> Option<Duration> {
        let started = Instant::now();
        let resting = self.resting_until.is_some_and(|until| started < until);
        if !sender_waits || resting {
            self.wake();
            return None;
        }
        let Some(mut writer) = self.shared.try_take() else {
            self.wake();
            return None;
        };
        self.shared.turn(&mut writer);
        drop(writer);
        let ended = Instant::now();
        let took = ended.duration_since(started);
        if took < self.options.slow {
            return None;
        }
        self.resting_until = ended.checked_add(self.options.rest);
        Some(took)
    }

    /// The write thread is to look now: for blocks, or the end of the ring.
    pub(crate) fn wake(&self) {
        self.shared.wake();
    }
}

#[cfg(test)]
mod tests;
