//! A text file to columns, with several threads: into a BCSV file, or only to find the types.
//!
//! Threads take chunks in turn (reading and finding record ends is the only thing done under a lock), parse them, and
//! hand them on in the order of the text. The file writer encodes in that turn, while the other threads parse. If a cell
//! does not fit, nothing more is written: the rest of the text is only summed up, and a second pass starts with types
//! that are known to hold everything. A first look at the head, the end and some places between makes that rare.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use tapeline_bcsv::{
    Batch, BatchView, ColumnSpec, ColumnType, FileOptions, FileWriter, Schema, WriteMode,
    WriteOptions,
};

use crate::chunks::{Cancel, Chunk, Chunks};
use crate::columns;
use crate::error::{Error, ErrorKind, Result};
use crate::infer::{Summary, Types};
use crate::parse::{Counts, Failure, Parsed, Plan, Ragged, Target, parse, summarise};
use crate::records;
use crate::sniff::{Dialect, DialectOptions, Start, sniff};

/// Rows wanted: from the first number to before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rows {
    /// First row, from 0.
    pub start: u64,
    /// Row after the last one.
    pub stop: Option<u64>,
}

/// How a text is read.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Delimiter, decimal separator, header, names.
    pub dialect: DialectOptions,
    /// Empty cells.
    pub types: Types,
    /// Columns whose type is given.
    pub given: Vec<(String, ColumnType)>,
    /// Types of all fields in order, in place of `given`; one that is `None` is found out.
    pub given_in_order: Option<Vec<Option<ColumnType>>>,
    /// Every column without a given type is one of strings.
    pub all_text: bool,
    /// Names of the columns wanted, in this order; all if `None`.
    pub columns: Option<Vec<String>>,
    /// Rows wanted.
    pub rows: Rows,
    /// Records with the wrong number of fields.
    pub ragged: Ragged,
    /// Threads; 0 is one per core.
    pub threads: usize,
}

/// What became of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnReport {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// The type that the first look suggested, if it turned out too small.
    pub widened_from: Option<ColumnType>,
    /// Empty cells that became NaN.
    pub empty_cells: u64,
    /// Cells of a given type that became the nearest float.
    pub rounded_cells: u64,
}

/// What was done.
#[derive(Debug, Clone)]
pub struct ImportReport {
    /// Rows made.
    pub rows: u64,
    /// Records left out, or filled, for their number of fields.
    pub rows_skipped: u64,
    /// See `rows_skipped`.
    pub rows_padded: u64,
    /// Empty lines, which are no records.
    pub blank_lines: u64,
    /// How the text was written.
    pub dialect: Dialect,
    /// The columns made.
    pub columns: Vec<ColumnReport>,
    /// Names that had to change: as found, as made.
    pub renamed: Vec<(String, String)>,
    /// Times the text was read.
    pub passes: u32,
}

/// What [`scan`] found: all that reading the text needs.
#[derive(Debug, Clone)]
pub struct Scan {
    /// What importing would report.
    pub report: ImportReport,
    pub(crate) plan: Plan,
    pub(crate) data_at: u64,
    pub(crate) data_line: u64,
    rows: Rows,
}

/// Bytes of the first look.
const HEAD_BYTES: u64 = 1 << 20;
/// Further looks, and bytes of each.
const LOOKS: u64 = 9;
const LOOK_BYTES: u64 = 64 << 10;

/// Convert a CSV file to a BCSV file. `cancel` counts the bytes read, from 0 again in a second pass.
///
/// # Errors
///
/// What is wrong with the text, with line and column; [`ErrorKind::Bcsv`], [`ErrorKind::Io`], [`ErrorKind::Cancelled`].
/// The file is then gone.
pub fn import(
    source: &Path,
    destination: &Path,
    options: &ImportOptions,
    write: &WriteOptions,
    cancel: &Cancel,
) -> Result<ImportReport> {
    let mut scan = open(source, options)?;
    let first: Vec<ColumnType> = scan.plan.targets.iter().map(|target| target.kind).collect();
    loop {
        cancel.restart();
        scan.report.passes += 1;
        let schema = schema_of(&scan.plan)?;
        let threads = threads(options.threads);
        let file = FileOptions {
            // The other threads parse meanwhile.
            threads: threads.div_ceil(2),
            ..FileOptions::default()
        };
        let writer = FileWriter::open(destination, &schema, WriteMode::New, write, &file)?;
        let done = pass(source, &scan, threads, cancel, |parsed| {
            let view = BatchView {
                rows: parsed.rows,
                columns: parsed.columns.iter().map(columns::view).collect(),
            };
            Ok(writer.write_batch(&view)?)
        });
        match done {
            Ok(Pass::Done(totals)) => {
                writer.finish(false)?;
                return Ok(totals.report(scan, &first));
            }
            Ok(Pass::Widen(seen)) => {
                writer.discard()?;
                widen(&mut scan.plan, &seen);
            }
            Err(error) => {
                writer.discard()?;
                return Err(error);
            }
        }
    }
}

/// Read the whole text once and find the smallest types that hold it.
///
/// # Errors
///
/// What is wrong with the text, with line and column; [`ErrorKind::Io`], [`ErrorKind::Cancelled`].
pub fn scan(source: &Path, options: &ImportOptions, cancel: &Cancel) -> Result<Scan> {
    let mut scan = open(source, options)?;
    let first: Vec<ColumnType> = scan.plan.targets.iter().map(|target| target.kind).collect();
    loop {
        cancel.restart();
        scan.report.passes += 1;
        match pass(source, &scan, threads(options.threads), cancel, |_| Ok(()))? {
            Pass::Done(totals) => {
                scan.report = totals.report(scan.clone(), &first);
                return Ok(scan);
            }
            Pass::Widen(seen) => widen(&mut scan.plan, &seen),
        }
    }
}

impl Scan {
    /// The rows, chunk by chunk.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]. A cell that does not fit, which it did when the file was scanned, comes as an item.
    pub fn batches(
        &self,
        source: &Path,
    ) -> Result<impl Iterator<Item = Result<Batch>> + Send + use<>> {
        let plan = self.plan.clone();
        let mut chunks = chunks(source, &plan, self.data_at, self.data_line, self.rows)?;
        let mut buffer = Vec::new();
        let mut first_row = 0;
        let mut step = move || -> Result<Option<Batch>> {
            let Some(chunk) = chunks.next(std::mem::take(&mut buffer))? else {
                return Ok(None);
            };
            let parsed =
                parse(&plan, &chunk.bytes, chunk.first_line).map_err(|failure| match failure {
                    Failure::Error(error) => error,
                    Failure::Misfit => {
                        let what = "the text changed while it was read".to_owned();
                        Error::at(ErrorKind::Option { what }, chunk.first_line, None)
                    }
                })?;
            buffer = chunk.bytes;
            let batch = Batch {
                first_row,
                rows: parsed.rows,
                columns: parsed.columns,
            };
            first_row += batch.rows as u64;
            Ok(Some(batch))
        };
        Ok(std::iter::from_fn(move || step().transpose()))
    }
}

fn threads(wanted: usize) -> usize {
    if wanted > 0 {
        return wanted;
    }
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn schema_of(plan: &Plan) -> Result<Schema> {
    let spec = |target: &Target| ColumnSpec::new(target.name.as_bytes(), target.kind);
    Ok(Schema::new(plan.targets.iter().map(spec).collect())?)
}

// ---------------------------------------------------------------- the first look

/// Find dialect, names and first types.
fn open(source: &Path, options: &ImportOptions) -> Result<Scan> {
    let mut file = File::open(source)?;
    let bytes = file.metadata()?.len();
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES).read_to_end(&mut head)?;
    let whole = head.len() as u64 == bytes;
    let start = sniff(&head, &options.dialect)?;
    let mut plan = make_plan(&start, options)?;
    let mut seen = vec![Summary::default(); plan.targets.len()];
    let data = head.get(start.data_at..).unwrap_or_default();
    if options.rows == Rows::default() {
        look(&plan, data, whole, &mut seen);
        if !whole {
            for number in 1..=LOOKS {
                look_at(&plan, &mut file, bytes, number, &mut seen)?;
            }
        }
    } else {
        let mut chunks = chunks(
            source,
            &plan,
            start.data_at as u64,
            start.data_line,
            options.rows,
        )?;
        if let Some(chunk) = chunks.next(Vec::new())? {
            look(&plan, &chunk.bytes, true, &mut seen);
        }
    }
    widen(&mut plan, &seen);
    Ok(Scan {
        report: ImportReport {
            rows: 0,
            rows_skipped: 0,
            rows_padded: 0,
            blank_lines: 0,
            dialect: start.dialect,
            columns: Vec::new(),
            renamed: start.renamed,
            passes: 0,
        },
        plan,
        data_at: start.data_at as u64,
        data_line: start.data_line,
        rows: options.rows,
    })
}

fn make_plan(start: &Start, options: &ImportOptions) -> Result<Plan> {
    let field_of = |name: &String| {
        let found = start.names.iter().position(|field| field == name);
        found.ok_or_else(|| Error::new(ErrorKind::UnknownColumn { name: name.clone() }))
    };
    for (name, _) in &options.given {
        field_of(name)?;
    }
    let wanted: Vec<usize> = match &options.columns {
        Some(names) => names.iter().map(field_of).collect::<Result<_>>()?,
        None => (0..start.names.len()).collect(),
    };
    if let Some(kinds) = &options.given_in_order
        && kinds.len() != start.names.len()
    {
        let what = format!(
            "{} types are given for {} columns",
            kinds.len(),
            start.names.len()
        );
        return Err(Error::new(ErrorKind::Option { what }));
    }
    let kind_of = |field: usize, name: &str| {
        let by_name = options.given.iter().find(|(other, _)| other == name);
        let in_order = options
            .given_in_order
            .as_ref()
            .and_then(|kinds| kinds.get(field).copied().flatten());
        by_name
            .map(|(_, kind)| *kind)
            .or(in_order)
            .or(options.all_text.then_some(ColumnType::String))
    };
    let mut taken = std::collections::HashSet::new();
    let mut targets = Vec::with_capacity(wanted.len());
    for field in wanted {
        let name = start.names.get(field).cloned().unwrap_or_default();
        if !taken.insert(field) {
            let what = format!("column {name:?} is asked for twice");
            return Err(Error::new(ErrorKind::Option { what }));
        }
        let given = kind_of(field, &name);
        targets.push(Target {
            field,
            kind: given.unwrap_or(ColumnType::String),
            given: given.is_some(),
            blank: given.is_none(),
            name,
        });
    }
    Ok(Plan {
        dialect: start.dialect,
        types: Types {
            point: start.dialect.point,
            ..options.types.clone()
        },
        ragged: options.ragged,
        fields: start.names.clone(),
        targets,
    })
}

/// Sum up the whole records of some text. A first look only guesses, so what is wrong with the text is left to the
/// pass, which knows the line.
fn look(plan: &Plan, text: &[u8], whole: bool, seen: &mut [Summary]) {
    let end = if whole {
        text.len()
    } else {
        records::last_record_end(text, plan.dialect.delimiter).unwrap_or(0)
    };
    if let Ok((found, ..)) = summarise(plan, text.get(..end).unwrap_or_default(), 1) {
        for (seen, found) in seen.iter_mut().zip(&found) {
            seen.join(found);
        }
    }
}

/// Look at one of the places spread over the file, the last at its end. The text there is trusted only if each record
/// has the right number of fields, so that a start inside a quoted cell misleads nobody.
fn look_at(
    plan: &Plan,
    file: &mut File,
    bytes: u64,
    number: u64,
    seen: &mut [Summary],
) -> Result<()> {
    let from = (bytes / LOOKS * number).saturating_sub(LOOK_BYTES);
    let from = if number == LOOKS {
        bytes.saturating_sub(LOOK_BYTES)
    } else {
        from
    };
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(LOOK_BYTES).read_to_end(&mut text)?;
    let start = memchr::memchr(b'\n', &text).map_or(text.len(), |at| at + 1);
    let strict = Plan {
        ragged: Ragged::Stop,
        ..plan.clone()
    };
    look(
        &strict,
        text.get(start..).unwrap_or_default(),
        number == LOOKS,
        seen,
    );
    Ok(())
}

/// Give each column the smallest type for what was seen.
fn widen(plan: &mut Plan, seen: &[Summary]) {
    for (target, seen) in plan.targets.iter_mut().zip(seen) {
        if !target.given {
            target.kind = seen.smallest(plan.types.empty);
            target.blank = seen.is_blank();
        }
    }
}

fn chunks(source: &Path, plan: &Plan, at: u64, line: u64, rows: Rows) -> Result<Chunks<File>> {
    let mut file = File::open(source)?;
    file.seek(SeekFrom::Start(at))?;
    let chunks = Chunks::new(file, plan.dialect.delimiter, plan.fields.len(), line);
    Ok(if rows == Rows::default() {
        chunks
    } else {
        chunks.rows(rows.start, rows.stop)
    })
}

// ---------------------------------------------------------------- a pass

/// What a pass came to.
enum Pass {
    Done(Totals),
    /// Types were too small; this is what all of the text asks for.
    Widen(Vec<Summary>),
}

#[derive(Default)]
struct Totals {
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

    fn report(&self, scan: Scan, first: &[ColumnType]) -> ImportReport {
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

fn pass<W>(source: &Path, scan: &Scan, threads: usize, cancel: &Cancel, write: W) -> Result<Pass>
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
        (1..threads).for_each(|_| {
            scope.spawn(work);
        });
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
                    let targets = self.plan.targets.iter().zip(&parsed.empties);
                    let columns = parsed.columns.iter().zip(targets);
                    let seen = columns
                        .map(|(column, (target, empties))| seen_in(column, target, *empties))
                        .collect();
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

fn seen_in(column: &tapeline_bcsv::Column, target: &Target, empties: u64) -> Summary {
    if target.given {
        return Summary::default();
    }
    if target.blank {
        let mut seen = Summary::default();
        if !column.is_empty() {
            seen.empty();
        }
        return seen;
    }
    let mut seen = columns::summary(column);
    if empties > 0 {
        seen.empty();
    }
    seen
}
