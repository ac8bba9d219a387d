//! One source: registers that drift as a battery's do, the packets that tell, and what must be known afterwards.

use tapeline_wire::register::{
    Command, Kind, PacketFields, Source, SourceType, encode_packet, encode_simple,
};
use twox_hash::xxhash3_128::Hasher;

use super::super::random::Random;
use super::options::BatteryOptions;

/// Registers before the cells: state of the contactors, pack voltage and so on.
const HEAD: usize = 8;
/// Cells of one temperature sensor, and the sensor.
const GROUP: usize = 5;
/// States of the contactors, by bit (positive, negative, precharge): open, precharging, closed.
const CONTACTORS: [u16; 3] = [0b000, 0b110, 0b011];

/// How a register changes.
#[derive(Clone, Copy, Debug)]
enum Nature {
    /// Steps by one or two between two bounds.
    Drift { low: u16, high: u16 },
    /// Now and then another state of the contactors.
    Contactors,
    /// Now and then a bit of the low byte comes or goes.
    Flags,
    /// Counts.
    Heartbeat,
}

#[derive(Clone, Copy, Debug)]
struct Register {
    nature: Nature,
    value: u16,
    /// The receiver knows it.
    known: bool,
}

/// A source and its packets.
#[derive(Debug)]
pub(super) struct Rack {
    pub(super) source: Source,
    kind: Kind,
    registers: Vec<Register>,
    listed: Vec<(u16, u16)>,
    counts: (u32, u32),
    random_values: bool,
    full_every: u64,
    /// Which register drifts next: all have their turn.
    cursor: usize,
    number: u64,
    sizes: Random,
    values: Random,
    pub(super) full_packets: u64,
    pub(super) registers_sent: u64,
}

/// The source of client `number`. No two clients share one, so that the final image does not depend on who is faster.
pub(super) fn source_of(number: u32, kind: Kind) -> Source {
    let types = [
        SourceType::Rack,
        SourceType::Sbmu,
        SourceType::Rtos,
        SourceType::Unknown,
    ];
    let (kind, id) = match kind {
        Kind::Simple => (SourceType::Rack, number),
        Kind::Packet => {
            let group = usize::try_from(number >> 8).unwrap_or(usize::MAX);
            (types.get(group).copied().unwrap_or_default(), number & 0xFF)
        }
    };
    Source {
        kind,
        id: i32::try_from(id).unwrap_or(i32::MAX),
    }
}

impl Rack {
    pub(super) fn new(options: &BatteryOptions, kind: Kind, client: u32) -> Self {
        let stream = u64::from(client);
        let mut start = Random::new(options.seed, stream, 0);
        let registers = (0..options.registers as usize)
            .map(|offset| register(offset, &mut start))
            .collect();
        Self {
            source: source_of(client, kind),
            kind,
            registers,
            listed: Vec::new(),
            counts: (options.count_min, options.count_max),
            random_values: options.random,
            full_every: match kind {
                Kind::Packet => options.full_every,
                Kind::Simple => 0,
            },
            cursor: 0,
            number: 0,
            sizes: Random::new(options.seed, stream, 1),
            values: Random::new(options.seed, stream, 2),
            full_packets: 0,
            registers_sent: 0,
        }
    }

    /// Appends the next packet.
    pub(super) fn step(&mut self, timestamp_ns: u64, out: &mut Vec<u8>) {
        let full = self.full_every > 0 && self.number.is_multiple_of(self.full_every);
        self.listed.clear();
        if full {
            self.list_all();
            self.full_packets += 1;
        } else if self.random_values {
            self.list_random();
        } else {
            self.list_drifting();
        }
        self.registers_sent += self.listed.len() as u64;
        let timestamp_us = timestamp_ns / 1000;
        #[allow(clippy::cast_precision_loss)] // what the simple wire carries
        let encoded = match self.kind {
            Kind::Simple => {
                encode_simple(timestamp_us as f64 / 1e6, self.source.id, &self.listed, out)
            }
            Kind::Packet => {
                let fields = PacketFields {
                    timestamp_us,
                    source: self.source,
                    command: if full { Command::Full } else { Command::Diff },
                    seq: (self.number & 0xFF) as u8,
                };
                encode_packet(&fields, &self.listed, out)
            }
        };
        debug_assert!(encoded.is_ok(), "options were checked");
        self.number += 1;
    }

    pub(super) fn packets(&self) -> u64 {
        self.number
    }

    /// What a receiver that has everything knows, by offset.
    pub(super) fn known(&self) -> impl Iterator<Item = (u16, u16)> {
        (0..=u16::MAX)
            .zip(&self.registers)
            .filter(|(_, register)| register.known)
            .map(|(offset, register)| (offset, register.value))
    }

    /// Adds this source to the digest of an image, if anything of it is known.
    pub(super) fn digest(&self, hash: &mut Hasher) {
        let mut known = self.known().peekable();
        if known.peek().is_none() {
            return;
        }
        hash.write(&[self.source.kind as u8]);
        hash.write(&self.source.id.to_le_bytes());
        for (offset, value) in known {
            hash.write(&offset.to_le_bytes());
            hash.write(&value.to_le_bytes());
        }
    }

    fn count(&mut self) -> usize {
        let (least, most) = self.counts;
        let more = if least == most {
            0
        } else {
            self.sizes.below((most - least) as usize + 1)
        };
        least as usize + more
    }

    fn list_all(&mut self) {
        for (offset, register) in (0..=u16::MAX).zip(&mut self.registers) {
            register.known = true;
            self.listed.push((offset, register.value));
        }
    }

    /// Any registers, possibly one of them twice.
    fn list_random(&mut self) {
        for _ in 0..self.count() {
            let bits = self.values.next();
            // The high half chooses the register, the low one the value.
            let place = usize::try_from(((bits >> 32) * self.registers.len() as u64) >> 32);
            let Some(register) = place.ok().and_then(|place| self.registers.get_mut(place)) else {
                continue;
            };
            register.value = (bits & 0xFFFF) as u16;
            register.known = true;
            let offset = place.ok().and_then(|place| u16::try_from(place).ok());
            self.listed.push((offset.unwrap_or(0), register.value));
        }
    }

    /// The registers whose turn it is.
    fn list_drifting(&mut self) {
        let mut bits = 0;
        for index in 0..self.count() {
            if index % 8 == 0 {
                bits = self.values.next();
            }
            if self.cursor >= self.registers.len() {
                self.cursor = 0;
            }
            if let Some(register) = self.registers.get_mut(self.cursor) {
                register.change((bits & 0xFF) as u8);
                let offset = u16::try_from(self.cursor).unwrap_or(0);
                self.listed.push((offset, register.value));
            }
            bits >>= 8;
            self.cursor += 1;
        }
    }
}

impl Register {
    #[inline]
    fn change(&mut self, bits: u8) {
        self.known = true;
        let value = self.value;
        self.value = match self.nature {
            Nature::Drift { low, high } => {
                let step = 1 + u16::from(bits & 1);
                // Turns round at the bounds, so that it never stands still.
                if bits & 2 == 0 && value < high.saturating_sub(step) || value < low + step {
                    value + step
                } else {
                    value - step
                }
            }
            Nature::Contactors => CONTACTORS
                .get(usize::from(bits) / 2)
                .copied()
                .unwrap_or(value),
            Nature::Flags => {
                if bits < 8 {
                    value ^ (1 << bits)
                } else {
                    value
                }
            }
            Nature::Heartbeat => value.wrapping_add(1),
        };
    }
}

/// What register `offset` is, and where it starts.
fn register(offset: usize, random: &mut Random) -> Register {
    let drift = |low: u16, high: u16| Nature::Drift { low, high };
    let (nature, value) = match offset {
        0 => (Nature::Contactors, 0b011),
        // Pack voltage in 0.1 V, current in 0.1 A around 0 at 32,768, charge in 0.01 %.
        1 => (drift(7_000, 8_200), 7_600),
        2 => (drift(30_768, 34_768), 32_768),
        3 => (drift(500, 9_500), 6_000),
        4 => (Nature::Flags, 0),
        5 => (Nature::Heartbeat, 0),
        // Resistance of the insulation in kOhm, speed of the fan in 1/min.
        6 => (drift(900, 1_100), 1_000),
        7 => (drift(1_000, 3_000), 1_800),
        _ if (offset - HEAD) % GROUP == GROUP - 1 => {
            // 0.1 K: around 25 degrees Celsius.
            (drift(2_831, 3_281), 2_951 + small(random.below(60)))
        }
        // mV of a lithium cell.
        _ => (drift(3_000, 4_150), 3_640 + small(random.below(40))),
    };
    Register {
        nature,
        value,
        known: false,
    }
}

fn small(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(0)
}
