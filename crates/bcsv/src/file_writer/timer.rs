//! `max_loss`: a thread that flushes by itself.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::core::Core;
use crate::error::Result;

/// Flushes when rows have waited long enough.
pub(super) struct Timer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Timer {
    pub(super) fn start(core: &Arc<Mutex<Core>>, max_loss: Duration) -> Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (theirs, core) = (Arc::clone(&stop), Arc::downgrade(core));
        // Looked at twice per interval, flushed from half an interval on: a row waits at most one.
        let step = (max_loss / 2).max(Duration::from_millis(1));
        let run = move || {
            let (stop, changed) = &*theirs;
            let mut stopped = stop.lock().unwrap_or_else(PoisonError::into_inner);
            while !*stopped {
                stopped = changed
                    .wait_timeout(stopped, step)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                let Some(core) = core.upgrade().filter(|_| !*stopped) else {
                    return;
                };
                drop(stopped);
                let mut core = core.lock().unwrap_or_else(PoisonError::into_inner);
                if core
                    .waiting_since
                    .is_some_and(|since| since.elapsed() >= step / 2)
                {
                    core.flush_soon();
                }
                drop(core);
                stopped = stop.lock().unwrap_or_else(PoisonError::into_inner);
            }
        };
        let thread = std::thread::Builder::new()
            .name("bcsv-flush".into())
            .spawn(run)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only ends; a panic there would have been a bug, and dropping must go on.
            let _ = thread.join();
        }
    }
}
