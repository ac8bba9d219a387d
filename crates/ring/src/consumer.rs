//! The end that takes filled blocks.

use std::{sync::Arc as StdArc, time::Duration};

use tapeline_sys::memory::Region;

use crate::{
    Block,
    queue::{Receiver, Sender},
    shared::Shared,
    sync::{Arc, Ordering},
};

/// How a [`Consumer::wait`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The bytes asked for are there, or the producer flushed, or it closed with blocks still to be taken.
    Ready,
    /// Time passed. Fewer bytes than asked for may be there.
    Timeout,
    /// The producer closed and everything was taken.
    Closed,
}

/// The emptying end of a ring.
pub struct Consumer<T> {
    shared: Arc<Shared>,
    memory: StdArc<Region>,
    filled: Receiver<Block<T>>,
    free: Sender<Block<T>>,
    taken_bytes: u64,
    recycled_bytes: u64,
    seen_flushes: u32,
}

impl<T> Consumer<T> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        memory: StdArc<Region>,
        filled: Receiver<Block<T>>,
        free: Sender<Block<T>>,
    ) -> Self {
        Self {
            shared,
            memory,
            filled,
            free,
            taken_bytes: 0,
            recycled_bytes: 0,
            seen_flushes: 0,
        }
    }

    /// The oldest published block.
    pub fn take(&mut self) -> Option<Block<T>> {
        let block = self.filled.pop()?;
        self.taken_bytes += block.published as u64;
        Some(block)
    }

    /// Waits until `min_bytes` are published and not taken, or a flush, or the close, at most `timeout`.
    ///
    /// A flush is answered once, even one that came before the wait; `Ready` can therefore come with nothing to take.
    pub fn wait(&mut self, min_bytes: usize, timeout: Duration) -> Wait {
        // At least one byte: waiting for none would not be waiting.
        let wanted = self.taken_bytes + min_bytes.max(1) as u64;
        self.shared
            .consumer
            .0
            .wanted_bytes
            .store(wanted, Ordering::Relaxed);
        let Self {
            shared,
            filled,
            seen_flushes,
            ..
        } = self;
        let producer = &shared.producer.0;
        let answer = shared.consumer.0.waiter.wait(timeout, || {
            let flushes = producer.flushes.load(Ordering::Acquire);
            // Before the look at the queue: what was published before the close is then seen in it.
            let closed = producer.closed.load(Ordering::Acquire);
            if closed {
                return Some(if filled.is_empty() {
                    Wait::Closed
                } else {
                    Wait::Ready
                });
            }
            let ready = flushes != *seen_flushes
                || producer.published_bytes.load(Ordering::Acquire) >= wanted;
            *seen_flushes = flushes;
            ready.then_some(Wait::Ready)
        });
        answer.unwrap_or(Wait::Timeout)
    }

    /// Gives a block back to be filled again, and wakes a producer that is out of blocks.
    ///
    /// A block of another ring is dropped.
    pub fn recycle(&mut self, mut block: Block<T>) {
        if !block.belongs_to(&self.memory) {
            return;
        }
        self.recycled_bytes += block.published as u64;
        block.published = 0;
        block.set_filled(0);
        // Before the block is free: a producer that fills it at once must not count it twice as in flight.
        self.shared
            .consumer
            .0
            .recycled_bytes
            .store(self.recycled_bytes, Ordering::Release);
        // The queue holds as many as there are blocks, so it is never full.
        if self.free.push(block).is_err() {
            return;
        }
        self.shared.producer.0.waiter.wake_if(|| true);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.shared.consumer.0.gone.store(true, Ordering::Release);
        self.shared.producer.0.waiter.wake_if(|| true);
    }
}

impl<T> std::fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("taken_bytes", &self.taken_bytes)
            .finish_non_exhaustive()
    }
}
