//! One pass over the text, on several threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use tapeline_bcsv::{ColumnType, spawn_helpers};

use super::{ColumnReport, ImportReport, Scan, chunks};
use crate::chunks::{Cancel, Chunk, Chunks};
use crate::error::{Error, Result};
use crate::infer::Summary;
use crate::parse::{Counts, Failure, Parsed, Plan, Target, parse, summarise};

/// What a pass came to.
pub(super) enum Pass {
    Done(Totals),
    /// Types were too small; this is what all of the text asks for.
    Widen(Vec<Summary>),
}

#[derive(Default)]
pub(super) struct Totals {
    rows: u64,
    counts: Counts,
    empties: Vec<u64>,
    rounded: Vec<u64>,
}

impl Totals {
    fn add(&mut self, parsed: &Parsed) {
        self.rows += parsed.rows as u64;
        self.counts.add(&parsed.counts);
        let sum = |totals: &mut Vec<u64>, more: &[u64]| {
            totals.resize(more.len(), 0);
            totals
                .iter_mut()
                .zip(more)
                .for_each(|(total, more)| *total += more);
        };
        sum(&mut self.empties, &parsed.empties);
        sum(&mut self.rounded, &parsed.rounded);
    }

    pub(super) fn report(&self, scan: Scan, first: &[ColumnType]) -> ImportReport {
        let column = |(number, target): (usize, &Target)| ColumnReport {
            name: target.name.clone(),
            kind: target.kind,
            widened_from: first
                .get(number)
                .copied()
                .filter(|kind| *kind != target.kind),
            empty_cells: self.empties.get(number).copied().unwrap_or(0),
            rounded_cells: self.rounded.get(number).copied().unwrap_or(0),
        };
        ImportReport {
            rows: self.rows,
            rows_skipped: self.counts.skipped,
            rows_padded: self.counts.padded,
            blank_lines: self.counts.blank,
            columns: scan.plan.targets.iter().enumerate().map(column).collect(),
            ..scan.report
        }
    }
}

/// What the threads share besides the chunks.
///
/// A thread leaves what it parsed in `queue` and, unless another one is at it, hands on all that is next in the order of
/// the text. So while one thread writes, the others go on parsing, up to a bound.
struct Shared<'a, W> {
    plan: &'a Plan,
    cancel: &'a Cancel,
    queue: Mutex<Queue>,
    /// Only the thread that set `Queue::busy` takes this.
    end: Mutex<End<W>>,
    turned: Condvar,
    /// Chunks that may wait.
    bound: usize,
    /// A cell did not fit: only sum up from now on.
    misfit: AtomicBool,
}

#[derive(Default)]
struct Queue {
    /// The chunk whose turn it is.
    next: usize,
    /// What waits for its turn: the outcome and its bytes of text.
    waiting: BTreeMap<usize, (Result<Outcome>, u64)>,
    /// A thread is handing on.
    busy: bool,
    failed: Option<Error>,
}

/// Where chunks go in the order of the text.
struct End<W> {
    write: W,
    totals: Totals,
    seen: Vec<Summary>,
}

pub(super) fn pass<W>(
    source: &Path,
    scan: &Scan,
    threads: usize,
    cancel: &Cancel,
    write: W,
) -> Result<Pass>
where
    W: FnMut(&Parsed) -> Result<()> + Send,
{
    let chunks = chunks(source, &scan.plan, scan.data_at, scan.data_line, scan.rows)?;
    let chunks = Mutex::new(Some(chunks));
    let shared = Shared {
        plan: &scan.plan,
        cancel,
        queue: Mutex::new(Queue::default()),
        end: Mutex::new(End {
            write,
            totals: Totals::default(),
            seen: vec![Summary::default(); scan.plan.targets.len()],
        }),
        turned: Condvar::new(),
        bound: 2 * threads,
        misfit: AtomicBool::new(false),
    };
    let work = || {
        let mut buffer = Vec::new();
        loop {
            let taken = {
                let mut chunks = chunks.lock().unwrap_or_else(PoisonError::into_inner);
                let number = chunks.as_ref().map_or(0, Chunks::number);
                let taken = chunks
                    .as_mut()
                    .map_or(Ok(None), |chunks| chunks.next(std::mem::take(&mut buffer)));
                if !matches!(taken, Ok(Some(_))) {
                    *chunks = None;
                }
                taken.map_err(|error| (number, error))
            };
            let (number, outcome, bytes) = match taken {
                Ok(Some(chunk)) => {
                    let outcome = shared.parse(&chunk);
                    buffer = chunk.bytes;
                    (chunk.number, outcome, buffer.len() as u64)
                }
                Ok(None) => return,
                Err((number, error)) => (number, Err(error), 0),
            };
            if !shared.leave(number, outcome, bytes) {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        spawn_helpers(scope, threads.saturating_sub(1), work);
        work();
    });
    let queue = shared.queue.into_inner();
    let end = shared
        .end
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    match queue.unwrap_or_else(PoisonError::into_inner).failed {
        Some(error) => Err(error),
        None if shared.misfit.into_inner() => Ok(Pass::Widen(end.seen)),
        None => Ok(Pass::Done(end.totals)),
    }
}

impl<W: FnMut(&Parsed) -> Result<()>> Shared<'_, W> {
    fn parse(&self, chunk: &Chunk) -> Result<Outcome> {
        if !self.misfit.load(Ordering::Relaxed) {
            match parse(self.plan, &chunk.bytes, chunk.first_line) {
                Ok(parsed) => {
                    let seen = parsed.seen(self.plan);
                    return Ok(Outcome::Rows(parsed, seen));
                }
                Err(Failure::Error(error)) => return Err(error),
                Err(Failure::Misfit) => self.misfit.store(true, Ordering::Relaxed),
            }
        }
        let (seen, ..) = summarise(self.plan, &chunk.bytes, chunk.first_line)?;
        Ok(Outcome::Seen(seen))
    }

    /// Leave a parsed chunk, and hand on what is next; false when the work is over.
    fn leave(&self, number: usize, outcome: Result<Outcome>, bytes: u64) -> bool {
        let lock = || self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queue = lock();
        queue.waiting.insert(number, (outcome, bytes));
        while !queue.busy && queue.failed.is_none() {
            let next = queue.next;
            let Some((outcome, bytes)) = queue.waiting.remove(&next) else {
                break;
            };
            queue.busy = true;
            drop(queue);
            let done = self.hand_on(outcome, bytes);
            queue = lock();
            queue.busy = false;
            queue.next += 1;
            queue.failed = done.err();
            self.turned.notify_all();
        }
        // The thread whose chunk is next never waits here.
        while queue.failed.is_none() && queue.waiting.len() >= self.bound {
            queue = self
                .turned
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue.failed.is_none()
    }

    /// In the order of the text.
    fn hand_on(&self, outcome: Result<Outcome>, bytes: u64) -> Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = match outcome? {
            Outcome::Rows(parsed, seen) => {
                if !self.misfit.load(Ordering::Relaxed) {
                    (end.write)(&parsed)?;
                    end.totals.add(&parsed);
                }
                seen
            }
            Outcome::Seen(seen) => seen,
        };
        for (all, more) in end.seen.iter_mut().zip(&seen) {
            all.join(more);
        }
        self.cancel.advance(bytes)
    }
}

enum Outcome {
    Rows(Parsed, Vec<Summary>),
    Seen(Vec<Summary>),
}
