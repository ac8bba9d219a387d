//! Checking and mending files: every byte that a checksum covers is looked at.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::cursor::{Cursor, FileFacts, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::footer::{Footer, IndexEntry};
use crate::index::Index;
use crate::limits::Limits;
use crate::packet::{HEADER_BYTES, decode_header, encode_header};
use crate::reader::{OnCorrupt, ReadOptions, Reader};
use crate::row::tile::Gather;
use crate::source::Buffer;
use crate::storage::{Disk, Storage, StoredFile, write_fully};
use crate::threads::{in_threads, thread_count};

/// Something wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Byte in the file, if known.
    pub offset: Option<u64>,
    /// Rows it costs, as a half-open range; `None` if it costs none, or nobody knows which.
    pub rows: Option<(u64, u64)>,
    /// What it is.
    pub text: String,
}

/// What [`validate`] or [`repair`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Nothing is wrong.
    pub ok: bool,
    /// As [`Reader::complete`].
    pub complete: Option<bool>,
    /// Rows whose checksum holds.
    pub rows_readable: u64,
    /// Rows that the file should have, as far as it says.
    pub rows_expected: u64,
    /// Whole rows of an unfinished last packet: readable, but not covered by a checksum, so not counted above.
    pub rows_unverified: u64,
    /// Good packets, or pieces of a stream.
    pub packets: u64,
    /// Everything that is wrong, in file order.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok {
            "ok"
        } else {
            "damaged or unfinished"
        };
        write!(
            f,
            "{verdict}: {} of {} rows readable in {} packets",
            self.rows_readable, self.rows_expected, self.packets
        )?;
        if self.rows_unverified > 0 {
            write!(
                f,
                ", {} more rows unverified at the end",
                self.rows_unverified
            )?;
        }
        for problem in &self.problems {
            write!(f, "\n  {}", problem.text)?;
            if let Some(offset) = problem.offset {
                write!(f, ", at byte {offset}")?;
            }
            if let Some((first, stop)) = problem.rows {
                write!(f, ", rows {first} to {stop} (exclusive) lost")?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn problem(&mut self, offset: Option<u64>, rows: Option<(u64, u64)>, text: impl Into<String>) {
        self.problems.push(Problem {
            offset,
            rows,
            text: text.into(),
        });
    }
}

/// How much of a file [`validate_to`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// Header, footer, index and packet headers; rows count as readable though nothing behind a header was looked at.
    Headers,
    /// Every checksum as well, and the length of every row.
    Checksums,
    /// Every row decoded, too.
    #[default]
    Rows,
}

/// Read everything and say what is wrong. A thread per core; memory: one packet each.
///
/// # Errors
///
/// [`ErrorKind::Io`], and whatever keeps the header from being read.
pub fn validate(path: impl AsRef<Path>, limits: Limits) -> Result<Report> {
    validate_to(path, limits, Depth::Rows)
}

/// [`validate`], as far as `depth` says. A thread per core; memory: one packet each.
///
/// # Errors
///
/// As [`validate`].
pub fn validate_to(path: impl AsRef<Path>, limits: Limits, depth: Depth) -> Result<Report> {
    let options = ReadOptions {
        on_corrupt: OnCorrupt::Skip,
        limits,
        ..ReadOptions::default()
    };
    check(&Reader::open(path, options)?, depth)
}

/// [`validate`] for a file that is open with [`OnCorrupt::Skip`].
///
/// # Errors
///
/// [`ErrorKind::Io`].
pub fn validate_reader(reader: &Reader) -> Result<Report> {
    check(reader, Depth::Rows)
}

/// Verify every unit, on several threads.
fn check(reader: &Reader, depth: Depth) -> Result<Report> {
    let index = reader.index()?;
    let facts = reader.facts();
    let units = index.units.as_slice();
    let threads = match depth {
        // Some bytes of each packet: not worth a thread.
        Depth::Headers => 1,
        _ => thread_count(0),
    };
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        let mut checker = Checker::new(facts);
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(unit) = units.get(number) else { break };
            let verified = checker.verify(unit, depth);
            if matches!(&verified, Err(error) if error.io_error().is_some()) {
                failed.store(true, Ordering::Relaxed);
            }
            done.push((number, verified));
        }
        done
    };
    let mut done = in_threads(threads.min(units.len()), &work);
    done.sort_unstable_by_key(|(number, _)| *number);
    let mut report = begin(&index);
    for (number, verified) in done {
        if let Some(unit) = units.get(number) {
            count(&mut report, number, unit, verified)?;
        }
    }
    Ok(finish(report, &index, facts))
}

/// Verify every unit in turn, handing good ones to `keep` (its bytes, its rows).
fn walk(reader: &Reader, mut keep: impl FnMut(&[u8], u64) -> Result<()>) -> Result<Report> {
    let index = reader.index()?;
    let facts = reader.facts();
    let mut report = begin(&index);
    let mut checker = Checker::new(facts);
    for (number, unit) in index.units.iter().enumerate() {
        let verified = checker.verify(unit, Depth::Rows);
        let good = verified.as_ref().ok().copied();
        count(&mut report, number, unit, verified)?;
        if let Some(rows) = good {
            keep(checker.cursor.stored_bytes(), rows)?;
        }
    }
    Ok(finish(report, &index, facts))
}

fn begin(index: &Index) -> Report {
    Report {
        complete: index.complete,
        rows_expected: index.rows,
        ..Report::default()
    }
}

/// Count a unit in, or say what is wrong with it.
fn count(report: &mut Report, number: usize, unit: &Unit, verified: Result<u64>) -> Result<()> {
    match verified {
        Ok(rows) => {
            report.rows_readable += rows;
            report.packets += 1;
            if rows < unit.rows {
                let missing = (unit.first_row + rows, unit.first_row + unit.rows);
                report.problem(Some(unit.end), Some(missing), "rows are missing");
            }
        }
        Err(error) if error.io_error().is_some() => return Err(error),
        Err(error) => {
            let lost = (unit.first_row, unit.first_row + unit.rows);
            report.problem(
                error.offset().or(Some(unit.offset)),
                Some(lost),
                format!("packet {number}: {}", error.kind()),
            );
        }
    }
    Ok(())
}

fn finish(mut report: Report, index: &Index, facts: &FileFacts) -> Report {
    describe(&mut report, index, facts);
    report.problems.sort_by_key(|problem| problem.offset);
    report.ok = report.problems.is_empty();
    report
}

/// The buffers of one thread.
struct Checker {
    facts: Arc<FileFacts>,
    cursor: Cursor,
    gather: Gather,
}

impl Checker {
    fn new(facts: &Arc<FileFacts>) -> Self {
        let codec = facts.header.row_codec();
        Self {
            facts: Arc::clone(facts),
            cursor: Cursor::new(Arc::clone(facts)),
            // Rows are decoded whole whichever columns are asked for, and nobody reads these.
            gather: Gather::new(&facts.header.schema, &facts.layout, codec, Some(&[])),
        }
    }

    /// The rows of a unit that are good, as far as `depth` says.
    fn verify(&mut self, unit: &Unit, depth: Depth) -> Result<u64> {
        match depth {
            Depth::Headers => header_agrees(&self.facts, unit),
            Depth::Checksums => measure(&mut self.cursor, unit),
            Depth::Rows => verify(&mut self.cursor, &mut self.gather, unit),
        }
    }
}

/// Rows decoded at a time while verifying.
const VERIFY_ROWS: usize = 4096;

/// Decode all rows of a unit, in pieces; returns how many.
fn verify(cursor: &mut Cursor, gather: &mut Gather, unit: &Unit) -> Result<u64> {
    cursor.open(unit)?;
    loop {
        gather.begin(VERIFY_ROWS);
        let taken = cursor.take(VERIFY_ROWS, gather)?;
        gather.finish(0);
        if taken < VERIFY_ROWS {
            break;
        }
    }
    all_rows(unit, cursor.done())
}

/// Verify the checksum of a unit and the length of its rows, without decoding them; returns how many.
fn measure(cursor: &mut Cursor, unit: &Unit) -> Result<u64> {
    cursor.open(unit)?;
    let rows = cursor.skip_framing()?;
    all_rows(unit, rows)
}

/// Compare the header of a packet with the index; returns the rows that the index promises.
fn header_agrees(facts: &FileFacts, unit: &Unit) -> Result<u64> {
    if !facts.file_codec().has_packets() {
        return Ok(unit.rows);
    }
    let mut buffer = Buffer::default();
    let fault = |kind| Err(Error::new(kind).at(unit.offset));
    buffer.fill_exact(&*facts.source, unit.offset, HEADER_BYTES, "a packet header")?;
    match decode_header(buffer.bytes()) {
        None => fault(ErrorKind::PacketHeader),
        Some(found) if found != unit.first_row => fault(ErrorKind::FirstRow {
            expected: unit.first_row,
            found,
        }),
        Some(_) => Ok(unit.rows),
    }
}

/// The rows found in a unit, if the index does not say that there are fewer. A packet that ends before the index says
/// is whole all the same: its checksum holds, and what is missing was in a packet behind it.
fn all_rows(unit: &Unit, found: u64) -> Result<u64> {
    if found <= unit.rows {
        return Ok(found);
    }
    Err(Error::new(ErrorKind::Framing {
        what: "a packet has more rows than the index says",
    })
    .at(unit.offset))
}

/// What the index says besides its units.
fn describe(report: &mut Report, index: &Index, facts: &FileFacts) {
    if let Some((_, error)) = &index.fault {
        report.problem(error.offset(), None, error.kind().to_string());
    }
    for (first, stop) in &index.gaps {
        let before = index
            .units
            .iter()
            .rev()
            .find(|unit| unit.first_row < *stop)
            .map(|unit| unit.end);
        report.problem(
            before.or(Some(facts.body_at)),
            Some((*first, *stop)),
            "rows are missing",
        );
    }
    if let Some(tail) = index.tail {
        report.rows_unverified = tail.rows;
        let what = if facts.file_codec().has_packets() {
            "an unfinished packet at the end"
        } else {
            "an unfinished row at the end"
        };
        report.problem(Some(tail.offset), None, what);
    }
    if facts.file_codec().has_packets() && !index.footer {
        report.problem(Some(index.end), None, "the footer is missing or damaged");
    }
}

/// Write the rows that are good into a new file, and verify that file before saying so. The source is only read.
///
/// Packets are copied as they are, renumbered where packets before them are lost; nothing unverified is copied. The
/// report is about the source: its problems list every range of rows that the new file lacks.
///
/// # Errors
///
/// [`ErrorKind::Io`] (`AlreadyExists` if there is a file `out`), and whatever keeps the header from being read. The new
/// file is removed then.
pub fn repair(path: impl AsRef<Path>, out: impl AsRef<Path>, limits: Limits) -> Result<Report> {
    let options = ReadOptions {
        on_corrupt: OnCorrupt::Skip,
        limits,
        ..ReadOptions::default()
    };
    let reader = Reader::open(path, options)?;
    let file = Disk.create_new(out.as_ref())?;
    let result = copy(&reader, &*file).and_then(|report| {
        let copied = validate(out.as_ref(), limits)?;
        if copied.ok && copied.rows_readable == report.rows_readable {
            return Ok(report);
        }
        // The disk gave back something else than was written, or this crate has a bug: neither may pass.
        Err(Error::new(ErrorKind::RowsMissing {
            first: copied.rows_readable,
            stop: report.rows_readable,
        }))
    });
    if result.is_err() {
        // The error to be returned is the one that matters.
        let _ = Disk.remove(out.as_ref());
    }
    result
}

fn copy(reader: &Reader, file: &dyn StoredFile) -> Result<Report> {
    let mut end = 0;
    let mut store = |bytes: &[u8]| -> Result<()> {
        write_fully(file, end, bytes).1?;
        end += bytes.len() as u64;
        Ok(())
    };
    let header = reader.header().encode();
    store(&header)?;
    let packets = reader.header().file_codec().has_packets();
    let mut footer = Footer::default();
    let mut offset = header.len() as u64;
    let report = walk(reader, |bytes, rows| {
        if packets {
            footer.entries.push(IndexEntry {
                offset,
                first_row: footer.rows,
            });
            store(&encode_header(footer.rows))?;
            store(bytes.get(HEADER_BYTES..).unwrap_or_default())?;
        } else {
            store(bytes)?;
        }
        offset += bytes.len() as u64;
        footer.rows += rows;
        Ok(())
    })?;
    if packets {
        if !reader.header().has_index() {
            footer.entries.clear();
        }
        let mut bytes = Vec::new();
        footer.encode(&mut bytes);
        store(&bytes)?;
    }
    file.sync()?;
    Ok(report)
}
