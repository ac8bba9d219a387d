//! Binary64 of a column, some at a time; see `group`, whose method this is with whole numbers in place of floats.
//!
//! A number is `mantissa / 2^shift`. With `places` decimals for which `10^places <= 2^shift`, its decimals are those of
//! `mantissa * 10^places / 2^shift`: one product of 128 bits with a factor that holds both powers, whose upper half is
//! whole and whose lower half is what is left.

use super::group::{ASCII, LANES, ROOM, digits_of, four_digits, map, set, sign, whole};

/// From 2^-11 on, where 19 decimals are enough, to 2^26: up to there the whole part is one block of eight digits.
const RANGE: std::ops::Range<f64> = 0.000_488_281_25..67_108_864.0;
/// Decimals of all numbers: those of the least one.
const DECIMALS: u32 = 19;
const MANTISSA_BITS: u32 = 52;
const BIAS: u64 = 1075;

/// Doubles that are written without an exponent.
pub(crate) struct Doubles {
    negative: [bool; LANES],
    /// The digits before the point.
    whole: [u64; LANES],
    /// Eight decimals, eight more, and the last three.
    first: [u64; LANES],
    second: [u64; LANES],
    last: [u64; LANES],
    /// Whether that is all of the double.
    fits: [bool; LANES],
}

impl Doubles {
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // halves of products, and what is below 10^8
    pub(crate) fn of(values: &[f64; LANES]) -> Self {
        let mantissas = map(values, |value| {
            value.to_bits() & ((1 << MANTISSA_BITS) - 1) | 1 << MANTISSA_BITS
        });
        let shifts = map(values, |value| {
            BIAS.wrapping_sub(value.to_bits() >> MANTISSA_BITS & 0x7FF) % 64
        });
        let mut wholes = [0; LANES];
        for lane in 0..LANES {
            wholes[lane] = mantissas[lane] >> shifts[lane];
        }
        let (mut firsts, mut seconds, mut lasts) = ([0; LANES], [0; LANES], [0; LANES]);
        for lane in 0..LANES {
            let step = STEPS[shifts[lane] as usize % STEPS.len()];
            let decimals = decimals(mantissas[lane], wholes[lane], step);
            let first = decimals / 100_000_000_000;
            let rest = decimals.wrapping_sub(first * 100_000_000_000);
            let second = rest / 1000;
            firsts[lane] = first as u32;
            seconds[lane] = second as u32;
            lasts[lane] = rest.wrapping_sub(second * 1000) as u32 * 10;
        }
        Self {
            negative: map(values, f64::is_sign_negative),
            whole: digits_of(&map(&wholes, |whole| whole as u32)),
            first: digits_of(&firsts),
            second: digits_of(&seconds),
            last: map(&lasts, |last| four_digits(last).into()),
            fits: map(values, |value| RANGE.contains(&value.abs())),
        }
    }

    /// Write one of them; returns its length, or `None` if it is none of these.
    #[inline(always)]
    pub(crate) fn put(&self, lane: usize, point: u8, cell: &mut [u8; ROOM]) -> Option<usize> {
        let lane = lane % LANES;
        if !self.fits[lane] {
            return None;
        }
        let at = sign(self.negative[lane], cell);
        let at = whole(self.whole[lane], at, cell);
        set(cell, at, point.into());
        let (first, second, last) = (self.first[lane], self.second[lane], self.last[lane]);
        set(cell, at + 1, first | ASCII);
        set(cell, at + 9, second | ASCII);
        if last != 0 {
            // Only of numbers below 1: there is room.
            set(cell, at + 17, last | ASCII);
            return Some(at + 25 - last.leading_zeros() as usize / 8);
        }
        let both = u128::from(second) << 64 | u128::from(first);
        Some(at + 17 - (both | 1).leading_zeros() as usize / 8)
    }
}

/// What is behind the point of `mantissa / 2^shift`, as short as may be, in units of 10^-19.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // halves of products
fn decimals(mantissa: u64, whole: u64, step: Step) -> u64 {
    let product = u128::from(mantissa) * u128::from(step.factor);
    let (units, part) = ((product >> 64) as u64, product as u64);
    // The distance to the nearest decimal of `places`; half the distance between doubles is half a factor.
    let above = part >> 63;
    let off = (part ^ above.wrapping_neg()).wrapping_add(above);
    let even = !mantissa & 1;
    let enough = off < (step.factor >> 1) + even;
    // One digit more, the even one half way between two.
    let product = u128::from(part) * 10;
    let (digit, part) = ((product >> 64) as u64, product as u64);
    let digit = digit + u64::from(part > (1 << 63) - (digit & 1));
    let digit = if enough { 10 * above } else { digit };
    // A double below a whole number is never written as it, so `whole` is the whole part of the decimal, too. What is
    // left of the difference is below 10^19.
    let decimals = (units * 10).wrapping_add(digit).wrapping_mul(step.rest);
    decimals.wrapping_sub(whole.wrapping_mul(TENS))
}

const TENS: u64 = 10_u64.pow(DECIMALS);

/// Decimals of the doubles of an exponent.
#[derive(Clone, Copy)]
struct Step {
    /// `10^places * 2^(64 - shift)`.
    factor: u64,
    /// What makes 19 decimals of `places + 1`.
    rest: u64,
}

/// For doubles that are `mantissa / 2^shift`, by the shift.
const STEPS: [Step; 64] = {
    let mut steps = [Step { factor: 0, rest: 0 }; 64];
    let (mut shift, mut places) = (1, 0);
    while shift < 64 {
        if 10_u64.pow(places + 1) <= 1 << shift {
            places += 1;
        }
        steps[shift] = Step {
            factor: 10_u64.pow(places) << (64 - shift),
            rest: 10_u64.pow(DECIMALS - 1 - places),
        };
        shift += 1;
    }
    steps
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::print::twin::{groups, plainly};

    /// Whatever is printed is right.
    fn check(values: impl IntoIterator<Item = f64>) {
        for values in groups(values, 1.5) {
            let group = Doubles::of(&values);
            for (lane, value) in values.iter().enumerate() {
                let mut cell = [0; ROOM];
                let len = group.put(lane, b'.', &mut cell);
                assert_eq!(len.is_some(), RANGE.contains(&value.abs()), "{value}");
                if let Some(len) = len {
                    assert_eq!(str::from_utf8(&cell[..len]).unwrap(), plainly(*value));
                }
            }
        }
    }

    #[test]
    fn every_short_decimal() {
        for power in [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e9] {
            let numbers = (0..1_100_000).step_by(7).map(f64::from);
            let short: Vec<f64> = numbers.map(|n| n / power).collect();
            // The next ones, which are no short decimals or other ones.
            check(short.iter().map(|value| value.next_up()));
            check(short.iter().map(|value| -value.next_down()));
            check(short);
        }
    }

    #[test]
    fn both_sides_of_every_power() {
        for power in -14..30 {
            let (mut below, mut above) = (2_f64.powi(power), -2_f64.powi(power));
            for _ in 0..1000 {
                check([below, above]);
                (below, above) = (below.next_down(), above.next_down());
            }
        }
        for power in -3..8 {
            let mut value = 10_f64.powi(power);
            (0..500).for_each(|_| value = value.next_down());
            for _ in 0..1000 {
                check([value, -value]);
                value = value.next_up();
            }
        }
        check([
            0.0,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            -f64::INFINITY,
            f64::MAX,
            5e-324,
        ]);
    }

    /// Between two decimals of as many digits as a double needs.
    #[test]
    fn half_way() {
        for power in -11..26 {
            for bit in 1..=26 {
                let odd = (0..64).map(|n| f64::from(2 * n + 1) * 2_f64.powi(power - 1 - bit));
                check(odd.map(|part| 2_f64.powi(power) + part));
            }
        }
    }

    proptest! {
        #[test]
        fn doubles(bits: [u64; 16]) {
            check(bits.map(f64::from_bits));
            let near = bits.map(|bits| bits & !(0x7FF << 52) | (1010 + (bits >> 52) % 42) << 52);
            check(near.map(f64::from_bits));
            // Few bits, which lie half way more often.
            let few = near.map(|bits| bits & !((1 << (bits % 50)) - 1));
            check(few.map(f64::from_bits));
        }
    }
}
