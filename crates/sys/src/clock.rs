//! Wall and monotonic time in nanoseconds.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Nanoseconds since the UNIX epoch by the wall clock, which may step; 0 before 1970.
pub fn realtime_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since the first call in this process by a clock that never steps.
pub fn monotonic_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_forward() {
        let (real, mono) = (realtime_ns(), monotonic_ns());
        assert!(real > 1_700_000_000 * 1_000_000_000);
        assert!(monotonic_ns() >= mono);
    }
}
