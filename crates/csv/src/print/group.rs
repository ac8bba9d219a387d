//! Numbers of a column, some at a time, each to a cell of its own.
//!
//! What makes digits of numbers is the same for all of them and has no branches, so the compiler does it for a whole
//! group with vector instructions. What is left per cell is to shift zeros away and to store the digits.
//!
//! The shortest decimal of a binary32 is found in binary64, where all that is needed is exact. Between a float and the
//! next one there are several decimals with `places + 1` digits behind the point, and at most one with `places`, which
//! is the logarithm of the distance, rounded down. If that one reads back as the float, it is the shortest, without the
//! zeros at its end. If not, the nearest one with a digit more is. (Steele and White 1990; Giulietti's Schubfach.)

/// Numbers in a group.
pub(crate) const LANES: usize = 16;
/// The room of a cell.
pub(super) const ROOM: usize = 32;
pub(super) const ASCII: u64 = 0x3030_3030_3030_3030;
/// What a block of eight digits counts to.
const BLOCK: u32 = 100_000_000;

/// Whole numbers in blocks of eight digits, the first block first.
pub(crate) struct Wholes<const BLOCKS: usize> {
    negative: [bool; LANES],
    blocks: [[u64; LANES]; BLOCKS],
}

impl Wholes<1> {
    /// Of sizes below 10^8.
    #[inline(always)]
    pub(crate) fn of_few_digits(negative: [bool; LANES], sizes: &[u32; LANES]) -> Self {
        Self {
            negative,
            blocks: [digits_of(sizes)],
        }
    }
}

impl Wholes<2> {
    #[inline(always)]
    pub(crate) fn of_32_bits(negative: [bool; LANES], sizes: &[u32; LANES]) -> Self {
        let tops = map(sizes, |size| size / BLOCK);
        let mut rests = *sizes;
        for (rest, top) in rests.iter_mut().zip(&tops) {
            *rest -= top * BLOCK;
        }
        Self {
            negative,
            blocks: [last_four(&tops), digits_of(&rests)],
        }
    }
}

impl Wholes<3> {
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // at most 1844, and remainders of 10^8
    pub(crate) fn of_64_bits(negative: [bool; LANES], sizes: &[u64; LANES]) -> Self {
        const WIDE: u64 = BLOCK as u64;
        let uppers = map(sizes, |size| size / WIDE);
        let mut lows = [0; LANES];
        for (low, (size, upper)) in lows.iter_mut().zip(sizes.iter().zip(&uppers)) {
            *low = (size - upper * WIDE) as u32;
        }
        let tops = map(&uppers, |upper| (upper / WIDE) as u32);
        let mut middles = [0; LANES];
        for (middle, (upper, top)) in middles.iter_mut().zip(uppers.iter().zip(&tops)) {
            *middle = (upper - u64::from(*top) * WIDE) as u32;
        }
        Self {
            negative,
            blocks: [last_four(&tops), digits_of(&middles), digits_of(&lows)],
        }
    }
}

impl<const BLOCKS: usize> Wholes<BLOCKS> {
    /// Write one of them; returns its length.
    #[inline(always)]
    pub(crate) fn put(&self, lane: usize, cell: &mut [u8; ROOM]) -> usize {
        let lane = lane % LANES;
        let mut at = sign(self.negative[lane], cell);
        let mut before = 0;
        for (number, block) in (1..).zip(&self.blocks) {
            let digits = block[lane];
            // The last digit is written even if it is 0.
            let shown = digits | u64::from(number == BLOCKS) << 56;
            let zeros = if before == 0 {
                shown.trailing_zeros() / 8
            } else {
                0
            };
            before |= digits;
            // Of a block of zeros in front something is written, and then overwritten.
            set(cell, at, (digits | ASCII).wrapping_shr(8 * zeros));
            at += 8 - zeros as usize;
        }
        at
    }
}

/// Floats that are written without an exponent.
pub(crate) struct Floats {
    negative: [bool; LANES],
    /// The digits before the point.
    whole: [u64; LANES],
    /// Eight digits behind it.
    part: [u64; LANES],
    /// Whether that is all of the float.
    fits: [bool; LANES],
}

impl Floats {
    #[inline(always)]
    pub(crate) fn of(values: &[f32; LANES]) -> Self {
        // From 2^-3 on, where the distance between floats is 2^-26 or more: eight decimals are enough; to 2^23, where it is 1.
        let fits = map(values, |value| (0.125..8_388_608.0).contains(&value.abs()));
        let sizes = map(values, |value| f64::from(value.abs()));
        let steps = map(values, |value| {
            let shift = 150_u32.wrapping_sub(value.abs().to_bits() >> 23);
            STEPS.get(shift as usize).copied().unwrap_or_default()
        });
        let (mut wholes, mut parts) = ([0.0; LANES], [0.0; LANES]);
        // One by one: the loop below is to be one of vectors.
        let powers = map(&steps, |step| step.power);
        let halves = map(&steps, |step| step.half);
        let rests = map(&steps, |step| step.rest);
        let odd = map(values, |value| value.to_bits() & 1 == 1);
        for lane in 0..LANES {
            // At most 24 + 26 bits, and half the distance; nothing is rounded until `nearest`.
            let (power, half) = (powers[lane], halves[lane]);
            let scaled = sizes[lane] * power;
            let units = nearest(scaled);
            let off = (scaled - units).abs();
            let enough = if odd[lane] { off < half } else { off <= half };
            let tenfold = nearest(scaled * 10.0);
            let units = if enough { units * 10.0 } else { tenfold };
            // `places + 1` decimals.
            let power = power * 10.0;
            let whole = nearest(sizes[lane]);
            let whole = if whole * power > units {
                whole - 1.0
            } else {
                whole
            };
            wholes[lane] = whole;
            parts[lane] = (units - whole * power) * rests[lane];
        }
        Self {
            negative: map(values, f32::is_sign_negative),
            whole: digits_of(&map(&wholes, small)),
            part: digits_of(&map(&parts, small)),
            fits,
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
        let part = self.part[lane];
        set(cell, at + 1, part | ASCII);
        let zeros = (part | 1).leading_zeros() as usize / 8;
        Some(at + 9 - zeros)
    }
}

/// Decimals of the floats of an exponent.
#[derive(Clone, Copy, Default)]
struct Step {
    /// Ten to the power of `places`.
    power: f64,
    /// Half the distance between floats in units of that place.
    half: f64,
    /// What makes eight decimals of `places + 1`.
    rest: f64,
}

/// For floats that are `mantissa / 2^shift`, by the shift.
const STEPS: [Step; 27] = {
    let none = Step {
        power: 0.0,
        half: 0.0,
        rest: 0.0,
    };
    let mut steps = [none; 27];
    let (mut shift, mut power, mut distance, mut rest) = (0, 1.0, 1.0, 1e7);
    while shift < 27 {
        // As long as a decimal more is still farther apart than the floats.
        if distance * power * 10.0 < 1.0 {
            power *= 10.0;
            rest /= 10.0;
        }
        steps[shift] = Step {
            power,
            half: distance * power / 2.0,
            rest,
        };
        distance /= 2.0;
        shift += 1;
    }
    steps
};

/// The nearest whole number to one that is not negative and below 2^51, the even one if there are two.
#[inline(always)]
fn nearest(value: f64) -> f64 {
    // At 2^52 the distance between floats is 1.
    const SHIFT: f64 = 4_503_599_627_370_496.0;
    (value + SHIFT) - SHIFT
}

/// A float that is whole, not negative and below 2^32.
#[inline(always)]
fn small(value: f64) -> u32 {
    // The low bits of the fraction, without the checks of a conversion.
    #[allow(clippy::cast_possible_truncation)] // on purpose
    let bits = (value + 4_503_599_627_370_496.0).to_bits() as u32;
    bits
}

/// Like `map` of arrays, but always a plain loop of this function.
#[inline(always)]
pub(crate) fn map<T: Copy, U: Copy + Default>(
    values: &[T; LANES],
    each: impl Fn(T) -> U,
) -> [U; LANES] {
    let mut mapped = [U::default(); LANES];
    for (to, from) in mapped.iter_mut().zip(values) {
        *to = each(*from);
    }
    mapped
}

#[inline(always)]
pub(super) fn sign(negative: bool, cell: &mut [u8; ROOM]) -> usize {
    cell[0] = b'-';
    negative.into()
}

/// Store eight bytes; whatever is written, their place is below 24.
#[inline(always)]
pub(super) fn set(cell: &mut [u8; ROOM], at: usize, bytes: u64) {
    if let Some(to) = cell.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *to = bytes.to_le_bytes();
    }
}

/// Write digits without zeros in front, but the last one in any case; returns the place behind.
#[inline(always)]
pub(super) fn whole(digits: u64, at: usize, cell: &mut [u8; ROOM]) -> usize {
    let zeros = (digits | 1 << 56).trailing_zeros() as usize / 8;
    set(cell, at, (digits | ASCII) >> (8 * zeros));
    at + 8 - zeros
}

/// The digits of numbers below 10^8 as bytes, the first in the lowest; anything of larger ones.
#[inline(always)]
pub(super) fn digits_of(values: &[u32; LANES]) -> [u64; LANES] {
    // Divisions are multiplications that are exact in the range.
    #[allow(clippy::cast_possible_truncation)] // below 10^4
    let high = map(values, |value| {
        ((u64::from(value) * 109_951_163) >> 40) as u32
    });
    let mut low = *values;
    for (low, high) in low.iter_mut().zip(&high) {
        *low = low.wrapping_sub(high * 10_000);
    }
    let (high, low) = (map(&high, four_digits), map(&low, four_digits));
    let mut digits = [0; LANES];
    for (digits, (high, low)) in digits.iter_mut().zip(high.iter().zip(&low)) {
        *digits = u64::from(*high) | u64::from(*low) << 32;
    }
    digits
}

/// The same of numbers below 10^4, which have four zeros in front.
#[inline(always)]
fn last_four(values: &[u32; LANES]) -> [u64; LANES] {
    map(values, |value| u64::from(four_digits(value)) << 32)
}

/// Four digits of a number below 10^4.
#[inline(always)]
pub(super) fn four_digits(value: u32) -> u32 {
    let tops = value.wrapping_mul(5243) >> 19;
    let twos = tops | value.wrapping_sub(tops * 100) << 16;
    let tops = (twos.wrapping_mul(103) >> 10) & 0x000F_000F;
    tops | twos.wrapping_sub(tops * 10) << 8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::print::twin::{groups, plainly};

    /// Whatever is printed is right.
    fn check_floats(values: impl IntoIterator<Item = f32>) {
        for values in groups(values, 1.5) {
            let group = Floats::of(&values);
            for (lane, value) in values.iter().enumerate() {
                let mut cell = [0; ROOM];
                let len = group.put(lane, b'.', &mut cell);
                let usual = (0.125..8_388_608.0).contains(&value.abs());
                assert_eq!(len.is_some(), usual, "{value}");
                if let Some(len) = len {
                    assert_eq!(str::from_utf8(&cell[..len]).unwrap(), plainly(*value));
                }
            }
        }
    }

    fn check_group<const N: usize>(group: &Wholes<N>, negative: bool, sizes: &[u64; LANES]) {
        for (lane, size) in sizes.iter().enumerate() {
            let mut cell = [0; ROOM];
            let len = group.put(lane, &mut cell);
            let sign = if negative { "-" } else { "" };
            assert_eq!(cell[..len], *format!("{sign}{size}").as_bytes());
        }
    }

    /// As numbers of as few and as many bits as may be.
    fn check_wholes(sizes: &[u64; LANES]) {
        for negative in [false, true] {
            let signs = [negative; LANES];
            check_group(&Wholes::of_64_bits(signs, sizes), negative, sizes);
            let narrow = sizes.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
            let sizes = narrow.map(u64::from);
            check_group(&Wholes::of_32_bits(signs, &narrow), negative, &sizes);
            let narrow = narrow.map(|size| size.min(BLOCK - 1));
            let sizes = narrow.map(u64::from);
            check_group(&Wholes::of_few_digits(signs, &narrow), negative, &sizes);
        }
    }

    #[test]
    fn whole_numbers_of_every_length() {
        for first in (0..1_000_000).chain(99_000_000..100_000_100).step_by(LANES) {
            check_wholes(&std::array::from_fn(|lane| first + lane as u64));
        }
        for power in 1..20 {
            let edge = 10_u64.pow(power);
            check_wholes(&std::array::from_fn(|lane| edge - 8 + lane as u64));
            check_wholes(&std::array::from_fn(|lane| {
                edge.saturating_mul(1 + lane as u64)
            }));
        }
        check_wholes(&std::array::from_fn(|lane| u64::MAX - lane as u64));
        check_wholes(&std::array::from_fn(|lane| {
            u64::from(u32::MAX) - lane as u64
        }));
    }

    #[test]
    fn every_short_decimal() {
        for power in [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6] {
            let numbers = (0..1_100_000).step_by(7).map(f64::from);
            #[allow(clippy::cast_possible_truncation)] // on purpose
            let narrow: Vec<f32> = numbers.map(|n| (n / power) as f32).collect();
            // The next ones, which are no short decimals or other ones.
            check_floats(narrow.iter().map(|value| value.next_up()));
            check_floats(narrow.iter().map(|value| -value.next_down()));
            check_floats(narrow);
        }
    }

    #[test]
    fn both_sides_of_every_power() {
        for power in -10..30 {
            let (mut below, mut above) = (2_f32.powi(power), -2_f32.powi(power));
            for _ in 0..1000 {
                check_floats([below, above]);
                (below, above) = (below.next_down(), above.next_down());
            }
        }
        check_floats([
            0.0,
            -0.0,
            f32::NAN,
            f32::INFINITY,
            -f32::INFINITY,
            f32::MAX,
            1e-45,
        ]);
    }

    proptest! {
        #[test]
        fn wholes(sizes: [u64; 16], bits: u32) {
            check_wholes(&sizes);
            check_wholes(&sizes.map(|size| size.wrapping_shr(bits)));
        }

        #[test]
        fn floats(bits: [u32; 16]) {
            check_floats(bits.map(f32::from_bits));
            let near = bits.map(|bits| bits & !(0xFF << 23) | (120 + (bits >> 23) % 34) << 23);
            check_floats(near.map(f32::from_bits));
        }
    }
}
