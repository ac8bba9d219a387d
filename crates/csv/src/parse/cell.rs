//! The slow way of a cell: cut out, unquoted, and stored or refused.

use std::borrow::Cow;

use tapeline_bcsv::{Column, MAX_STRING_BYTES, StringColumn};

use super::Plan;
use crate::error::ErrorKind;
use crate::infer::{EmptyCells, Types};
use crate::number::{Decimal, decimal, double, float, special};
use crate::records;

/// Why a cell was not stored.
pub(super) enum Refused {
    Misfit,
    Error(ErrorKind),
}

/// A field of each record, and the column that is made of it.
pub(super) struct Slot {
    pub target: Option<usize>,
    pub column: Column,
    pub given: bool,
    pub blank: bool,
    pub empties: u64,
    pub rounded: u64,
}

/// Cut the cell at `at` out, store or refuse it.
#[cold]
#[inline(never)]
pub(super) fn slow(
    plan: &Plan,
    slot: &mut Slot,
    bytes: &[u8],
    at: usize,
) -> std::result::Result<(), Refused> {
    let (text, _) = records::cell(bytes, at, plan.dialect.delimiter).map_err(Refused::Error)?;
    store(&plan.types, slot, &text)
}

/// Store a cell's text.
pub(super) fn store(
    types: &Types,
    slot: &mut Slot,
    text: &[u8],
) -> std::result::Result<(), Refused> {
    let kind = slot.column.kind();
    if let Column::String(column) = &mut slot.column {
        if text.len() > MAX_STRING_BYTES {
            return Err(Refused::Error(ErrorKind::LongString {
                bytes: text.len(),
                limit: MAX_STRING_BYTES,
            }));
        }
        if slot.blank && !types.is_empty(text) {
            return Err(Refused::Misfit);
        }
        push(column, text);
        return Ok(());
    }
    if types.is_empty(text) {
        let nan = types.empty == EmptyCells::Nan;
        match &mut slot.column {
            Column::Float(values) if nan => values.push(f32::NAN),
            Column::Double(values) if nan => values.push(f64::NAN),
            _ if slot.given || types.empty == EmptyCells::Stop => {
                return Err(Refused::Error(ErrorKind::EmptyCell { kind }));
            }
            _ => return Err(Refused::Misfit),
        }
        slot.empties += 1;
        return Ok(());
    }
    let cleaned = if slot.given {
        lenient(text)
    } else {
        Cow::Borrowed(text)
    };
    if number(
        &mut slot.column,
        &cleaned,
        types.point,
        slot.given,
        &mut slot.rounded,
    ) {
        return Ok(());
    }
    Err(if slot.given {
        Refused::Error(ErrorKind::NoFit {
            kind,
            text: shortened(text),
        })
    } else {
        Refused::Misfit
    })
}

/// Store the text of a number or bool if it fits. `given`: a float takes the nearest value, a bool more spellings.
fn number(column: &mut Column, text: &[u8], point: u8, given: bool, rounded: &mut u64) -> bool {
    macro_rules! whole {
        ($values:expr, $type:ty) => {{
            let fit = match decimal(text, point) {
                Some((found, end)) if end == text.len() && found.integer && found.whole => {
                    let wide = i128::from(found.mantissa);
                    let zero = found.negative && wide == 0 && !given;
                    <$type>::try_from(if found.negative { -wide } else { wide })
                        .ok()
                        .filter(|_| !zero)
                }
                _ => None,
            };
            fit.map(|value| $values.push(value)).is_some()
        }};
    }
    match column {
        Column::UInt8(values) => whole!(values, u8),
        Column::UInt16(values) => whole!(values, u16),
        Column::UInt32(values) => whole!(values, u32),
        Column::UInt64(values) => whole!(values, u64),
        Column::Int8(values) => whole!(values, i8),
        Column::Int16(values) => whole!(values, i16),
        Column::Int32(values) => whole!(values, i32),
        Column::Int64(values) => whole!(values, i64),
        Column::Float(values) => {
            let found = match decimal(text, point) {
                Some((found, end)) if end == text.len() => {
                    let (value, kept) = float(&found, text, point);
                    (
                        value,
                        kept && (!found.integer || (found.whole && found.fits_f32())),
                    )
                }
                #[allow(clippy::cast_possible_truncation)] // NaN and infinities
                _ => match special(text) {
                    Some(value) => (value as f32, true),
                    None => return false,
                },
            };
            // What overflows is no rounding.
            let kept = found.1 || (given && found.0.is_finite());
            *rounded += u64::from(kept && !found.1);
            kept.then(|| values.push(found.0)).is_some()
        }
        Column::Double(values) => {
            let found = match decimal(text, point) {
                Some((found, end)) if end == text.len() => {
                    let (value, kept) = double(&found, text, point);
                    (
                        value,
                        kept && (!found.integer || (found.whole && found.fits_f64())),
                    )
                }
                _ => match special(text) {
                    Some(value) => (value, true),
                    None => return false,
                },
            };
            let kept = found.1 || (given && found.0.is_finite());
            *rounded += u64::from(kept && !found.1);
            kept.then(|| values.push(found.0)).is_some()
        }
        Column::Bool(values) => {
            let value = match text {
                b"true" => true,
                b"false" => false,
                b"True" | b"TRUE" | b"1" if given => true,
                b"False" | b"FALSE" | b"0" if given => false,
                _ => return false,
            };
            values.push(value);
            true
        }
        Column::String(_) => false,
    }
}

/// For given types: without blanks around, plus sign and superfluous leading zeros.
fn lenient(text: &[u8]) -> Cow<'_, [u8]> {
    let text = text.trim_ascii();
    let (sign, digits) = match text.first() {
        Some(b'-') => (&b"-"[..], text.get(1..).unwrap_or_default()),
        Some(b'+') => (&b""[..], text.get(1..).unwrap_or_default()),
        _ => (&b""[..], text),
    };
    let zeros = digits
        .windows(2)
        .take_while(|pair| matches!(pair, [b'0', b'0'..=b'9']))
        .count();
    Cow::Owned([sign, digits.get(zeros..).unwrap_or_default()].concat())
}

fn shortened(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    }
}

#[inline]
fn push(text: &mut StringColumn, cell: &[u8]) {
    text.bytes.extend_from_slice(cell);
    // Chunks are far below 2 GiB.
    text.offsets
        .push(i32::try_from(text.bytes.len()).unwrap_or(i32::MAX));
}

/// The same for a cell at the start of `rest`: a short one is copied as sixteen bytes and cut, without a call.
#[inline(always)]
pub(super) fn push_from(text: &mut StringColumn, rest: &[u8], cell: &[u8]) {
    match rest.first_chunk::<16>() {
        Some(sixteen) if cell.len() <= 16 => {
            let end = text.bytes.len() + cell.len();
            text.bytes.extend_from_slice(sixteen);
            text.bytes.truncate(end);
            text.offsets.push(i32::try_from(end).unwrap_or(i32::MAX));
        }
        _ => push(text, cell),
    }
}

impl Decimal {
    #[inline]
    pub(super) fn fits_f32(&self) -> bool {
        self.mantissa <= 1 << 24 || crate::infer::fits_f32(self.mantissa.into())
    }

    #[inline]
    pub(super) fn fits_f64(&self) -> bool {
        self.mantissa <= 1 << 53 || crate::infer::fits_f64(self.mantissa.into())
    }
}
