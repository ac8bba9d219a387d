//! A text file to columns, with several threads: into a BCSV file, or only to find the types.
//!
//! Threads take chunks in turn (reading and finding record ends is the only thing done under a lock), parse them, and
//! hand them on in the order of the text. The file writer encodes in that turn, while the other threads parse. If a cell
//! does not fit, nothing more is written: the rest of the text is only summed up, and a second pass starts with types
//! that are known to hold everything. A first look at the head, the end and some places between makes that rare.

mod look;
mod pass;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use tapeline_bcsv::{
    Batch, BatchView, ColumnSpec, ColumnType, FileOptions, FileWriter, Schema, WriteMode,
    WriteOptions, thread_count,
};

use self::look::{open, widen};
use self::pass::{Pass, pass};
use crate::chunks::{Cancel, Chunks};
use crate::columns;
use crate::error::{Error, ErrorKind, Result};
use crate::infer::Types;
use crate::parse::{Failure, Plan, Ragged, Target, parse};
use crate::sniff::{Dialect, DialectOptions};

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
        let threads = thread_count(options.threads);
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
        match pass(source, &scan, thread_count(options.threads), cancel, |_| {
            Ok(())
        })? {
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

fn schema_of(plan: &Plan) -> Result<Schema> {
    let spec = |target: &Target| ColumnSpec::new(target.name.as_bytes(), target.kind);
    Ok(Schema::new(plan.targets.iter().map(spec).collect())?)
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
