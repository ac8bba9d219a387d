//! Decimal text to numbers, and whether a number still says what its text said.
//!
//! A float *keeps* a text if printing it with as many significant digits as the text has (trailing zeros aside) gives
//! the same digits. Digits below 2^52 (2^23 for binary32) always do inside the range of normal numbers, for the
//! distance to the next float is then less than one unit of the last digit; up to there, and with a power of ten that is
//! exact, one multiplication or division also rounds correctly (Clinger 1990). Everything else goes to the standard
//! library's parser and is compared with what printing gives.
//!
//! Text is a number only in the form that a program prints: no blanks, no plus sign, no superfluous leading zero.

/// A decimal number as found: `(-1)^negative * mantissa * 10^exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal {
    pub negative: bool,
    pub mantissa: u64,
    pub exponent: i32,
    /// The mantissa holds all digits.
    pub whole: bool,
    /// Neither a point nor an exponent.
    pub integer: bool,
}

impl Decimal {
    /// A size with the sign, without a branch that nobody can predict.
    #[inline(always)]
    fn signed(&self, size: f64) -> f64 {
        f64::from_bits(size.to_bits() | u64::from(self.negative) << 63)
    }

    #[inline(always)]
    fn signed_32(&self, size: f32) -> f32 {
        f32::from_bits(size.to_bits() | u32::from(self.negative) << 31)
    }
}

/// Digits taken before only their number counts; more never keep a double (its longest expansion has 767).
const MAX_DIGITS: usize = 800;

/// The number at the start of `bytes` and its length; the caller looks at what follows.
pub(crate) fn decimal(bytes: &[u8], point: u8) -> Option<(Decimal, usize)> {
    decimal_inline(bytes, point)
}

/// The same in place, for the hot loop: what it returns would otherwise go through memory, byte by byte.
#[inline(always)]
pub(crate) fn decimal_inline(bytes: &[u8], point: u8) -> Option<(Decimal, usize)> {
    let negative = bytes.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut mantissa: u64 = 0;
    let mut whole = true;
    let mut at = start;
    at = digits(bytes, at, &mut mantissa, &mut whole);
    let before = at - start;
    if before > 1 && bytes.get(start) == Some(&b'0') {
        return None;
    }
    let (mut integer, mut exponent) = (true, 0);
    if bytes.get(at) == Some(&point) {
        let from = at + 1;
        at = digits(bytes, from, &mut mantissa, &mut whole);
        if before == 0 && at == from {
            return None;
        }
        exponent = -i32::try_from(at - from).ok()?;
        integer = false;
    } else if before == 0 {
        return None;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let (value, end) = exponent_at(bytes, at + 1)?;
        exponent += value;
        at = end;
        integer = false;
    }
    let found = Decimal {
        negative,
        mantissa,
        exponent,
        whole,
        integer,
    };
    Some((found, at))
}

/// Add the digits from `at` on to the mantissa; returns where they end.
#[inline(always)]
fn digits(bytes: &[u8], at: usize, mantissa: &mut u64, whole: &mut bool) -> usize {
    let mut end = at;
    while let Some(eight) = bytes.get(end..).and_then(|rest| rest.first_chunk::<8>()) {
        let (count, value) = up_to_eight(*eight);
        // Below 10^11 eight more digits cannot overflow.
        if *mantissa >= 100_000_000_000 {
            break;
        }
        *mantissa = *mantissa * POWERS_OF_TEN.get(count).copied().unwrap_or(1) + value;
        end += count;
        if count < 8 {
            return end;
        }
    }
    digits_singly(bytes, end, mantissa, whole)
}

/// The powers of ten that fit 64 bits.
pub(crate) const POWERS_OF_TEN: [u64; 20] = {
    let mut powers = [1; 20];
    let mut n = 1;
    while n < 20 {
        powers[n] = 10 * powers[n - 1];
        n += 1;
    }
    powers
};

/// How many of eight bytes are digits before the first that is none, and their value.
#[inline(always)]
fn up_to_eight(bytes: [u8; 8]) -> (usize, u64) {
    // As values; the lowest byte is the first.
    let values = u64::from_le_bytes(bytes) ^ 0x3030_3030_3030_3030;
    // The top bit of each byte that is more than 9.
    let others = (((values & 0x7F7F_7F7F_7F7F_7F7F) + 0x7676_7676_7676_7676) | values)
        & 0x8080_8080_8080_8080;
    let count = others.trailing_zeros() / 8;
    // Zeros in front, in place of what is behind.
    let values = values.checked_shl(64 - 8 * count).unwrap_or(0);
    (count as usize, value_of(values))
}

/// The value of the `len` digits (1 to 8) that end before `end`; `None` if they are none, or eight bytes before `end`
/// are not there.
#[inline(always)]
pub(crate) fn digits_ending(text: &[u8], end: usize, len: usize) -> Option<u64> {
    let eight = text.get(..end)?.last_chunk::<8>()?;
    let shift = (64_usize).wrapping_sub(8 * len) & 63;
    let values = (u64::from_le_bytes(*eight) ^ 0x3030_3030_3030_3030) & (u64::MAX << shift);
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    (others == 0).then(|| value_of(values))
}

/// The number that eight digits make, the first in the lowest byte.
#[inline(always)]
fn value_of(values: u64) -> u64 {
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let fours = (pairs & 0x0000_00FF_0000_00FF)
        .wrapping_mul(0x000F_4240_0000_0064)
        .wrapping_add(((pairs >> 16) & 0x0000_00FF_0000_00FF).wrapping_mul(0x0000_2710_0000_0001));
    fours >> 32
}

/// The same one by one, watching for what 64 bits cannot hold.
fn digits_singly(bytes: &[u8], at: usize, mantissa: &mut u64, whole: &mut bool) -> usize {
    let mut end = at;
    while let Some(byte) = bytes.get(end) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        match mantissa
            .checked_mul(10)
            .and_then(|m| m.checked_add(digit.into()))
        {
            Some(sum) if *whole => *mantissa = sum,
            _ => *whole = false,
        }
        end += 1;
    }
    end
}

fn exponent_at(bytes: &[u8], at: usize) -> Option<(i32, usize)> {
    let sign = bytes.get(at)?;
    let start = at + usize::from(matches!(sign, b'+' | b'-'));
    let mut value: i32 = 0;
    let mut end = start;
    while let Some(digit) = bytes.get(end).map(|b| b.wrapping_sub(b'0')) {
        if digit > 9 {
            break;
        }
        // Beyond any float; kept from overflowing.
        value = (value * 10 + i32::from(digit)).min(100_000);
        end += 1;
    }
    (end > start).then_some((if *sign == b'-' { -value } else { value }, end))
}

const POWERS_64: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
const POWERS_32: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// The double nearest to the text, and whether it keeps it. `text` is what `decimal` was found in.
#[inline(always)]
pub(crate) fn double(decimal: &Decimal, text: &[u8], point: u8) -> (f64, bool) {
    // Which of these ways a number of sixteen digits could take is any: it takes the second one, whatever they are.
    if decimal.mantissa < 1 << 49
        && let Some(value) = double_of_few_digits(decimal)
    {
        return (value, true);
    }
    if let Some(value) = double_of_usual_size(decimal) {
        return (value, true);
    }
    if let Some(value) = double_of_few_digits(decimal) {
        return (value, true);
    }
    if let Some(found) = double_of_many_digits(decimal) {
        return found;
    }
    double_slowly(decimal, text, point)
}

/// Digits and power of ten are both exact, so one operation rounds correctly.
#[inline(always)]
fn double_of_few_digits(decimal: &Decimal) -> Option<f64> {
    if decimal.mantissa >= 1 << 52 || !decimal.whole {
        return None;
    }
    let power = usize::try_from(decimal.exponent.unsigned_abs()).ok()?;
    let power = POWERS_64.get(power)?;
    #[allow(clippy::cast_precision_loss)] // below 2^52
    let digits = decimal.mantissa.cast_signed() as f64;
    Some(decimal.signed(if decimal.exponent < 0 {
        digits / power
    } else {
        digits * power
    }))
}

#[cold]
#[inline(never)]
fn double_slowly(decimal: &Decimal, text: &[u8], point: u8) -> (f64, bool) {
    let Some(value) = with_point(text, point, |text| text.parse::<f64>().ok()) else {
        return (f64::NAN, false);
    };
    let mut printed = zmij::Buffer::new();
    let kept = value.is_finite()
        && (same(decimal, printed.format_finite(value))
            || keeps(text, point, |digits| format!("{:.*e}", digits - 1, value)));
    (value, kept)
}

/// Whether `-most < off < most`, in one comparison: the sign of what is left over is any, and no branch for it guesses well.
#[inline(always)]
fn within(off: i64, most: i64) -> bool {
    off.wrapping_add(most - 1).cast_unsigned() < (2 * most.cast_unsigned()).wrapping_sub(1)
}

/// The same as [`double_of_many_digits`] for numbers from 2^-11 on with at most 18 decimals, in words of 64 bits: the guess
/// is off by two units of its last bit at most, and the difference, which is then below 2^63, is all that is needed of
/// products that are longer.
#[inline(always)]
fn double_of_usual_size(decimal: &Decimal) -> Option<f64> {
    let power = usize::try_from(decimal.exponent.unsigned_abs()).ok()?;
    if decimal.exponent > 0 || power > 18 || !decimal.whole || decimal.mantissa >= 1 << 63 {
        return None;
    }
    #[allow(clippy::cast_precision_loss)] // a guess
    let guess = (decimal.mantissa.cast_signed() as f64 / POWERS_64.get(power)?).to_bits();
    let (exponent, digits) = (guess >> 52, guess & MANTISSA | 1 << 52);
    let shift = 1075_u64.wrapping_sub(exponent);
    if !(1..64).contains(&shift) {
        return None;
    }
    let unit = POWERS_OF_TEN.get(power)?;
    let off = digits
        .wrapping_mul(*unit)
        .wrapping_sub(decimal.mantissa << shift);
    let (off, unit) = (off.cast_signed(), unit.cast_signed());
    let above = i64::from(2 * off > unit) - i64::from(2 * off < -unit);
    let (digits, off) = (
        digits.wrapping_sub(above.cast_unsigned()),
        off - above * unit,
    );
    // A tie; over the edge to another exponent or near it; half a unit of the last digit.
    if !within(2 * off, unit) || digits <= 1 << 52 || digits >= 1 << 53 {
        return None;
    }
    if !within(off, 1 << (shift - 1)) {
        return None;
    }
    let sign = u64::from(decimal.negative) << 63;
    Some(f64::from_bits(sign | exponent << 52 | digits & MANTISSA))
}

/// The double nearest to a decimal of many digits, as `repr` and `%.17g` print them, if it keeps it; `None` where that
/// takes a closer look. Exact: a first guess is put right by comparing `guess * 10^power` with the digits, and both fit
/// 127 bits, for a guess has 53 bits and the power of ten at most 74.
#[inline(never)]
fn double_of_many_digits(decimal: &Decimal) -> Option<(f64, bool)> {
    let power = usize::try_from(decimal.exponent.unsigned_abs()).ok()?;
    if decimal.exponent > 0 || !decimal.whole || decimal.mantissa >= 1 << 63 {
        return None;
    }
    #[allow(clippy::cast_precision_loss)] // a guess
    let guess = (decimal.mantissa.cast_signed() as f64 / POWERS_64.get(power)?).to_bits();
    let (exponent, mut digits) = (guess >> 52, i128::from(guess & MANTISSA | 1 << 52));
    // The guess is `digits * 2^-shift`.
    let shift = u32::try_from(1075_i64 - exponent.cast_signed()).ok()?;
    if !(1..=126).contains(&shift) || exponent == 0 {
        return None;
    }
    let unit = i128::from(*POWERS_OF_TEN.get(power.min(19))?)
        * i128::from(*POWERS_OF_TEN.get(power.saturating_sub(19))?);
    if decimal.mantissa.leading_zeros() < shift.saturating_sub(62) {
        return None;
    }
    let wanted = i128::from(decimal.mantissa) << shift;
    let mut off = digits * unit - wanted;
    // Which way the guess was wrong is any way, so this is no branch.
    let above = i128::from(2 * off > unit) - i128::from(2 * off < -unit);
    (digits, off) = (digits - above, off - (unit & -above.abs()) * above.signum());
    // A tie, or over the edge to another exponent.
    if 2 * off.abs() >= unit || !(1 << 52..1 << 53).contains(&digits) {
        return None;
    }
    // Half a unit of the last digit; digits that end with zeros are given another chance.
    if off.abs() >= 1 << (shift - 1) {
        return None;
    }
    let sign = u64::from(decimal.negative) << 63;
    let digits = u64::try_from(digits).ok()? & MANTISSA;
    Some((f64::from_bits(sign | exponent << 52 | digits), true))
}

const MANTISSA: u64 = (1 << 52) - 1;

/// The binary32 nearest to the text, and whether it keeps it.
#[inline(always)]
pub(crate) fn float(decimal: &Decimal, text: &[u8], point: u8) -> (f32, bool) {
    if decimal.mantissa < 1 << 30 && decimal.whole {
        let power = usize::try_from(decimal.exponent.unsigned_abs()).unwrap_or(usize::MAX);
        // Before the shorter way for few digits: of seven digits some take that and some do not.
        if decimal.exponent <= 0
            && let Some(power) = POWERS_64.get(power)
            && let Some(found) = float_by_double(decimal, *power)
        {
            return found;
        }
        #[allow(clippy::cast_precision_loss)] // below 2^24 where it is used
        let digits = decimal.mantissa as f32;
        if decimal.mantissa < 1 << 23
            && let Some(power) = POWERS_32.get(power)
        {
            let value = if decimal.exponent < 0 {
                digits / power
            } else {
                digits * power
            };
            return (decimal.signed_32(value), true);
        }
    }
    float_slowly(decimal, text, point)
}

/// By way of a double; `None` where rounding twice could differ from rounding once, or the answer is not clear.
#[inline(always)]
fn float_by_double(decimal: &Decimal, power: f64) -> Option<(f32, bool)> {
    #[allow(clippy::cast_precision_loss)] // below 2^30
    let digits = decimal.mantissa.cast_signed() as f64;
    let wide = digits / power;
    // Half way between two binary32 to the last bit of the double: the quotient may have been rounded to there.
    if wide.to_bits() & 0x1FFF_FFFF == 0x1000_0000 || wide < f64::from(f32::MIN_POSITIVE) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation)] // rounding is the purpose
    let value = wide as f32;
    // Half a unit of the last digit decides; the product is off by less than 2^-22.
    let off = (f64::from(value) * power - digits).abs();
    let kept = if off < 0.499 {
        true
    } else if decimal.mantissa.is_multiple_of(10) {
        return None;
    } else if off > 0.501 {
        false
    } else {
        return None;
    };
    Some((decimal.signed_32(value), kept))
}

#[cold]
#[inline(never)]
fn float_slowly(decimal: &Decimal, text: &[u8], point: u8) -> (f32, bool) {
    let Some(value) = with_point(text, point, |text| text.parse::<f32>().ok()) else {
        return (f32::NAN, false);
    };
    let mut printed = zmij::Buffer::new();
    let kept = value.is_finite()
        && (same(decimal, printed.format_finite(value))
            || keeps(text, point, |digits| format!("{:.*e}", digits - 1, value)));
    (value, kept)
}

/// Whether a printed number is the decimal.
fn same(decimal: &Decimal, printed: &str) -> bool {
    if !decimal.whole {
        return false;
    }
    let stripped = |d: &Decimal| {
        let (mut mantissa, mut exponent) = (d.mantissa, d.exponent);
        while mantissa != 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        (mantissa, if mantissa == 0 { 0 } else { exponent })
    };
    self::decimal(printed.as_bytes(), b'.')
        .is_some_and(|(other, _)| other.whole && stripped(decimal) == stripped(&other))
}

/// Whether printing with as many digits as the text has gives its digits.
fn keeps(text: &[u8], point: u8, print: impl Fn(usize) -> String) -> bool {
    let Some((digits, exponent)) = significant(text, point) else {
        return false;
    };
    if digits.is_empty() {
        return true;
    }
    significant(print(digits.len()).as_bytes(), b'.')
        .is_some_and(|found| found == (digits, exponent))
}

/// Digits without zeros at either end, and the exponent of the first.
fn significant(text: &[u8], point: u8) -> Option<(Vec<u8>, i64)> {
    let (mut digits, mut exponent, mut behind) = (Vec::new(), -1, false);
    for (i, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                if !digits.is_empty() || *byte != b'0' {
                    digits.push(*byte);
                    exponent += i64::from(!behind);
                } else if behind {
                    exponent -= 1;
                }
            }
            b'e' | b'E' => {
                exponent += i64::from(exponent_at(text, i + 1)?.0);
                break;
            }
            byte if *byte == point => behind = true,
            _ => {}
        }
    }
    let zeros = digits.iter().rev().take_while(|b| **b == b'0').count();
    digits.truncate(digits.len() - zeros);
    (digits.len() <= MAX_DIGITS).then_some((digits, exponent))
}

fn with_point<T>(text: &[u8], point: u8, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?;
    if point == b'.' {
        return parse(text);
    }
    parse(&text.replace(char::from(point), "."))
}

/// `nan` and the infinities, in the spellings of common programs.
pub(crate) fn special(text: &[u8]) -> Option<f64> {
    let (negative, word) = match text.strip_prefix(b"-") {
        Some(word) => (true, word),
        None => (false, text),
    };
    let value = match word {
        b"nan" | b"NaN" | b"NAN" if !negative => f64::NAN,
        b"inf" | b"Inf" | b"INF" | b"Infinity" | b"infinity" => f64::INFINITY,
        _ => return None,
    };
    Some(if negative { -value } else { value })
}

/// The double that a text names; `None` if it is no number in plain form or the double would not keep it.
#[must_use]
pub fn exact_f64(text: &[u8]) -> Option<f64> {
    match decimal(text, b'.') {
        Some((found, end)) if end == text.len() => {
            let (value, kept) = double(&found, text, b'.');
            kept.then_some(value)
        }
        _ => special(text),
    }
}

/// The binary32 that a text names; `None` if it is no number in plain form or the float would not keep it.
#[must_use]
pub fn exact_f32(text: &[u8]) -> Option<f32> {
    match decimal(text, b'.') {
        Some((found, end)) if end == text.len() => {
            let (value, kept) = float(&found, text, b'.');
            kept.then_some(value)
        }
        #[allow(clippy::cast_possible_truncation)] // NaN and infinities
        _ => special(text).map(|value| value as f32),
    }
}

#[cfg(test)]
mod tests;
