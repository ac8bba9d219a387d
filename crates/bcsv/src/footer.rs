//! The footer of packet files (format 7): `BIDX`, one entry per packet, `EIDX`, size, rows, hash.

use crate::checksum::xxh64;

/// Start of the footer.
pub(crate) const BEGIN: [u8; 4] = *b"BIDX";
/// Start of its last 24 bytes.
pub(crate) const END: [u8; 4] = *b"EIDX";
/// Length of a footer without entries.
pub(crate) const EMPTY_BYTES: usize = 28;
/// Length of an entry.
pub(crate) const ENTRY_BYTES: usize = 16;
/// Length of the part from `EIDX` to the end of the file.
pub(crate) const TAIL_BYTES: usize = 24;

/// One packet in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Byte in the file of the packet's header.
    pub offset: u64,
    /// Its first row.
    pub first_row: u64,
}

/// A decoded footer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Footer {
    /// One entry per packet, or none (flag `NO_FILE_INDEX`).
    pub entries: Vec<IndexEntry>,
    /// Rows of the file.
    pub rows: u64,
}

impl Footer {
    /// Append the stored form.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&BEGIN);
        for entry in &self.entries {
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.first_row.to_le_bytes());
        }
        out.extend_from_slice(&END);
        let size = EMPTY_BYTES + ENTRY_BYTES * self.entries.len();
        // Over 268 million packets would not fit; the field then holds the largest value and readers scan.
        out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        let hash = xxh64(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&hash.to_le_bytes());
    }

    /// The footer's length, if these are the last 24 bytes of a file that has one.
    pub(crate) fn stored_len(tail: &[u8]) -> Option<u64> {
        let tail = tail.first_chunk::<TAIL_BYTES>()?;
        let size = u32::from_le_bytes(*tail.get(4..)?.first_chunk()?);
        let whole = size as usize >= EMPTY_BYTES
            && (size as usize - EMPTY_BYTES).is_multiple_of(ENTRY_BYTES);
        (tail.starts_with(&END) && whole).then_some(u64::from(size))
    }

    /// Decode the whole footer; `None` if anything in it is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, hash) = bytes.split_last_chunk::<8>()?;
        if xxh64(body) != u64::from_le_bytes(*hash)
            || Self::stored_len(bytes.get(bytes.len() - TAIL_BYTES..)?)? != bytes.len() as u64
        {
            return None;
        }
        let index = body
            .strip_prefix(&BEGIN)?
            .get(..bytes.len() - EMPTY_BYTES)?;
        let entries = index.chunks_exact(ENTRY_BYTES).map(|entry| IndexEntry {
            offset: le_u64(entry),
            first_row: le_u64(entry.get(8..).unwrap_or_default()),
        });
        Some(Self {
            entries: entries.collect(),
            rows: u64::from_le_bytes(*body.last_chunk()?),
        })
    }
}

fn le_u64(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn empty_footer_of_the_specification() {
        let mut out = Vec::new();
        Footer::default().encode(&mut out);
        assert_eq!(out.len(), 28);
        assert_eq!(out[20..], [0xb7, 0xf0, 0x8a, 0x37, 0x50, 0x98, 0xc9, 0x41]);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let footer = Footer {
            entries: vec![
                IndexEntry {
                    offset: 28,
                    first_row: 0,
                },
                IndexEntry {
                    offset: 99,
                    first_row: 7,
                },
            ],
            rows: 9,
        };
        let mut out = Vec::new();
        footer.encode(&mut out);
        assert_eq!(Footer::decode(&out).unwrap(), footer);
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Footer::decode(&bad), None, "bit {bit}");
        }
    }
}
