//! The lower face: finds the valid packets in slices that the caller owns.
//!
//! A data packet that is refused is skipped by its length; a length that no packet can have, or on
//! the simple wire a count above the limit, means that the framing is lost: neither wire has a
//! marker to search for, so everything after it is discarded and counted (`spec/register-packets.md
//! 1, 2`).

use std::fmt;

use super::counters::PacketCounters;
use super::packet::{
    Command, Kind, MAX_COUNT, PACKET_HEADER_BYTES, PacketRef, SIMPLE_HEADER_BYTES, SourceType,
    u32_at,
};

/// What `length` of a data packet counts besides the registers.
const LENGTH_WITHOUT_REGISTERS: u32 = 17;
/// Nothing counted yet.
const NOTHING: PacketCounters = PacketCounters {
    packets: 0,
    bytes_valid: 0,
    registers: 0,
    queries: 0,
    syncs: 0,
    full: 0,
    invalid: super::InvalidCounters {
        length_mismatch: 0,
        unknown_command: 0,
        unknown_type: 0,
        truncated: 0,
    },
    bytes_invalid: 0,
    bytes_discarded: 0,
    framing_lost: 0,
};
/// The largest `length`.
const MAX_LENGTH: u32 = LENGTH_WITHOUT_REGISTERS + 4 * MAX_COUNT;

/// Why a byte stream can no longer be cut into packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingReason {
    /// `length` is smaller than a header.
    LengthBelowMinimum,
    /// `length` is larger than any packet's.
    LengthAboveLimit,
    /// `count` of a simple packet is above the limit.
    CountAboveLimit,
}

impl FramingReason {
    /// A word for counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LengthBelowMinimum => "length_below_minimum",
            Self::LengthAboveLimit => "length_above_limit",
            Self::CountAboveLimit => "count_above_limit",
        }
    }
}

/// The framing is lost: the connection ends here, what came before it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingLost {
    /// Where the offending packet starts, in bytes from the start of the stream.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: FramingReason,
    /// The number found.
    pub found: u64,
    /// The nearest number that would have been right.
    pub expected: u64,
}

impl fmt::Display for FramingLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            reason,
            found,
            expected,
        } = self;
        let (field, bound) = match reason {
            FramingReason::LengthBelowMinimum => ("length", "at least"),
            FramingReason::LengthAboveLimit => ("length", "at most"),
            FramingReason::CountAboveLimit => ("count", "at most"),
        };
        write!(
            f,
            "framing lost at byte {offset}: {field} is {found}, must be {bound} {expected}"
        )
    }
}

impl std::error::Error for FramingLost {}

/// Finds packets in a stream of which the caller keeps the bytes.
#[derive(Clone, Debug)]
pub struct PacketScanner {
    kind: Kind,
    counters: PacketCounters,
    needed: usize,
    consumed: u64,
    lost: Option<FramingLost>,
}

impl PacketScanner {
    /// A scanner at the start of a stream.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            counters: NOTHING,
            needed: 1,
            consumed: 0,
            lost: None,
        }
    }

    /// The wire.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Totals since the scanner was made.
    #[must_use]
    pub const fn counters(&self) -> &PacketCounters {
        &self.counters
    }

    /// Totals since the last time, for who adds up many scanners.
    pub const fn take_counters(&mut self) -> PacketCounters {
        std::mem::replace(&mut self.counters, NOTHING)
    }

    /// Bytes of the stream consumed.
    #[must_use]
    pub const fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Why the framing is lost, if it is.
    #[must_use]
    pub const fn lost(&self) -> Option<FramingLost> {
        self.lost
    }

    /// How many unconsumed bytes must be there before [`Self::scan`] can do anything more: at most
    /// one packet of the largest size.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.needed
    }

    /// Lends every valid packet of `bytes` to `emit`, and returns how many bytes are done with.
    /// Those are never needed again; the rest must stand at the start of the next call's slice.
    ///
    /// `bytes` is everything not yet consumed, contiguous. `end` says that no byte ever follows
    /// (the end of a stream, or of a datagram): everything is then consumed, an unfinished packet
    /// is counted as truncated, and the scanner is ready for a new stream. Offsets are relative to
    /// `bytes`.
    ///
    /// # Errors
    ///
    /// The framing is lost. What came before was lent, all else of `bytes` is discarded and counted,
    /// and so is all that is scanned later, until `end`.
    #[inline]
    pub fn scan<'b>(
        &mut self,
        bytes: &'b [u8],
        end: bool,
        emit: &mut impl FnMut(PacketRef<'b>),
    ) -> Result<usize, FramingLost> {
        if let Some(lost) = self.lost {
            self.discard(bytes.len(), end);
            return Err(lost);
        }
        if bytes.len() < self.needed && !end {
            return Ok(0);
        }
        let (done, lost) = match self.kind {
            Kind::Packet => self.packets(bytes, emit),
            Kind::Simple => self.simple(bytes, emit),
        };
        self.consumed += done as u64;
        if lost.is_some() {
            self.lost = lost;
            self.counters.framing_lost += 1;
        }
        let rest = bytes.len() - done;
        match lost {
            Some(lost) => {
                self.discard(rest, end);
                Err(lost)
            }
            None if end => {
                self.counters.invalid.truncated += u64::from(rest > 0);
                self.discard(rest, true);
                Ok(bytes.len())
            }
            None => Ok(done),
        }
    }

    fn discard(&mut self, bytes: usize, end: bool) {
        self.counters.bytes_discarded += bytes as u64;
        self.consumed += bytes as u64;
        if end {
            self.lost = None;
            self.needed = 1;
        }
    }

    #[inline]
    fn packets<'b>(
        &mut self,
        bytes: &'b [u8],
        emit: &mut impl FnMut(PacketRef<'b>),
    ) -> (usize, Option<FramingLost>) {
        // Totals in registers: `emit` may be anything.
        let (mut at, mut packets, mut registers, mut skipped) = (0, 0_u64, 0_u64, 0_u64);
        let mut lost = None;
        let needed = loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(length) = rest.first_chunk::<4>().map(|b| u32_at(b, 0)) else {
                break 4;
            };
            if !(LENGTH_WITHOUT_REGISTERS..=MAX_LENGTH).contains(&length) {
                let below = length < LENGTH_WITHOUT_REGISTERS;
                lost = Some(FramingLost {
                    offset: self.consumed + at as u64,
                    reason: if below {
                        FramingReason::LengthBelowMinimum
                    } else {
                        FramingReason::LengthAboveLimit
                    },
                    found: u64::from(length),
                    expected: u64::from(if below {
                        LENGTH_WITHOUT_REGISTERS
                    } else {
                        MAX_LENGTH
                    }),
                });
                break 1;
            }
            let size = 4 + length as usize;
            let (Some(packet), Some(header)) =
                (rest.get(..size), rest.first_chunk::<PACKET_HEADER_BYTES>())
            else {
                break size;
            };
            if let Some(mut found) = PacketRef::of_packet(header, packet) {
                packets += 1;
                match found.command {
                    Command::Diff => registers += u64::from(found.count),
                    command => self.count_command(command, found.count),
                }
                found.offset = at as u64;
                emit(found);
            } else {
                skipped += size as u64;
                self.count_invalid(header);
            }
            at += size;
        };
        self.needed = needed;
        self.counters.packets += packets;
        self.counters.registers += registers;
        self.counters.bytes_invalid += skipped;
        self.counters.bytes_valid += at as u64 - skipped;
        (at, lost)
    }

    #[inline]
    fn simple<'b>(
        &mut self,
        bytes: &'b [u8],
        emit: &mut impl FnMut(PacketRef<'b>),
    ) -> (usize, Option<FramingLost>) {
        let (mut at, mut packets, mut registers) = (0, 0_u64, 0_u64);
        let mut lost = None;
        let needed = loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(header) = rest.first_chunk::<SIMPLE_HEADER_BYTES>() else {
                break SIMPLE_HEADER_BYTES;
            };
            let count = u32_at(header, 12);
            if count > MAX_COUNT {
                lost = Some(FramingLost {
                    offset: self.consumed + at as u64,
                    reason: FramingReason::CountAboveLimit,
                    found: u64::from(count),
                    expected: u64::from(MAX_COUNT),
                });
                break 1;
            }
            let size = Kind::Simple.packet_bytes(count);
            let Some(packet) = rest.get(..size) else {
                break size;
            };
            packets += 1;
            registers += u64::from(count);
            let mut found = PacketRef::of_simple(header, packet);
            found.offset = at as u64;
            emit(found);
            at += size;
        };
        self.needed = needed;
        self.counters.packets += packets;
        self.counters.registers += registers;
        self.counters.bytes_valid += at as u64;
        (at, lost)
    }

    #[cold]
    fn count_command(&mut self, command: Command, count: u32) {
        let c = &mut self.counters;
        match command {
            Command::Full => {
                c.full += 1;
                c.registers += u64::from(count);
            }
            Command::Query => c.queries += 1,
            Command::Sync => c.syncs += 1,
            Command::Diff | Command::Reply | Command::Synced => {}
        }
    }

    #[cold]
    fn count_invalid(&mut self, header: &[u8; PACKET_HEADER_BYTES]) {
        let invalid = &mut self.counters.invalid;
        if Command::from_u8(header[13]).is_none() {
            invalid.unknown_command += 1;
        } else if SourceType::from_u8(header[14]).is_none() {
            invalid.unknown_type += 1;
        } else {
            invalid.length_mismatch += 1;
        }
    }
}
