//! One thread sleeps until another has published what it waits for. No mutex, and no wake-up gets lost.
//!
//! The sleeper announces itself (`WAITING`), passes a sequentially consistent fence, and looks once more before it
//! parks. The waker publishes, passes a fence of the same kind, and then looks for an announcement. One of the two
//! fences is first, so either the sleeper sees what was published or the waker sees the sleeper; never neither.
//!
//! Trap: the handle in `thread` is written by the sleeper while `IDLE` and read by the waker while `WAKING`. The
//! sleeper must not return before a waker that got hold of the announcement is done with it, hence `withdraw`.

use std::time::{Duration, Instant};

use crate::sync::{AtomicU32, Ordering, Thread, UnsafeCell, current, fence, park, park_timeout};

/// Nobody sleeps; the cell belongs to the sleeper.
const IDLE: u32 = 0;
/// The sleeper has announced itself; the cell belongs to whoever changes the state.
const WAITING: u32 = 1;
/// The waker reads the cell.
const WAKING: u32 = 2;

/// Where one thread waits for one other.
pub(crate) struct Waiter {
    state: AtomicU32,
    thread: UnsafeCell<Option<Thread>>,
}

// SAFETY: `thread` has one owner at a time, told by `state` as described at the constants.
unsafe impl Send for Waiter {}
// SAFETY: as above.
unsafe impl Sync for Waiter {}

impl Waiter {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(IDLE),
            thread: UnsafeCell::new(None),
        }
    }

    /// Sleeps until `ready` has an answer or `timeout` has passed; `None` is the latter.
    ///
    /// To be called by one thread at a time: both callers hold the only handle of their side by `&mut`.
    pub(crate) fn wait<R>(
        &self,
        timeout: Duration,
        mut ready: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        if let Some(answer) = ready() {
            return Some(answer);
        }
        if timeout.is_zero() {
            return None;
        }
        // A deadline past the clock's range is none at all.
        let deadline = Instant::now().checked_add(timeout);
        // SAFETY: the state is IDLE between calls, so the cell is the sleeper's.
        self.thread
            .with_mut(|thread| unsafe { *thread = Some(current()) });
        loop {
            self.state.store(WAITING, Ordering::Release);
            fence(Ordering::SeqCst);
            if let Some(answer) = ready() {
                self.withdraw();
                return Some(answer);
            }
            if !self.sleep(deadline) {
                self.withdraw();
                return ready();
            }
            if let Some(answer) = ready() {
                return Some(answer);
            }
        }
    }

    /// Wakes the sleeper if there is one and `worth_it` says so. What it waits for was published before.
    pub(crate) fn wake_if(&self, worth_it: impl FnOnce() -> bool) {
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Acquire) != WAITING || !worth_it() {
            return;
        }
        if self
            .state
            .compare_exchange(WAITING, WAKING, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return;
        }
        // SAFETY: WAKING gives the cell to the waker until it stores IDLE.
        let thread = self.thread.with(|thread| unsafe { (*thread).clone() });
        self.state.store(IDLE, Ordering::Release);
        if let Some(thread) = thread {
            thread.unpark();
        }
    }

    /// Parks until a waker took the announcement (true) or the deadline has passed (false).
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        loop {
            match deadline {
                None => park(),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    park_timeout(left);
                }
            }
            if self.state.load(Ordering::Acquire) == IDLE {
                return true;
            }
        }
    }

    /// Takes the announcement back, or waits for the waker that has it. That one unparks after storing IDLE.
    fn withdraw(&self) {
        if self
            .state
            .compare_exchange(WAITING, IDLE, Ordering::Acquire, Ordering::Acquire)
            .is_err()
        {
            while self.state.load(Ordering::Acquire) != IDLE {
                park();
            }
        }
    }
}
