//! Upper bounds of the format, and the bounds that a reader sets itself.

use crate::error::{Error, ErrorKind, Result};

/// Columns of a file (format 3, u16 count).
pub const MAX_COLUMNS: usize = 65_535;
/// Bytes of a column name (format 3, u16 length).
pub const MAX_NAME_BYTES: usize = 65_535;
/// Bytes of all names together (format 3).
pub const MAX_NAMES_BYTES: usize = 16 << 20;
/// Bytes of a string value (format 10).
pub const MAX_STRING_BYTES: usize = 65_535;
/// Bytes of an encoded row, and of a stored (compressed) row (format 10).
pub const MAX_ROW_BYTES: usize = (1 << 24) - 2;
/// Smallest packet size a writer stores (format 10).
pub const MIN_PACKET_BYTES: u32 = 65_536;
/// Largest packet size field (format 10).
pub const MAX_PACKET_BYTES: u32 = 1 << 30;

/// What a reader may spend on a file, whatever its content.
///
/// Sizes that the file declares are never believed: memory grows with the bytes that are present (times
/// 255, the largest LZ4 ratio) and stops at these caps with [`ErrorKind::Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one packet in memory, decompressed.
    pub packet_bytes: u64,
    /// Bytes of one whole-table read without its strings. `None`: 256 MiB and 1,024 for each byte of the file, for
    /// rows that only repeat take a byte or less in a file.
    pub table_bytes: Option<u64>,
    /// Bytes of verified packets that [`crate::Reader::row`] keeps for the next row. The packet of the last row is
    /// always kept.
    pub cache_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes: 256 << 20,
            table_bytes: None,
            cache_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// Bytes that a table read from a file of this size may take.
    pub(crate) fn table(&self, file_bytes: u64) -> u64 {
        self.table_bytes
            .unwrap_or_else(|| (256 << 20) + file_bytes.saturating_mul(1024))
    }

    /// Rows of a batch, so that it stays small however wide the rows.
    pub(crate) fn batch_rows(&self, wanted: usize, row_bytes: usize) -> usize {
        let most = usize::try_from(self.packet_bytes / 4).unwrap_or(usize::MAX) / row_bytes.max(1);
        wanted.min(most).max(1)
    }

    /// A packet length from the file as a `usize`, if it is within the cap.
    pub(crate) fn packet(&self, bytes: u64) -> Result<usize> {
        if bytes <= self.packet_bytes
            && let Ok(bytes) = usize::try_from(bytes)
        {
            return Ok(bytes);
        }
        Err(Error::new(ErrorKind::Limit {
            what: "a packet in memory",
            needed: bytes,
            limit: self.packet_bytes,
        }))
    }
}
