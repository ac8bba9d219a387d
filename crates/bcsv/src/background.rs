//! Batch packets are compressed and stored by a thread of their own, so that no row pays for a packet.
//!
//! At most one packet waits while one is worked on. A packet that cannot be stored (disk full) stays with the thread,
//! already compressed, until somebody asks to try again; nothing behind it is stored before.
//!
//! Handing a packet over is a lock and a move. It does not wake the thread: on a virtual machine that costs a quarter of
//! a millisecond, which some row would have to pay. The thread looks for itself, every millisecond when packets come
//! often and less often when they do not; only after some seconds without any it sleeps until it is woken.
//!
//! Nor shall a row pay for memory: the first touch of a huge page takes a quarter of a millisecond, so buffers can be
//! touched beforehand ([`Ready`]). And where rows come faster than they can be stored, which some row would find out
//! when the second packet is full, the rows before it are slowed a little instead ([`Pace`]).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tapeline_lz4::Effort;

use crate::file::FullPacket;
use crate::file::packet_lz4_batch::{Sealed, Sealer};
use crate::footer::IndexEntry;
use crate::pool;
use crate::storage::{StoredFile, write_parts};

/// What both sides see.
struct State {
    waiting: VecDeque<FullPacket>,
    working: bool,
    /// The packet at hand could not be stored.
    stuck: Option<io::Error>,
    retry: bool,
    closing: bool,
    /// The core of the thread that writes rows.
    writer_core: Option<usize>,
    /// When the packet at hand was begun, and its bytes.
    begun: Instant,
    begun_bytes: usize,
    /// Nanoseconds that a byte of a packet took lately.
    byte_ns: f64,
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
    ready: Arc<Ready>,
}

/// How rows are to be spread over the time until there is room for their packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    start: Instant,
    span: Duration,
}

/// Most that a row waits to keep the pace.
const LONGEST_PAUSE: Duration = Duration::from_micros(100);
/// Before anything is known; too much costs nothing, for the pace ends as soon as there is room.
const FIRST_BYTE_NS: f64 = 3.0;
/// Of the time expected, so that the packet is not full just before there is room.
const PACE_MARGIN: f64 = 1.1;

impl Pace {
    /// Wait until it is time for a row behind this part of a packet.
    pub(crate) fn keep(&self, filled: f64) {
        let due = self.start + self.span.mul_f64(filled.clamp(0.0, 1.0));
        let begun = Instant::now();
        let until = due.min(begun + LONGEST_PAUSE);
        // Too short for the system's timers.
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
}

/// Buffers of a writer: one takes rows, one waits, one is worked on.
const BUFFERS: usize = 3;
/// Most bytes that a buffer is given before there are rows for it.
const MOST_BUFFER_BYTES: usize = 64 << 20;
/// Most bytes touched beforehand in the process: many writers at once do without.
const MOST_READY_BYTES: usize = 128 << 20;
/// Bytes touched beforehand, of all writers.
static READY_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Buffers for packets, if wanted from memory that the system has given before rows come.
pub(crate) struct Ready {
    buffer_bytes: usize,
    wanted: bool,
    bytes: AtomicUsize,
}

impl Ready {
    /// Buffers for packets of this size.
    pub(crate) fn new(packet_bytes: usize, wanted: bool) -> Self {
        Self {
            buffer_bytes: (packet_bytes + packet_bytes / 64).min(MOST_BUFFER_BYTES),
            wanted,
            bytes: AtomicUsize::new(0),
        }
    }

    /// A buffer whose pages come with the rows.
    pub(crate) fn untouched(&self) -> Vec<u8> {
        pool::take(self.buffer_bytes)
    }

    /// A buffer whose pages are there; `None` if that is not wanted, or there are too many.
    pub(crate) fn touched(&self) -> Option<Vec<u8>> {
        let bytes = self.buffer_bytes;
        if !self.wanted || READY_BYTES.load(Ordering::Relaxed) + bytes > MOST_READY_BYTES {
            return None;
        }
        READY_BYTES.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Not zeros, which the system would give without memory behind them.
        Some(pool::find(bytes).unwrap_or_else(|| vec![1; bytes]))
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        READY_BYTES.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

impl Background {
    /// Start the thread; packets go to `file` from `offset` on, behind `rows` rows.
    pub(crate) fn start(
        file: Arc<dyn StoredFile>,
        effort: Effort,
        offset: u64,
        rows: u64,
        ready: Ready,
    ) -> io::Result<Self> {
        let ready = Arc::new(ready);
        let state = State {
            waiting: VecDeque::new(),
            working: false,
            stuck: None,
            retry: false,
            closing: false,
            writer_core: None,
            begun: Instant::now(),
            begun_bytes: 0,
            byte_ns: FIRST_BYTE_NS,
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
        let theirs = (Arc::clone(&shared), Arc::clone(&ready));
        let thread = std::thread::Builder::new()
            .name("bcsv-pack".into())
            .spawn(move || run(&theirs.0, &*file, effort, &theirs.1))?;
        Ok(Self {
            shared,
            thread: Some(thread),
            ready,
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

    /// Hand over a packet. [`Background::make_room`] came before. The rows of the next packet should keep the pace.
    pub(crate) fn push(&self, packet: FullPacket) -> Option<Pace> {
        let mut state = self.shared.lock();
        state.waiting.push_back(packet);
        state.writer_core = tapeline_sys::cpu::current();
        if state.asleep {
            self.shared.changed.notify_all();
        }
        if !state.working {
            return None;
        }
        // There is room once the packet before this one is stored.
        let start = Instant::now();
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let expected = state.begun_bytes as f64 * state.byte_ns * PACE_MARGIN * 1e-9;
        let expected = Duration::try_from_secs_f64(expected).unwrap_or_default();
        let span = (state.begun + expected).checked_duration_since(start)?;
        Some(Pace { start, span })
    }

    /// A used buffer, or a new one.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let spare = self.shared.lock().spare.pop();
        // Room for the packet from the start: growing would move it.
        spare.unwrap_or_else(|| self.ready.untouched())
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
        self.shared.lock().spare.drain(..).for_each(pool::give);
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
fn run(shared: &Shared, file: &dyn StoredFile, effort: Effort, ready: &Ready) {
    // Being woken must not take the core from the thread that writes rows.
    tapeline_sys::cpu::give_way();
    // While rows go into the first buffer, the second; the third while the first packet is worked on.
    let mut made = 1;
    let make = |made: &mut usize| {
        if *made < BUFFERS
            && let Some(buffer) = ready.touched()
        {
            *made += 1;
            shared.lock().spare.push(buffer);
        }
    };
    make(&mut made);
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
        state.begun = Instant::now();
        state.begun_bytes = packet.payload.len();
        let offset = state.offset;
        let writer_core = state.writer_core;
        drop(state);
        // Where it happens to wake on the writer's core, the system would let it work there for milliseconds while
        // another core idles.
        writer_core.map(tapeline_sys::cpu::leave);
        shared.changed.notify_all();
        make(&mut made);
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
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let byte_ns = (last - state.begun).as_nanos() as f64 / state.begun_bytes.max(1) as f64;
        // The slower of late counts: as above.
        state.byte_ns = byte_ns.max(0.75 * state.byte_ns + 0.25 * byte_ns);
        if state.spare.len() < BUFFERS - 1 {
            state.spare.push(packet.payload);
        }
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_touched_beforehand_is_bounded_and_counted() {
        let none = Ready::new(1 << 20, false);
        assert!(none.touched().is_none());
        assert!(none.untouched().capacity() >= 1 << 20);
        let ready = Ready::new(8 << 20, true);
        let most = MOST_READY_BYTES / ready.buffer_bytes;
        let buffers: Vec<_> = std::iter::from_fn(|| ready.touched()).collect();
        assert!(
            !buffers.is_empty() && buffers.len() <= most,
            "{}",
            buffers.len()
        );
        assert!(buffers.iter().all(|buffer| buffer.capacity() >= 8 << 20));
        drop(ready);
        let again = Ready::new(8 << 20, true);
        assert!(again.touched().is_some(), "given back");
    }
}
