//! Counters that one thread publishes and any thread reads, without a lock.
//!
//! A `Published` is a sequence lock over atomics: the writer bumps the version before and after, a reader
//! that saw the version change, or odd, reads again. So a snapshot is always one that was published whole,
//! and the conservation laws hold in it.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// `N` numbers published together.
#[derive(Debug)]
pub(crate) struct Published<const N: usize> {
    version: AtomicU64,
    values: [AtomicU64; N],
}

impl<const N: usize> Default for Published<N> {
    fn default() -> Self {
        Self {
            version: AtomicU64::new(0),
            values: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl<const N: usize> Published<N> {
    /// Publish; only ever called by one thread at a time.
    pub(crate) fn publish(&self, values: [u64; N]) {
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (slot, value) in self.values.iter().zip(values) {
            slot.store(value, Ordering::Relaxed);
        }
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
    }

    /// The last published numbers.
    pub(crate) fn snapshot(&self) -> [u64; N] {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let values = std::array::from_fn(|i| {
                self.values.get(i).map_or(0, |v| v.load(Ordering::Relaxed))
            });
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return values;
            }
            std::hint::spin_loop();
        }
    }
}

/// Declare a struct of counters with its array form, so that the two cannot drift apart.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident, $count:ident { $($(#[$fmeta:meta])* $field:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct $name { $($(#[$fmeta])* pub(crate) $field: u64),+ }
        pub(crate) const $count: usize = [$(stringify!($field)),+].len();
        impl $name {
            pub(crate) fn to_array(self) -> [u64; $count] { [$(self.$field),+] }
            pub(crate) fn from_array(values: [u64; $count]) -> Self {
                let [$($field),+] = values;
                Self { $($field),+ }
            }
        }
    };
}

counters! {
    /// What a receive thread counts.
    Received, RECEIVED {
        bytes_received, frames_received, valid_bytes, bytes_discarded, pending_bytes, resyncs,
        header_crc, payload_crc, bad_version, bad_length, truncated,
        datagrams_received, datagrams_dropped_by_kernel, ring_high_water_bytes, ring_used_bytes, backpressure_ns,
        connections, connections_refused, receive_buffer_bytes,
    }
}

counters! {
    /// What a write thread counts for one set of segments.
    Stored, STORED {
        frames_taken, bytes_taken, frames_stored, bytes_stored, gaps, frames_lost, frames_duplicate, frames_reordered,
        frames_late, restarts, frames_repaired, periodics_complete, periodics_incomplete, frames_refused, bytes_refused,
        writes, held_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_snapshot_is_never_torn() {
        let shared = Arc::new(Published::<8>::default());
        let stop = Arc::new(AtomicBool::new(false));
        let reader = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let values = shared.snapshot();
                    assert!(values.iter().all(|v| *v == values[0]), "{values:?}");
                    assert!(values[0] >= last);
                    last = values[0];
                }
            })
        };
        for n in 1..200_000 {
            shared.publish([n; 8]);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().is_ok());
    }

    #[test]
    fn array_form_round_trips() {
        let r = Received {
            bytes_received: 1,
            receive_buffer_bytes: 19,
            ..Received::default()
        };
        assert_eq!(Received::from_array(r.to_array()), r);
        let s = Stored {
            frames_taken: 1,
            held_bytes: 17,
            ..Stored::default()
        };
        assert_eq!(Stored::from_array(s.to_array()), s);
    }
}
