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

/// A number as its bits, with the arithmetic of its type.
trait Lane: Copy + Eq + Default {
    /// Width of a value.
    const BYTES: usize;
    /// Width of a code.
    const CODE_BITS: u32;
    fn read(bytes: &[u8]) -> Self;
    fn write(self, bytes: &mut [u8]);
    /// `self + gradient`.
    fn plus(self, gradient: Self) -> Self;
    /// `self - before`.
    fn minus(self, before: Self) -> Self;
    /// Whether this prediction may be used (not NaN).
    fn predictable(self) -> bool;
    /// What is stored to get from `before` to `self`; 0 only if they are equal.
    fn difference(self, before: Self) -> u64;
    /// The value that is this far from `self`.
    fn apply(self, difference: u64) -> Self;
}

macro_rules! integer_lane {
    ($unsigned:ty, $signed:ty, $bytes:literal, $bits:literal) => {
        impl Lane for $unsigned {
            const BYTES: usize = $bytes;
            const CODE_BITS: u32 = $bits;
            #[inline]
            fn read(bytes: &[u8]) -> Self {
                bytes
                    .first_chunk()
                    .map_or(0, |bytes| Self::from_le_bytes(*bytes))
            }
            #[inline]
            fn write(self, bytes: &mut [u8]) {
                if let Some(to) = bytes.first_chunk_mut() {
                    *to = self.to_le_bytes();
                }
            }
            #[inline]
            fn plus(self, gradient: Self) -> Self {
                self.wrapping_add(gradient)
            }
            #[inline]
            fn minus(self, before: Self) -> Self {
                self.wrapping_sub(before)
            }
            #[inline]
            fn predictable(self) -> bool {
                true
            }
            #[inline]
            fn difference(self, before: Self) -> u64 {
                let s = self.wrapping_sub(before).cast_signed();
                let zigzag = (s << 1) ^ (s >> (<$signed>::BITS - 1));
                zigzag.cast_unsigned().into()
            }
            #[inline]
            #[allow(clippy::cast_possible_truncation)] // differences are at most as wide as the value
            fn apply(self, difference: u64) -> Self {
                let d = difference as $unsigned;
                self.wrapping_add((d >> 1) ^ (d & 1).wrapping_neg())
            }
        }
    };
}

integer_lane!(u8, i8, 1, 2);
integer_lane!(u16, i16, 2, 2);
integer_lane!(u32, i32, 4, 3);
integer_lane!(u64, i64, 8, 4);

macro_rules! float_lane {
    ($name:ident, $bits_type:ty, $float:ty, $bytes:literal, $bits:literal) => {
        #[derive(Clone, Copy, PartialEq, Eq, Default)]
        struct $name($bits_type);

        impl Lane for $name {
            const BYTES: usize = $bytes;
            const CODE_BITS: u32 = $bits;
            #[inline]
            fn read(bytes: &[u8]) -> Self {
                Self(
                    bytes
                        .first_chunk()
                        .map_or(0, |bytes| <$bits_type>::from_le_bytes(*bytes)),
                )
            }
            #[inline]
            fn write(self, bytes: &mut [u8]) {
                if let Some(to) = bytes.first_chunk_mut() {
                    *to = self.0.to_le_bytes();
                }
            }
            #[inline]
            fn plus(self, gradient: Self) -> Self {
                Self((<$float>::from_bits(self.0) + <$float>::from_bits(gradient.0)).to_bits())
            }
            #[inline]
            fn minus(self, before: Self) -> Self {
                Self((<$float>::from_bits(self.0) - <$float>::from_bits(before.0)).to_bits())
            }
            #[inline]
            fn predictable(self) -> bool {
                !<$float>::from_bits(self.0).is_nan()
            }
            #[inline]
            fn difference(self, before: Self) -> u64 {
                (self.0 ^ before.0).into()
            }
            #[inline]
            #[allow(clippy::cast_possible_truncation)] // differences are at most as wide as the value
            fn apply(self, difference: u64) -> Self {
                Self(self.0 ^ difference as $bits_type)
            }
        }
    };
}

float_lane!(F32, u32, f32, 4, 3);
float_lane!(F64, u64, f64, 8, 4);

/// Run a function for the lane type of a column type.
macro_rules! with_lane {
    ($kind:expr, $function:ident ( $($argument:expr),* )) => {
        match $kind {
            ColumnType::UInt8 | ColumnType::Int8 => $function::<u8>($($argument),*),
            ColumnType::UInt16 | ColumnType::Int16 => $function::<u16>($($argument),*),
            ColumnType::UInt32 | ColumnType::Int32 => $function::<u32>($($argument),*),
            ColumnType::UInt64 | ColumnType::Int64 => $function::<u64>($($argument),*),
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
        let first = self.seen == 0;
        for (i, old) in self.strings.iter().enumerate() {
            bits.push(u64::from(first || old.as_slice() != strings.string(i)), 1);
        }
        bits.finish();
        out.extend_from_slice(header.get(..self.header_bytes).unwrap_or_default());
        out.extend_from_slice(data.get(..length).unwrap_or_default());
        for (i, old) in self.strings.iter_mut().enumerate() {
            let new = strings.string(i);
            if first || old.as_slice() != new {
                out.extend_from_slice(&u16::try_from(new.len()).unwrap_or(u16::MAX).to_le_bytes());
                out.extend_from_slice(new);
                old.clear();
                old.extend_from_slice(new);
            }
        }
        self.seen += 1;
    }
}

/// Columns coded together: their codes fill at most 32 bits.
const BLOCK: usize = 8;
/// Bytes in front of which eight differences begin, and the eight bytes of the last one.
const WINDOW: usize = 72;

/// Code one group; returns the end of its differences in `data`, which has [`WINDOW`] bytes of slack.
#[inline]
fn encode_group<L: Lane>(
    new: &[u8],
    old: &mut [u8],
    gradients: &mut [u8],
    predict: bool,
    bits: &mut BitWriter<'_>,
    data: &mut [u8],
    mut at: usize,
) -> usize {
    let old = old.chunks_mut(BLOCK * L::BYTES);
    let gradients = gradients.chunks_mut(BLOCK * L::BYTES);
    for ((new, old), gradients) in new.chunks(BLOCK * L::BYTES).zip(old).zip(gradients) {
        #[allow(clippy::cast_possible_truncation)] // at most eight columns
        let width = (new.len() / L::BYTES) as u32 * L::CODE_BITS;
        if new == old {
            gradients.fill(0);
            bits.push(0, width);
            continue;
        }
        let mut codes = 0_u64;
        let mut shift = 0;
        // Offsets in the window stay below 64: masking them tells the compiler.
        let mut none = [0; WINDOW];
        let window = data
            .get_mut(at..)
            .and_then(|rest| rest.first_chunk_mut())
            .unwrap_or(&mut none);
        let mut used = 0;
        let columns = new
            .chunks_exact(L::BYTES)
            .zip(old.chunks_exact_mut(L::BYTES));
        for ((new, old), gradient) in columns.zip(gradients.chunks_exact_mut(L::BYTES)) {
            let value = L::read(new);
            let before = L::read(old);
            let slope = L::read(gradient);
            let difference = value.difference(before);
            let significant = (71 - (difference | 1).leading_zeros() as usize) / 8;
            let prediction = before.plus(slope);
            let hold = difference == 0;
            let hit = predict && !hold && prediction == value && prediction.predictable();
            // Stored whatever the code: the next column overwrites what was not needed.
            if let Some(to) = window.get_mut(used & 63..(used & 63) + 8) {
                to.copy_from_slice(&difference.to_le_bytes());
            }
            let code = if hit { 1 } else { significant + 1 };
            codes |= (if hold { 0 } else { code } as u64) << shift;
            shift += L::CODE_BITS;
            used += if hit || hold { 0 } else { significant };
            let next = if hold {
                L::default()
            } else {
                value.minus(before)
            };
            (if hit { slope } else { next }).write(gradient);
            value.write(old);
        }
        at += used;
        bits.push(codes, width);
    }
    at
}

/// Decode a row over the image, gradients and strings of the row before.
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
#[inline]
fn decode_group<L: Lane>(
    plain: &[u8],
    mut bit: usize,
    mut at: usize,
    old: &mut [u8],
    gradients: &mut [u8],
) -> Option<usize> {
    let mut impossible = false;
    for (old, gradients) in old
        .chunks_mut(BLOCK * L::BYTES)
        .zip(gradients.chunks_mut(BLOCK * L::BYTES))
    {
        // Eight codes of at most 4 bits are read at once.
        let all = 8 * L::CODE_BITS;
        let mut codes = field(plain, bit, all);
        let columns = old.len() / L::BYTES;
        if columns < BLOCK {
            codes &= (1 << (columns * L::CODE_BITS as usize)) - 1;
        }
        bit += all as usize;
        if codes == 0 {
            gradients.fill(0);
            continue;
        }
        // Offsets in the window stay below 64: masking them tells the compiler.
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
        let mut used = 0;
        for (old, gradient) in old
            .chunks_exact_mut(L::BYTES)
            .zip(gradients.chunks_exact_mut(L::BYTES))
        {
            #[allow(clippy::cast_possible_truncation)] // four bits
            let code = (codes & ((1 << L::CODE_BITS) - 1)) as usize;
            codes >>= L::CODE_BITS;
            impossible |= code > L::BYTES + 1;
            let bytes = code.saturating_sub(1);
            let stored = window
                .get(used & 63..(used & 63) + 8)
                .and_then(|eight| eight.first_chunk());
            let difference =
                stored.map_or(0, |eight| u64::from_le_bytes(*eight)) & MASKS[bytes & 15];
            used += bytes;
            let before = L::read(old);
            let slope = L::read(gradient);
            let applied = before.apply(difference);
            let value = if code == 1 {
                before.plus(slope)
            } else {
                applied
            };
            let next = if code == 0 {
                L::default()
            } else {
                value.minus(before)
            };
            (if code == 1 { slope } else { next }).write(gradient);
            value.write(old);
        }
        at += used;
    }
    (!impossible).then_some(at)
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
