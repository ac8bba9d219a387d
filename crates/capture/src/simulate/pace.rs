//! When frames are due, and what time they carry.

use std::{
    thread,
    time::{Duration, Instant},
};

use tapeline_sys::clock::realtime_ns;

/// Shorter sleeps cost more than they space out.
const SHORTEST_SLEEP: Duration = Duration::from_micros(200);
/// A longer sleep would not notice a stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
const NS_PER_S: f64 = 1e9;

/// Paces the frames of one destination.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    rate_hz: f64,
    first_ns: u64,
    interval_ns: f64,
    by_clock: bool,
}

impl Pace {
    pub(super) fn new(rate_hz: f64, start_ns: Option<u64>) -> Self {
        Self {
            start: Instant::now(),
            rate_hz,
            first_ns: start_ns.unwrap_or_else(realtime_ns),
            // Without a rate and with a given start, times follow at 1 MHz.
            interval_ns: if rate_hz > 0.0 {
                NS_PER_S / rate_hz
            } else {
                1000.0
            },
            by_clock: start_ns.is_none() && rate_hz == 0.0,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// How many frames may go now that `done` have gone, at most `most`; sleeps if none may.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // times in s
    pub(super) fn due(&self, done: u64, most: u64) -> u64 {
        if self.rate_hz == 0.0 {
            return most;
        }
        let now = self.start.elapsed().as_secs_f64();
        // The first is due at once.
        let due = ((now * self.rate_hz) as u64)
            .saturating_add(1)
            .saturating_sub(done);
        if due == 0 {
            let wait =
                Duration::try_from_secs_f64(done as f64 / self.rate_hz - now).unwrap_or_default();
            thread::sleep(wait.clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
        }
        due.min(most)
    }

    /// The times of a run of frames of which the first has number `done`: a base, and what each further frame adds.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // times in ns
    pub(super) fn times(&self, done: u64) -> impl Fn(u64) -> u64 + use<> {
        let (first_ns, interval_ns) = (self.first_ns, self.interval_ns);
        let now_ns = if self.by_clock {
            Some(realtime_ns())
        } else {
            None
        };
        move |number| match now_ns {
            // One look at the clock for the run; a nanosecond apart, so that no two are equal.
            Some(now_ns) => now_ns + (number - done),
            None => first_ns + (number as f64 * interval_ns) as u64,
        }
    }
}
