//! A BCSV file to text, on several threads.
//!
//! Rows are taken in batches: one thread at a time decodes the next one of a packet, prints it outside the lock, and
//! leaves the text. Whoever leaves the text whose turn it is writes it and what was left behind it. So all threads work
//! on one packet, memory holds a few small texts that are still in the cache when they are written, and nobody holds a
//! lock while the system copies. A thread that finds the packet taken opens the next one and goes on there, as long as
//! few texts wait: with many threads, decoding would be too slow for all of them.

mod work;

use std::io::Write;
use std::path::Path;

use tapeline_bcsv::{ColumnType, OnCorrupt, ReadOptions, Reader, thread_count};

use self::work::{Job, batch_rows, work};
use crate::chunks::Cancel;
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

/// Rows of a range at least, so that opening it costs nothing.
const RANGE_ROWS: u64 = 2048;

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
    // A thread for each batch at most.
    let total: u64 = ranges.iter().map(|(start, stop)| stop - start).sum();
    let batches = total / batch_rows(&text) as u64 + 1;
    let threads = thread_count(options.threads).min(usize::try_from(batches).unwrap_or(usize::MAX));
    let job = Job {
        reader: &reader,
        text: &text,
        chosen,
        ranges,
        threads,
        cancel,
    };
    let written = work(&job, out)?;
    out.flush()?;
    Ok(ExportReport {
        rows: written.rows,
        bytes: head.len() as u64 + written.bytes,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tapeline_bcsv::{
        BatchView, Column, ColumnSpec, FileOptions, FileWriter, Schema, WriteMode, WriteOptions,
    };

    use super::*;
    use crate::columns;
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
