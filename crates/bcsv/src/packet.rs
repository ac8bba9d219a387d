//! Packet headers (format 6.3).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `PKCT` |
//! | 4 | 8 | first row |
//! | 12 | 4 | XXH32 of bytes 0..12 |

use crate::checksum::xxh32;

/// Start of a packet.
pub(crate) const MAGIC: [u8; 4] = *b"PKCT";
/// Length of a packet header.
pub(crate) const HEADER_BYTES: usize = 16;
/// Terminator and hash: what closes a raw or LZ4 streaming packet.
pub(crate) const TRAILER_BYTES: usize = 13;

/// The header of the packet that starts with this row.
pub(crate) fn encode_header(first_row: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..12].copy_from_slice(&first_row.to_le_bytes());
    let hash = xxh32(&header[..12]);
    header[12..].copy_from_slice(&hash.to_le_bytes());
    header
}

/// The first row of a packet, if these 16 bytes are a packet header.
pub(crate) fn decode_header(bytes: &[u8]) -> Option<u64> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let (head, hash) = header.split_at(12);
    let (magic, row) = head.split_at(4);
    if magic != MAGIC || hash != xxh32(head).to_le_bytes() {
        return None;
    }
    row.first_chunk().map(|row| u64::from_le_bytes(*row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_specification() {
        let zero = [
            0x50, 0x4b, 0x43, 0x54, 0, 0, 0, 0, 0, 0, 0, 0, 0xa4, 0x28, 0xbf, 0xb8,
        ];
        let two = [
            0x50, 0x4b, 0x43, 0x54, 2, 0, 0, 0, 0, 0, 0, 0, 0xf2, 0xbe, 0x2e, 0x33,
        ];
        assert_eq!(encode_header(0), zero);
        assert_eq!(encode_header(2), two);
        assert_eq!(decode_header(&two), Some(2));
        for bit in 0..128 {
            let mut bad = two;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_header(&bad), None, "bit {bit}");
        }
    }
}
