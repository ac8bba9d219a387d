//! The cells of one field, in the form that programs print for the type of its column.
//!
//! A tile is stored column by column: what a cell has to be is decided once, and the processor learns how long the
//! cells of this column are. Numbers are read from their end, eight digits at a time, so there is no loop over digits.

use tapeline_bcsv::{Column, MAX_STRING_BYTES};

use super::cell::{Slot, push_from};
use super::lanes::{LANES, Lanes};
use super::tile::Tile;
use crate::number::{Decimal, POWERS_OF_TEN, decimal_inline, digits_ending, double, float};
use crate::records::{QUOTE, equal};

/// The cells of a field, from a record on.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub text: &'a [u8],
    pub tile: &'a Tile,
    pub field: usize,
    pub from: usize,
    /// The decimal separator.
    pub point: u8,
}

/// Store cells up to the first that is in another form; returns the records done.
#[inline(always)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast
)] // of whole numbers that have been found to fit
pub(super) fn usual(slot: &mut Slot, lanes: &mut Lanes, place: Place<'_>) -> usize {
    let Place {
        text,
        tile,
        field,
        from,
        point,
    } = place;
    let mut done = from;
    macro_rules! store {
        ($values:ident, |$start:ident, $end:ident| $value:expr) => {{
            $values.reserve(tile.records() - from);
            for ($start, $end) in tile.cells(field, from) {
                let Some(value) = $value else { break };
                $values.push(value);
                done += 1;
            }
        }};
    }
    macro_rules! whole {
        ($values:ident, $type:ty, $words:literal) => {{
            $values.reserve(tile.records() - from);
            let least = <$type>::MIN != 0;
            // Blocks, and what is between a refused cell and the next one of those.
            while done < tile.records() {
                let until = (done / LANES + 1) * LANES;
                if done % LANES == 0 {
                    let count = lanes.read::<$words>(Place { from: done, ..place });
                    let most = <$type>::MAX as u64;
                    let fit = lanes.append(count, most, least, $values, |value| value as $type);
                    done += fit;
                    if fit < count {
                        break;
                    }
                }
                let rest = until.min(tile.records()) - done;
                let before = done;
                for (start, end) in tile.cells(field, done).take(rest) {
                    let Some((negative, magnitude)) = integer(text, start, end) else { break };
                    // Without a branch for the sign, which nobody can predict. The least number is one further off.
                    let most = <$type>::MAX as u64 + u64::from(least && negative);
                    let sign = u64::from(negative).wrapping_neg();
                    let value = (magnitude ^ sign).wrapping_sub(sign);
                    if magnitude > most || (negative && !least) {
                        break;
                    }
                    $values.push(value as $type);
                    done += 1;
                }
                if done - before < rest {
                    break;
                }
            }
        }};
    }
    match &mut slot.column {
        Column::UInt8(values) => whole!(values, u8, 1),
        Column::UInt16(values) => whole!(values, u16, 1),
        Column::UInt32(values) => whole!(values, u32, 2),
        Column::UInt64(values) => whole!(values, u64, 3),
        Column::Int8(values) => whole!(values, i8, 1),
        Column::Int16(values) => whole!(values, i16, 1),
        Column::Int32(values) => whole!(values, i32, 2),
        Column::Int64(values) => whole!(values, i64, 3),
        Column::Float(values) => store!(values, |start, end| binary32(text, start, end, point)),
        Column::Double(values) => store!(values, |start, end| binary64(text, start, end, point)),
        Column::Bool(values) => {
            for (start, end) in tile.cells(field, from) {
                let Some(value) = truth(text, start, end) else {
                    break;
                };
                values.push(value);
                done += 1;
            }
        }
        // Columns that were empty so far are looked at one by one.
        Column::String(_) if slot.blank => {}
        Column::String(values) => {
            values.offsets.reserve(tile.records() - from);
            for (start, end) in tile.cells(field, from) {
                let rest = text.get(start..).unwrap_or_default();
                let Some(cell) = rest.get(..end - start) else {
                    break;
                };
                if rest.first() == Some(&QUOTE) || cell.len() > MAX_STRING_BYTES {
                    break;
                }
                push_from(values, rest, cell);
                done += 1;
            }
        }
    }
    done
}

#[inline(always)]
fn truth(text: &[u8], start: usize, end: usize) -> Option<bool> {
    let word = u32::from_le_bytes(*text.get(start..)?.first_chunk::<4>()?);
    let yes = word == u32::from_le_bytes(*b"true") && end - start == 4;
    let no = word == u32::from_le_bytes(*b"fals")
        && end - start == 5
        && text.get(start + 4) == Some(&b'e');
    (yes | no).then_some(yes)
}

/// Sign and magnitude of a whole number.
#[inline(always)]
fn integer(text: &[u8], start: usize, end: usize) -> Option<(bool, u64)> {
    let negative = *text.get(start)? == b'-';
    let start = start + usize::from(negative);
    let len = end.checked_sub(start)?;
    if *text.get(start)? == b'0' && (len > 1 || negative) {
        return None;
    }
    let value = match len {
        1..=8 => digits_ending(text, end, len)?,
        9..=16 => digits_ending(text, end, 8)? + BLOCK * digits_ending(text, end - 8, len - 8)?,
        17..=20 => {
            let low = digits_ending(text, end, 8)? + BLOCK * digits_ending(text, end - 8, 8)?;
            let high = digits_ending(text, end - 16, len - 16)?;
            high.checked_mul(BLOCK * BLOCK)?.checked_add(low)?
        }
        _ => return None,
    };
    Some((negative, value))
}

const BLOCK: u64 = 100_000_000;

// What is not plain is converted apart: a `Decimal` that comes from either of two places would go through memory.

#[inline(always)]
fn binary32(text: &[u8], start: usize, end: usize, point: u8) -> Option<f32> {
    match plain(text, start, end, point) {
        Some(found) => {
            let (value, kept) = float(&found, text.get(start..end)?, point);
            kept.then_some(value)
        }
        None => any_binary32(text.get(start..end)?, point),
    }
}

#[inline(always)]
fn binary64(text: &[u8], start: usize, end: usize, point: u8) -> Option<f64> {
    match plain(text, start, end, point) {
        Some(found) => {
            let (value, kept) = double(&found, text.get(start..end)?, point);
            kept.then_some(value)
        }
        None => any_binary64(text.get(start..end)?, point),
    }
}

#[inline(never)]
fn any_binary32(cell: &[u8], point: u8) -> Option<f32> {
    let (found, len) = decimal_inline(cell, point)?;
    let (value, kept) = float(&found, cell, point);
    (len == cell.len() && kept && (!found.integer || found.fits_f32())).then_some(value)
}

#[inline(never)]
fn any_binary64(cell: &[u8], point: u8) -> Option<f64> {
    let (found, len) = decimal_inline(cell, point)?;
    let (value, kept) = double(&found, cell, point);
    (len == cell.len() && kept && (!found.integer || found.fits_f64())).then_some(value)
}

/// Up to seven digits, the point, up to sixteen digits.
#[inline(always)]
fn plain(text: &[u8], start: usize, end: usize, point: u8) -> Option<Decimal> {
    let negative = *text.get(start)? == b'-';
    let start = start + usize::from(negative);
    let len = end.checked_sub(start)?;
    let head = text.get(start..)?.first_chunk::<8>()?;
    // The first mark is right, if there is one.
    let before = (equal(u64::from_le_bytes(*head), point).trailing_zeros() / 8) as usize;
    let behind = len.checked_sub(before + 1)?;
    if before == 0 || before > 7 || (before > 1 && head.first() == Some(&b'0')) {
        return None;
    }
    let whole = digits_ending(text, start + before, before)?;
    let fraction = match behind {
        1..=8 => digits_ending(text, end, behind)?,
        9..=16 => digits_ending(text, end, 8)? + BLOCK * digits_ending(text, end - 8, behind - 8)?,
        _ => return None,
    };
    // Nineteen digits fit 64 bits.
    if before + behind > 19 {
        return None;
    }
    Some(Decimal {
        negative,
        mantissa: whole * POWERS_OF_TEN.get(behind)? + fraction,
        exponent: -i32::try_from(behind).ok()?,
        whole: true,
        integer: false,
    })
}
