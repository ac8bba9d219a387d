//! Packets of a log, in place, and the blocks of its index.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use tapeline_bcsv::{Batch, ReadOptions, Reader, Selection, Value, xxh64};
use tapeline_wire::register::{Kind, MAX_COUNT, PacketRef, PacketScanner};

/// What stands at the head of some bytes.
#[derive(Debug)]
pub enum Step<'a> {
    /// A whole packet.
    Packet(PacketRef<'a>),
    /// The beginning of one, or nothing.
    Partial,
    /// Something that no packet begins with.
    Broken(&'static str),
}

/// The packet at the head of `bytes`.
#[must_use]
pub fn step(kind: Kind, bytes: &[u8]) -> Step<'_> {
    let Some(head) = bytes.get(..kind.header_bytes()) else {
        return Step::Partial;
    };
    // both heads end in the count
    let count = head.last_chunk().map_or(0, |b| u32::from_le_bytes(*b));
    if count > MAX_COUNT {
        return Step::Broken("count above the limit");
    }
    let length = kind.packet_bytes(count);
    if kind == Kind::Packet {
        let told = head.first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        if u64::from(told) + 4 != length as u64 {
            return Step::Broken("length and count disagree");
        }
    }
    let Some(whole) = bytes.get(..length) else {
        return Step::Partial;
    };
    PacketRef::parse(kind, whole).map_or(Step::Broken("unknown cmd or type"), Step::Packet)
}

/// Gives the packets of `bytes` to `each`, until it says stop (false).
///
/// Returns the bytes taken and what stopped it short of the end, if something did.
#[inline]
pub fn walk(
    kind: Kind,
    bytes: &[u8],
    mut each: impl FnMut(usize, &PacketRef<'_>) -> bool,
) -> (usize, Option<&'static str>) {
    let (mut next, mut stopped) = (0, false);
    // The server's scanner, which is several times as fast as a step at a time. It goes on behind a packet that is
    // none; a log has no such packet, so what it finds there is no longer where it should be.
    let _ = PacketScanner::new(kind).scan(bytes, false, &mut |packet| {
        if packet.offset == next as u64 && !stopped {
            if each(next, &packet) {
                next += packet.packet_bytes();
            } else {
                stopped = true;
            }
        }
    });
    match step(kind, bytes.get(next..).unwrap_or_default()) {
        Step::Broken(reason) if !stopped => (next, Some(reason)),
        _ => (next, None),
    }
}

/// Reads bytes `start` to `stop` of a file, fewer if it ends before.
///
/// # Errors
/// As the operating system gave it.
pub fn read_range(path: &Path, start: u64, stop: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    into.clear();
    let length = stop.saturating_sub(start);
    let there = file.metadata()?.len().saturating_sub(start).min(length);
    into.reserve_exact(usize::try_from(there).unwrap_or(0));
    file.take(length).read_to_end(into)?;
    Ok(())
}

/// Whole packets of a file from `start` on, about `bytes` of them, at least one if one is there.
///
/// # Errors
/// As the operating system gave it.
pub fn read_packets(
    path: &Path,
    kind: Kind,
    start: u64,
    stop: u64,
    bytes: u64,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    let end = stop.min(start.saturating_add(bytes));
    read_range(path, start, end, into)?;
    if end < stop && matches!(step(kind, into), Step::Partial) {
        let longest = kind.max_packet_bytes() as u64;
        read_range(path, start, stop.min(start.saturating_add(longest)), into)?;
    }
    Ok(())
}

/// One row of the index (spec/register-packets.md 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it begins in the log.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Packets in it.
    pub packets: u32,
    /// Least timestamp.
    pub first_us: u64,
    /// Greatest timestamp.
    pub last_us: u64,
    /// Receive time of its first packet.
    pub received_ns: u64,
    /// Of its bytes.
    pub xxh64: u64,
    /// The recorder's own FULL packets, not received ones.
    pub keyframe: bool,
}

/// Blocks of an index file that lie within `log_bytes`, as far as they follow each other; none without a readable one.
#[must_use]
pub fn read_index(path: &Path, log_bytes: u64) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let Ok(reader) = Reader::open(path, ReadOptions::default()) else {
        return blocks;
    };
    let Ok(batches) = reader.batches(&Selection::default(), 4096) else {
        return blocks;
    };
    let mut next = 0;
    for batch in batches {
        let Ok(batch) = batch else { break };
        for row in 0..batch.rows {
            let Some(block) = block_of(&batch, row) else {
                return blocks;
            };
            let stop = block.offset.saturating_add(block.length);
            if block.offset != next || block.length == 0 || stop > log_bytes {
                return blocks;
            }
            next = stop;
            blocks.push(block);
        }
    }
    blocks
}

/// A row in the order of columns of spec/register-packets.md 3.
fn block_of(batch: &Batch, row: usize) -> Option<Block> {
    let wide = |column| match batch.value(column, row) {
        Some(Value::UInt64(value)) => Some(value),
        _ => None,
    };
    let Some(Value::UInt32(packets)) = batch.value(2, row) else {
        return None;
    };
    let Some(Value::Bool(keyframe)) = batch.value(7, row) else {
        return None;
    };
    Some(Block {
        offset: wide(0)?,
        length: wide(1)?,
        packets,
        first_us: wide(3)?,
        last_us: wide(4)?,
        received_ns: wide(5)?,
        xxh64: wide(6)?,
        keyframe,
    })
}

/// Most bytes of a block (spec/register-packets.md 3).
pub const BLOCK_BYTES: u64 = 1 << 20;

/// A log with its blocks: those of the index, and where that ends, what the packets themselves give.
#[derive(Debug)]
pub struct Blocks {
    /// In order, without holes.
    pub blocks: Vec<Block>,
    /// How many of them are from the index file.
    pub indexed: usize,
    /// Byte where the packets end short of the end of the file, and why; a packet that is being written is no reason.
    pub broken: Option<(u64, &'static str)>,
}

/// Reads the index of a log and makes up for what it lacks.
///
/// # Errors
/// As the operating system gave it, for the log.
pub fn blocks(log: &Path, index: &Path, kind: Kind) -> io::Result<Blocks> {
    let size = std::fs::metadata(log)?.len();
    let mut blocks = read_index(index, size);
    let indexed = blocks.len();
    let mut at = blocks.last().map_or(0, |b| b.offset + b.length);
    let mut bytes = Vec::new();
    let mut broken = None;
    while at < size {
        read_packets(log, kind, at, size, BLOCK_BYTES, &mut bytes)?;
        let mut block = Block {
            offset: at,
            length: 0,
            packets: 0,
            first_us: u64::MAX,
            last_us: 0,
            received_ns: 0,
            xxh64: 0,
            keyframe: false,
        };
        let (taken, reason) = walk(kind, &bytes, |_, packet| {
            block.packets += 1;
            block.first_us = block.first_us.min(packet.timestamp_us);
            block.last_us = block.last_us.max(packet.timestamp_us);
            true
        });
        block.length = taken as u64;
        block.xxh64 = xxh64(bytes.get(..taken).unwrap_or_default());
        at += block.length;
        if taken > 0 {
            blocks.push(block);
        }
        if let Some(reason) = reason {
            broken = Some((at, reason));
            break;
        }
        if taken == 0 {
            break;
        }
    }
    Ok(Blocks {
        blocks,
        indexed,
        broken,
    })
}

/// Replaces what the index says of each block by what its bytes say; the bounds, receive times and keyframe marks stay.
/// A block in which the packets do not end where it ends has no packets then.
///
/// # Errors
/// As the operating system gave it.
pub fn read_again(log: &Path, kind: Kind, found: &mut Blocks) -> io::Result<()> {
    let mut bytes = Vec::new();
    for block in found.blocks.iter_mut().take(found.indexed) {
        read_range(log, block.offset, block.offset + block.length, &mut bytes)?;
        let mut again = Block {
            packets: 0,
            first_us: u64::MAX,
            last_us: 0,
            xxh64: xxh64(&bytes),
            ..*block
        };
        let (taken, _) = walk(kind, &bytes, |_, packet| {
            again.packets += 1;
            again.first_us = again.first_us.min(packet.timestamp_us);
            again.last_us = again.last_us.max(packet.timestamp_us);
            true
        });
        if taken as u64 != block.length {
            again.packets = 0;
        }
        *block = again;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tapeline_wire::register::SourceType;

    use super::*;

    /// DIFF, source RACK 7, seq 9, timestamp 5: registers (1, 2), (3, 4).
    pub(crate) const DATA: [u8; 29] = [
        25, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 9, 0, 2, 0, 0, 0, 1, 0, 3, 0, 2, 0, 4, 0,
    ];

    #[test]
    fn fields_of_a_data_packet() {
        let Step::Packet(packet) = step(Kind::Packet, &DATA) else {
            panic!("a packet");
        };
        assert_eq!(
            (
                packet.timestamp_us,
                packet.source.id,
                packet.source.kind,
                packet.seq
            ),
            (5, 7, SourceType::Rack, 9)
        );
        assert_eq!(packet.registers().collect::<Vec<_>>(), [(1, 2), (3, 4)]);
        assert_eq!(packet.bytes, DATA);
    }

    #[test]
    fn every_cut_is_partial_and_contradictions_are_broken() {
        for cut in 0..DATA.len() {
            assert!(matches!(step(Kind::Packet, &DATA[..cut]), Step::Partial));
        }
        for (at, value) in [(0, 26), (13, 6), (14, 4), (17, 3), (19, 2)] {
            let mut bad = DATA;
            bad[at] = value;
            assert!(
                matches!(step(Kind::Packet, &bad), Step::Broken(_)),
                "byte {at}"
            );
        }
    }

    #[test]
    fn fields_of_a_simple_packet() {
        let mut bytes = 1.5f64.to_le_bytes().to_vec();
        bytes.extend((-3i32).to_le_bytes());
        bytes.extend([1, 0, 0, 0, 9, 0, 8, 0]);
        let Step::Packet(packet) = step(Kind::Simple, &bytes) else {
            panic!("a packet");
        };
        assert_eq!((packet.timestamp_us, packet.source.id), (1_500_000, -3));
        assert_eq!(packet.registers().collect::<Vec<_>>(), [(9, 8)]);
    }
}
