//! A BCSV file to text, on several threads.
//!
//! Threads take ranges of rows in turn, bounded by packets, decode and print them into a buffer, and write that when the
//! text before it has been written. The range whose turn it is writes at once, so memory holds one bounded buffer per
//! thread however large packets are.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use tapeline_bcsv::{BatchView, ColumnType, OnCorrupt, ReadOptions, Reader, Selection};

use crate::chunks::Cancel;
use crate::columns;
use crate::error::{Error, ErrorKind, Result};
use crate::text::{TextFormat, TextWriter};

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// Rows written.
    pub rows: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Rows that were damaged and left out: first, and the one after the last.
    pub gaps: Vec<(u64, u64)>,
    /// Names and types of the columns written.
    pub columns: Vec<(String, ColumnType)>,
}

/// Rows wanted of a file, as Python slices are: negative numbers count from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowRange {
    /// First row.
    pub start: i64,
    /// Row after the last one; the end if `None`.
    pub stop: Option<i64>,
}

impl RowRange {
    fn of(self, total: u64) -> (u64, u64) {
        let place = |at: i64| {
            if at < 0 {
                total.saturating_sub(at.unsigned_abs())
            } else {
                at.unsigned_abs().min(total)
            }
        };
        (place(self.start), self.stop.map_or(total, place))
    }
}

/// Rows of a range at least, so that handing over costs nothing.
const RANGE_ROWS: u64 = 2048;
/// Rows decoded at a time.
const BATCH_ROWS: usize = 1024;
/// Text that waits for its turn.
const BUFFER_BYTES: usize = 8 << 20;

/// What of a BCSV file is written, and how.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The kind of text.
    pub format: TextFormat,
    /// Names of the columns wanted, in this order; all if `None`.
    pub columns: Option<Vec<String>>,
    /// Rows wanted.
    pub rows: RowRange,
    /// Leave damaged rows out and report them, in place of stopping there.
    pub skip_damage: bool,
    /// Threads; 0 is one per core.
    pub threads: usize,
}

/// Write a BCSV file as text. `cancel` counts the rows written.
///
/// # Errors
///
/// [`ErrorKind::Bcsv`] for what is wrong with the file, [`ErrorKind::UnknownColumn`], [`ErrorKind::Io`],
/// [`ErrorKind::Option`], [`ErrorKind::Cancelled`].
pub fn export(
    source: &Path,
    out: &mut (dyn Write + Send),
    options: &ExportOptions,
    cancel: &Cancel,
) -> Result<ExportReport> {
    let read = ReadOptions {
        on_corrupt: if options.skip_damage {
            OnCorrupt::Skip
        } else {
            OnCorrupt::Raise
        },
        ..ReadOptions::default()
    };
    let reader = Reader::open(source, read)?;
    let all = reader.schema().unique_names();
    let chosen = options.columns.as_ref().map(|names| {
        let find = |name: &String| {
            let found = all.iter().position(|other| other == name);
            found.ok_or_else(|| Error::new(ErrorKind::UnknownColumn { name: name.clone() }))
        };
        names.iter().map(find).collect::<Result<Vec<usize>>>()
    });
    let chosen = chosen.transpose()?;
    let kinds: Vec<ColumnType> = reader
        .schema()
        .columns()
        .iter()
        .map(|spec| spec.kind)
        .collect();
    let kinds: Vec<ColumnType> = match &chosen {
        Some(chosen) => chosen
            .iter()
            .filter_map(|column| kinds.get(*column).copied())
            .collect(),
        None => kinds,
    };
    let names: Vec<String> = match &chosen {
        Some(chosen) => chosen
            .iter()
            .filter_map(|column| all.get(*column).cloned())
            .collect(),
        None => all,
    };
    let text = TextWriter::new(options.format.clone(), &names)?;
    let mut head = Vec::new();
    text.header(&mut head);
    out.write_all(&head)?;
    let ranges = ranges(&reader, options.rows)?;
    let job = Job {
        reader: &reader,
        text: &text,
        chosen,
        ranges,
        next: AtomicUsize::new(0),
        turn: Mutex::new(Turn {
            next: 0,
            out,
            rows: 0,
            bytes: head.len() as u64,
            failed: None,
        }),
        turned: Condvar::new(),
        cancel,
    };
    let threads = if options.threads > 0 {
        options.threads
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    };
    std::thread::scope(|scope| {
        (1..threads.min(job.ranges.len())).for_each(|_| {
            scope.spawn(|| job.work());
        });
        job.work();
    });
    let turn = job
        .turn
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = turn.failed {
        return Err(error);
    }
    turn.out.flush()?;
    Ok(ExportReport {
        rows: turn.rows,
        bytes: turn.bytes,
        gaps: reader.gaps()?,
        columns: names.into_iter().zip(kinds).collect(),
    })
}

/// Ranges of rows that start where packets do.
fn ranges(reader: &Reader, rows: RowRange) -> Result<Vec<(u64, u64)>> {
    // The first rows of a file without an index are given without counting all of them.
    if let (Ok(start), Some(Ok(stop))) = (u64::try_from(rows.start), rows.stop.map(u64::try_from))
        && stop.saturating_sub(start) <= RANGE_ROWS
    {
        return Ok(if start < stop {
            vec![(start, stop)]
        } else {
            Vec::new()
        });
    }
    let (start, stop) = rows.of(reader.num_rows()?);
    let mut ranges = Vec::new();
    let mut from = start;
    for packet in reader.packets()? {
        let end = (packet.first_row + packet.rows).min(stop);
        if end >= from + RANGE_ROWS {
            ranges.push((from, end));
            from = end;
        }
    }
    if from < stop {
        ranges.push((from, stop));
    }
    Ok(ranges)
}

struct Job<'a> {
    reader: &'a Reader,
    text: &'a TextWriter,
    chosen: Option<Vec<usize>>,
    ranges: Vec<(u64, u64)>,
    next: AtomicUsize,
    turn: Mutex<Turn<'a>>,
    turned: Condvar,
    cancel: &'a Cancel,
}

struct Turn<'a> {
    /// The range that may write.
    next: usize,
    out: &'a mut (dyn Write + Send),
    rows: u64,
    bytes: u64,
    failed: Option<Error>,
}

impl Job<'_> {
    fn work(&self) {
        let mut buffer = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(range) = self.ranges.get(number) else {
                return;
            };
            let done = self.range(number, *range, &mut buffer);
            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            // An error waits for its turn too: what comes before it is written, or fails first.
            while turn.next != number && turn.failed.is_none() {
                turn = self
                    .turned
                    .wait(turn)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if turn.failed.is_none() {
                turn.next += 1;
                turn.failed = done.err();
            }
            let failed = turn.failed.is_some();
            drop(turn);
            self.turned.notify_all();
            if failed {
                return;
            }
        }
    }

    fn range(&self, number: usize, (start, stop): (u64, u64), buffer: &mut Vec<u8>) -> Result<()> {
        let selection = Selection {
            columns: self.chosen.clone(),
            start,
            stop: Some(stop),
            threads: 1,
        };
        buffer.clear();
        let mut rows = 0;
        for batch in self.reader.batches(&selection, BATCH_ROWS)? {
            let batch = batch?;
            let view = BatchView {
                rows: batch.rows,
                columns: batch.columns.iter().map(columns::view).collect(),
            };
            self.text.rows(&view, 0, batch.rows, buffer)?;
            rows += batch.rows as u64;
            self.write(number, buffer, &mut rows, buffer_is_full)?;
        }
        self.write(number, buffer, &mut rows, |_| true)
    }

    /// Write the buffer if it is this range's turn, or wait for that if the buffer `must` go.
    fn write(
        &self,
        number: usize,
        buffer: &mut Vec<u8>,
        rows: &mut u64,
        must: impl Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        while turn.next != number && turn.failed.is_none() {
            if !must(buffer) {
                return Ok(());
            }
            turn = self
                .turned
                .wait(turn)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if turn.failed.is_some() {
            return Err(Error::new(ErrorKind::Cancelled));
        }
        turn.out.write_all(buffer)?;
        turn.bytes += buffer.len() as u64;
        turn.rows += *rows;
        drop(turn);
        buffer.clear();
        self.cancel.advance(std::mem::take(rows))
    }
}

fn buffer_is_full(buffer: &[u8]) -> bool {
    buffer.len() >= BUFFER_BYTES
}
