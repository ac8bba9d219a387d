//! A chunk of whole records to columns: the hot loop.
//!
//! Some records at a time are cut into cells, and the cells stored column by column, each tried in the form that programs
//! print for its column's type. Whatever that does not take goes the slow way: the cell is unquoted, and either stored or
//! refused. A refused cell of a column whose type was inferred is a [`Failure::Misfit`], which asks for a wider type; one
//! of a column whose type was given is an error. As columns are not the order of the text, a chunk with such a cell is
//! gone through again record by record.

mod cell;
mod column;
mod lanes;
mod summary;
mod tile;
mod walk;

use tapeline_bcsv::{Column, ColumnType};
use tapeline_sys::vector::{Work, widest};

use self::cell::{Refused, Slot, slow, store};
use self::column::{Place, usual};
use self::lanes::Lanes;
pub(crate) use self::summary::summarise;
use self::tile::Tile;
use self::walk::Walk;
use crate::columns;
use crate::error::{Error, ErrorKind, Result};
use crate::infer::{Summary, Types};
use crate::records;
use crate::sniff::Dialect;

/// What to do with a record that has more or fewer fields than there are columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ragged {
    /// Stop with its line.
    #[default]
    Stop,
    /// Leave it out, and count it.
    Skip,
    /// Fill a short one with empty cells, and count it; a long one stops.
    Pad,
}

/// A column to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The field of each record that it is made of.
    pub field: usize,
    pub name: String,
    pub kind: ColumnType,
    /// The type was given: cells are read leniently, and never widen it.
    pub given: bool,
    /// Only empty cells were seen so far.
    pub blank: bool,
}

/// What chunks are parsed by.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub dialect: Dialect,
    pub types: Types,
    pub ragged: Ragged,
    /// Names of all fields.
    pub fields: Vec<String>,
    /// Columns to be made, in the order of the output.
    pub targets: Vec<Target>,
}

impl Plan {
    /// For each field the number of its target.
    fn slots(&self) -> Vec<Option<usize>> {
        let mut slots = vec![None; self.fields.len()];
        for (number, target) in self.targets.iter().enumerate() {
            if let Some(slot) = slots.get_mut(target.field) {
                *slot = Some(number);
            }
        }
        slots
    }
}

/// Counts of what was not plain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub skipped: u64,
    pub padded: u64,
    pub blank: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.skipped += other.skipped;
        self.padded += other.padded;
        self.blank += other.blank;
    }
}

/// A parsed chunk.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub rows: usize,
    pub columns: Vec<Column>,
    /// Per target: cells stored as NaN for want of a value, and cells of a given type that were rounded.
    pub empties: Vec<u64>,
    pub rounded: Vec<u64>,
    pub counts: Counts,
}

impl Parsed {
    /// What was seen of each target.
    pub(crate) fn seen(&self, plan: &Plan) -> Vec<Summary> {
        let targets = plan.targets.iter().zip(&self.empties);
        let columns = self.columns.iter().zip(targets);
        columns
            .map(|(column, (target, empties))| seen_in(column, target, *empties))
            .collect()
    }
}

fn seen_in(column: &Column, target: &Target, empties: u64) -> Summary {
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

/// Why a chunk is not columns.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A cell does not fit the inferred type of its column.
    Misfit,
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Whole records to columns. `first_line` is the line of the first byte.
pub(crate) fn parse(
    plan: &Plan,
    bytes: &[u8],
    first_line: u64,
) -> std::result::Result<Parsed, Failure> {
    check_utf8(bytes, first_line)?;
    let mut slots = make_slots(plan, bytes);
    let mut tile = Tile::new(slots.len());
    let mut lanes = Lanes::default();
    let mut walk = Walk::new(plan, bytes, first_line);
    let (mut rows, mut at) = (0, 0);
    while let Some(text) = bytes.get(at..).filter(|text| !text.is_empty()) {
        let fill = Fill {
            plan,
            slots: &mut slots,
            tile: &mut tile,
            lanes: &mut lanes,
            text,
        };
        let Some(taken) = widest(fill) else {
            return in_order(plan, bytes, first_line);
        };
        rows += tile.records();
        at += taken;
        if taken == 0 {
            let more;
            (at, more) = store_record(plan, &mut slots, &mut walk, at)?;
            rows += more;
        }
    }
    Ok(collect(plan, slots, rows, walk.counts))
}

/// The records at the start of a text, column by column.
struct Fill<'a> {
    plan: &'a Plan,
    slots: &'a mut [Slot],
    tile: &'a mut Tile,
    lanes: &'a mut Lanes,
    text: &'a [u8],
}

impl Work for Fill<'_> {
    /// The bytes done, none if the first record is not as it should be; `None` if a cell was refused.
    type Output = Option<usize>;

    const WIDE: bool = true;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let taken = self.tile.find(self.text, self.plan.dialect.delimiter);
        for (field, slot) in self.slots.iter_mut().enumerate() {
            if slot.target.is_none() {
                continue;
            }
            let mut done = 0;
            loop {
                let place = Place {
                    text: self.text,
                    tile: self.tile,
                    field,
                    from: done,
                    point: self.plan.types.point,
                };
                done = usual(slot, self.lanes, place);
                let Some((start, _)) = self.tile.cells(field, done).next() else {
                    break;
                };
                slow(self.plan, slot, self.text, start).ok()?;
                done += 1;
            }
        }
        Some(taken)
    }
}

/// The same record by record, which finds the first cell that is refused.
#[cold]
fn in_order(plan: &Plan, bytes: &[u8], first_line: u64) -> std::result::Result<Parsed, Failure> {
    let mut slots = make_slots(plan, bytes);
    let mut walk = Walk::new(plan, bytes, first_line);
    let (mut rows, mut at) = (0, 0);
    while at < bytes.len() {
        let more;
        (at, more) = store_record(plan, &mut slots, &mut walk, at)?;
        rows += more;
    }
    Ok(collect(plan, slots, rows, walk.counts))
}

/// The record at `at`, cell by cell; where the next one starts, and how many rows it made.
fn store_record(
    plan: &Plan,
    slots: &mut [Slot],
    walk: &mut Walk<'_>,
    at: usize,
) -> std::result::Result<(usize, usize), Failure> {
    let (next, is_row) = walk.record(at)?;
    if !is_row {
        return Ok((next, 0));
    }
    let cells = walk.cells.iter().zip(&walk.places);
    for (field, (slot, (text, place))) in slots.iter_mut().zip(cells).enumerate() {
        if slot.target.is_none() {
            continue;
        }
        store(&plan.types, slot, text).map_err(|refused| match refused {
            Refused::Misfit => Failure::Misfit,
            Refused::Error(kind) => walk.error(kind, *place, field).into(),
        })?;
    }
    Ok((next, 1))
}

fn make_slots(plan: &Plan, bytes: &[u8]) -> Vec<Slot> {
    // A guess at the rows, so that columns seldom grow: the length of the first records.
    let head = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
    let rows =
        bytes.len() / (head.len() / (1 + memchr::memchr_iter(b'\n', head).count()) + 1).max(1);
    let slot = |target: Option<usize>| {
        let found = target.and_then(|number| plan.targets.get(number));
        Slot {
            target,
            column: Column::with_capacity(
                found.map_or(ColumnType::String, |target| target.kind),
                if found.is_some() { rows } else { 0 },
            ),
            given: found.is_some_and(|target| target.given),
            blank: found.is_some_and(|target| target.blank),
            empties: 0,
            rounded: 0,
        }
    };
    plan.slots().into_iter().map(slot).collect()
}

fn collect(plan: &Plan, slots: Vec<Slot>, rows: usize, counts: Counts) -> Parsed {
    let targets = plan.targets.len();
    let mut parsed = Parsed {
        rows,
        columns: (0..targets).map(|_| Column::UInt8(Vec::new())).collect(),
        empties: vec![0; targets],
        rounded: vec![0; targets],
        counts,
    };
    for slot in slots {
        let Some(number) = slot.target else { continue };
        if let Some(column) = parsed.columns.get_mut(number) {
            *column = slot.column;
        }
        if let Some(empties) = parsed.empties.get_mut(number) {
            *empties = slot.empties;
        }
        if let Some(rounded) = parsed.rounded.get_mut(number) {
            *rounded = slot.rounded;
        }
    }
    parsed
}

fn check_utf8(bytes: &[u8], first_line: u64) -> Result<()> {
    // Most text is, and finding that out takes wider vectors than decoding does.
    if bytes.is_ascii() {
        return Ok(());
    }
    std::str::from_utf8(bytes).map(drop).map_err(|error| {
        let line = line_of(bytes, first_line, error.valid_up_to());
        Error::at(ErrorKind::NotUtf8, line, None)
    })
}

fn line_of(bytes: &[u8], first_line: u64, at: usize) -> u64 {
    first_line + records::newlines(bytes.get(..at).unwrap_or(bytes))
}

fn column_of(plan: &Plan, field: usize) -> Option<(usize, String)> {
    plan.fields.get(field).map(|name| (field, name.clone()))
}

#[cfg(test)]
mod tests;
