//! Numbers as text, into memory that is there already.
//!
//! A [`Page`] is what is left of a buffer: everything is written in pieces of fixed size at a place that only moves
//! forward, so there is no call and no growing per cell. Whoever makes one gives it room for the longest text; a page
//! that ran over says so in the end.
//!
//! Floats are the shortest digits that read back as the same value. Most numbers are printed in groups, see `group`
//! and `doubles`; here are the others, and numbers one by one.
//!
//! Some of them have few decimals, and those are found by one division: if `round(x * 10^k) / 10^k` is `x` and has no
//! more digits than every decimal keeps (15 for binary64, 6 for binary32), no other decimal as short is, and without
//! the zeros at its end it is the shortest. All others go to `zmij`.

mod doubles;
mod group;

pub(crate) use self::doubles::Doubles;
pub(crate) use self::group::{Floats, LANES, Wholes, map};

/// Longest text of a number: `-2.2250738585072014e-308`.
pub(crate) const NUMBER_BYTES: usize = 24;
/// Pieces are written whole, so a page is this much longer than its text.
pub(crate) const SLACK_BYTES: usize = 32;

/// See the module.
pub(crate) struct Page<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Page<'a> {
    /// Write to `bytes` from `at` on.
    pub(crate) fn new(bytes: &'a mut [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The place behind the text; `None` if there was no room for it.
    pub(crate) fn end(&self) -> Option<usize> {
        (self.at + SLACK_BYTES <= self.bytes.len()).then_some(self.at)
    }

    /// The place behind the text, whether there was room for it or not.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Write a piece of which the first `len` bytes count. Where there is no room, `end` tells.
    #[inline(always)]
    pub(crate) fn piece<const N: usize>(&mut self, piece: [u8; N], len: usize) {
        if let Some(to) = self
            .bytes
            .get_mut(self.at..)
            .and_then(|rest| rest.first_chunk_mut::<N>())
        {
            *to = piece;
        }
        self.at += len;
    }

    #[inline(always)]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.piece([byte], 1);
    }

    /// Write some bytes: short ones as pieces that overlap.
    #[inline(always)]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        macro_rules! two_pieces {
            ($size:literal) => {
                if let (Some(first), Some(last)) =
                    (bytes.first_chunk::<$size>(), bytes.last_chunk::<$size>())
                {
                    self.piece(*first, bytes.len() - $size);
                    self.piece(*last, $size);
                }
            };
        }
        match bytes.len() {
            0..4 => bytes.iter().for_each(|byte| self.byte(*byte)),
            4..8 => two_pieces!(4),
            8..16 => two_pieces!(8),
            16..=32 => two_pieces!(16),
            _ => self.long(bytes),
        }
    }

    #[inline(never)]
    fn long(&mut self, bytes: &[u8]) {
        if let Some(to) = self.bytes.get_mut(self.at..self.at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
        self.at += bytes.len();
    }

    /// A whole number: blocks of eight digits, each made at once, without a loop over digits.
    #[inline(always)]
    pub(crate) fn whole(&mut self, value: u64) {
        if value < BLOCK {
            self.first_block(value);
        } else {
            self.blocks(value);
        }
    }

    #[inline(always)]
    fn blocks(&mut self, value: u64) {
        let (high, low) = (value / BLOCK, value % BLOCK);
        if high < BLOCK {
            self.first_block(high);
        } else {
            self.first_block(high / BLOCK);
            self.next_block(high % BLOCK);
        }
        self.next_block(low);
    }

    /// All eight digits.
    #[inline(always)]
    fn next_block(&mut self, value: u64) {
        self.piece((eight_digits(value) | ASCII).to_le_bytes(), 8);
    }

    /// Without zeros in front.
    #[inline(always)]
    fn first_block(&mut self, value: u64) {
        let digits = eight_digits(value);
        // The lowest byte is the first digit; the last one is written even if it is 0.
        let zeros = (digits | 1 << 56).trailing_zeros() / 8;
        let shown = (digits | ASCII) >> (8 * zeros);
        self.piece(shown.to_le_bytes(), 8 - zeros as usize);
    }

    /// A binary64 that is finite. `hint` belongs to the column.
    #[inline(always)]
    pub(crate) fn double(&mut self, value: f64, point: u8, hint: &mut Hint) {
        let size = value.abs();
        if (1e-3..1e8).contains(&size) {
            if hint.worth_trying() {
                // Below 10^14: at most 14 digits, and exact as a binary64.
                let scaled = nearest(size * 1e6);
                if scaled / 1e6 == size {
                    return self.decimals(value < 0.0, scaled, 1e6, point);
                }
                hint.failed();
            }
            self.text(zmij::Buffer::new().format_finite(value), point);
        } else if size == 0.0 {
            self.zero(value.is_sign_negative(), point);
        } else if (1e8..1e15).contains(&size) {
            self.text(zmij::Buffer::new().format_finite(value), point);
        } else {
            self.rewritten(zmij::Buffer::new().format_finite(value), point);
        }
    }

    /// A binary32 that is finite.
    #[inline(always)]
    pub(crate) fn float(&mut self, value: f32, point: u8, hint: &mut Hint) {
        let size = f64::from(value.abs());
        if (1e-3..1e7).contains(&size) {
            if size < 1e5 && hint.worth_trying() {
                // As many decimals as leave six digits.
                let power = match size {
                    ..1.0 => 1e6,
                    ..10.0 => 1e5,
                    ..100.0 => 1e4,
                    ..1000.0 => 1e3,
                    ..1e4 => 1e2,
                    _ => 1e1,
                };
                let scaled = nearest(size * power);
                // Nearer than half the distance to the next binary32: 2^-24 of the power of two below. (Half of that
                // below a power of two itself; those are decimals themselves, or none is near.)
                let half = f64::from_bits(size.to_bits() & EXPONENT) * (0.999 / 16_777_216.0);
                if scaled < 1e6 && (scaled / power - size).abs() < half {
                    return self.decimals(value < 0.0, scaled, power, point);
                }
                hint.failed();
            }
            self.text(zmij::Buffer::new().format_finite(value), point);
        } else if size == 0.0 {
            self.zero(value.is_sign_negative(), point);
        } else {
            self.rewritten(zmij::Buffer::new().format_finite(value), point);
        }
    }

    #[inline]
    fn zero(&mut self, negative: bool, point: u8) {
        self.piece([b'-'], usize::from(negative));
        self.piece([b'0', point, b'0'], 3);
    }

    /// `scaled / power`, both whole; at most six decimals, and at least one of them.
    #[inline(always)]
    fn decimals(&mut self, negative: bool, scaled: f64, power: f64, point: u8) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // whole, not negative, below 10^14
        let (scaled, power) = (scaled as u64, power as u64);
        self.piece([b'-'], usize::from(negative));
        self.whole(scaled / power);
        self.byte(point);
        let digits = eight_digits(scaled % power * (BLOCK / power));
        let zeros = (digits | 1).leading_zeros() / 8;
        self.piece((digits | ASCII).to_le_bytes(), 8 - zeros as usize);
    }

    /// A number as printed, with the decimal separator wanted.
    #[inline(always)]
    fn text(&mut self, text: &str, point: u8) {
        let from = self.at;
        self.bytes(text.as_bytes());
        if point != b'.' {
            let written = self.bytes.get_mut(from..self.at).unwrap_or_default();
            if let Some(at) = written.iter_mut().find(|byte| **byte == b'.') {
                *at = point;
            }
        }
    }

    /// A number as printed by `zmij`, in Python's notation.
    #[cold]
    fn rewritten(&mut self, text: &str, point: u8) {
        match python_notation(text) {
            Some(text) => self.text(&text, point),
            None => self.text(text, point),
        }
    }
}

/// Whether the floats of a column have few decimals: after one that had many, the next ones are not tried.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hint(u8);

impl Hint {
    #[inline(always)]
    fn worth_trying(&mut self) -> bool {
        let worth = self.0 == 0;
        self.0 = self.0.saturating_sub(1);
        worth
    }

    #[inline(always)]
    fn failed(&mut self) {
        self.0 = 31;
    }
}

const BLOCK: u64 = 100_000_000;
/// The bits of the exponent of a binary64.
const EXPONENT: u64 = 0x7FF0_0000_0000_0000;
const ASCII: u64 = 0x3030_3030_3030_3030;

/// The nearest whole number to one that is not negative and below 2^51.
#[inline(always)]
fn nearest(value: f64) -> f64 {
    // At 2^52 the distance between floats is 1.
    const SHIFT: f64 = 4_503_599_627_370_496.0;
    (value + SHIFT) - SHIFT
}

/// The digits of a number below 10^8 as bytes, the first in the lowest.
#[inline(always)]
fn eight_digits(value: u64) -> u64 {
    // Halves of four digits, then of two, then of one; each division is a multiplication in all lanes at once.
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    let tops = ((fours * 10_486) >> 20) & 0x0000_007F_0000_007F;
    let twos = tops | ((fours - 100 * tops) << 16);
    let tops = ((twos * 103) >> 10) & 0x000F_000F_000F_000F;
    tops | ((twos - 10 * tops) << 8)
}

/// `repr` writes exponents below -4 and from 16 on, with a sign and two digits; `None` if the text is that already.
fn python_notation(text: &str) -> Option<String> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => ("-", text),
        None => ("", text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None if text.starts_with("0.0000") || text.len() > 17 => (text, 0),
        None => return None,
    };
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{before}{behind}");
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return None;
    }
    // The number is 0.DIGITS * 10^place.
    let place = i32::try_from(before.len()).ok()? + exponent - i32::try_from(zeros).ok()?;
    let (first, rest) = digits.split_at(1);
    let count = i32::try_from(digits.len()).ok()?;
    Some(if place <= -4 || place > 16 {
        let power = place - 1;
        let fraction = if rest.is_empty() {
            String::new()
        } else {
            format!(".{rest}")
        };
        let mark = if power < 0 { '-' } else { '+' };
        format!("{sign}{first}{fraction}e{mark}{:02}", power.abs())
    } else if place <= 0 {
        format!(
            "{sign}0.{}{digits}",
            "0".repeat(usize::try_from(-place).ok()?)
        )
    } else if place >= count {
        format!(
            "{sign}{digits}{}.0",
            "0".repeat(usize::try_from(place - count).ok()?)
        )
    } else {
        let (whole, fraction) = digits.split_at(usize::try_from(place).ok()?);
        format!("{sign}{whole}.{fraction}")
    })
}

/// What the groups are held against.
#[cfg(test)]
mod twin {
    use super::{LANES, python_notation};

    /// `zmij` and the notation alone.
    pub(super) fn plainly(value: impl zmij::Float) -> String {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value);
        python_notation(text).unwrap_or_else(|| text.to_owned())
    }

    /// As groups, the last one with as many of `more` as it lacks.
    pub(super) fn groups<T: Copy>(values: impl IntoIterator<Item = T>, more: T) -> Vec<[T; LANES]> {
        let mut values: Vec<T> = values.into_iter().collect();
        values.resize(values.len().next_multiple_of(LANES), more);
        values.as_chunks().0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn printed(print: impl Fn(&mut Page<'_>)) -> String {
        let mut bytes = [0; 64];
        let mut page = Page::new(&mut bytes, 0);
        print(&mut page);
        let end = page.end().unwrap();
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    }

    /// `zmij` and the notation alone.
    fn plainly<T: zmij::Float>(value: T) -> String {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value);
        python_notation(text).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn whole_numbers_of_every_length() {
        let mut value = 1_u64;
        for _ in 0..2000 {
            value = value
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            for shift in 0..64 {
                let value = value >> shift;
                assert_eq!(printed(|page| page.whole(value)), value.to_string());
            }
        }
        for value in (0..100_000).chain((1..20).flat_map(|n| [10_u64.pow(n) - 1, 10_u64.pow(n)])) {
            assert_eq!(printed(|page| page.whole(value)), value.to_string());
        }
    }

    #[test]
    fn a_page_without_room_says_so() {
        let mut bytes = [0; 40];
        let mut page = Page::new(&mut bytes, 0);
        page.whole(12_345_678);
        assert_eq!(page.end(), Some(8));
        page.byte(b'x');
        assert_eq!(page.end(), None);
    }

    fn check_double(value: f64) {
        let wanted = plainly(value);
        assert_eq!(
            printed(|page| page.double(value, b'.', &mut Hint(0))),
            wanted
        );
        assert_eq!(
            printed(|page| page.double(value, b'.', &mut Hint(9))),
            wanted
        );
    }

    fn check_float(value: f32) {
        let wanted = plainly(value);
        assert_eq!(
            printed(|page| page.float(value, b'.', &mut Hint(0))),
            wanted
        );
        assert_eq!(
            printed(|page| page.float(value, b'.', &mut Hint(9))),
            wanted
        );
    }

    #[test]
    fn every_short_decimal() {
        for digits in (0..1_100_000_u32).step_by(7) {
            let number = f64::from(digits);
            for power in [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6] {
                #[allow(clippy::cast_possible_truncation)] // on purpose
                let narrow = (number / power) as f32;
                check_float(narrow);
                // The next ones, which are no short decimals or other ones.
                check_float(narrow.next_up());
                check_float(-narrow.next_down());
            }
            if digits % 3 == 0 {
                check_double(number / 1e5);
                check_double((number / 1e4).next_up());
                check_double(-(number / 1e3).next_down());
            }
        }
    }

    proptest! {
        #[test]
        fn doubles(bits: u64, digits in 0_u64..1 << 50, power in 0_i32..12) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            check_double(value);
            #[allow(clippy::cast_precision_loss)] // on purpose
            check_double(digits as f64 / 10_f64.powi(power));
        }

        #[test]
        fn floats(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            check_float(value);
        }
    }
}
