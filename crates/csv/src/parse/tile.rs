//! Where the cells of some records end.
//!
//! The text is looked at in blocks of 64 bytes: one bit per byte says where delimiters and newlines are. Bits are turned
//! into places eight at a time, wanted or not, for a loop that ends after each block's own number of cells would be
//! predicted wrongly each time. A record with a quote (or a return that ends no line) is gone through cell by cell
//! instead. A record that is none of the plan's (blank, ragged, wrong) ends the tile before it.

use tapeline_sys::vector::equal_bytes;

use crate::records::{self, Next, QUOTE};

/// Cells of a tile: its text and places stay in the second level of the cache.
const CELLS: usize = 8192;
/// Records of a tile at most; a multiple of eight, for bools.
const RECORDS: usize = 512;
const BLOCK: usize = 64;
/// The last bit of a block.
const LAST: u32 = 63;

/// The cells of whole records, all with the same number of fields. Places count from the start of the tile.
#[derive(Debug, Default)]
pub(super) struct Tile {
    fields: usize,
    starts: Vec<u32>,
    /// For each record, the end of each cell. Some places behind the last one are used as scratch.
    ends: Vec<u32>,
}

/// One bit per byte of a block.
struct Marks {
    delimiters: u64,
    newlines: u64,
    returns: u64,
    quotes: u64,
}

impl Marks {
    #[inline(always)]
    fn of(block: &[u8; BLOCK], delimiter: u8) -> Self {
        Self {
            delimiters: equal_bytes(block, delimiter),
            newlines: equal_bytes(block, b'\n'),
            returns: equal_bytes(block, b'\r'),
            quotes: equal_bytes(block, QUOTE),
        }
    }
}

impl Tile {
    pub(super) fn new(fields: usize) -> Self {
        Self {
            fields,
            ..Self::default()
        }
    }

    /// Records found.
    pub(super) fn records(&self) -> usize {
        self.starts.len()
    }

    /// Start and end of the cells of a field, from a record on.
    #[inline(always)]
    pub(super) fn cells(
        &self,
        field: usize,
        from: usize,
    ) -> impl Iterator<Item = (usize, usize)> + '_ {
        // The end of the cell before, and of the cell; the first cell of a record has none before it.
        let first = from * self.fields + field.saturating_sub(1);
        let ends = self.ends.get(first..).unwrap_or_default();
        let starts = self.starts.get(from..).unwrap_or_default();
        let cell = move |(ends, start): (&[u32], &u32)| match *ends {
            [before, end, ..] if field > 0 => (before as usize + 1, end as usize),
            [end, ..] => (*start as usize, end as usize),
            [] => (0, 0),
        };
        ends.chunks(self.fields.max(1)).zip(starts).map(cell)
    }

    /// Find the records at the start of `text`, which ends with a newline; returns the bytes that they take.
    #[inline(always)]
    pub(super) fn find(&mut self, text: &[u8], delimiter: u8) -> usize {
        let fields = self.fields.max(1);
        let records = (CELLS / fields).clamp(8, RECORDS) / 8 * 8;
        self.starts.clear();
        self.ends.resize(records * fields + 2 * BLOCK, 0);
        // Cells found, and how many there are when the record is whole.
        let (mut found, mut whole) = (0, fields);
        let (mut base, mut start) = (0_u32, 0_u32);
        let mut last_block;
        while self.starts.len() < records {
            let rest = text.get(base as usize..).unwrap_or_default();
            let block = match rest.first_chunk::<BLOCK>() {
                Some(block) => block,
                None if rest.is_empty() => break,
                None => {
                    // No delimiter is a digit.
                    last_block = [b'0'; BLOCK];
                    last_block
                        .iter_mut()
                        .zip(rest)
                        .for_each(|(to, byte)| *to = *byte);
                    &last_block
                }
            };
            let marks = Marks::of(block, delimiter);
            let mut cells = marks.delimiters | marks.newlines;
            let mut newlines = marks.newlines;
            let ends_line =
                marks.newlines >> 1 | u64::from(rest.get(BLOCK) == Some(&b'\n')) << LAST;
            let odd = marks.quotes | (marks.returns & !ends_line);
            if odd != 0 {
                // What comes before the odd byte is as any other.
                let before = (odd & odd.wrapping_neg()) - 1;
                cells &= before;
                newlines &= before;
            }
            let all = cells;
            let mut at = found;
            while cells != 0 {
                let Some(eight) = self.ends.get_mut(at..at + 8) else {
                    break;
                };
                for end in eight {
                    *end = base + cells.trailing_zeros();
                    cells &= cells.wrapping_sub(1);
                }
                at += 8;
            }
            while newlines != 0 {
                let bit = newlines.trailing_zeros();
                let until = u64::MAX >> (LAST - bit);
                if found + (all & until).count_ones() as usize != whole {
                    return start as usize;
                }
                if marks.returns != 0 || bit == 0 {
                    self.cut_return(text, whole - 1);
                }
                self.starts.push(start);
                start = base + bit + 1;
                whole += fields;
                newlines &= newlines - 1;
                if self.starts.len() == records {
                    return start as usize;
                }
            }
            found += all.count_ones() as usize;
            if found >= whole {
                return start as usize;
            }
            base += LAST + 1;
            if odd != 0 {
                let Some(next) = self.slowly(text, start, whole - fields, delimiter) else {
                    return start as usize;
                };
                self.starts.push(start);
                found = whole;
                whole += fields;
                (base, start) = (next, next);
            }
        }
        start as usize
    }

    /// The end of a record's last cell is before CR LF.
    #[inline(always)]
    fn cut_return(&mut self, text: &[u8], cell: usize) {
        if let Some(end) = self.ends.get_mut(cell)
            && let Some(before) = end.checked_sub(1)
            && text.get(before as usize) == Some(&b'\r')
        {
            *end = before;
        }
    }

    /// One record, cell by cell; returns where the next one starts, or `None` if it is none of the plan's.
    #[cold]
    fn slowly(&mut self, text: &[u8], start: u32, first: usize, delimiter: u8) -> Option<u32> {
        let mut at = start as usize;
        for cell in first..first + self.fields {
            let end = records::cell(text, at, delimiter).ok()?.1;
            *self.ends.get_mut(cell)? = u32::try_from(end).ok()?;
            let last = cell + 1 == first + self.fields;
            match records::next(text, end, delimiter) {
                Next::Cell(next) if !last => at = next,
                Next::Record(next) if last => return u32::try_from(next).ok(),
                _ => return None,
            }
        }
        None
    }
}
