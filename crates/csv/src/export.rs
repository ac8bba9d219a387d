//! A BCSV file to text, on several threads.
//!
//! Threads take ranges of rows in turn, bounded by packets, decode and print them into a buffer. The range whose turn it
//! is writes what it has after every batch. One that is done before its turn leaves its buffer to the thread that is
//! writing, and its own thread goes on with another range; one whose buffer is full waits. So memory holds some bounded
//! buffers per thread however large packets are, and nobody holds a lock while the system copies.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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
/// Text of a range that waits for its turn.
const BUFFER_BYTES: usize = 8 << 20;
/// Text that is written at once.
const WRITE_BYTES: usize = 256 << 10;

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
    let threads = if options.threads > 0 {
        options.threads
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    };
    let job = Job {
        reader: &reader,
        text: &text,
        chosen,
        ranges,
        next: AtomicUsize::new(0),
        turn: AtomicUsize::new(0),
        left: Mutex::new(Left::default()),
        turned: Condvar::new(),
        end: Mutex::new(End {
            out,
            rows: 0,
            bytes: head.len() as u64,
        }),
        bound: 2 * threads,
        cancel,
    };
    std::thread::scope(|scope| {
        (1..threads.min(job.ranges.len())).for_each(|_| {
            scope.spawn(|| job.work());
        });
        job.work();
    });
    let left = job.left.into_inner();
    if let Some(error) = left.unwrap_or_else(PoisonError::into_inner).failed {
        return Err(error);
    }
    let end = job.end.into_inner().unwrap_or_else(PoisonError::into_inner);
    end.out.flush()?;
    Ok(ExportReport {
        rows: end.rows,
        bytes: end.bytes,
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
    /// The range that may write; it changes under the lock of `left`.
    turn: AtomicUsize,
    left: Mutex<Left>,
    turned: Condvar,
    /// Taken only by the thread whose turn it is.
    end: Mutex<End<'a>>,
    /// Ranges that may be left.
    bound: usize,
    cancel: &'a Cancel,
}

/// Ranges that were done before their turn.
#[derive(Default)]
struct Left {
    ranges: BTreeMap<usize, (Text, Result<()>)>,
    /// Buffers to be used again.
    buffers: Vec<Vec<u8>>,
    failed: Option<Error>,
}

/// Printed rows.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    rows: u64,
}

struct End<'a> {
    out: &'a mut (dyn Write + Send),
    rows: u64,
    bytes: u64,
}

impl Job<'_> {
    fn work(&self) {
        let mut text = Text::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(range) = self.ranges.get(number) else {
                return;
            };
            let done = self.range(number, *range, &mut text);
            if !self.leave(number, std::mem::take(&mut text), done) {
                return;
            }
            text.bytes = self.lock().buffers.pop().unwrap_or_default();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_turn(&self, number: usize) -> bool {
        self.turn.load(Ordering::Acquire) == number
    }

    fn range(&self, number: usize, (start, stop): (u64, u64), text: &mut Text) -> Result<()> {
        let selection = Selection {
            columns: self.chosen.clone(),
            start,
            stop: Some(stop),
            threads: 1,
        };
        for batch in self.reader.batches(&selection, BATCH_ROWS)? {
            let batch = batch?;
            let view = BatchView {
                rows: batch.rows,
                columns: batch.columns.iter().map(columns::view).collect(),
            };
            self.text.rows(&view, 0, batch.rows, &mut text.bytes)?;
            text.rows += batch.rows as u64;
            if text.bytes.len() >= BUFFER_BYTES {
                let mut left = self.lock();
                while !self.is_turn(number) && left.failed.is_none() {
                    left = self.wait(left);
                }
                if left.failed.is_some() {
                    return Err(Error::new(ErrorKind::Cancelled));
                }
            }
            if text.bytes.len() >= WRITE_BYTES && self.is_turn(number) {
                self.write(text)?;
            }
        }
        Ok(())
    }

    fn wait<'b>(&self, left: MutexGuard<'b, Left>) -> MutexGuard<'b, Left> {
        self.turned
            .wait(left)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave a range that is done, and write what is next; false when the work is over. An error waits for its turn too:
    /// what comes before it is written, or fails first.
    fn leave(&self, number: usize, text: Text, done: Result<()>) -> bool {
        let mut left = self.lock();
        left.ranges.insert(number, (text, done));
        if self.is_turn(number) {
            let mut next = number;
            while left.failed.is_none()
                && let Some((mut text, done)) = left.ranges.remove(&next)
            {
                drop(left);
                let written = self.write(&mut text).and(done);
                left = self.lock();
                left.buffers.push(text.bytes);
                left.failed = written.err();
                next += 1;
                self.turn.store(next, Ordering::Release);
                self.turned.notify_all();
            }
        }
        // The range whose turn it is never waits here.
        while left.failed.is_none() && left.ranges.len() >= self.bound {
            left = self.wait(left);
        }
        left.failed.is_none()
    }

    /// Write what there is; only in turn.
    fn write(&self, text: &mut Text) -> Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let written = end.out.write_all(&text.bytes);
        end.bytes += text.bytes.len() as u64;
        end.rows += text.rows;
        drop(end);
        // Also after an error: nothing is written twice.
        text.bytes.clear();
        written?;
        self.cancel.advance(std::mem::take(&mut text.rows))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tapeline_bcsv::{
        Column, ColumnSpec, FileOptions, FileWriter, Schema, WriteMode, WriteOptions,
    };

    use super::*;
    use crate::sniff::Dialect;

    const ROWS: u32 = 60_000;

    fn file(name: &str) -> std::path::PathBuf {
        let path =
            std::env::temp_dir().join(format!("tapeline-{name}-{}.bcsv", std::process::id()));
        let schema = Schema::new(vec![ColumnSpec::new(b"n", ColumnType::UInt32)]).unwrap();
        let options = WriteOptions {
            packet_bytes: 8192,
            ..WriteOptions::default()
        };
        let files = FileOptions::default();
        let _ = std::fs::remove_file(&path);
        let writer = FileWriter::open(&path, &schema, WriteMode::New, &options, &files).unwrap();
        let numbers = Column::UInt32((0..ROWS).collect());
        let view = BatchView {
            rows: ROWS as usize,
            columns: vec![columns::view(&numbers)],
        };
        writer.write_batch(&view).unwrap();
        writer.finish(false).unwrap();
        path
    }

    fn options(threads: usize) -> ExportOptions {
        ExportOptions {
            format: TextFormat::Csv {
                dialect: Dialect {
                    delimiter: b',',
                    point: b'.',
                },
                header: true,
                nan: String::new(),
            },
            columns: None,
            rows: RowRange::default(),
            skip_damage: false,
            threads,
        }
    }

    #[test]
    fn ranges_come_in_order_whoever_is_done_first() {
        let path = file("order");
        let wanted: String = std::iter::once("n\n".to_owned())
            .chain((0..ROWS).map(|n| format!("{n}\n")))
            .collect();
        for threads in [1, 2, 3, 8] {
            let mut out = Vec::new();
            let report = export(&path, &mut out, &options(threads), &Cancel::default()).unwrap();
            assert_eq!((report.rows, report.bytes), (ROWS.into(), out.len() as u64));
            assert!(out == wanted.as_bytes(), "{threads} threads");
        }
        std::fs::remove_file(path).unwrap();
    }

    /// Takes so many bytes and no more.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let room = self.0.min(bytes.len());
            self.0 -= room;
            if room == 0 && !bytes.is_empty() {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            Ok(room)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_ends_all_threads() {
        let path = file("full");
        for threads in [1, 2, 8] {
            for room in [0, 1, 20_000, 200_000] {
                let cancel = Cancel::default();
                let error = export(&path, &mut Full(room), &options(threads), &cancel).unwrap_err();
                assert!(
                    matches!(error.kind(), ErrorKind::Io(io) if io.kind() == std::io::ErrorKind::StorageFull)
                );
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
