//! Delta002: differences to the row before, with first-order prediction (format 8.3).
//!
//! ```text
//! [ header: bool values | code per number, grouped order | change flag per string ] [ differences ] [ strings ]
//! ```
//!
//! Code 0 holds, code 1 is predicted, code n + 1 stores n bytes of difference. Both directions run over groups
//! of one type. Traps: a hold clears the gradient; a prediction leaves it alone; code 1 may be written from the
//! third row of a packet only; NaN is copied as bits and never predicted.

use super::bits::{BitWriter, field};
use super::{Row, RowStrings, Span, bad};
use crate::error::Result;
use crate::schema::{ColumnType, Layout};

/// Columns coded together: their codes fill at most 32 bits.
const BLOCK: usize = 8;
/// Bytes in front of which eight differences begin, and the eight bytes of the last one.
const WINDOW: usize = 72;

/// Up to eight numbers of one type at a time (`B`). All but the moving of differences is written as loops over arrays of eight
/// without branches, which the compiler turns into vector instructions, as wide as [`tapeline_sys::vector`] finds.
trait Lane {
    /// Bytes of a value.
    const BYTES: usize;
    /// Width of a code.
    const CODE_BITS: u32;
    /// Code a block of `B` columns: the differences go into the window, `old` and `gradients` to the row after. Returns the codes, and
    /// the bytes used of the window.
    fn encode<const B: usize>(
        new: &[u8],
        old: &mut [u8],
        gradients: &mut [u8],
        predict: bool,
        window: &mut [u8; WINDOW],
    ) -> (u64, usize);
    /// Undo [`Lane::encode`]: returns the bytes used of the window. Codes that do not exist give any value.
    fn decode<const B: usize>(
        codes: u64,
        window: &[u8; WINDOW],
        old: &mut [u8],
        gradients: &mut [u8],
    ) -> usize;
    /// Whether all eight codes exist.
    fn exist(codes: u64) -> bool;
}

/// The low 0 to 8 bytes of a word.
const MASKS: [u64; 16] = {
    let mut masks = [u64::MAX; 16];
    let mut n = 0;
    while n < 8 {
        masks[n] = (1 << (8 * n)) - 1;
        n += 1;
    }
    masks
};

macro_rules! lane {
    ($name:ident, $word:ty, $bytes:literal, $bits:literal, $arithmetic:ident, $exist:expr) => {
        struct $name;

        impl $name {
            #[inline(always)]
            fn load<const B: usize>(values: &[[u8; $bytes]; B]) -> [$word; B] {
                values.map(<$word>::from_le_bytes)
            }

            #[inline(always)]
            fn store<const B: usize>(values: [$word; B], bytes: &mut [[u8; $bytes]; B]) {
                *bytes = values.map(<$word>::to_le_bytes);
            }
        }

        impl Lane for $name {
            const BYTES: usize = $bytes;
            const CODE_BITS: u32 = $bits;

            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)] // sizes are at most 8
            fn encode<const B: usize>(
                new: &[u8],
                old: &mut [u8],
                gradients: &mut [u8],
                predict: bool,
                window: &mut [u8; WINDOW],
            ) -> (u64, usize) {
                let mask = |yes: bool| <$word>::from(yes).wrapping_neg();
                let (Some(new), Some(old), Some(gradients)) = (
                    new.as_chunks().0.first_chunk::<B>(),
                    old.as_chunks_mut().0.first_chunk_mut::<B>(),
                    gradients.as_chunks_mut().0.first_chunk_mut::<B>(),
                ) else {
                    return (0, 0);
                };
                let (value, before, slope) =
                    (Self::load(new), Self::load(old), Self::load(gradients));
                let predict = mask(predict);
                let mut stored = [0; B];
                let mut changed = [0; B];
                let mut next = [0; B];
                for i in 0..B {
                    let d = $arithmetic::difference(value[i], before[i]);
                    let prediction = $arithmetic::plus(before[i], slope[i]);
                    let moved = mask(d != 0);
                    let hit = mask(prediction == value[i])
                        & mask($arithmetic::predictable(value[i]))
                        & moved
                        & predict;
                    stored[i] = d & !hit;
                    changed[i] = moved & 1;
                    let change = $arithmetic::minus(value[i], before[i]);
                    next[i] = (slope[i] & hit) | (change & moved & !hit);
                }
                Self::store(value, old);
                Self::store(next, gradients);
                let (mut codes, mut used) = (0, 0);
                for i in 0..B {
                    // A value that is held or predicted has no difference left: no bytes. The code is one more than the
                    // bytes, if the value is not held.
                    let bytes = significant(stored[i] as u64);
                    codes |= (bytes + changed[i] as u64) << (i as u32 * $bits);
                    // Stored whatever the code: the next column overwrites what was not needed. Offsets in the window
                    // stay below 64: masking them tells the compiler.
                    let difference = (stored[i] as u64).to_le_bytes();
                    if let Some(to) = window.get_mut(used & 63..(used & 63) + 8) {
                        to.copy_from_slice(&difference);
                    }
                    used += bytes as usize;
                }
                (codes, used)
            }

            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)] // codes have 32 bits, differences $bytes bytes
            fn decode<const B: usize>(
                codes: u64,
                window: &[u8; WINDOW],
                old: &mut [u8],
                gradients: &mut [u8],
            ) -> usize {
                let mask = |yes: bool| <$word>::from(yes).wrapping_neg();
                let (Some(old), Some(gradients)) = (
                    old.as_chunks_mut().0.first_chunk_mut::<B>(),
                    gradients.as_chunks_mut().0.first_chunk_mut::<B>(),
                ) else {
                    return 0;
                };
                let mut difference = [0; B];
                let mut used = 0;
                for i in 0..B {
                    let code = (codes >> (i as u32 * $bits)) as usize & ((1 << $bits) - 1);
                    let bytes = code - usize::from(code > 0);
                    let stored = window
                        .get(used & 63..(used & 63) + 8)
                        .and_then(|eight| eight.first_chunk())
                        .map_or(0, |eight| u64::from_le_bytes(*eight));
                    difference[i] = (stored & MASKS[bytes & 15]) as $word;
                    used += bytes;
                }
                let (before, slope) = (Self::load(old), Self::load(gradients));
                let mut value = [0; B];
                let mut next = [0; B];
                for i in 0..B {
                    let code = (codes as u32 >> (i as u32 * $bits)) & ((1 << $bits) - 1);
                    let (hit, moved) = (mask(code == 1), mask(code != 0));
                    let predicted = $arithmetic::plus(before[i], slope[i]);
                    let applied = $arithmetic::apply(before[i], difference[i]);
                    value[i] = (predicted & hit) | (applied & !hit);
                    let change = $arithmetic::minus(value[i], before[i]);
                    next[i] = (slope[i] & hit) | (change & moved & !hit);
                }
                Self::store(value, old);
                Self::store(next, gradients);
                used
            }

            #[inline(always)]
            fn exist(codes: u64) -> bool {
                let exist: fn(u64) -> bool = $exist;
                exist(codes)
            }
        }
    };
}

/// Differences as zigzag numbers, modulo the width.
macro_rules! integers {
    ($name:ident, $word:ty) => {
        mod $name {
            #[inline(always)]
            pub(super) fn plus(before: $word, gradient: $word) -> $word {
                before.wrapping_add(gradient)
            }

            #[inline(always)]
            pub(super) fn minus(value: $word, before: $word) -> $word {
                value.wrapping_sub(before)
            }

            #[inline(always)]
            pub(super) fn predictable(_: $word) -> bool {
                true
            }

            #[inline(always)]
            pub(super) fn difference(value: $word, before: $word) -> $word {
                let s = value.wrapping_sub(before);
                let sign = (s.cast_signed() >> (<$word>::BITS - 1)).cast_unsigned();
                (s << 1) ^ sign
            }

            #[inline(always)]
            pub(super) fn apply(before: $word, d: $word) -> $word {
                before.wrapping_add((d >> 1) ^ (d & 1).wrapping_neg())
            }
        }
    };
}

/// Differences as XOR of the bits; NaN is never predicted.
macro_rules! floats {
    ($name:ident, $word:ty, $float:ty) => {
        mod $name {
            #[inline(always)]
            pub(super) fn plus(before: $word, gradient: $word) -> $word {
                (<$float>::from_bits(before) + <$float>::from_bits(gradient)).to_bits()
            }

            #[inline(always)]
            pub(super) fn minus(value: $word, before: $word) -> $word {
                (<$float>::from_bits(value) - <$float>::from_bits(before)).to_bits()
            }

            #[inline(always)]
            pub(super) fn predictable(value: $word) -> bool {
                !<$float>::from_bits(value).is_nan()
            }

            #[inline(always)]
            pub(super) fn difference(value: $word, before: $word) -> $word {
                value ^ before
            }

            #[inline(always)]
            pub(super) fn apply(before: $word, d: $word) -> $word {
                before ^ d
            }
        }
    };
}

integers!(integers8, u8);
integers!(integers16, u16);
integers!(integers32, u32);
integers!(integers64, u64);
floats!(floats32, u32, f32);
floats!(floats64, u64, f64);

/// Significant bytes, 0 to 8.
#[inline(always)]
fn significant(d: u64) -> u64 {
    u64::from(71 - d.leading_zeros()) / 8
}

// Codes that do not exist (format 8.3): 3 for one byte, 6 and 7 for four, 10 to 15 for eight.
const NONE_OF_1: u64 = 0x5555;
const NONE_OF_4: u64 = 0o11_111_111;
const NONE_OF_8: u64 = 0x1111_1111;
lane!(Int8, u8, 1, 2, integers8, |codes| codes
    & codes >> 1
    & NONE_OF_1
    == 0);
lane!(Int16, u16, 2, 2, integers16, |_| true);
lane!(Int32, u32, 4, 3, integers32, |codes| codes >> 2
    & codes >> 1
    & NONE_OF_4
    == 0);
lane!(Int64, u64, 8, 4, integers64, |codes| codes >> 3
    & (codes >> 2 | codes >> 1)
    & NONE_OF_8
    == 0);
lane!(F32, u32, 4, 3, floats32, |codes| codes >> 2
    & codes >> 1
    & NONE_OF_4
    == 0);
lane!(F64, u64, 8, 4, floats64, |codes| codes >> 3
    & (codes >> 2 | codes >> 1)
    & NONE_OF_8
    == 0);

/// Run a function for the lane type of a column type.
macro_rules! with_lane {
    ($kind:expr, $function:ident ( $($argument:expr),* )) => {
        match $kind {
            ColumnType::UInt8 | ColumnType::Int8 => $function::<Int8>($($argument),*),
            ColumnType::UInt16 | ColumnType::Int16 => $function::<Int16>($($argument),*),
            ColumnType::UInt32 | ColumnType::Int32 => $function::<Int32>($($argument),*),
            ColumnType::UInt64 | ColumnType::Int64 => $function::<Int64>($($argument),*),
            ColumnType::Float => $function::<F32>($($argument),*),
            _ => $function::<F64>($($argument),*),
        }
    };
}

fn code_bits(kind: ColumnType) -> u32 {
    match kind.width() {
        1 | 2 => 2,
        4 => 3,
        _ => 4,
    }
}

/// Bits of the header of a row.
fn header_bits(layout: &Layout) -> usize {
    let codes: usize = layout
        .groups
        .iter()
        .map(|group| group.columns * code_bits(group.kind) as usize)
        .sum();
    layout.bools + codes + layout.strings
}

/// What the encoder remembers.
#[derive(Clone)]
pub(super) struct Encoder {
    /// Rows coded in this packet.
    seen: u64,
    image: Vec<u8>,
    gradients: Vec<u8>,
    strings: Vec<Vec<u8>>,
    /// The row being built: header and its slack, differences and their slack.
    scratch: Vec<u8>,
    header_bytes: usize,
}

impl Encoder {
    pub(super) fn new(layout: &Layout) -> Self {
        let header_bytes = header_bits(layout).div_ceil(8);
        Self {
            seen: 0,
            image: vec![0; layout.image_bytes],
            gradients: vec![0; layout.image_bytes],
            strings: vec![Vec::new(); layout.strings],
            scratch: vec![0; header_bytes + 8 + layout.image_bytes + WINDOW],
            header_bytes,
        }
    }

    pub(super) fn restart(&mut self, _: &Layout) {
        self.seen = 0;
        self.image.fill(0);
        self.gradients.fill(0);
    }

    pub(super) fn resume(
        &mut self,
        image: &[u8],
        gradients: &[u8],
        strings: Vec<Vec<u8>>,
        seen: u64,
    ) {
        self.seen = seen;
        self.image = image.to_vec();
        self.gradients = gradients.to_vec();
        self.strings = strings;
    }

    #[inline(always)]
    pub(super) fn encode(
        &mut self,
        layout: &Layout,
        image: &[u8],
        strings: &impl RowStrings,
        out: &mut Vec<u8>,
    ) {
        let (header, data) = self.scratch.split_at_mut(self.header_bytes + 8);
        let mut bits = BitWriter::new(header);
        let full_bytes = layout.bools / 8;
        for (i, byte) in image.iter().take(layout.bool_bytes()).enumerate() {
            #[allow(clippy::cast_possible_truncation)] // below 8
            let width = if i < full_bytes {
                8
            } else {
                (layout.bools % 8) as u32
            };
            bits.push(u64::from(*byte), width);
        }
        let mut length = 0;
        for group in &layout.groups {
            let range = group.at..group.at + group.columns * group.kind.width();
            let new = image.get(range.clone()).unwrap_or_default();
            let old = self.image.get_mut(range.clone()).unwrap_or_default();
            let gradients = self.gradients.get_mut(range).unwrap_or_default();
            let predict = self.seen >= 2;
            length = with_lane!(
                group.kind,
                encode_group(new, old, gradients, predict, &mut bits, data, length)
            );
        }
        // The header comes first and is known last.
        let header_at = out.len();
        out.resize(header_at + self.header_bytes, 0);
        out.extend_from_slice(data.get(..length).unwrap_or_default());
        let first = self.seen == 0;
        for (i, old) in self.strings.iter_mut().enumerate() {
            let new = strings.string(i);
            let changed = first || old.as_slice() != new;
            bits.push(u64::from(changed), 1);
            if changed {
                out.extend_from_slice(&u16::try_from(new.len()).unwrap_or(u16::MAX).to_le_bytes());
                out.extend_from_slice(new);
                old.clear();
                old.extend_from_slice(new);
            }
        }
        bits.finish();
        let header = header.get(..self.header_bytes).unwrap_or_default();
        if let Some(place) = out.get_mut(header_at..header_at + header.len()) {
            place.copy_from_slice(header);
        }
        self.seen += 1;
    }
}

/// Code one group; returns the end of its differences in `data`, which has [`WINDOW`] bytes of slack.
#[inline(always)]
fn encode_group<L: Lane>(
    new: &[u8],
    old: &mut [u8],
    gradients: &mut [u8],
    predict: bool,
    bits: &mut BitWriter<'_>,
    data: &mut [u8],
    mut at: usize,
) -> usize {
    let mut rows = (new, old, gradients);
    let columns = rows.0.len() / L::BYTES;
    for _ in 0..columns / BLOCK {
        encode_block::<L, BLOCK>(&mut rows, predict, bits, data, &mut at);
    }
    if columns & 4 != 0 {
        encode_block::<L, 4>(&mut rows, predict, bits, data, &mut at);
    }
    if columns & 2 != 0 {
        encode_block::<L, 2>(&mut rows, predict, bits, data, &mut at);
    }
    if columns & 1 != 0 {
        encode_block::<L, 1>(&mut rows, predict, bits, data, &mut at);
    }
    at
}

/// Code the first `B` columns of what is left of a group, and leave the others.
#[inline(always)]
fn encode_block<L: Lane, const B: usize>(
    rows: &mut (&[u8], &mut [u8], &mut [u8]),
    predict: bool,
    bits: &mut BitWriter<'_>,
    data: &mut [u8],
    at: &mut usize,
) {
    #[allow(clippy::cast_possible_truncation)] // at most eight
    let width = B as u32 * L::CODE_BITS;
    let bytes = B * L::BYTES;
    let (Some(new), Some(old), Some(gradients)) = (
        rows.0.split_off(..bytes),
        rows.1.split_off_mut(..bytes),
        rows.2.split_off_mut(..bytes),
    ) else {
        return;
    };
    if new == old {
        gradients.fill(0);
        bits.push(0, width);
        return;
    }
    let window = data.get_mut(*at..).and_then(|rest| rest.first_chunk_mut());
    let Some(window) = window else { return };
    let (codes, used) = L::encode::<B>(new, old, gradients, predict, window);
    *at += used;
    bits.push(codes, width);
}

/// Decode a row over the image, gradients and strings of the row before.
#[inline(always)]
pub(super) fn decode(
    layout: &Layout,
    row: &Row<'_>,
    first: bool,
    image: &mut [u8],
    gradients: &mut [u8],
    strings: &mut [Span],
) -> Result<()> {
    let header_bytes = header_bits(layout).div_ceil(8);
    if row.end - row.start < header_bytes {
        return Err(bad("it is too short"));
    }
    let plain = row.plain.get(row.start..).unwrap_or_default();
    layout.copy_bools(plain, image);
    let (mut bit, mut at) = (layout.bools, header_bytes);
    for group in &layout.groups {
        let range = group.at..group.at + group.columns * group.kind.width();
        let old = image.get_mut(range.clone()).unwrap_or_default();
        let gradients = gradients.get_mut(range).unwrap_or_default();
        at = with_lane!(group.kind, decode_group(plain, bit, at, old, gradients))
            .ok_or_else(|| bad("a code that does not exist"))?;
        bit += group.columns * code_bits(group.kind) as usize;
    }
    if row.start + at > row.end {
        return Err(bad("a difference reaches beyond the row"));
    }
    row.strings(at, strings, |i, count| field(plain, bit + i, count), first)
}

/// Decode one group; returns the end of its differences, or `None` for an impossible code.
#[inline(always)]
fn decode_group<L: Lane>(
    plain: &[u8],
    bit: usize,
    at: usize,
    old: &mut [u8],
    gradients: &mut [u8],
) -> Option<usize> {
    let columns = old.len() / L::BYTES;
    let mut place = (bit, at);
    let mut rows = (old, gradients);
    let mut exist = true;
    for _ in 0..columns / BLOCK {
        exist &= decode_block::<L, BLOCK>(plain, &mut place, &mut rows);
    }
    if columns & 4 != 0 {
        exist &= decode_block::<L, 4>(plain, &mut place, &mut rows);
    }
    if columns & 2 != 0 {
        exist &= decode_block::<L, 2>(plain, &mut place, &mut rows);
    }
    if columns & 1 != 0 {
        exist &= decode_block::<L, 1>(plain, &mut place, &mut rows);
    }
    exist.then_some(place.1)
}

/// Decode the first `B` columns of what is left of a group, and leave the others; whether all codes exist. The place is
/// the bit of the codes and the byte of the differences.
#[inline(always)]
fn decode_block<L: Lane, const B: usize>(
    plain: &[u8],
    place: &mut (usize, usize),
    rows: &mut (&mut [u8], &mut [u8]),
) -> bool {
    #[allow(clippy::cast_possible_truncation)] // at most eight
    let width = B as u32 * L::CODE_BITS;
    let bytes = B * L::BYTES;
    let (Some(old), Some(gradients)) =
        (rows.0.split_off_mut(..bytes), rows.1.split_off_mut(..bytes))
    else {
        return false;
    };
    let codes = field(plain, place.0, width);
    place.0 += width as usize;
    if codes == 0 {
        gradients.fill(0);
        return true;
    }
    let at = place.1;
    let mut tail = [0; WINDOW];
    let window = match plain
        .get(at..)
        .and_then(|rest| rest.first_chunk::<WINDOW>())
    {
        Some(window) => window,
        None => {
            let rest = plain.get(at..).unwrap_or_default();
            tail.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            &tail
        }
    };
    place.1 += L::decode::<B>(codes, window, old, gradients);
    L::exist(codes)
}

#[cfg(test)]
mod tests;
