//! Sending threads that can be watched, stopped and joined; shared by the simulator and the replay.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What a sending thread shares with whoever watches it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Set when it should end.
    pub(crate) stop: AtomicBool,
    /// Bytes sent by all threads.
    pub(crate) sent_bytes: AtomicU64,
    /// Destinations that wait for a reader, and were not told yet.
    unread: Mutex<Vec<String>>,
}

impl Shared {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Notes that nobody reads a destination.
    pub(crate) fn waits_for_reader(&self, url: &str) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.push(url.to_owned());
    }
}

/// Threads that end by themselves or when told, each with a result. Dropping stops and joins them.
#[derive(Debug)]
pub(crate) struct Threads<R> {
    shared: Arc<Shared>,
    started: Instant,
    handles: Vec<JoinHandle<R>>,
    tell: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
    running: usize,
}

impl<R: Send + 'static> Threads<R> {
    pub(crate) fn new() -> Self {
        let (tell, ended) = mpsc::channel();
        Self {
            shared: Arc::new(Shared::default()),
            started: Instant::now(),
            handles: Vec::new(),
            tell,
            ended,
            running: 0,
        }
    }

    /// Starts one.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn spawn(
        &mut self,
        name: String,
        run: impl FnOnce(&Shared) -> R + Send + 'static,
    ) -> io::Result<()> {
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        let handle = thread::Builder::new().name(name).spawn(move || {
            let result = run(&shared);
            // Nobody to tell means that nobody waits.
            let _ = tell.send(());
            result
        })?;
        self.handles.push(handle);
        self.running += 1;
        Ok(())
    }

    /// Waits until all have ended, at most `timeout`. True when they have.
    pub(crate) fn wait(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        while self.running > 0 {
            let left = deadline.map_or(timeout, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if self.ended.recv_timeout(left).is_err() {
                return false;
            }
            self.running -= 1;
        }
        true
    }

    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::Relaxed)
    }

    /// Destinations that have begun to wait for a reader since this was last asked.
    pub(crate) fn take_unread(&self) -> Vec<String> {
        let unread = &self.shared.unread;
        std::mem::take(&mut unread.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the end; the results in the order of starting, and the time since the first start.
    pub(crate) fn join(mut self) -> (Vec<R>, Duration) {
        // A thread that panicked has no result; nothing in them panics.
        let results = std::mem::take(&mut self.handles)
            .into_iter()
            .filter_map(|handle| handle.join().ok())
            .collect();
        (results, self.started.elapsed())
    }
}

impl<R> Drop for Threads<R> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}
