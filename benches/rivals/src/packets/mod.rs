//! Data packets as they are on the wire: `u32 length | u64 timestamp_us | src_id | cmd | type | seq | reserved |
//! u32 count | control | data`, little-endian. Written for the sender and the rivals; nothing of tapeline's is used.

pub mod hostile;
pub mod query;

use crate::frame::Random;

/// Bytes before the registers, the length among them.
pub const HEADER_BYTES: usize = 21;
/// What the length counts besides the registers.
pub const LEAST_LENGTH: usize = 17;
/// Most registers of a packet.
pub const MAX_COUNT: usize = 65_536;
/// Registers whose turn it is, one after the other.
const REGISTERS: usize = 1024;
const TIME: std::ops::Range<usize> = 4..12;
/// About as much as stays in the second-level cache.
const CYCLE_BYTES: usize = 512 << 10;

/// Command DIFF.
pub const DIFF: u8 = 0;
/// Command FULL.
pub const FULL: u8 = 1;
/// Command QUERY.
pub const QUERY: u8 = 2;
/// Type of a rack.
pub const RACK: u8 = 2;

/// Appends a packet.
pub fn push(
    out: &mut Vec<u8>,
    time_us: u64,
    head: [u8; 4],
    registers: impl ExactSizeIterator<Item = (u16, u16)> + Clone,
) {
    let count = registers.len() as u32;
    out.extend((LEAST_LENGTH as u32 + 4 * count).to_le_bytes());
    out.extend(time_us.to_le_bytes());
    out.extend(head);
    out.push(0);
    out.extend(count.to_le_bytes());
    registers
        .clone()
        .for_each(|(offset, _)| out.extend(offset.to_le_bytes()));
    registers.for_each(|(_, value)| out.extend(value.to_le_bytes()));
}

/// Packets that can be sent again and again: the numbers go on where they began, only times are new.
pub struct Cycle {
    bytes: Vec<u8>,
    packet_bytes: usize,
    next_us: u64,
}

impl Cycle {
    /// The cycle of client `client`, with `count` registers a packet.
    pub fn new(client: u8, count: usize, start_us: u64) -> Self {
        let packet_bytes = HEADER_BYTES + 4 * count;
        let packets = CYCLE_BYTES.div_ceil(packet_bytes).next_multiple_of(256);
        let mut random = Random::new(u64::from(client) + 1);
        let mut bytes = Vec::with_capacity(packets * packet_bytes);
        let mut turn = 0;
        for number in 0..packets {
            let values = random.bytes(2 * count);
            let registers = (0..count).map(|at| {
                let offset = (turn + at) % REGISTERS.max(count);
                let value = u16::from_le_bytes([values[2 * at], values[2 * at + 1]]);
                (offset as u16, value)
            });
            push(
                &mut bytes,
                0,
                [client, DIFF, RACK, (number % 256) as u8],
                registers,
            );
            turn += count;
        }
        Self {
            bytes,
            packet_bytes,
            next_us: start_us,
        }
    }

    /// The next packets, at most `most` of them, a microsecond after each other; how many.
    pub fn next(&mut self, most: u64) -> (&[u8], u64) {
        let packets = ((self.bytes.len() / self.packet_bytes) as u64).min(most);
        let part = &mut self.bytes[..packets as usize * self.packet_bytes];
        for (packet, time) in part.chunks_exact_mut(self.packet_bytes).zip(self.next_us..) {
            packet[TIME].copy_from_slice(&time.to_le_bytes());
        }
        self.next_us += packets;
        (part, packets)
    }
}
