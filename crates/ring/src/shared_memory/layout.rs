//! Where what stands in the file (`docs/reference/ring.md`; `include/tapeline_ring.h` must change together with it).

/// Bytes of the header page; the data follow.
pub const HEADER_BYTES: u64 = 4096;
/// Bytes in front of each payload: `u64 timestamp_us | u32 packet_size | u32 crc32c`.
pub const RECORD_HEADER_BYTES: u64 = 16;
/// Records start at multiples of this.
pub const ALIGNMENT: u64 = 8;
/// `packet_size` of the record that fills a lap.
pub const PAD: u32 = u32::MAX;
/// Smallest capacity; a page.
pub const MIN_CAPACITY: u64 = 4096;
/// Largest capacity: 1 TiB, beyond what a host has.
pub const MAX_CAPACITY: u64 = 1 << 40;

pub(super) const MAGIC: [u8; 8] = *b"TPLRING1";
pub(super) const VERSION: u32 = 1;

/// Byte offsets in the header page.
pub(super) mod at {
    pub(crate) const MAGIC: u64 = 0;
    pub(crate) const VERSION: u64 = 8;
    pub(crate) const HEADER_BYTES: u64 = 12;
    pub(crate) const CAPACITY: u64 = 16;
    pub(crate) const PRODUCER_PID: u64 = 24;
    pub(crate) const STATE: u64 = 28;
    // 128 bytes apart: x86-64 fetches lines in pairs, and some aarch64 cores have lines of 128 bytes.
    pub(crate) const WRITE_POSITION: u64 = 128;
    pub(crate) const RESERVE_POSITION: u64 = 256;
    pub(crate) const OLDEST_POSITION: u64 = 384;
}

/// Values of the field `state`.
pub(super) mod state {
    pub(crate) const OPEN: u32 = 0;
    pub(crate) const CLOSED: u32 = 1;
}

/// Bytes of a record, header and filling included. No overflow: a payload has less than 2^32 bytes.
pub(super) fn record_bytes(payload_bytes: u32) -> u64 {
    (RECORD_HEADER_BYTES + u64::from(payload_bytes)).next_multiple_of(ALIGNMENT)
}

/// Largest payload of a ring. A record takes at most half the ring, so that with the padding before it, it still
/// fits, and something older is left to read.
pub fn max_payload_bytes(capacity: u64) -> u64 {
    (capacity / 2 - RECORD_HEADER_BYTES).min(u64::from(PAD) - 1)
}

/// Bytes from `position` to the end of its lap.
pub(super) fn lap_left(position: u64, capacity: u64) -> u64 {
    capacity - (position & (capacity - 1))
}

/// What a record header says about where the next one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// The rest of the lap is empty.
    Pad(u64),
    /// A record of so many bytes with so large a payload.
    Record(u64, u32),
    /// No record can say this.
    Impossible,
}

/// Reads `packet_size` of the record that stands `lap_left` bytes before the end of its lap.
pub(super) fn span(packet_size: u32, lap_left: u64, capacity: u64) -> Span {
    if packet_size == PAD {
        return Span::Pad(lap_left);
    }
    let bytes = record_bytes(packet_size);
    if bytes > lap_left || u64::from(packet_size) > max_payload_bytes(capacity) {
        return Span::Impossible;
    }
    Span::Record(bytes, packet_size)
}

/// Whether a ring may have this capacity.
pub(super) fn capacity_is_valid(capacity: u64) -> bool {
    capacity.is_power_of_two() && (MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity)
}
