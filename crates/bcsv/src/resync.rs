//! Behind a bad row of a stream: where the next one begins, and whether a length is what its writer wrote.
//!
//! Nothing in a stream protects the length before a row, so the end that a damaged length gives may be the end of a later
//! row: all seems well behind it, and every row has a wrong number. Here the end of a row is believed only with a
//! second witness: the hash of the row itself, or the lengths of its strings.

use crate::checksum::xxh32;
use crate::cursor::{FileFacts, StreamRow, stream_row};
use crate::limits::MAX_ROW_BYTES;
use crate::schema::Layout;
use crate::vle;

/// Bytes that may be hashed or looked at for the ends of bad rows before the file has given as many good ones: a
/// hostile file must not cost the square of its size.
pub(crate) const SEARCH_BYTES: u64 = 64 << 20;

/// Most bytes of the length before a row.
const PREFIX_MOST: usize = 4;

/// Where a bad row ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Here; exactly one row is bad.
    At(usize),
    /// More bytes are needed to tell.
    More,
    /// Nobody can tell, nor how many rows are bad.
    Unknown,
}

/// The end of the bad row at `at` of a flat stream, where rows stand alone. `last`: the file ends with `bytes`.
pub(crate) fn end_of_row(
    bytes: &[u8],
    at: usize,
    facts: &FileFacts,
    last: bool,
    budget: &mut u64,
) -> End {
    let layout = &facts.layout;
    let proven = proven_end(bytes, at, layout, budget);
    if matches!(proven, End::At(_)) || (proven == End::More && !last) {
        return proven;
    }
    if layout.strings == 0 {
        // All rows have one length; without columns they have no hash either.
        let length = layout.flat_fixed_bytes();
        let stored = length + if length > 0 { 4 } else { 0 };
        return within(bytes, at + vle::encoded_len(length as u64) + stored, last);
    }
    let Some((start, end)) = by_prefix(bytes, at) else {
        return End::Unknown;
    };
    if end + 4 > bytes.len() {
        return within(bytes, end + 4, last);
    }
    if own_end(bytes, start, layout) == Some(end) {
        return End::At(end + 4);
    }
    // Either a length of a string is damaged or the one before the row: then a good row begins before this end.
    let next = match stream_row(bytes, end + 4, facts) {
        Ok(StreamRow::Whole { .. }) => End::At(end + 4),
        Ok(StreamRow::Cut) if end + 4 == bytes.len() && last => End::At(end + 4),
        Ok(StreamRow::Cut) if !last => End::More,
        _ => End::Unknown,
    };
    let cost = (end - at) as u64 * (8 + 2 * layout.strings as u64);
    if !matches!(next, End::At(_)) || !spend(budget, cost) {
        return if next == End::More {
            next
        } else {
            End::Unknown
        };
    }
    let another = (at + 1..end).any(|place| {
        by_prefix(bytes, place).is_some_and(|(start, end)| {
            own_end(bytes, start, layout) == Some(end)
                && spend(budget, (end - start) as u64)
                && hash_holds(bytes, start, end)
        })
    });
    if another { End::Unknown } else { next }
}

/// The end of the row at `at` of a flat stream if its hash holds there, whatever the length before it says.
pub(crate) fn proven_end(bytes: &[u8], at: usize, layout: &Layout, budget: &mut u64) -> End {
    let mut end = End::Unknown;
    for start in at + 1..=at + PREFIX_MOST {
        match own_end(bytes, start, layout) {
            Some(stop) if stop + 4 <= bytes.len() => {
                if start < stop
                    && spend(budget, (stop - start) as u64)
                    && hash_holds(bytes, start, stop)
                {
                    return End::At(stop + 4);
                }
            }
            _ => end = End::More,
        }
    }
    if end == End::More && !spend(budget, (bytes.len() - at.min(bytes.len())) as u64) {
        end = End::Unknown;
    }
    end
}

/// Whether a length of a stream whose rows build on each other was damaged: the byte at `at`, where an unfinished row seems
/// to begin, or one of the repeats from `repeats` to there. Then another first byte gives a row whose hash holds.
///
/// A repeat is one byte 0. Behind a length that was damaged into one come its other bytes, or a row of less than 32
/// bytes and its hash, which is not all zeros: so only the last repeats are in question.
pub(crate) fn length_is_damaged(bytes: &[u8], repeats: usize, at: usize) -> bool {
    let first = repeats.max(at.saturating_sub(31 + 4 + 1));
    (first..=at).any(|place| (1..=PREFIX_MOST).any(|prefix| another_length(bytes, place, prefix)))
}

/// Whether a row is at `at` behind a length of `prefix` bytes, of which the first may be any.
fn another_length(bytes: &[u8], at: usize, prefix: usize) -> bool {
    let start = at + prefix;
    let (Some(high), Some(row)) = (bytes.get(at + 1..start), bytes.get(start..)) else {
        return false;
    };
    let least = high
        .iter()
        .rev()
        .fold(0_usize, |length, byte| length << 8 | usize::from(*byte))
        << 5;
    if least > MAX_ROW_BYTES || least + 4 > row.len() {
        return false;
    }
    let mut hash = xxhash_rust::xxh32::Xxh32::new(0);
    hash.update(row.get(..least).unwrap_or_default());
    (least..least + 32).any(|length| {
        let stored = row.get(length..).and_then(|rest| rest.first_chunk::<4>());
        let holds = length > 0 && stored.is_some_and(|s| u32::from_le_bytes(*s) == hash.digest());
        hash.update(row.get(length..length + 1).unwrap_or_default());
        holds
    })
}

/// Where the bytes of the row at `at` begin and end, as the length before it says.
fn by_prefix(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let length = bytes.get(at..).and_then(vle::decode)?;
    let value = usize::try_from(length.value).ok()?;
    let start = at + length.bytes;
    (0 < value && value <= MAX_ROW_BYTES).then_some((start, start + value))
}

/// The end of the flat row whose bytes begin at `start`, as its strings say; `None` if the bytes end before that.
fn own_end(bytes: &[u8], start: usize, layout: &Layout) -> Option<usize> {
    let fixed_end = start + layout.flat_fixed_bytes();
    let lengths = bytes.get(fixed_end - 2 * layout.strings..fixed_end)?;
    let contents = lengths.chunks_exact(2).map(|pair| match pair {
        [low, high] => usize::from(u16::from_le_bytes([*low, *high])),
        _ => 0,
    });
    Some(fixed_end + contents.sum::<usize>())
}

fn hash_holds(bytes: &[u8], start: usize, end: usize) -> bool {
    let (Some(row), Some(hash)) = (
        bytes.get(start..end),
        bytes.get(end..).and_then(|rest| rest.first_chunk::<4>()),
    ) else {
        return false;
    };
    xxh32(row) == u32::from_le_bytes(*hash)
}

fn within(bytes: &[u8], end: usize, last: bool) -> End {
    match (end <= bytes.len(), last) {
        (true, _) => End::At(end),
        (false, true) => End::Unknown,
        (false, false) => End::More,
    }
}

/// Take from the budget; whether it was enough.
fn spend(budget: &mut u64, bytes: u64) -> bool {
    let left = budget.checked_sub(bytes);
    *budget = left.unwrap_or(*budget);
    left.is_some()
}
