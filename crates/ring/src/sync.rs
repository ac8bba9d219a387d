//! The primitives the ring is made of: the standard library's, or loom's when its model checker runs.
//!
//! loom has no clock. There `park_timeout` never times out, so that a wake-up that only a timeout would have
//! rescued shows as a deadlock.

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::{Thread, current, park},
};

#[cfg(loom)]
pub(crate) fn park_timeout(_: std::time::Duration) {
    park();
}

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::{Thread, current, park, park_timeout},
};

/// `std::cell::UnsafeCell` with the closures of loom's.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A value alone on its cache lines, so that one side's writes do not slow the other side's reads.
///
/// 128 bytes: x86-64 prefetches lines in pairs, and some aarch64 cores have 128-byte lines.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct CachePadded<T>(pub(crate) T);
