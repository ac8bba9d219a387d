//! Who decodes, prints and writes what; see the module above.
//!
//! The text of a batch has a key: the number of its range, and its own in that range. Texts are written in the order
//! of their keys. The last key of a range holds no text, but says that the range is over; the thread that finds out
//! leaves it.
//!
//! Nobody waits for ever: the batch whose turn it is may be taken however much text waits. If it has been taken, its
//! thread is printing or writing it.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tapeline_bcsv::{Batch, BatchView, Batches, Reader, Selection, spawn_helpers};

use crate::chunks::Cancel;
use crate::columns;
use crate::error::{Error, Result};
use crate::text::{Scratch, TextWriter};

/// Text of a batch, about: it is written from the second cache level.
const TEXT_BYTES: usize = 256 << 10;
/// Text of a cell, about.
const CELL_BYTES: usize = 10;
/// Text per thread that may wait for its turn.
const WAITING_BYTES: usize = 4 << 20;

/// What is to be done.
pub(super) struct Job<'a> {
    pub reader: &'a Reader,
    pub text: &'a TextWriter,
    /// Columns wanted; all if `None`.
    pub chosen: Option<Vec<usize>>,
    /// Rows wanted: each range starts where a packet does.
    pub ranges: Vec<(u64, u64)>,
    pub threads: usize,
    pub cancel: &'a Cancel,
}

/// Rows decoded at a time.
pub(super) fn batch_rows(text: &TextWriter) -> usize {
    let columns = text.columns().max(1);
    (TEXT_BYTES / (CELL_BYTES * columns)).clamp(64, 4096)
}

/// What was written.
#[derive(Default)]
pub(super) struct Written {
    pub rows: u64,
    pub bytes: u64,
}

/// Do all of it.
///
/// # Errors
///
/// The first one in the order of the rows; what comes before it was written.
pub(super) fn work(job: &Job<'_>, out: &mut (dyn Write + Send)) -> Result<Written> {
    let shared = Shared {
        job,
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
        end: Mutex::new((out, Written::default())),
    };
    std::thread::scope(|scope| {
        spawn_helpers(scope, job.threads.saturating_sub(1), || shared.run());
        shared.run();
    });
    let state = shared.state.into_inner();
    match state.unwrap_or_else(PoisonError::into_inner).failed {
        Some(error) => Err(error),
        None => Ok(shared
            .end
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .1),
    }
}

/// The number of a range, and that of a batch in it.
type Key = (usize, usize);

struct Shared<'a> {
    job: &'a Job<'a>,
    state: Mutex<State>,
    changed: Condvar,
    /// Taken only by the thread whose text has its turn.
    end: Mutex<(&'a mut (dyn Write + Send), Written)>,
}

#[derive(Default)]
struct State {
    /// Ranges that are open, in order.
    open: VecDeque<Open>,
    /// Ranges that were opened.
    opened: usize,
    /// What is to be written next.
    turn: Key,
    left: BTreeMap<Key, Left>,
    /// Text in `left`.
    waiting_bytes: usize,
    /// Buffers to be used again, the one used last at the end.
    buffers: Vec<Vec<u8>>,
    failed: Option<Error>,
}

struct Open {
    /// The key of its next batch.
    next: Key,
    /// `None` while a thread has it.
    batches: Option<Box<Batches>>,
}

/// What became of a batch.
enum Left {
    Text(Text),
    /// There was none: the range is over.
    Over,
    Failed(Error),
}

impl Left {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.bytes.len(),
            _ => 0,
        }
    }
}

/// Printed rows.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    rows: u64,
}

/// What a thread does next.
enum Task {
    Open(Key),
    Batch(Key, Box<Batches>),
}

impl State {
    /// What may be done now; `None` if there is nothing.
    fn task(&mut self, job: &Job<'_>) -> Option<Task> {
        let room = self.waiting_bytes < job.threads * WAITING_BYTES;
        let turn = self.turn;
        let free = self.open.iter_mut().find_map(|open| {
            let batches = (room || open.next == turn).then(|| open.batches.take())?;
            Some(Task::Batch(open.next, batches?))
        });
        if free.is_some() {
            return free;
        }
        let key = (self.opened, 0);
        let may_open = self.opened < job.ranges.len()
            && self.open.len() < job.threads
            && (room || key == turn);
        may_open.then(|| {
            self.opened += 1;
            self.open.push_back(Open {
                next: key,
                batches: None,
            });
            Task::Open(key)
        })
    }

    fn is_over(&self, job: &Job<'_>) -> bool {
        self.failed.is_some() || (self.opened == job.ranges.len() && self.open.is_empty())
    }

    /// A batch was taken; without `batches` there are no more in its range.
    fn give_back(&mut self, key: Key, batches: Option<Box<Batches>>) {
        match batches {
            None => self.open.retain(|open| open.next != key),
            Some(batches) => {
                if let Some(open) = self.open.iter_mut().find(|open| open.next == key) {
                    open.next.1 += 1;
                    open.batches = Some(batches);
                }
            }
        }
    }
}

impl Shared<'_> {
    fn run(&self) {
        let mut scratch = Scratch::default();
        while let Some(task) = self.wait_for_task() {
            let (key, batches) = match task {
                Task::Batch(key, batches) => (key, Ok(batches)),
                Task::Open(key) => (key, self.open(key)),
            };
            let taken = batches.map(|mut batches| (batches.next(), batches));
            let left = match taken {
                Ok((Some(Ok(batch)), batches)) => {
                    let bytes = self.give_back(key, Some(batches));
                    self.print(&batch, bytes, &mut scratch)
                }
                Ok((Some(Err(error)), _)) => Left::Failed(error.into()),
                Ok((None, _)) => Left::Over,
                Err(error) => Left::Failed(error),
            };
            if !matches!(left, Left::Text(_)) {
                self.give_back(key, None);
            }
            self.leave(key, left);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_task(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.is_over(self.job) {
                return None;
            }
            if let Some(task) = state.task(self.job) {
                return Some(task);
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self, key: Key) -> Result<Box<Batches>> {
        let (start, stop) = self.job.ranges.get(key.0).copied().unwrap_or_default();
        let selection = Selection {
            columns: self.job.chosen.clone(),
            start,
            stop: Some(stop),
            threads: 1,
        };
        let batches = self
            .job
            .reader
            .batches(&selection, batch_rows(self.job.text))?;
        Ok(Box::new(batches))
    }

    /// Returns a buffer for the text.
    fn give_back(&self, key: Key, batches: Option<Box<Batches>>) -> Vec<u8> {
        let mut state = self.lock();
        state.give_back(key, batches);
        let buffer = state.buffers.pop();
        drop(state);
        self.changed.notify_one();
        buffer.unwrap_or_default()
    }

    fn print(&self, batch: &Batch, mut bytes: Vec<u8>, scratch: &mut Scratch) -> Left {
        let view = BatchView {
            rows: batch.rows,
            columns: batch.columns.iter().map(columns::view).collect(),
        };
        let text = self.job.text;
        match text.rows_with(scratch, &view, 0, batch.rows, &mut bytes) {
            Ok(()) => Left::Text(Text {
                bytes,
                rows: batch.rows as u64,
            }),
            Err(error) => Left::Failed(error),
        }
    }

    /// Leave what became of a batch, and write what is next. An error waits for its turn too: what comes before it is
    /// written, or fails first.
    fn leave(&self, key: Key, left: Left) {
        let mut state = self.lock();
        state.waiting_bytes += left.bytes();
        state.left.insert(key, left);
        if state.turn != key {
            return;
        }
        while state.failed.is_none()
            && let turn = state.turn
            && let Some(left) = state.left.remove(&turn)
        {
            let bytes = left.bytes();
            let written = match left {
                Left::Over => {
                    state.turn = (turn.0 + 1, 0);
                    Ok(())
                }
                Left::Failed(error) => Err(error),
                Left::Text(mut text) => {
                    drop(state);
                    let written = self.write(&text);
                    state = self.lock();
                    text.bytes.clear();
                    state.buffers.push(text.bytes);
                    state.turn.1 += 1;
                    written
                }
            };
            state.waiting_bytes -= bytes;
            state.failed = written.err();
            self.changed.notify_all();
        }
    }

    /// Only in turn.
    fn write(&self, text: &Text) -> Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (out, written) = &mut *end;
        out.write_all(&text.bytes)?;
        written.bytes += text.bytes.len() as u64;
        written.rows += text.rows;
        self.job.cancel.advance(text.rows)
    }
}
