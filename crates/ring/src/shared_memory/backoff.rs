//! How a reader waits: a ring has nobody who could wake it, because its producer makes no system call.

use std::{thread, time::Duration};

/// First and longest pause. A batch every 50 us costs a recorder little; a quiet ring is looked at 500 times a second.
const FIRST: Duration = Duration::from_micros(50);
const LONGEST: Duration = Duration::from_millis(2);

/// Pauses that grow while nothing comes.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// Something came: the next pause is short.
    pub fn reset(&mut self) {
        self.0 = FIRST;
    }

    /// Sleeps, at most `limit`.
    pub fn pause(&mut self, limit: Duration) {
        thread::sleep(self.0.min(limit));
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
