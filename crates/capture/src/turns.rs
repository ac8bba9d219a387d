//! A stream whose two threads both receive and write, where there are fewer than three cores for each stream: one for
//! each of its threads and one for who sends.
//!
//! There a block that is passed to another thread has left the cache before that thread gets a core, and the thread has
//! to be woken for it. So the thread that received a block writes it itself, at once, if the sender waits anyway: the
//! source had all that was asked for, so the socket is full or nearly. What a sender that does not wait sends has to be
//! received while the disk takes its time, so its blocks are passed on: the other thread, which stands by, is woken. The
//! same holds for a while after a turn that took long, because the disk may be slow, and while the other thread writes.
//!
//! Nobody knows how long a write takes before it is over. When one takes long, the thread that stands by receives in
//! place of the one that writes, into the ring, and that one stands by when the disk lets it go: they have changed
//! places. So a disk that stalls keeps the source waiting for `slow` and no longer, as long as the ring has room.
//!
//! The trap: neither thread may wait for the other, so both sides are only ever tried for. Whoever leaves the receiving
//! side and cannot have it again knows that the other is there; who gets it stays until the end of the source. A
//! wake-up that comes while nobody is parked stays (as the token of `unpark`), so no block is left lying.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tapeline_sys::clock;

use crate::error::Error;
use crate::receive::Receiver;
use crate::source::{Ended, Step, Stop};
use crate::write::{StreamWriter, Turn, WAIT};

/// How much is received and written in a turn, and what a turn may take.
#[derive(Clone, Copy)]
pub(crate) struct TurnOptions {
    /// Most bytes to ask of the source at once.
    pub(crate) read_bytes: usize,
    /// Bytes after which a block is written: with the reading, what has to stay in a core's cache.
    pub(crate) block_bytes: usize,
    /// A turn of this length was held up by the disk. Waiting for a core takes some time slices of 3 ms.
    pub(crate) slow: Duration,
    /// For how long the thread that stands by writes after that.
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

/// The two threads of a stream.
#[derive(Default)]
pub(crate) struct Pair([OnceLock<Thread>; 2]);

impl Pair {
    fn join(&self) {
        let [first, second] = &self.0;
        if first.set(thread::current()).is_err() {
            let _ = second.set(thread::current());
        }
    }

    /// Whoever stands by is to look now: for blocks, or the end of the ring.
    pub(crate) fn wake_other(&self) {
        let own = thread::current().id();
        for thread in self.0.iter().filter_map(OnceLock::get) {
            if thread.id() != own {
                thread.unpark();
            }
        }
    }
}

/// The receiving side of a stream.
pub(crate) struct Feed {
    source: Box<dyn Step>,
    receiver: Receiver,
    /// The other thread writes until then.
    resting_until: Option<Instant>,
    /// How often it was taken over from a thread that the disk held up.
    taken_over: u64,
}

impl Feed {
    pub(crate) fn new(source: impl Step + 'static, receiver: Receiver) -> Self {
        Self {
            source: Box::new(source),
            receiver,
            resting_until: None,
            taken_over: 0,
        }
    }

    /// Receive until the source ends, and pass everything on.
    pub(crate) fn run(mut self, stop: &Stop) -> Ended {
        loop {
            if let Some(ended) = self.source.step(&mut self.receiver, stop) {
                self.receiver.finish();
                return ended;
            }
        }
    }

    /// The disk held up the receiving for so long.
    fn held_up(&mut self, for_ns: u64, options: &TurnOptions) {
        self.receiver.counters.backpressure_ns += for_ns;
        self.resting_until = Instant::now().checked_add(options.rest);
        self.receiver.publish_counters();
    }

    fn resting(&self) -> bool {
        self.resting_until
            .is_some_and(|until| Instant::now() < until)
    }
}

/// What the two threads share.
pub(crate) struct Turns {
    options: TurnOptions,
    stop: Stop,
    /// None once the source has ended.
    feed: Mutex<Option<Feed>>,
    /// None once the writer has ended or failed.
    writer: Mutex<Option<StreamWriter>>,
    pair: Arc<Pair>,
    /// When the thread that receives began to write, by the monotonic clock; 0 while it does not.
    writing_since: AtomicU64,
    failed: Box<dyn Fn(Error) + Send + Sync>,
}

impl Turns {
    /// `pair` is the one of the feed's receiver; `failed` hears of what ended the source or the writer.
    pub(crate) fn new(
        options: TurnOptions,
        stop: Stop,
        feed: Feed,
        writer: StreamWriter,
        pair: Arc<Pair>,
        failed: impl Fn(Error) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            stop,
            feed: Mutex::new(Some(feed)),
            writer: Mutex::new(Some(writer)),
            pair,
            writing_since: AtomicU64::new(0),
            failed: Box::new(failed),
        })
    }

    /// The thread that receives at first.
    pub(crate) fn receive_first(&self) {
        self.pair.join();
        if let Some(feed) = self.try_take(&self.feed) {
            self.receive(feed);
        }
        self.stand_by();
    }

    /// The thread that stands by at first.
    pub(crate) fn write_first(&self) {
        self.pair.join();
        self.stand_by();
    }

    /// Receive, and write what the sender waits with, until the source ends or the other thread has taken over.
    fn receive<'a>(&'a self, mut place: MutexGuard<'a, Option<Feed>>) {
        while let Some(feed) = place.as_mut() {
            if let Some(ended) = feed.source.step(&mut feed.receiver, &self.stop) {
                if let Some(feed) = place.take() {
                    feed.receiver.finish();
                }
                if let Err(e) = ended {
                    (self.failed)(e);
                }
                return;
            }
            if !feed.receiver.take_turn_due() {
                continue;
            }
            let here = feed.receiver.sender_waits() && !feed.resting();
            let Some(mut writer) = here.then(|| self.try_take(&self.writer)).flatten() else {
                self.pair.wake_other();
                continue;
            };
            let taken_over = feed.taken_over;
            let began = clock::monotonic_ns();
            self.writing_since.store(began.max(1), Ordering::Release);
            drop(place);
            self.turn(&mut writer);
            self.writing_since.store(0, Ordering::Release);
            drop(writer);
            let Some(again) = self.try_take(&self.feed) else {
                return;
            };
            place = again;
            if let Some(feed) = place.as_mut() {
                let took = clock::monotonic_ns().saturating_sub(began);
                if feed.taken_over == taken_over && u128::from(took) >= self.options.slow.as_nanos()
                {
                    feed.held_up(took, &self.options);
                }
                feed.receiver.go_on_warm();
            }
        }
    }

    /// Write what the receiving thread leaves, until the end of the stream, and receive in its place when the disk holds
    /// it up.
    fn stand_by(&self) {
        loop {
            if let Some(mut writer) = self.try_take(&self.writer) {
                while self.turn(&mut writer) {}
                if writer.is_none() {
                    break;
                }
            }
            thread::park_timeout(WAIT);
            self.take_over();
        }
        // Whoever receives sees that the writer is gone. If nobody does, that is to be seen here.
        if let Some(feed) = self.try_take(&self.feed) {
            self.receive(feed);
        }
    }

    fn take_over(&self) {
        let since = self.writing_since.load(Ordering::Acquire);
        let held_up = clock::monotonic_ns().saturating_sub(since);
        let slow = since > 0 && u128::from(held_up) >= self.options.slow.as_nanos();
        // A panic left it, and nobody will come for it.
        let left = self.feed.is_poisoned();
        if !slow && !left {
            return;
        }
        let Some(mut place) = self.try_take(&self.feed) else {
            return;
        };
        if let Some(feed) = place.as_mut() {
            feed.taken_over += 1;
            feed.held_up(held_up, &self.options);
            self.receive(place);
        }
    }

    /// What is in `place`, unless the other thread has it. What a panic left there is not used any more.
    fn try_take<'a, T>(&self, place: &'a Mutex<Option<T>>) -> Option<MutexGuard<'a, Option<T>>> {
        match place.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(e)) => {
                let mut guard = e.into_inner();
                *guard = None;
                place.clear_poison();
                (self.failed)(Error::state("a thread of the recorder panicked".to_owned()));
                Some(guard)
            }
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
}

#[cfg(test)]
mod tests;
