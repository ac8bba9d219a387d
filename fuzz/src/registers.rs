//! Register packets for the targets: a script that makes them, and a slow decoder that knows what they are.

use tapeline_wire::register::{Kind, PacketCounters};

use crate::Choices;

/// Bytes of the registers that no limit allows.
const MAX_LENGTH: u64 = 17 + 4 * 65_536;

/// Carries out a script: packets, packets that lie about themselves, raw bytes. About 8 KiB come of it at most.
pub fn packets(choices: &mut Choices<'_>, kind: Kind) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seq = 0u8;
    while !choices.is_empty() && out.len() < 1 << 13 {
        let start = out.len();
        let what = choices.byte();
        let count = u32::from(choices.byte() % 9);
        match kind {
            Kind::Packet => {
                let (cmd, source) = (choices.byte(), choices.byte());
                out.extend_from_slice(&(17 + 4 * count).to_le_bytes());
                out.extend_from_slice(&choices.number(3).to_le_bytes());
                // few sources, so that their packets meet
                out.extend_from_slice(&[source % 3, if cmd < 240 { cmd % 6 } else { cmd }]);
                out.push(if source < 250 { source / 3 % 4 } else { source });
                seq = seq.wrapping_add(1 + u8::from(what % 16 == 3));
                out.extend_from_slice(&[seq, 0]);
            }
            Kind::Simple => {
                out.extend_from_slice(&choices.number(8).to_le_bytes());
                out.extend_from_slice(&(choices.number(1) as i32 - 100).to_le_bytes());
            }
        }
        out.extend_from_slice(&count.to_le_bytes());
        for _ in 0..count {
            out.extend_from_slice(&(choices.number(1) as u16 * 257).to_le_bytes());
        }
        for _ in 0..count {
            out.extend_from_slice(&(choices.number(1) as u16).to_le_bytes());
        }
        match what / 16 {
            // one byte changed
            1 => {
                let at = start + usize::from(choices.byte()) % (out.len() - start);
                out[at] ^= choices.byte();
            }
            // cut short
            2 => out.truncate(start + usize::from(choices.byte()) % (out.len() - start)),
            3 => out.extend_from_slice(choices.take(usize::from(what % 16))),
            _ => {}
        }
    }
    out
}

/// Where a packet starts and what it says: command, type, id, seq, registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// In the stream.
    pub offset: usize,
    /// After it.
    pub end: usize,
    /// 0 to 5.
    pub command: u8,
    /// 0 to 3.
    pub source_type: u8,
    /// SBMU or rack number.
    pub src_id: i32,
    /// As sent.
    pub seq: u8,
    /// Offsets and values.
    pub registers: Vec<(u16, u16)>,
}

/// `spec/register-packets.md` 1 and 2, word for word, over a whole stream.
pub fn slow(kind: Kind, bytes: &[u8]) -> (Vec<Plain>, PacketCounters) {
    let mut counters = PacketCounters::default();
    let mut found = Vec::new();
    let number = |at: usize, count: usize| {
        bytes[at..at + count]
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let mut at = 0;
    while at < bytes.len() {
        let left = bytes.len() - at;
        let header = match kind {
            Kind::Packet => 21,
            Kind::Simple => 16,
        };
        let known = if kind == Kind::Packet { 4 } else { 16 };
        let size = if left < known {
            None
        } else if kind == Kind::Packet {
            let length = number(at, 4);
            if !(17..=MAX_LENGTH).contains(&length) {
                counters.framing_lost += 1;
                break;
            }
            Some(4 + length as usize)
        } else {
            let count = number(at + 12, 4);
            if count > 65_536 {
                counters.framing_lost += 1;
                break;
            }
            Some(16 + 4 * count as usize)
        };
        let Some(size) = size.filter(|size| *size <= left) else {
            counters.invalid.truncated += 1;
            break;
        };
        let count = number(at + header - 4, 4);
        let (command, source_type, src_id, seq) = match kind {
            Kind::Packet => (
                bytes[at + 13],
                bytes[at + 14],
                i32::from(bytes[at + 12]),
                bytes[at + 15],
            ),
            Kind::Simple => (0, 2, number(at + 8, 4) as u32 as i32, 0),
        };
        let reason = if command > 5 {
            Some(&mut counters.invalid.unknown_command)
        } else if source_type > 3 {
            Some(&mut counters.invalid.unknown_type)
        } else if size as u64 != header as u64 + 4 * count {
            Some(&mut counters.invalid.length_mismatch)
        } else {
            None
        };
        if let Some(reason) = reason {
            *reason += 1;
            counters.bytes_invalid += size as u64;
            at += size;
            continue;
        }
        counters.packets += 1;
        counters.bytes_valid += size as u64;
        counters.full += u64::from(command == 1);
        counters.queries += u64::from(command == 2);
        counters.syncs += u64::from(command == 4);
        counters.registers += if command < 2 { count } else { 0 };
        let count = count as usize;
        let word = |n: usize| number(at + header + 2 * n, 2) as u16;
        found.push(Plain {
            offset: at,
            end: at + size,
            command,
            source_type,
            src_id,
            seq,
            registers: (0..count).map(|n| (word(n), word(count + n))).collect(),
        });
        at += size;
    }
    counters.bytes_discarded = (bytes.len() - at) as u64;
    (found, counters)
}

/// The known registers of every source, by brute force.
pub fn image(packets: &[Plain]) -> std::collections::BTreeMap<(u8, i32), Vec<(u16, u16)>> {
    let mut sources =
        std::collections::BTreeMap::<(u8, i32), std::collections::BTreeMap<u16, u16>>::new();
    for packet in packets.iter().filter(|packet| packet.command < 2) {
        let registers = sources
            .entry((packet.source_type, packet.src_id))
            .or_default();
        if packet.command == 1 {
            registers.clear();
        }
        registers.extend(packet.registers.iter().copied());
    }
    let plain = sources.into_iter().map(|(key, registers)| {
        let list: Vec<(u16, u16)> = registers.into_iter().collect();
        (key, list)
    });
    plain.filter(|(_, list)| !list.is_empty()).collect()
}
