//! Packets of a log, in place, and the blocks of its index.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use tapeline_bcsv::{Batch, ReadOptions, Reader, Selection, Value, xxh64};

use crate::registers::rows::WireKind;

/// Bytes of a data packet before its registers, the length prefix included (spec/register-packets.md 2).
pub const DATA_HEAD: usize = 21;
/// Bytes of a simple packet before its registers (spec/register-packets.md 1).
pub const SIMPLE_HEAD: usize = 16;
/// Most registers of a packet.
pub const MAX_COUNT: usize = 65_536;

/// DIFF, FULL ... as on the wire; simple packets are all DIFF.
pub const FULL: u8 = 1;
/// Commands that set registers: DIFF and FULL, nothing else.
pub const LAST_SETTING: u8 = FULL;
/// The source type of simple packets.
pub const RACK: u8 = 2;

/// One packet where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The packet verbatim.
    pub bytes: &'a [u8],
    /// Microseconds since the UNIX epoch; of a simple packet its `time`, rounded.
    pub timestamp_us: u64,
    /// Seconds as a simple packet has them; 0 in a data packet.
    pub time: f64,
    /// 0 UNKNOWN, 1 SBMU, 2 RACK, 3 RTOS.
    pub source_type: u8,
    /// SBMU or rack number.
    pub src_id: i32,
    /// 0 DIFF, 1 FULL, 2 QUERY, 3 REPLY, 4 SYNC, 5 SYNCED.
    pub cmd: u8,
    /// Sequence modulo 256; 0 in a simple packet.
    pub seq: u8,
    /// Register offsets, u16 little-endian.
    pub control: &'a [u8],
    /// Values, u16 little-endian.
    pub data: &'a [u8],
}

impl Packet<'_> {
    /// Registers in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.control.len() / 2
    }

    /// Whether it changes the image.
    #[must_use]
    pub fn sets(&self) -> bool {
        self.cmd <= LAST_SETTING
    }

    /// Offsets and values, in order.
    pub fn registers(&self) -> impl Iterator<Item = (u16, u16)> {
        let offsets = self.control.as_chunks().0.iter();
        let values = self.data.as_chunks().0.iter();
        offsets
            .zip(values)
            .map(|(o, v)| (u16::from_le_bytes(*o), u16::from_le_bytes(*v)))
    }
}

/// What stands at the head of some bytes.
#[derive(Debug)]
pub enum Step<'a> {
    /// A whole packet.
    Packet(Packet<'a>),
    /// The beginning of one, or nothing.
    Partial,
    /// Something that no packet begins with.
    Broken(&'static str),
}

/// The packet at the head of `bytes`.
#[must_use]
pub fn step(kind: WireKind, bytes: &[u8]) -> Step<'_> {
    match kind {
        WireKind::Packet => data_step(bytes),
        WireKind::Simple => simple_step(bytes),
    }
}

fn data_step(bytes: &[u8]) -> Step<'_> {
    let Some((head, body)) = bytes.split_first_chunk::<DATA_HEAD>() else {
        return Step::Partial;
    };
    let length = u32_at(head, 0) as usize;
    let count = u32_at(head, 17) as usize;
    if count > MAX_COUNT {
        return Step::Broken("count above the limit");
    }
    if length != 17 + 4 * count {
        return Step::Broken("length and count disagree");
    }
    let [_, _, _, _, stamp @ .., _, _, _, _, _, _, _, _, _] = head;
    let [_, _, _, _, _, _, _, _, _, _, _, _, src_id, cmd, source_type, seq, ..] = *head;
    if cmd > 5 {
        return Step::Broken("unknown cmd");
    }
    if source_type > 3 {
        return Step::Broken("unknown type");
    }
    let Some((registers, _)) = body.split_at_checked(4 * count) else {
        return Step::Partial;
    };
    let (control, data) = registers.split_at(2 * count);
    Step::Packet(Packet {
        bytes: bytes.get(..4 + length).unwrap_or_default(),
        timestamp_us: u64::from_le_bytes(*stamp),
        time: 0.0,
        source_type,
        src_id: i32::from(src_id),
        cmd,
        seq,
        control,
        data,
    })
}

fn simple_step(bytes: &[u8]) -> Step<'_> {
    let Some((head, body)) = bytes.split_first_chunk::<SIMPLE_HEAD>() else {
        return Step::Partial;
    };
    let count = u32_at(head, 12) as usize;
    if count > MAX_COUNT {
        return Step::Broken("count above the limit");
    }
    let Some((registers, _)) = body.split_at_checked(4 * count) else {
        return Step::Partial;
    };
    let [t0, t1, t2, t3, t4, t5, t6, t7, r0, r1, r2, r3, ..] = *head;
    let time = f64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
    let (control, data) = registers.split_at(2 * count);
    Step::Packet(Packet {
        bytes: bytes
            .get(..SIMPLE_HEAD + 4 * count)
            .unwrap_or_default(),
        timestamp_us: microseconds(time),
        time,
        source_type: RACK,
        src_id: i32::from_le_bytes([r0, r1, r2, r3]),
        cmd: 0,
        seq: 0,
        control,
        data,
    })
}

/// Seconds as microseconds; what is no time of this age becomes 0 or the largest.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the cast saturates, NaN gives 0
pub fn microseconds(time_s: f64) -> u64 {
    (time_s * 1e6).round() as u64
}

fn u32_at<const N: usize>(head: &[u8; N], at: usize) -> u32 {
    head.get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Gives the packets of `bytes` to `each`, until it says stop (false).
///
/// Returns the bytes taken and what stopped it short of the end, if something did.
pub fn walk<'a>(
    kind: WireKind,
    bytes: &'a [u8],
    mut each: impl FnMut(usize, &Packet<'a>) -> bool,
) -> (usize, Option<&'static str>) {
    let mut at = 0;
    loop {
        match step(kind, bytes.get(at..).unwrap_or_default()) {
            Step::Packet(packet) => {
                let length = packet.bytes.len();
                if !each(at, &packet) {
                    return (at, None);
                }
                at += length;
            }
            Step::Partial => return (at, None),
            Step::Broken(reason) => return (at, Some(reason)),
        }
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
    kind: WireKind,
    start: u64,
    stop: u64,
    bytes: u64,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    let end = stop.min(start.saturating_add(bytes));
    read_range(path, start, end, into)?;
    // no packet is longer than 256 KiB and a head
    if end < stop && matches!(step(kind, into), Step::Partial) {
        let longest = (4 * MAX_COUNT + DATA_HEAD) as u64;
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
pub fn blocks(log: &Path, index: &Path, kind: WireKind) -> io::Result<Blocks> {
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
pub fn read_again(log: &Path, kind: WireKind, found: &mut Blocks) -> io::Result<()> {
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

    use super::*;

    /// DIFF, source RACK 7, seq 9, timestamp 5: registers (1, 2), (3, 4).
    pub(crate) const DATA: [u8; 29] = [
        25, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 9, 0, 2, 0, 0, 0, 1, 0, 3, 0, 2, 0, 4, 0,
    ];

    #[test]
    fn fields_of_a_data_packet() {
        let Step::Packet(packet) = step(WireKind::Packet, &DATA) else {
            panic!("a packet");
        };
        assert_eq!(
            (packet.timestamp_us, packet.src_id, packet.cmd, packet.source_type, packet.seq),
            (5, 7, 0, 2, 9)
        );
        assert_eq!(packet.registers().collect::<Vec<_>>(), [(1, 2), (3, 4)]);
        assert_eq!(packet.bytes, DATA);
    }

    #[test]
    fn every_cut_is_partial_and_contradictions_are_broken() {
        for cut in 0..DATA.len() {
            assert!(matches!(step(WireKind::Packet, &DATA[..cut]), Step::Partial));
        }
        for (at, value) in [(0, 26), (13, 6), (14, 4), (17, 3), (19, 2)] {
            let mut bad = DATA;
            bad[at] = value;
            assert!(matches!(step(WireKind::Packet, &bad), Step::Broken(_)), "byte {at}");
        }
    }

    #[test]
    fn fields_of_a_simple_packet() {
        let mut bytes = 1.5f64.to_le_bytes().to_vec();
        bytes.extend((-3i32).to_le_bytes());
        bytes.extend([1, 0, 0, 0, 9, 0, 8, 0]);
        let Step::Packet(packet) = step(WireKind::Simple, &bytes) else {
            panic!("a packet");
        };
        assert_eq!((packet.timestamp_us, packet.src_id), (1_500_000, -3));
        assert_eq!(packet.registers().collect::<Vec<_>>(), [(9, 8)]);
    }

    #[test]
    fn times_that_are_none_saturate() {
        assert_eq!(microseconds(f64::NAN), 0);
        assert_eq!(microseconds(-1.0), 0);
        assert_eq!(microseconds(f64::INFINITY), u64::MAX);
    }
}
