//! Which blocks of a log touch which registers: `{segment}.touch.bcsv`, so that the history of one register need not
//! read the whole recording.
//!
//! A row for each block and source in it: `offset u64, length u64, type u8, src_id i32`, then `g00` to `g63` of u64: bit
//! `b` of `g{n}` stands for the 16 registers from `16 * (64 * n + b)`. 533 bytes a row against blocks of 1 MiB. A FULL
//! touches everything, for what it does not list becomes unknown. Keyframes touch nothing: they repeat what is known.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tapeline_bcsv::{
    Batch, ColumnType, FileCodec, ReadOptions, Reader, RowCodec, RowWriter, Schema, Selection,
    Value, WriteOptions,
};
use tapeline_wire::register::{Command, Kind, PacketRef, mark_bits};

use crate::registers::log_reader::{Block, read_range, walk};

/// Words of a row.
const WORDS: usize = 64;
/// Registers of a bit.
const GROUP: usize = 16;
/// Columns before the words.
const HEAD: usize = 4;

/// The groups of registers that one source touches in one block.
pub type Groups = [u64; WORDS];

/// Type and id of a source.
pub type SourceKey = (u8, i32);

/// That of a packet.
#[must_use]
pub fn key_of(packet: &PacketRef<'_>) -> SourceKey {
    (packet.source.kind as u8, packet.source.id)
}

/// Where the bit of a register is.
#[must_use]
pub fn bit_of(offset: u16) -> (usize, u64) {
    (usize::from(offset >> 10), 1 << (offset >> 4 & 63))
}

/// Gathers what the packets of one block touch.
#[derive(Debug, Default)]
pub struct TouchBuilder {
    sources: BTreeMap<SourceKey, Box<Groups>>,
}

impl TouchBuilder {
    /// Takes one packet of the block.
    pub fn packet(&mut self, packet: &PacketRef<'_>) {
        if !packet.command.sets_registers() {
            return;
        }
        let groups = self
            .sources
            .entry(key_of(packet))
            .or_insert_with(|| Box::new([0; WORDS]));
        if packet.command == Command::Full {
            groups.fill(u64::MAX);
            return;
        }
        for (first, values) in packet.runs() {
            let first = usize::from(first);
            mark_bits(
                &mut **groups,
                first / GROUP..(first + values.len() / 2).div_ceil(GROUP),
            );
        }
    }

    /// What the block touches; the builder is ready for the next one.
    pub fn take(&mut self) -> BTreeMap<SourceKey, Box<Groups>> {
        std::mem::take(&mut self.sources)
    }
}

/// A touch index that is whole and durable, but does not have its name yet.
#[derive(Debug)]
#[must_use]
pub struct Built {
    part: PathBuf,
    out: PathBuf,
    /// A source's sequence jumped ahead somewhere in the log.
    pub gaps: bool,
}

impl Built {
    /// Gives it its name.
    ///
    /// # Errors
    /// As the operating system gave it.
    pub fn publish(self) -> io::Result<()> {
        std::fs::rename(&self.part, &self.out)
    }
}

/// Looks for jumps of the sequences, as a keyframe and the packets after it have them.
#[derive(Default)]
struct Sequences {
    last: BTreeMap<SourceKey, u8>,
    gaps: bool,
}

impl Sequences {
    fn packet(&mut self, packet: &PacketRef<'_>, keyframe: bool) {
        if !packet.command.sets_registers() {
            return;
        }
        let last = self.last.entry(key_of(packet)).or_insert(packet.seq);
        let ahead = packet.seq.wrapping_sub(*last);
        self.gaps |= !keyframe && matches!(ahead, 2..=128);
        // the other half of the circle lies behind
        if keyframe || ahead <= 128 {
            *last = packet.seq;
        }
    }
}

/// Writes the touch index of a finished log beside it.
///
/// # Errors
/// As the operating system gave it.
pub fn build(log: &Path, blocks: &[Block], kind: Kind, out: &Path) -> io::Result<Built> {
    let part = out.with_extension("bcsv.part");
    let mut rows = TouchWriter::new(BufWriter::new(File::create(&part)?))?;
    let mut builder = TouchBuilder::default();
    let mut sequences = Sequences::default();
    let mut bytes = Vec::new();
    for block in blocks {
        read_range(log, block.offset, block.offset + block.length, &mut bytes)?;
        walk(kind, &bytes, |_, packet| {
            sequences.packet(packet, block.keyframe);
            if !block.keyframe {
                builder.packet(packet);
            }
            true
        });
        rows.block(block.offset, block.length, &builder.take())?;
    }
    let mut file = rows.finish()?;
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(Built {
        part,
        out: out.to_path_buf(),
        gaps: sequences.gaps,
    })
}

/// Writes the rows of a touch index, block by block.
pub struct TouchWriter<W: Write> {
    rows: RowWriter<W>,
}

impl<W: Write> TouchWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// As the file gave it.
    pub fn new(file: W) -> io::Result<Self> {
        let options = WriteOptions {
            row_codec: RowCodec::Flat,
            file_codec: FileCodec::Packet,
            packet_bytes: 64 << 10,
            ..WriteOptions::default()
        };
        let names: Vec<String> = (0..WORDS).map(|n| format!("g{n:02}")).collect();
        let head = [
            ("offset", ColumnType::UInt64),
            ("length", ColumnType::UInt64),
            ("type", ColumnType::UInt8),
            ("src_id", ColumnType::Int32),
        ];
        let words = names.iter().map(|name| (name.as_str(), ColumnType::UInt64));
        let schema = Schema::from_pairs(head.into_iter().chain(words)).map_err(io::Error::other)?;
        let rows = RowWriter::new(file, &schema, &options).map_err(io::Error::other)?;
        Ok(Self { rows })
    }

    /// What one block touches.
    ///
    /// # Errors
    /// As the file gave it.
    pub fn block(
        &mut self,
        offset: u64,
        length: u64,
        touched: &BTreeMap<SourceKey, Box<Groups>>,
    ) -> io::Result<()> {
        // Without a row a block would have to be read, so one that touches nothing has a row of a source that there is
        // not.
        let nothing = BTreeMap::from([((u8::MAX, 0), Box::new([0; WORDS]))]);
        let touched = if touched.is_empty() {
            &nothing
        } else {
            touched
        };
        for (&(source_type, src_id), groups) in touched {
            let mut row = vec![
                Value::UInt64(offset),
                Value::UInt64(length),
                Value::UInt8(source_type),
                Value::Int32(src_id),
            ];
            row.extend(groups.iter().map(|word| Value::UInt64(*word)));
            self.rows.write_row(&row).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As the file gave it.
    pub fn finish(self) -> io::Result<W> {
        self.rows.finish().map_err(io::Error::other)
    }
}

/// The rows of a touch index that matter to one register.
#[derive(Debug, Default)]
pub struct Touched {
    /// Offset and length of every block it knows.
    known: Vec<(u64, u64)>,
    /// Offsets of those that may touch the register; sorted.
    hits: Vec<u64>,
}

impl Touched {
    /// Reads a touch index; one that is missing or damaged knows less, and nothing wrong.
    #[must_use]
    pub fn read(path: &Path, source: SourceKey, offset: u16) -> Self {
        let mut found = Self::default();
        let Ok(reader) = Reader::open(path, ReadOptions::default()) else {
            return found;
        };
        let (word, bit) = bit_of(offset);
        let selection = Selection {
            columns: Some(vec![0, 1, 2, 3, HEAD + word]),
            threads: 1,
            ..Selection::default()
        };
        if reader.schema().len() != HEAD + WORDS {
            return found;
        }
        let Ok(batches) = reader.batches(&selection, 4096) else {
            return found;
        };
        for batch in batches {
            let Ok(batch) = batch else {
                // a block whose further rows cannot be read is not known
                found.known.pop();
                break;
            };
            for row in 0..batch.rows {
                let Some((block, length, of, groups)) = row_of(&batch, row) else {
                    return Self::default();
                };
                if found.known.last() != Some(&(block, length)) {
                    found.known.push((block, length));
                }
                if of == source && groups & bit != 0 {
                    found.hits.push(block);
                }
            }
        }
        found
    }

    /// Whether a block must be read: it touches the register, or nobody knows.
    #[must_use]
    pub fn needs(&self, block: &Block) -> bool {
        let known = self
            .known
            .binary_search(&(block.offset, block.length))
            .is_ok();
        !known || self.hits.binary_search(&block.offset).is_ok()
    }
}

fn row_of(batch: &Batch, row: usize) -> Option<(u64, u64, SourceKey, u64)> {
    let wide = |column| match batch.value(column, row) {
        Some(Value::UInt64(value)) => Some(value),
        _ => None,
    };
    let Some(Value::UInt8(source_type)) = batch.value(2, row) else {
        return None;
    };
    let Some(Value::Int32(src_id)) = batch.value(3, row) else {
        return None;
    };
    Some((wide(0)?, wide(1)?, (source_type, src_id), wide(4)?))
}
