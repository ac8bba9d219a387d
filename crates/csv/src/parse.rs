//! A chunk of whole records to columns: the hot loop.
//!
//! Every cell is tried in the form that programs print for its column's type, straight from the bytes and without
//! looking for its end first. Whatever that does not take goes the slow way: the cell is cut out, unquoted, and either
//! stored or refused. A refused cell of a column whose type was inferred is a [`Failure::Misfit`], which asks for a wider
//! type; one of a column whose type was given is an error.

mod cell;
mod summary;

use tapeline_bcsv::{Column, ColumnType, MAX_STRING_BYTES};

use self::cell::{Refused, Slot, push_from, slow, store};
pub(crate) use self::summary::summarise;
use crate::columns;
use crate::error::{Error, ErrorKind, Result};
use crate::infer::Types;
use crate::number::{POWERS_OF_TEN, decimal, decimal_inline, double, float, up_to_eight};
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
    let mut rows = 0;
    let mut counts = Counts::default();
    let place = |at: usize, field: usize| (line_of(bytes, first_line, at), column_of(plan, field));
    let mut at = 0;
    while at < bytes.len() {
        if slots.len() > 1 {
            let blank = records::blank(bytes, at);
            if blank > 0 {
                counts.blank += 1;
                at += blank;
                continue;
            }
        }
        match parse_record(plan, &mut slots, bytes, at) {
            Ok(next) => {
                rows += 1;
                at = next;
            }
            Err(Stop::Refused(Refused::Misfit, ..)) => return Err(Failure::Misfit),
            Err(Stop::Refused(Refused::Error(kind), field, cell)) => {
                let (line, column) = place(cell, field);
                return Err(Error::at(kind, line, column).into());
            }
            Err(Stop::Ragged) => {
                for slot in &mut slots {
                    columns::truncate(&mut slot.column, rows);
                }
                at = ragged_record(
                    plan,
                    &mut slots,
                    bytes,
                    first_line,
                    at,
                    &mut counts,
                    &mut rows,
                )?;
            }
        }
    }
    Ok(collect(plan, slots, rows, counts))
}

enum Stop {
    /// A cell was refused: why, its field, its place.
    Refused(Refused, usize, usize),
    Ragged,
}

#[inline(always)]
fn parse_record(
    plan: &Plan,
    slots: &mut [Slot],
    bytes: &[u8],
    start: usize,
) -> std::result::Result<usize, Stop> {
    let Dialect { delimiter, .. } = plan.dialect;
    let point = plan.types.point;
    let last = slots.len() - 1;
    let mut at = start;
    for (field, slot) in slots.iter_mut().enumerate() {
        let end = match quick(slot, bytes, at, delimiter, point) {
            Some(end) => end,
            None => {
                slow(plan, slot, bytes, at).map_err(|refused| Stop::Refused(refused, field, at))?
            }
        };
        match bytes.get(end) {
            Some(byte) if *byte == delimiter => {
                if field == last {
                    return Err(Stop::Ragged);
                }
                at = end + 1;
            }
            byte => {
                if field != last {
                    return Err(Stop::Ragged);
                }
                return Ok(end + 1 + usize::from(byte == Some(&b'\r')));
            }
        }
    }
    Ok(at)
}

/// Whether a cell of this length ends there.
#[inline(always)]
fn ends(rest: &[u8], len: usize, delimiter: u8) -> bool {
    match rest.get(len) {
        Some(byte) if *byte == delimiter || *byte == b'\n' => true,
        Some(b'\r') => rest.get(len + 1) == Some(&b'\n'),
        _ => false,
    }
}

/// Store the cell at `at` if it is in the usual form; returns where it ends.
#[inline(always)]
fn quick(slot: &mut Slot, bytes: &[u8], at: usize, delimiter: u8, point: u8) -> Option<usize> {
    let rest = bytes.get(at..)?;
    macro_rules! whole {
        ($values:expr, $type:ty) => {{
            let (negative, magnitude, len) = integer(rest)?;
            if !ends(rest, len, delimiter) {
                return None;
            }
            let value = if negative {
                <$type>::try_from(magnitude.wrapping_neg().cast_signed()).ok()?
            } else {
                <$type>::try_from(magnitude).ok()?
            };
            $values.push(value);
            Some(at + len)
        }};
    }
    match &mut slot.column {
        Column::UInt8(values) => whole!(values, u8),
        Column::UInt16(values) => whole!(values, u16),
        Column::UInt32(values) => whole!(values, u32),
        Column::UInt64(values) => {
            let (negative, magnitude, len) = integer(rest)?;
            if negative || !ends(rest, len, delimiter) {
                return None;
            }
            values.push(magnitude);
            Some(at + len)
        }
        Column::Int8(values) => whole!(values, i8),
        Column::Int16(values) => whole!(values, i16),
        Column::Int32(values) => whole!(values, i32),
        Column::Int64(values) => whole!(values, i64),
        Column::Float(values) => {
            let (found, len) = decimal_inline(rest, point)?;
            if !ends(rest, len, delimiter) || (found.integer && !found.fits_f32()) {
                return None;
            }
            let (value, kept) = float(&found, rest.get(..len)?, point);
            if !kept {
                return None;
            }
            values.push(value);
            Some(at + len)
        }
        Column::Double(values) => {
            let (found, len) = decimal_inline(rest, point)?;
            if !ends(rest, len, delimiter) || (found.integer && !found.fits_f64()) {
                return None;
            }
            let (value, kept) = double(&found, rest.get(..len)?, point);
            if !kept {
                return None;
            }
            values.push(value);
            Some(at + len)
        }
        Column::Bool(values) => {
            let (value, len) = if rest.first_chunk::<4>() == Some(b"true") {
                (true, 4)
            } else if rest.first_chunk::<5>() == Some(b"false") {
                (false, 5)
            } else {
                return None;
            };
            if !ends(rest, len, delimiter) {
                return None;
            }
            values.push(value);
            Some(at + len)
        }
        Column::String(text) => {
            if rest.first() == Some(&records::QUOTE) || slot.blank {
                return None;
            }
            let end = records::plain_end(bytes, at, delimiter).ok()?;
            if slot.target.is_some() {
                let cell = bytes.get(at..end)?;
                if cell.len() > MAX_STRING_BYTES {
                    return None;
                }
                push_from(text, rest, cell);
            }
            Some(end)
        }
    }
}

/// Sign, magnitude and length of the whole number at the start. One that is negative is at least -2^63.
#[inline(always)]
fn integer(bytes: &[u8]) -> Option<(bool, u64, usize)> {
    let negative = bytes.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut at = start;
    let mut value: u64 = 0;
    let mut count = 8;
    while count == 8
        && let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>())
    {
        let more;
        (count, more) = up_to_eight(*eight);
        // Overflow is found by the number of digits below.
        value = value
            .wrapping_mul(POWERS_OF_TEN.get(count).copied().unwrap_or(1))
            .wrapping_add(more);
        at += count;
    }
    while count == 8
        && let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0'))
        && digit <= 9
    {
        value = value.wrapping_mul(10).wrapping_add(digit.into());
        at += 1;
    }
    let digits = at - start;
    let zero = bytes.get(start) == Some(&b'0');
    // 19 digits always fit 64 bits; the rare longer ones are looked at one by one.
    if digits == 0 || (zero && (digits > 1 || negative)) || (negative && value > 1 << 63) {
        return None;
    }
    if digits > 19 && (digits > 20 || decimal(bytes, 0).is_none_or(|(d, _)| !d.whole)) {
        return None;
    }
    Some((negative, value, at))
}

/// A record with the wrong number of fields; returns where the next one starts.
#[cold]
fn ragged_record(
    plan: &Plan,
    slots: &mut [Slot],
    bytes: &[u8],
    first_line: u64,
    at: usize,
    counts: &mut Counts,
    rows: &mut usize,
) -> std::result::Result<usize, Failure> {
    let (cells, next) = records::record(bytes, at, plan.dialect.delimiter)
        .map_err(|(kind, at)| Error::at(kind, line_of(bytes, first_line, at), None))?;
    match plan.ragged {
        Ragged::Skip => counts.skipped += 1,
        Ragged::Pad if cells.len() < slots.len() => {
            counts.padded += 1;
            for (field, slot) in slots.iter_mut().enumerate() {
                let text = cells.get(field).map_or(&b""[..], |cell| cell);
                if slot.target.is_none() {
                    continue;
                }
                match store(&plan.types, slot, text) {
                    Ok(()) => {}
                    Err(Refused::Misfit) => return Err(Failure::Misfit),
                    Err(Refused::Error(kind)) => {
                        let line = line_of(bytes, first_line, at);
                        return Err(Error::at(kind, line, column_of(plan, field)).into());
                    }
                }
            }
            *rows += 1;
        }
        _ => {
            let kind = ErrorKind::Ragged {
                expected: slots.len(),
                found: cells.len(),
            };
            return Err(Error::at(kind, line_of(bytes, first_line, at), None).into());
        }
    }
    Ok(next)
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
