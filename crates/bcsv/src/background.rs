//! Batch packets are compressed and stored by a thread of their own, so that no row pays for a packet.
//!
//! At most one packet waits while one is worked on. A packet that cannot be stored (disk full) stays with the thread,
//! already compressed, until somebody asks to try again; nothing behind it is stored before.
//!
//! Handing a packet over is a lock and a move. It does not wake the thread: on a virtual machine that costs a quarter of
//! a millisecond, which some row would have to pay. The thread looks for itself, every millisecond when packets come
//! often and less often when they do not; only after some seconds without any it sleeps until it is woken.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tapeline_lz4::Effort;

use crate::file::FullPacket;
use crate::file::packet_lz4_batch::{Sealed, Sealer};
use crate::footer::IndexEntry;
use crate::storage::{StoredFile, write_parts};

/// What both sides see.
struct State {
    waiting: VecDeque<FullPacket>,
    working: bool,
    /// The packet at hand could not be stored.
    stuck: Option<io::Error>,
    retry: bool,
    closing: bool,
    /// The thread does not look for packets: wake it.
    asleep: bool,
    /// Byte behind the last packet stored.
    offset: u64,
    /// Rows in packets stored.
    rows: u64,
    stored: Vec<IndexEntry>,
    spare: Vec<Vec<u8>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer's end.
pub(crate) struct Background {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    buffer_bytes: usize,
}

/// Most bytes that a buffer is given before there are rows for it.
const MOST_BUFFER_BYTES: usize = 64 << 20;

impl Background {
    /// Start the thread; packets go to `file` from `offset` on, behind `rows` rows.
    pub(crate) fn start(
        file: Arc<dyn StoredFile>,
        effort: Effort,
        offset: u64,
        rows: u64,
        packet_bytes: usize,
    ) -> io::Result<Self> {
        let state = State {
            waiting: VecDeque::new(),
            working: false,
            stuck: None,
            retry: false,
            closing: false,
            asleep: false,
            offset,
            rows,
            stored: Vec::new(),
            spare: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("bcsv-pack".into())
            .spawn(move || run(&theirs, &*file, effort))?;
        Ok(Self {
            shared,
            thread: Some(thread),
            buffer_bytes: (packet_bytes + packet_bytes / 64).min(MOST_BUFFER_BYTES),
        })
    }

    /// Whether [`Background::push`] would not wait.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.shared.lock();
        state.waiting.is_empty() && state.stuck.is_none()
    }

    /// Wait until a packet can be handed over. Fails, after one more try, if the one at hand cannot be stored.
    pub(crate) fn make_room(&self) -> io::Result<()> {
        self.settle(|state| state.waiting.is_empty())
    }

    /// Wait until everything is stored.
    pub(crate) fn drain(&self) -> io::Result<()> {
        self.settle(|state| state.waiting.is_empty() && !state.working)
    }

    fn settle(&self, done: impl Fn(&State) -> bool) -> io::Result<()> {
        let mut state = self.shared.lock();
        let mut tried = false;
        loop {
            if state.stuck.is_some() && !state.retry {
                if tried {
                    let error = state.stuck.as_ref().map(copy_of);
                    return error.map_or(Ok(()), Err);
                }
                tried = true;
                state.retry = true;
                self.shared.changed.notify_all();
            } else if done(&state) {
                return Ok(());
            } else {
                // It may be waiting for its time to look.
                self.shared.changed.notify_all();
            }
            state = self.shared.wait(state);
        }
    }

    /// Hand over a packet; returns a buffer for the next one. [`Background::make_room`] came before.
    pub(crate) fn push(&self, packet: FullPacket) {
        let mut state = self.shared.lock();
        state.waiting.push_back(packet);
        if state.asleep {
            self.shared.changed.notify_all();
        }
    }

    /// A used buffer, or a new one.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let spare = self.shared.lock().spare.pop();
        // Room for the packet from the start: growing would move it. Pages come with the rows, one by one.
        spare.unwrap_or_else(|| Vec::with_capacity(self.buffer_bytes))
    }

    /// Index entries of packets stored since the last call, and where the file ends now.
    pub(crate) fn collect(&self) -> (Vec<IndexEntry>, u64, u64) {
        let mut state = self.shared.lock();
        (std::mem::take(&mut state.stored), state.offset, state.rows)
    }

    /// Rows in packets stored.
    pub(crate) fn collect_rows(&self) -> u64 {
        self.shared.lock().rows
    }

    /// Packets were stored by somebody else; nothing is waiting.
    pub(crate) fn advance(&self, offset: u64, rows: u64) {
        let mut state = self.shared.lock();
        state.offset = offset;
        state.rows = rows;
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; if it did, what it held is lost and the footer was never written.
            let _ = thread.join();
        }
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(
        || io::Error::new(error.kind(), error.to_string()),
        io::Error::from_raw_os_error,
    )
}

/// How often the thread looks for a packet.
const NAP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// How long it looks for the next one before it sleeps.
const AWAKE: Duration = Duration::from_secs(5);

/// The thread: take, seal, store, until closed.
fn run(shared: &Shared, file: &dyn StoredFile, effort: Effort) {
    // Being woken must not take the core from the thread that writes rows.
    tapeline_sys::cpu::give_way();
    let mut sealer = Sealer::default();
    let mut sealed = Sealed::default();
    let mut last = Instant::now();
    loop {
        let mut state = shared.lock();
        while state.waiting.is_empty() && !state.closing {
            let idle = last.elapsed();
            if idle < AWAKE {
                let nap = (idle / 16).clamp(NAP.0, NAP.1);
                let waited = shared.changed.wait_timeout(state, nap);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                state.asleep = true;
                state = shared.wait(state);
                state.asleep = false;
            }
        }
        let Some(packet) = state.waiting.pop_front() else {
            return;
        };
        state.working = true;
        let offset = state.offset;
        drop(state);
        shared.changed.notify_all();
        sealer.seal_apart(&packet, effort, &mut sealed);
        let parts = sealed.parts(&packet);
        // What has been stored of it is not stored again.
        let mut done = 0;
        loop {
            let result = write_parts(file, offset, parts, &mut done);
            let mut state = shared.lock();
            let Err(error) = result else { break };
            state.stuck = Some(error);
            state.retry = false;
            shared.changed.notify_all();
            while !state.retry && !state.closing {
                state = shared.wait(state);
            }
            if !state.retry {
                return;
            }
            // Cleared while trying, so that nobody takes the old error for the outcome of this try.
            state.stuck = None;
            state.retry = false;
        }
        let mut state = shared.lock();
        state.stored.push(IndexEntry {
            offset,
            first_row: packet.first_row,
        });
        state.offset = offset + done as u64;
        state.rows = packet.first_row + packet.rows;
        state.working = false;
        last = Instant::now();
        if state.spare.len() < 2 {
            state.spare.push(packet.payload);
        }
        shared.changed.notify_all();
    }
}
