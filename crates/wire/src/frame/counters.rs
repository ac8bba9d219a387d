//! What a frame decoder counts.

/// Frames that were refused, one counter per reason, in the order of the checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CorruptCounters {
    /// The header's CRC32C does not match.
    pub header_crc: u64,
    /// The header is good, the payload's CRC32C does not match.
    pub payload_crc: u64,
    /// The header names a version other than 1.
    pub bad_version: u64,
    /// The payload length is zero or over the layout's limit.
    pub bad_length: u64,
    /// The stream ended inside the payload.
    pub truncated: u64,
}

impl CorruptCounters {
    /// Sum over all reasons.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.header_crc
            .saturating_add(self.payload_crc)
            .saturating_add(self.bad_version)
            .saturating_add(self.bad_length)
            .saturating_add(self.truncated)
    }

    /// Adds another account to this one.
    pub const fn add(&mut self, other: &Self) {
        self.header_crc = self.header_crc.saturating_add(other.header_crc);
        self.payload_crc = self.payload_crc.saturating_add(other.payload_crc);
        self.bad_version = self.bad_version.saturating_add(other.bad_version);
        self.bad_length = self.bad_length.saturating_add(other.bad_length);
        self.truncated = self.truncated.saturating_add(other.truncated);
    }
}

/// Running totals of one scanner or decoder.
///
/// `valid_bytes + bytes_discarded` is the number of bytes consumed, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounters {
    /// Valid frames found.
    pub frames_received: u64,
    /// Bytes of those frames, headers included.
    pub valid_bytes: u64,
    /// Bytes that belong to no valid frame.
    pub bytes_discarded: u64,
    /// Times the place in the stream was lost and a magic had to be searched for: once per run of
    /// discarded bytes, however many false candidates it holds. A corrupt frame that is skipped
    /// whole, and a header cut by the end of the stream, keep the place and count none.
    pub resyncs: u64,
    /// Candidates refused, by reason.
    pub corrupt: CorruptCounters,
}
