//! A bounded SPSC queue. Two of them make the ring: filled blocks one way, free blocks the other.
//!
//! Positions grow without bound (wrapping at the word) and are masked to a slot. Each side keeps the last position
//! of the other that it saw and looks again only when that one says full or empty, so that a hand-over usually
//! touches one cache line of the other side: the slot itself.

use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicUsize, CachePadded, Ordering, UnsafeCell};

struct Slots<V> {
    slots: Box<[UnsafeCell<MaybeUninit<V>>]>,
    mask: usize,
    /// Next position to pop; written by the receiver only.
    head: CachePadded<AtomicUsize>,
    /// Next position to push; written by the sender only.
    tail: CachePadded<AtomicUsize>,
}

// SAFETY: a slot is reached by the sender alone from the moment `head` passes it until `tail` does, and by the
// receiver alone otherwise (release stores and acquire loads of both positions order the hand-over). Values cross
// threads, hence `V: Send`; no `&V` is ever shared, so `V: Sync` is not needed.
unsafe impl<V: Send> Send for Slots<V> {}
// SAFETY: as above.
unsafe impl<V: Send> Sync for Slots<V> {}

impl<V> Drop for Slots<V> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut head = self.head.0.load(Ordering::Acquire);
        while head != tail {
            if let Some(slot) = self.slots.get(head & self.mask) {
                // SAFETY: slots in head..tail hold values, and `&mut self` says that nobody else is left.
                slot.with_mut(|value| unsafe { (*value).assume_init_drop() });
            }
            head = head.wrapping_add(1);
        }
    }
}

/// The sending end.
pub(crate) struct Sender<V> {
    queue: Arc<Slots<V>>,
    tail: usize,
    seen_head: usize,
}

/// The receiving end.
pub(crate) struct Receiver<V> {
    queue: Arc<Slots<V>>,
    head: usize,
    seen_tail: usize,
}

/// A queue that holds at least `capacity` values.
pub(crate) fn queue<V: Send>(capacity: usize) -> (Sender<V>, Receiver<V>) {
    let size = capacity.max(1).next_power_of_two();
    let queue = Arc::new(Slots {
        slots: (0..size)
            .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
            .collect(),
        mask: size - 1,
        head: CachePadded(AtomicUsize::new(0)),
        tail: CachePadded(AtomicUsize::new(0)),
    });
    (
        Sender {
            queue: Arc::clone(&queue),
            tail: 0,
            seen_head: 0,
        },
        Receiver {
            queue,
            head: 0,
            seen_tail: 0,
        },
    )
}

impl<V> Sender<V> {
    /// Appends `value`; gives it back if the queue is full.
    pub(crate) fn push(&mut self, value: V) -> Result<(), V> {
        let queue = &*self.queue;
        if self.tail.wrapping_sub(self.seen_head) > queue.mask {
            self.seen_head = queue.head.0.load(Ordering::Acquire);
        }
        let (Some(slot), true) = (
            queue.slots.get(self.tail & queue.mask),
            self.tail.wrapping_sub(self.seen_head) <= queue.mask,
        ) else {
            return Err(value);
        };
        // SAFETY: `tail - head <= mask`, so the receiver has moved past this slot's last value (acquire above) and
        // does not look at the slot until `tail` is stored below. There is one sender: `push` takes `&mut self`.
        slot.with_mut(|place| unsafe { (*place).write(value) });
        self.tail = self.tail.wrapping_add(1);
        queue.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Has the receiver popped everything?
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.head.0.load(Ordering::Acquire) == self.tail
    }
}

impl<V> Receiver<V> {
    /// Removes the oldest value.
    pub(crate) fn pop(&mut self) -> Option<V> {
        if self.is_empty() {
            return None;
        }
        let slot = self.queue.slots.get(self.head & self.queue.mask)?;
        // SAFETY: `head != tail`, so the sender wrote this slot before its release store of `tail`, which
        // `is_empty` acquired, and does not touch it again until `head` is stored below. There is one receiver.
        let value = slot.with_mut(|place| unsafe { (*place).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.queue.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Is there nothing to pop at this moment?
    pub(crate) fn is_empty(&mut self) -> bool {
        if self.head == self.seen_tail {
            self.seen_tail = self.queue.tail.0.load(Ordering::Acquire);
        }
        self.head == self.seen_tail
    }
}
