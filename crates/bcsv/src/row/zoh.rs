//! ZoH001, zero-order hold: only what changed (format 8.2).
//!
//! ```text
//! [ header: bool values, then a change flag per number (grouped order) and string ] [ changed values ]
//! ```
//!
//! Values lie in the order of the image, so a run of changed columns is one copy, and a row without changes is
//! one comparison of the image. A row in which nothing changed is empty.

use super::bits::{field, load, store};
use super::held::Changes;
use super::{Row, RowStrings, Span, bad};
use crate::error::Result;
use crate::schema::Layout;

/// What the encoder remembers.
#[derive(Clone)]
pub(super) struct Encoder {
    first: bool,
    image: Vec<u8>,
    strings: Vec<Vec<u8>>,
    /// The row being built: header, numbers, slack.
    scratch: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            first: true,
            image: vec![0; layout.image_bytes],
            strings: vec![Vec::new(); layout.strings],
            scratch: vec![0; layout.columns().div_ceil(8) + layout.image_bytes + 16],
        }
    }

    pub(super) fn restart(&mut self) {
        self.first = true;
    }

    pub(super) fn resume(&mut self, image: &[u8], strings: Vec<Vec<u8>>) {
        self.first = false;
        self.image = image.to_vec();
        self.strings = strings;
    }

    pub(super) fn encode(
        &mut self,
        layout: &Layout,
        image: &[u8],
        strings: &impl RowStrings,
        out: &mut Vec<u8>,
    ) {
        let same_strings = |old: &[Vec<u8>]| {
            old.iter()
                .enumerate()
                .all(|(i, old)| old.as_slice() == strings.string(i))
        };
        if !self.first && self.image == image && same_strings(&self.strings) {
            return;
        }
        let header_bytes = layout.columns().div_ceil(8);
        let (header, data) = self.scratch.split_at_mut(header_bytes + 8);
        header.fill(0);
        layout.copy_bools(image, header);
        let mut length = 0;
        let mut bit = layout.bools;
        for group in &layout.groups {
            let range = group.at..group.at + group.columns * group.kind.width();
            let new = image.get(range.clone()).unwrap_or_default();
            let old = self.image.get(range).unwrap_or_default();
            if self.first || new != old {
                let first = self.first;
                match group.kind.width() {
                    1 => numbers::<1>(new, old, first, bit, header, data, &mut length),
                    2 => numbers::<2>(new, old, first, bit, header, data, &mut length),
                    4 => numbers::<4>(new, old, first, bit, header, data, &mut length),
                    _ => numbers::<8>(new, old, first, bit, header, data, &mut length),
                }
            }
            bit += group.columns;
        }
        let at = out.len();
        out.extend_from_slice(header.get(..header_bytes).unwrap_or_default());
        out.extend_from_slice(data.get(..length).unwrap_or_default());
        for (i, old) in self.strings.iter_mut().enumerate() {
            let new = strings.string(i);
            if self.first || old.as_slice() != new {
                if let Some(byte) = out.get_mut(at + (bit + i) / 8) {
                    *byte |= 1 << ((bit + i) % 8);
                }
                out.extend_from_slice(&u16::try_from(new.len()).unwrap_or(u16::MAX).to_le_bytes());
                out.extend_from_slice(new);
                old.clear();
                old.extend_from_slice(new);
            }
        }
        self.image.copy_from_slice(image);
        self.first = false;
    }
}

/// Flags and values of one group: 32 columns at a time, each run of changes copied at once.
fn numbers<const W: usize>(
    new: &[u8],
    old: &[u8],
    first: bool,
    mut bit: usize,
    header: &mut [u8],
    data: &mut [u8],
    length: &mut usize,
) {
    for (new, old) in new.chunks(32 * W).zip(old.chunks(32 * W)) {
        let columns = new.len() / W;
        let mut flags = 0_u64;
        for (i, (new, old)) in new.chunks_exact(W).zip(old.chunks_exact(W)).enumerate() {
            flags |= u64::from(new.first_chunk::<W>() != old.first_chunk::<W>()) << i;
        }
        if first {
            flags = (1 << columns) - 1;
        }
        let word = load(header, bit / 8) | flags << (bit % 8);
        store(header, bit / 8, word);
        bit += columns;
        while flags != 0 {
            let start = flags.trailing_zeros() as usize;
            let run = (flags >> start).trailing_ones() as usize;
            if let (Some(from), Some(to)) = (
                new.get(start * W..(start + run) * W),
                data.get_mut(*length..*length + run * W),
            ) {
                to.copy_from_slice(from);
            }
            *length += run * W;
            flags &= !(((1 << run) - 1) << start);
        }
    }
}

/// Decode a row over the image and strings of the row before.
pub(super) fn decode(
    layout: &Layout,
    row: &Row<'_>,
    first: bool,
    image: &mut [u8],
    strings: &mut [Span],
) -> Result<()> {
    let header_bytes = layout.columns().div_ceil(8);
    if row.end - row.start < header_bytes {
        return Err(bad("it is too short"));
    }
    let header = row
        .plain
        .get(row.start..row.start + header_bytes)
        .unwrap_or_default();
    layout.copy_bools(header, image);
    let data = row.plain.get(..row.end).unwrap_or_default();
    let mut at = row.start + header_bytes;
    for (block, numbers) in layout.numbers.chunks(32).enumerate() {
        #[allow(clippy::cast_possible_truncation)] // a block has at most 32 columns
        let mut flags = field(header, layout.bools + 32 * block, numbers.len() as u32);
        if first && flags.count_ones() as usize != numbers.len() {
            return Err(bad("the first row of a packet lacks a value"));
        }
        while flags != 0 {
            let start = flags.trailing_zeros() as usize;
            let run = (flags >> start).trailing_ones() as usize;
            flags &= !(((1 << run) - 1) << start);
            let from = numbers.get(start).map_or(0, |number| number.0);
            let to = numbers
                .get(start + run - 1)
                .map_or(0, |number| number.0 + number.1);
            match (image.get_mut(from..to), data.get(at..at + (to - from))) {
                (Some(image), Some(values)) => image.copy_from_slice(values),
                _ => return Err(bad("a value reaches beyond the row")),
            }
            at += to - from;
        }
    }
    let bit = layout.bools + layout.numbers.len();
    row.strings(
        at - row.start,
        strings,
        |i, count| field(header, bit + i, count),
        first,
    )
}

/// Note what a row changes. Of the image only the bools are kept up to date, to see which of them change.
#[inline]
pub(super) fn changes(
    layout: &Layout,
    row: &Row<'_>,
    first: bool,
    image: &mut [u8],
    notes: &mut Changes,
) -> Result<()> {
    let header_bytes = layout.columns().div_ceil(8);
    if row.end - row.start < header_bytes {
        return Err(bad("it is too short"));
    }
    let values = layout.numbers.len() + layout.strings;
    for byte in (0..layout.bool_bytes()).step_by(8) {
        let bools = layout.bools - 8 * byte;
        let mask = u64::MAX >> 64_usize.saturating_sub(bools);
        let new = row.load(byte) & mask;
        let mut differ = new ^ (load(image, byte) & mask);
        while differ != 0 {
            let place = differ.trailing_zeros() as usize / 8;
            notes.note(values + byte + place, row.start + byte + place);
            if let Some(old) = image.get_mut(byte + place) {
                *old = new.to_le_bytes().get(place).copied().unwrap_or(0);
            }
            differ &= !(0xFF << (8 * place));
        }
    }
    let mut at = row.start + header_bytes;
    let mut from = 0;
    while from < values {
        let count = (values - from).min(FLAGS);
        let bit = layout.bools + from;
        let mut flags = (row.load(bit / 8) >> (bit % 8)) & (u64::MAX >> (64 - count));
        if first && flags.count_ones() as usize != count {
            return Err(bad("the first row of a packet lacks a value"));
        }
        while flags != 0 {
            let value = from + flags.trailing_zeros() as usize;
            flags &= flags - 1;
            notes.note(value, at);
            at += match layout.numbers.get(value) {
                Some((_, bytes)) => *bytes,
                None => 2 + (load(row.plain, at) & 0xFFFF) as usize,
            };
        }
        from += count;
    }
    if at == row.end {
        Ok(())
    } else {
        Err(bad("its length contradicts its content"))
    }
}

/// Flags looked at together: as many as eight bytes hold wherever the first one lies in its byte.
const FLAGS: usize = 57;
