//! What is verified of a packet's or row's bytes before they are decoded: hashes, sizes, lengths.

use super::FileFacts;
use crate::checksum::{xxh32, xxh64};
use crate::error::{Error, ErrorKind, Result};
use crate::file::packet_lz4_batch::PREFIX_BYTES;
use crate::header::{FileCodec, RowCodec};
use crate::limits::MAX_ROW_BYTES;
use crate::packet::HEADER_BYTES;

pub(super) fn check_hash(stored: u64, bytes: &[u8]) -> Result<()> {
    let found = xxh64(bytes);
    if found == stored {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::PacketChecksum {
            expected: stored,
            found,
        }))
    }
}

/// Decompress one row behind the plaintext; an empty row stays empty.
pub(super) fn inflate(block: &[u8], plain: &mut Vec<u8>) -> Result<(u32, u32)> {
    let start = plain.len();
    if !block.is_empty() {
        let found = tapeline_lz4::decompress(block, MAX_ROW_BYTES, plain)
            .map_err(|_| Error::new(ErrorKind::Lz4))?;
        if found == 0 {
            return Err(Error::new(ErrorKind::Row {
                what: "an empty row in LZ4",
            }));
        }
    }
    let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Ok((narrow(start), narrow(plain.len())))
}

/// The plain and stored size of a batch packet, from its first 24 bytes.
pub(crate) fn batch_sizes(bytes: &[u8]) -> Result<(u64, u64)> {
    let word = |at: usize| {
        bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map(|word| u32::from_le_bytes(*word))
    };
    match (word(HEADER_BYTES), word(HEADER_BYTES + 4)) {
        (Some(plain), Some(stored)) if bytes.len() >= PREFIX_BYTES => {
            Ok((plain.into(), stored.into()))
        }
        _ => Err(Error::new(ErrorKind::Truncated { inside: "a packet" })),
    }
}

/// A plain size within the format's limit (6.6), LZ4's, and ours.
pub(crate) fn check_plain_bytes(facts: &FileFacts, plain: u64, stored: u64) -> Result<usize> {
    let limit = u64::from(facts.header.packet_bytes) + MAX_ROW_BYTES as u64 + 16;
    if plain > limit || plain > stored.saturating_mul(255) || stored > limit + limit / 255 + 16 {
        return Err(Error::new(ErrorKind::Framing {
            what: "impossible packet sizes",
        }));
    }
    facts.limits.packet(plain)
}

/// A row of a stream.
pub(crate) enum StreamRow {
    /// Where its bytes are, and where the next row begins.
    Whole {
        start: usize,
        end: usize,
        next: usize,
    },
    /// The bytes end inside it.
    Cut,
}

/// Find and verify the row at `at`.
pub(crate) fn stream_row(bytes: &[u8], at: usize, facts: &FileFacts) -> Result<StreamRow> {
    let Some(length) = bytes.get(at..).and_then(crate::vle::decode) else {
        return Ok(StreamRow::Cut);
    };
    let start = at + length.bytes;
    if length.value == 0 {
        // No hash covers a repeat; every longer form of 0 is a flipped bit, for no writer produces it.
        if length.bytes > 1 {
            return Err(Error::new(ErrorKind::Framing {
                what: "a repeat of several bytes",
            }));
        }
        if facts.header.row_codec() == RowCodec::Flat && facts.layout.columns() > 0 {
            return Err(Error::new(ErrorKind::Framing {
                what: "an empty row, which the flat codec never writes",
            }));
        }
        return Ok(StreamRow::Whole {
            start,
            end: start,
            next: start,
        });
    }
    let fixed = facts.layout.flat_fixed_bytes() as u64;
    let impossible = match (facts.file_codec(), facts.header.row_codec()) {
        (FileCodec::Stream, RowCodec::Flat) if facts.layout.strings == 0 => length.value != fixed,
        _ => length.value > MAX_ROW_BYTES as u64,
    };
    if impossible {
        return Err(Error::new(ErrorKind::Framing {
            what: "an impossible row length",
        }));
    }
    let end = start + usize::try_from(length.value).unwrap_or(usize::MAX / 2);
    let (Some(row), Some(hash)) = (
        bytes.get(start..end),
        bytes.get(end..).and_then(|rest| rest.first_chunk::<4>()),
    ) else {
        return Ok(StreamRow::Cut);
    };
    let (expected, found) = (u32::from_le_bytes(*hash), xxh32(row));
    if expected != found {
        return Err(Error::new(ErrorKind::RowChecksum { expected, found }));
    }
    Ok(StreamRow::Whole {
        start,
        end,
        next: end + 4,
    })
}
