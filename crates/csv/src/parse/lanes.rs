//! Whole numbers of a column, many at a time.
//!
//! First the last bytes of each cell are laid side by side, then plain loops without branches make numbers of them, which
//! the compiler turns into vector instructions. What is not a number as programs print it, or does not fit its type,
//! ends what is stored; the caller takes that cell up.

use super::column::Place;

/// Cells at a time. Blocks start at multiples of it: behind a cell that was refused, the rest of its block goes one by
/// one, so that a column full of such cells does not pay for a block each time.
pub(super) const LANES: usize = 64;

/// A number of 64 bits has up to 20 digits.
const MOST_WORDS: usize = 3;
const ZEROS: u64 = 0x3030_3030_3030_3030;
const EIGHT_DIGITS: u64 = 100_000_000;

/// The cells of a block.
pub(super) struct Lanes {
    /// Bytes of each cell.
    len: [u64; LANES],
    /// Its first two bytes; the second may belong to what follows.
    head: [u64; LANES],
    /// The eight bytes that end it, the eight before those, and so on.
    words: [[u64; LANES]; MOST_WORDS],
    negative: [u64; LANES],
    magnitude: [u64; LANES],
    /// Not a whole number of at most 64 bits.
    refused: [u64; LANES],
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            len: [0; LANES],
            head: [0; LANES],
            words: [[0; LANES]; MOST_WORDS],
            negative: [0; LANES],
            magnitude: [0; LANES],
            refused: [0; LANES],
        }
    }
}

impl Lanes {
    /// Sign and magnitude of the cells of a field from a record on, which have at most `8 * WORDS` digits; returns how
    /// many cells there are. None where the text has no bytes to spare before them.
    #[inline(always)]
    pub(super) fn read<const WORDS: usize>(&mut self, place: Place<'_>) -> usize {
        let count = self.lay::<WORDS>(place);
        if count > 0 {
            self.convert::<WORDS>();
        }
        count
    }

    #[inline(always)]
    fn lay<const WORDS: usize>(&mut self, place: Place<'_>) -> usize {
        let text = place.text;
        let cells = place.tile.cells(place.field, place.from);
        let mut count = 0;
        for (i, (start, end)) in cells.take(LANES).enumerate() {
            let head = text.get(start..).and_then(|rest| rest.first_chunk::<2>());
            let words = text.get(end.wrapping_sub(8 * MOST_WORDS)..);
            let words = words.and_then(|rest| rest.first_chunk::<{ 8 * MOST_WORDS }>());
            let (Some(head), Some(words)) = (head, words) else {
                return 0;
            };
            self.len[i] = (end - start) as u64;
            self.head[i] = u64::from(u16::from_le_bytes(*head));
            let words = words.as_chunks::<8>().0.iter().rev().take(WORDS);
            for (word, bytes) in self.words.iter_mut().zip(words) {
                word[i] = u64::from_le_bytes(*bytes);
            }
            count += 1;
        }
        count
    }

    #[inline(always)]
    fn convert<const WORDS: usize>(&mut self) {
        for i in 0..LANES {
            let negative = u64::from(self.head[i] & 0xFF == u64::from(b'-'));
            let first = self.head[i] >> (8 * negative) & 0xFF;
            let digits = self.len[i].wrapping_sub(negative);
            // None, too many, or a superfluous zero in front.
            let refused = digits.wrapping_sub(1) >= 8 * WORDS as u64
                || (first == u64::from(b'0') && self.len[i] > 1);
            let (low, others) = eight(self.words[0][i], digits);
            self.negative[i] = negative;
            self.magnitude[i] = low;
            self.refused[i] = u64::from(refused) | others;
        }
        if WORDS > 1 {
            for i in 0..LANES {
                let digits = self.len[i].wrapping_sub(self.negative[i]);
                let (middle, others) = eight(self.words[1][i], digits.saturating_sub(8));
                self.magnitude[i] += EIGHT_DIGITS * middle;
                self.refused[i] |= others;
            }
        }
        if WORDS > 2 {
            for i in 0..LANES {
                let digits = self.len[i].wrapping_sub(self.negative[i]);
                let (high, others) = eight(self.words[2][i], digits.saturating_sub(16));
                // Below 2^64 - 1 = 18_446_744_073_709_551_615, by sixteen digits.
                let low = self.magnitude[i];
                let too_much = high > 1844 || (high == 1844 && low > 6_744_073_709_551_615);
                self.magnitude[i] =
                    low.wrapping_add(high.wrapping_mul(EIGHT_DIGITS * EIGHT_DIGITS));
                self.refused[i] |= others | u64::from(too_much);
            }
        }
    }

    /// Append the first `count` numbers as `T`, up to the first that is refused; returns how many. `most` is the largest
    /// value, and for `negatives` the least one is one further off.
    #[inline(always)]
    pub(super) fn append<T>(
        &mut self,
        count: usize,
        most: u64,
        negatives: bool,
        values: &mut Vec<T>,
        cast: impl Fn(u64) -> T,
    ) -> usize {
        let mut refused = 0;
        for i in 0..LANES {
            let negative = self.negative[i];
            let beyond = self.magnitude[i] > most + if negatives { negative } else { 0 };
            self.refused[i] |= u64::from(beyond) | if negatives { 0 } else { negative };
            let sign = negative.wrapping_neg();
            self.magnitude[i] = (self.magnitude[i] ^ sign).wrapping_sub(sign);
        }
        for bad in self.refused.iter().take(count) {
            refused |= bad;
        }
        let count = if refused == 0 {
            count
        } else {
            let mut cells = self.refused.iter().take(count);
            cells.position(|bad| *bad != 0).unwrap_or(count)
        };
        let found = self.magnitude.get(..count).unwrap_or_default();
        values.extend(found.iter().map(|value| cast(*value)));
        count
    }
}

/// The value of up to eight digits at the end of a word, and bits of the bytes among them that are no digits.
#[inline(always)]
fn eight(word: u64, digits: u64) -> (u64, u64) {
    let shift = 64 - 8 * digits.min(8);
    let wanted = if shift >= 64 {
        0
    } else {
        u64::MAX << (shift & 63)
    };
    let values = (word ^ ZEROS) & wanted;
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    // Two, four and eight digits; products of 32 bits are what vectors have.
    let pairs = (values << 3)
        .wrapping_add(values << 1)
        .wrapping_add(values >> 8);
    let first = (pairs & 0xFF) * 100 + (pairs >> 16 & 0xFF);
    let second = (pairs >> 32 & 0xFF) * 100 + (pairs >> 48 & 0xFF);
    (first * 10_000 + second, others)
}
