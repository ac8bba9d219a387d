//! What a register packet is, on both wires (`spec/register-packets.md 1, 2`).
//!
//! ```text
//! packet  0 length u32 | 4 timestamp_us u64 | 12 src_id u8 | 13 cmd u8 | 14 type u8 | 15 seq u8
//!        16 reserved u8 | 17 count u32 | 21 control u16 x count | data u16 x count
//! simple  0 time f64 | 8 rack i32 | 12 count u32 | 16 control u16 x count | data u16 x count
//! ```

use std::fmt;
use std::ops::Range;

use tapeline_crc::lanes;

/// The most registers in a packet of either wire.
pub const MAX_COUNT: u32 = 65_536;
/// Bytes of a data packet before `control`, its length included.
pub const PACKET_HEADER_BYTES: usize = 21;
/// Bytes of a simple packet before `control`.
pub const SIMPLE_HEADER_BYTES: usize = 16;

/// Which of the two wires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Length-prefixed data packets.
    #[default]
    Packet,
    /// Simple packets: no marker, no length, no checks.
    Simple,
}

impl Kind {
    /// Bytes of a packet before `control`.
    #[must_use]
    pub const fn header_bytes(self) -> usize {
        match self {
            Self::Packet => PACKET_HEADER_BYTES,
            Self::Simple => SIMPLE_HEADER_BYTES,
        }
    }

    /// Bytes of a whole packet with `count` registers, a length prefix included.
    #[must_use]
    pub const fn packet_bytes(self, count: u32) -> usize {
        self.header_bytes() + 4 * count as usize
    }

    /// Bytes of the largest packet.
    #[must_use]
    pub const fn max_packet_bytes(self) -> usize {
        self.packet_bytes(MAX_COUNT)
    }

    /// The word for it in URLs and configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Simple => "simple",
        }
    }

    /// Extension of its log files.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Packet => "pkt",
            Self::Simple => "spkt",
        }
    }

    /// The wire of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Packet, Self::Simple]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// What a packet says or asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Command {
    /// Sets the listed registers.
    #[default]
    Diff = 0,
    /// Sets the listed registers; all others of the source become unknown.
    Full = 1,
    /// Asks for registers.
    Query = 2,
    /// Answers a query.
    Reply = 3,
    /// Asks that all before it on the connection be durable.
    Sync = 4,
    /// They are.
    Synced = 5,
}

impl Command {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Diff,
        Self::Full,
        Self::Query,
        Self::Reply,
        Self::Sync,
        Self::Synced,
    ];

    /// The command with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Diff,
            1 => Self::Full,
            2 => Self::Query,
            3 => Self::Reply,
            4 => Self::Sync,
            5 => Self::Synced,
            _ => return None,
        })
    }

    /// Its name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Diff => "DIFF",
            Self::Full => "FULL",
            Self::Query => "QUERY",
            Self::Reply => "REPLY",
            Self::Sync => "SYNC",
            Self::Synced => "SYNCED",
        }
    }

    /// Whether it changes registers.
    #[must_use]
    pub const fn sets_registers(self) -> bool {
        matches!(self, Self::Diff | Self::Full)
    }
}

/// Kind of device a packet comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SourceType {
    /// Not said.
    #[default]
    Unknown = 0,
    /// String battery management unit.
    Sbmu = 1,
    /// Rack.
    Rack = 2,
    /// Real-time controller.
    Rtos = 3,
}

impl SourceType {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Sbmu, Self::Rack, Self::Rtos];

    /// The type with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Unknown,
            1 => Self::Sbmu,
            2 => Self::Rack,
            3 => Self::Rtos,
            _ => return None,
        })
    }

    /// Its name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Sbmu => "SBMU",
            Self::Rack => "RACK",
            Self::Rtos => "RTOS",
        }
    }
}

/// Whose registers: sorted by type, then number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The type; [`SourceType::Rack`] on the simple wire.
    pub kind: SourceType,
    /// Its number, 0 to 255; any on the simple wire (`rack`).
    pub id: i32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.id)
    }
}

/// A valid packet, lent where it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacketRef<'a> {
    /// Where it starts, in bytes from the start of the slice scanned (the decoder: of the stream).
    pub offset: u64,
    /// Its wire.
    pub kind: Kind,
    /// Microseconds since the UNIX epoch; of a simple packet `time_s` rounded and kept in range.
    pub timestamp_us: u64,
    /// Seconds since the UNIX epoch, as received in a simple packet; else made of `timestamp_us`.
    pub time_s: f64,
    /// Whose registers.
    pub source: Source,
    /// What it says; DIFF on the simple wire.
    pub command: Command,
    /// Its number; 0 on the simple wire.
    pub seq: u8,
    /// As received; 0 on the simple wire.
    pub reserved: u8,
    /// Number of registers.
    pub count: u32,
    /// Register offsets, little-endian u16.
    pub control: &'a [u8],
    /// Values, little-endian u16, as many.
    pub data: &'a [u8],
    /// The packet as received, a length prefix included.
    pub bytes: &'a [u8],
}

impl<'a> PacketRef<'a> {
    /// Bytes of the packet, a length prefix included.
    #[must_use]
    pub const fn packet_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Register offsets in the packet's order.
    pub fn offsets(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        words(self.control)
    }

    /// Values in the packet's order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        words(self.data)
    }

    /// Register offsets with their values.
    pub fn registers(&self) -> impl ExactSizeIterator<Item = (u16, u16)> + use<'a> {
        self.offsets().zip(self.values())
    }

    /// The registers as runs: the first offset, each next one larger by one, and their values as they are in the packet.
    pub fn runs(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let (mut control, mut data) = (self.control, self.data);
        std::iter::from_fn(move || {
            let first = u16::from_le_bytes(*control.first_chunk()?);
            let run = run_bytes(control).min(data.len());
            let values;
            (values, data) = data.split_at(run);
            control = control.get(run..).unwrap_or_default();
            Some((first, values))
        })
    }

    /// The valid packet that `bytes` is, no more and no less.
    #[must_use]
    pub fn parse(kind: Kind, bytes: &'a [u8]) -> Option<Self> {
        match kind {
            Kind::Packet => {
                let header: &[u8; PACKET_HEADER_BYTES] = bytes.first_chunk()?;
                let length = u32_at(header, 0);
                (u64::from(length) + 4 == bytes.len() as u64).then_some(())?;
                Self::of_packet(header, bytes)
            }
            Kind::Simple => {
                let header: &[u8; SIMPLE_HEADER_BYTES] = bytes.first_chunk()?;
                let count = u32_at(header, 12);
                (count <= MAX_COUNT && kind.packet_bytes(count) == bytes.len()).then_some(())?;
                Some(Self::of_simple(header, bytes))
            }
        }
    }

    /// A data packet of which everything but cmd, type and count is known to be right.
    #[inline(always)]
    pub(super) fn of_packet(header: &[u8; PACKET_HEADER_BYTES], bytes: &'a [u8]) -> Option<Self> {
        let command = Command::from_u8(header[13])?;
        let kind = SourceType::from_u8(header[14])?;
        let count = u32_at(header, 17);
        if count > MAX_COUNT || Kind::Packet.packet_bytes(count) != bytes.len() {
            return None;
        }
        let timestamp_us = u64_at(header, 4);
        let (control, data) = body(bytes, PACKET_HEADER_BYTES);
        Some(Self {
            offset: 0,
            kind: Kind::Packet,
            timestamp_us,
            time_s: seconds(timestamp_us),
            source: Source {
                kind,
                id: i32::from(header[12]),
            },
            command,
            seq: header[15],
            reserved: header[16],
            count,
            control,
            data,
            bytes,
        })
    }

    /// A simple packet whose count agrees with its size.
    #[inline(always)]
    pub(super) fn of_simple(header: &[u8; SIMPLE_HEADER_BYTES], bytes: &'a [u8]) -> Self {
        let time_s = f64::from_bits(u64_at(header, 0));
        let (control, data) = body(bytes, SIMPLE_HEADER_BYTES);
        Self {
            offset: 0,
            kind: Kind::Simple,
            timestamp_us: microseconds(time_s),
            time_s,
            source: Source {
                kind: SourceType::Rack,
                id: u32_at(header, 8).cast_signed(),
            },
            command: Command::Diff,
            seq: 0,
            reserved: 0,
            count: u32_at(header, 12),
            control,
            data,
            bytes,
        }
    }
}

/// One line for people: `DIFF RACK 7 seq 12, 3 registers, 33 bytes, at 1700000000.000100 s`.
impl fmt::Display for PacketRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.command.name(), self.source)?;
        if self.kind == Kind::Packet {
            write!(f, " seq {}", self.seq)?;
        }
        let plural = if self.count == 1 { "" } else { "s" };
        write!(
            f,
            ", {} register{plural}, {} bytes, at ",
            self.count,
            self.bytes.len()
        )?;
        match self.kind {
            Kind::Packet => write!(
                f,
                "{}.{:06} s",
                self.timestamp_us / 1_000_000,
                self.timestamp_us % 1_000_000
            ),
            Kind::Simple => write!(f, "{:.6} s", self.time_s),
        }
    }
}

fn body(bytes: &[u8], header_bytes: usize) -> (&[u8], &[u8]) {
    let body = bytes.get(header_bytes..).unwrap_or_default();
    body.split_at(body.len() / 2)
}

/// One in each of four registers.
pub(super) const EVERY_LANE: u64 = 0x0001_0001_0001_0001;

/// Four offsets as they are in a packet, if none is beyond 65,535; else something that they need not be.
#[inline(always)]
pub(super) fn four_from(first: u16) -> u64 {
    (u64::from(first) * EVERY_LANE).wrapping_add(0x0003_0002_0001_0000)
}

/// Bytes of offsets at the start of which each is larger by one than the one before; at least one offset, if there is
/// any.
#[inline]
pub(super) fn run_bytes(control: &[u8]) -> usize {
    let Some(first) = control.first_chunk::<2>() else {
        return 0;
    };
    let first = u16::from_le_bytes(*first);
    let mut control = control;
    if let Some(four) = control.first_chunk::<8>()
        && u64::from_le_bytes(*four) != four_from(first)
    {
        control = control.get(..6).unwrap_or_default();
    }
    lanes::ascending(control, first)
}

/// Sets the bits of a range in words of 64, the lowest first; bits beyond the words are left out.
#[inline]
pub fn mark_bits(words: &mut [u64], bits: Range<usize>) {
    let mut at = bits.start;
    while at < bits.end {
        let stop = (at / 64 * 64 + 64).min(bits.end);
        let ones = u64::MAX >> (64 - (stop - at));
        if let Some(word) = words.get_mut(at / 64) {
            *word |= ones << (at % 64);
        }
        at = stop;
    }
}

fn words(bytes: &[u8]) -> impl ExactSizeIterator<Item = u16> + use<'_> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|b| u16::from_le_bytes(*b))
}

/// Seconds of microseconds. Above 2^53 us (the year 2255) the last digits are rounded.
#[allow(clippy::cast_precision_loss)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Microseconds of seconds: to the nearest; 0 for what is before 1970 or no number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the cast saturates
fn microseconds(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

#[inline(always)]
pub(super) fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::run_bytes;

    #[test]
    fn runs_end_at_the_last_offset() {
        for first in [0, 65_531, 65_532, 65_533, 65_534, 65_535_u16] {
            let offsets = (0..8).map(|n| first.wrapping_add(n));
            let bytes: Vec<u8> = offsets.flat_map(u16::to_le_bytes).collect();
            let whole = (65_536 - usize::from(first)).min(8);
            assert_eq!(run_bytes(&bytes), 2 * whole, "from {first}");
        }
    }
}
