//! The end that fills blocks.

use std::{sync::Arc as StdArc, time::Duration};

use tapeline_sys::memory::Region;

use crate::{
    Block,
    queue::{Receiver, Sender},
    shared::Shared,
    sync::{Arc, Ordering},
};

/// The filling end of a ring; dropping it closes the ring.
pub struct Producer<T> {
    shared: Arc<Shared>,
    memory: StdArc<Region>,
    filled: Sender<Block<T>>,
    returned: Receiver<Block<T>>,
    /// Free blocks, the one that came back last on top. Its capacity is the ring's, so it never grows.
    free: Vec<Block<T>>,
    published_bytes: u64,
    high_water_bytes: u64,
}

impl<T> Producer<T> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        memory: StdArc<Region>,
        filled: Sender<Block<T>>,
        returned: Receiver<Block<T>>,
        free: Vec<Block<T>>,
    ) -> Self {
        Self {
            shared,
            memory,
            filled,
            returned,
            free,
            published_bytes: 0,
            high_water_bytes: 0,
        }
    }

    /// A free block, the one that came back last; `None` if the consumer has them all.
    pub fn claim(&mut self) -> Option<Block<T>> {
        while let Some(block) = self.returned.pop() {
            self.free.push(block);
        }
        self.free.pop()
    }

    /// A block that came back since the last claim, if any: used a moment ago, so probably still in cache.
    pub fn claim_returned(&mut self) -> Option<Block<T>> {
        self.returned.pop()
    }

    /// Puts a claimed block back among the free ones, unpublished. A block of another ring is dropped.
    pub fn unclaim(&mut self, block: Block<T>) {
        if block.belongs_to(&self.memory) {
            self.free.push(block);
        }
    }

    /// As [`claim`](Self::claim), and waits up to `timeout` for the consumer to give one back.
    ///
    /// A consumer that waits for more bytes than it can get while the producer is out of blocks is woken first.
    /// `None` on timeout, or when the consumer is [gone](Self::consumer_gone).
    pub fn claim_timeout(&mut self, timeout: Duration) -> Option<Block<T>> {
        if let Some(block) = self.claim() {
            return Some(block);
        }
        self.flush();
        let Self {
            shared, returned, ..
        } = self;
        shared.producer.0.waiter.wait(timeout, || {
            let gone = shared.consumer.0.gone.load(Ordering::Acquire);
            (!returned.is_empty() || gone).then_some(())
        });
        self.claim()
    }

    /// Hands `block` to the consumer; wakes it only if it waits and has now what it waits for.
    ///
    /// A block of another ring is dropped.
    pub fn publish(&mut self, mut block: Block<T>) {
        if !block.belongs_to(&self.memory) {
            return;
        }
        let bytes = block.filled();
        block.published = bytes;
        // The queue holds as many as there are blocks, so it is never full.
        if self.filled.push(block).is_err() {
            return;
        }
        self.published_bytes += bytes as u64;
        // Release: whoever sees these bytes published sees the block in the queue.
        self.shared
            .producer
            .0
            .published_bytes
            .store(self.published_bytes, Ordering::Release);
        self.high_water_bytes = self.high_water_bytes.max(self.in_flight_bytes());
        let consumer = &self.shared.consumer.0;
        consumer
            .waiter
            .wake_if(|| self.published_bytes >= consumer.wanted_bytes.load(Ordering::Relaxed));
    }

    /// Makes the consumer ready whatever it waits for, now or in its next wait.
    pub fn flush(&self) {
        self.shared
            .producer
            .0
            .flushes
            .fetch_add(1, Ordering::Release);
        self.shared.consumer.0.waiter.wake_if(|| true);
    }

    /// Has the consumer taken everything that was published? (It may not have given it back.)
    pub fn idle(&self) -> bool {
        self.filled.is_empty()
    }

    /// Bytes published and not yet recycled.
    pub fn in_flight_bytes(&self) -> u64 {
        self.published_bytes.saturating_sub(
            self.shared
                .consumer
                .0
                .recycled_bytes
                .load(Ordering::Acquire),
        )
    }

    /// The most bytes that were in flight after a publish.
    pub fn high_water_bytes(&self) -> u64 {
        self.high_water_bytes
    }

    /// Says that nothing more comes, and wakes the consumer. Also done by dropping.
    pub fn close(&mut self) {
        self.shared.producer.0.closed.store(true, Ordering::Release);
        self.shared.consumer.0.waiter.wake_if(|| true);
    }

    /// Was the consumer dropped? Blocks published from then on go nowhere.
    pub fn consumer_gone(&self) -> bool {
        self.shared.consumer.0.gone.load(Ordering::Acquire)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> std::fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("published_bytes", &self.published_bytes)
            .finish_non_exhaustive()
    }
}
