//! Registers to packets.

use std::fmt;

use super::packet::{Command, Kind, MAX_COUNT, Source};

/// The fields of a data packet besides its registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFields {
    /// Microseconds since the UNIX epoch.
    pub timestamp_us: u64,
    /// Whose registers; the number must be 0 to 255.
    pub source: Source,
    /// What it says.
    pub command: Command,
    /// Its number.
    pub seq: u8,
}

/// A packet that the wire cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// More registers than a packet may have.
    TooManyRegisters {
        /// How many.
        found: usize,
    },
    /// A source number that does not fit into a byte.
    SourceId {
        /// Which.
        found: i32,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRegisters { found } => {
                write!(f, "a packet has at most {MAX_COUNT} registers, not {found}")
            }
            Self::SourceId { found } => {
                write!(f, "src_id is {found}; it must be 0 to 255")
            }
        }
    }
}

impl std::error::Error for EncodeError {}

/// Appends a data packet, its length first.
///
/// # Errors
///
/// More than 65,536 registers, or a source number above 255. Nothing was appended.
pub fn encode_packet(
    fields: &PacketFields,
    registers: &[(u16, u16)],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let count = count(registers)?;
    let id = u8::try_from(fields.source.id).map_err(|_| EncodeError::SourceId {
        found: fields.source.id,
    })?;
    out.reserve(Kind::Packet.packet_bytes(count));
    out.extend_from_slice(&(17 + 4 * count).to_le_bytes());
    out.extend_from_slice(&fields.timestamp_us.to_le_bytes());
    out.extend_from_slice(&[
        id,
        fields.command as u8,
        fields.source.kind as u8,
        fields.seq,
        0,
    ]);
    out.extend_from_slice(&count.to_le_bytes());
    body(registers, out);
    Ok(())
}

/// Appends a simple packet.
///
/// # Errors
///
/// More than 65,536 registers. Nothing was appended.
pub fn encode_simple(
    time_s: f64,
    rack: i32,
    registers: &[(u16, u16)],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let count = count(registers)?;
    out.reserve(Kind::Simple.packet_bytes(count));
    out.extend_from_slice(&time_s.to_bits().to_le_bytes());
    out.extend_from_slice(&rack.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    body(registers, out);
    Ok(())
}

fn count(registers: &[(u16, u16)]) -> Result<u32, EncodeError> {
    u32::try_from(registers.len())
        .ok()
        .filter(|&count| count <= MAX_COUNT)
        .ok_or(EncodeError::TooManyRegisters {
            found: registers.len(),
        })
}

fn body(registers: &[(u16, u16)], out: &mut Vec<u8>) {
    out.extend(registers.iter().flat_map(|r| r.0.to_le_bytes()));
    out.extend(registers.iter().flat_map(|r| r.1.to_le_bytes()));
}
