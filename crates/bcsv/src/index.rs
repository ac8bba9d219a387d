//! Which rows are where: from the footer, or by walking the file when there is none.
//!
//! A walk (scan) goes from packet to packet. Where it meets damage it looks for the next bytes that are a packet
//! header with a right hash, and goes on there; what lies between is a gap. Packets behind damage must be verified
//! before they are believed. One that belongs before rows found already fills a gap (blocks of the file were swapped)
//! or is passed over (a stale copy of a block).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checksum::Hasher;
use crate::cursor::{Cursor, FileFacts, Unit, batch_sizes, check_plain_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::file::packet_lz4_batch::PREFIX_BYTES;
use crate::footer::{BEGIN, Footer, TAIL_BYTES};
use crate::header::FileCodec;
use crate::limits::MAX_ROW_BYTES;
use crate::packet::{HEADER_BYTES, MAGIC, TRAILER_BYTES, decode_header};
use crate::source::Buffer;
use crate::vle;

/// What is known of the rows of a file.
#[derive(Default)]
pub(crate) struct Index {
    pub units: Vec<Unit>,
    /// Row after the last one, missing ones included.
    pub rows: u64,
    /// Whether the file is closed and whole; `None` if the format cannot tell.
    pub complete: Option<bool>,
    /// The first fault, and the number of units before it.
    pub fault: Option<(usize, Error)>,
    /// Rows missing between units.
    pub gaps: Vec<(u64, u64)>,
    /// Where an unfinished last packet or row begins, with the whole rows in it (not verified).
    pub tail: Option<Tail>,
    /// Byte behind the last unit: a later scan goes on here.
    pub end: u64,
    /// The footer is there, whole and right.
    pub footer: bool,
}

/// An unfinished end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub offset: u64,
    pub first_row: u64,
    pub rows: u64,
}

impl Index {
    pub(crate) fn note(&mut self, error: Error) {
        if self.fault.is_none() {
            let packet = self.units.len() as u64;
            self.fault = Some((self.units.len(), error.in_packet(packet, self.rows)));
        }
    }

    fn push(&mut self, unit: Unit) {
        self.rows = unit.first_row + unit.rows;
        self.end = unit.end;
        self.units.push(unit);
    }

    /// Rows up to `row` are missing at the end.
    fn miss(&mut self, row: u64) {
        if row > self.rows {
            self.gaps.push((self.rows, row));
            self.rows = row;
        }
    }

    /// Add the packets found behind later ones, and what a scan found to be missing.
    fn settle(&mut self, holes: Holes) {
        self.gaps.extend(holes.open);
        if !holes.filled.is_empty() {
            self.units.extend(holes.filled);
            self.units.sort_by_key(|unit| (unit.first_row, unit.offset));
        }
    }
}

/// Rows that a scan has gone past without finding them. Its maps keep a hostile file, with a thousand packets in reverse,
/// from costing the square of that.
#[derive(Default)]
struct Holes {
    /// First row to the one behind the last.
    open: BTreeMap<u64, u64>,
    /// Packets found behind later ones.
    filled: Vec<Unit>,
}

impl Holes {
    /// Go past the rows from `first` to `stop`.
    fn leave(&mut self, first: u64, stop: u64) {
        if first < stop {
            self.open.insert(first, stop);
        }
    }

    /// The hole that row `first` is in.
    fn around(&self, first: u64) -> Option<(u64, u64)> {
        let (from, stop) = self.open.range(..=first).next_back()?;
        (first < *stop).then_some((*from, *stop))
    }

    /// Whether a packet from `first` on may be taken: behind all `rows` found, or in a hole.
    fn admit(&self, first: u64, rows: u64) -> bool {
        first >= rows || self.around(first).is_some()
    }

    /// Take a packet that fits.
    fn fill(&mut self, unit: Unit) -> bool {
        let behind = unit.first_row.saturating_add(unit.rows);
        let Some((from, stop)) = self.around(unit.first_row).filter(|hole| behind <= hole.1) else {
            return false;
        };
        self.open.remove(&from);
        self.leave(from, unit.first_row);
        self.leave(behind, stop);
        self.filled.push(unit);
        true
    }
}

/// The index of a packet file: from the footer if it is right, else by scanning.
pub(crate) fn packet_index(facts: &Arc<FileFacts>) -> Result<Index> {
    let size = facts.source.size()?;
    let footer = read_footer(facts, size)?;
    if let Some((start, footer)) = &footer {
        let whole = !footer.entries.is_empty() || (footer.rows == 0 && *start == facts.body_at);
        if whole && let Some(index) = trusted(facts, *start, footer) {
            return Ok(index);
        }
    }
    let mut index = Index {
        end: facts.body_at,
        complete: Some(false),
        ..Index::default()
    };
    let Some((start, footer)) = footer else {
        scan_packets(facts, &mut index, size)?;
        return Ok(index);
    };
    scan_packets(facts, &mut index, start)?;
    index.footer = true;
    if index.rows != footer.rows || index.tail.is_some() {
        let (first, stop) = (index.rows, footer.rows.max(index.rows));
        index.note(Error::new(ErrorKind::RowsMissing { first, stop }).at(index.end));
        // Only rows that the file could hold are listed: one byte per row, times the LZ4 ratio.
        if footer.rows <= index.rows.saturating_add(size.saturating_mul(255)) {
            index.miss(footer.rows);
        }
    } else if index.fault.is_none() && !facts.header.has_index() {
        index.complete = Some(true);
    } else if !footer.entries.is_empty() {
        index.note(
            Error::new(ErrorKind::Footer {
                what: "its entries contradict the packets",
            })
            .at(start),
        );
    }
    Ok(index)
}

/// The footer and its offset, if the file ends with one that is right.
pub(crate) fn read_footer(facts: &FileFacts, size: u64) -> Result<Option<(u64, Footer)>> {
    let mut buffer = Buffer::default();
    let Some(tail_at) = size
        .checked_sub(TAIL_BYTES as u64)
        .filter(|at| *at >= facts.body_at)
    else {
        return Ok(None);
    };
    let tail = buffer.fill(&*facts.source, tail_at, TAIL_BYTES)?;
    let Some(bytes) = Footer::stored_len(tail).filter(|bytes| *bytes <= size - facts.body_at)
    else {
        return Ok(None);
    };
    let Ok(len) = usize::try_from(bytes) else {
        return Ok(None);
    };
    let start = size - bytes;
    let footer = Footer::decode(buffer.fill(&*facts.source, start, len)?);
    Ok(footer.map(|footer| (start, footer)))
}

/// Most that the terminator of an empty packet takes as LZ4.
const EMPTY_BATCH_BYTES: u64 = 16;

/// Believe a footer whose entries can all be true.
fn trusted(facts: &FileFacts, start: u64, footer: &Footer) -> Option<Index> {
    let mut units = Vec::with_capacity(footer.entries.len());
    let smallest = if facts.file_codec() == FileCodec::PacketLz4Batch {
        PREFIX_BYTES + 8
    } else {
        HEADER_BYTES + TRAILER_BYTES
    };
    let first = footer
        .entries
        .first()
        .map_or((facts.body_at, 0), |entry| (entry.offset, entry.first_row));
    if first != (facts.body_at, 0) {
        return None;
    }
    for (number, entry) in footer.entries.iter().enumerate() {
        let (end, next_row) = footer
            .entries
            .get(number + 1)
            .map_or((start, footer.rows), |next| (next.offset, next.first_row));
        let bytes = end.checked_sub(entry.offset)?;
        let rows = next_row.checked_sub(entry.first_row)?;
        // A row takes a byte at least, which LZ4 may shrink 255 times.
        if bytes < smallest as u64 || rows > bytes.saturating_mul(255) {
            return None;
        }
        // Nor are there rows in a packet that is said to have none: nobody would look.
        if rows == 0 && bytes > smallest as u64 + EMPTY_BATCH_BYTES {
            return None;
        }
        units.push(Unit {
            offset: entry.offset,
            end,
            first_row: entry.first_row,
            rows,
            checkpoint: None,
        });
    }
    let complete = Some(true);
    Some(Index {
        units,
        rows: footer.rows,
        complete,
        end: start,
        footer: true,
        ..Index::default()
    })
}

/// Whether every packet header is where the index says.
pub(crate) fn headers_agree(facts: &FileFacts, index: &Index) -> Result<bool> {
    for unit in &index.units {
        if !header_agrees(facts, unit)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether this packet's header is where the index says.
pub(crate) fn header_agrees(facts: &FileFacts, unit: &Unit) -> Result<bool> {
    let mut buffer = Buffer::default();
    let header = buffer.fill(&*facts.source, unit.offset, HEADER_BYTES)?;
    Ok(decode_header(header) == Some(unit.first_row))
}

/// What lies at a packet header.
enum Found {
    /// A packet that ends here, with this many rows.
    Whole { end: u64, rows: u64 },
    /// A packet that the file cuts, with this many whole rows.
    Cut { rows: u64 },
    /// No good packet.
    Bad(Error),
}

/// Walk the packets from `index.end` to `stop` and add them to the index.
pub(crate) fn scan_packets(facts: &Arc<FileFacts>, index: &mut Index, stop: u64) -> Result<()> {
    let mut holes = Holes::default();
    let walked = walk_packets(facts, index, stop, &mut holes);
    index.settle(holes);
    walked
}

fn walk_packets(
    facts: &Arc<FileFacts>,
    index: &mut Index,
    stop: u64,
    holes: &mut Holes,
) -> Result<()> {
    let mut cursor = Cursor::new(Arc::clone(facts));
    let mut buffer = Buffer::default();
    let mut at = index.end;
    // After damage nothing is taken on trust.
    let mut suspicious = false;
    index.tail = None;
    while at < stop {
        let head = buffer.fill(&*facts.source, at, HEADER_BYTES.min(clamp(stop - at)))?;
        let begins_footer = head.starts_with(&BEGIN) || (head.len() < 4 && BEGIN.starts_with(head));
        let Some(first_row) = decode_header(head) else {
            let short = head.len() < HEADER_BYTES;
            let next = next_header(facts, at + 1, stop, |row| holes.admit(row, index.rows))?;
            if next.is_none() && (short || begins_footer) {
                // The end of a file that was cut, or whose footer was.
                break;
            }
            index.note(Error::new(ErrorKind::PacketHeader).at(at));
            let Some(next) = next else { break };
            (at, suspicious) = (next, true);
            continue;
        };
        let expected = index.rows;
        let out_of_turn = || {
            Error::new(ErrorKind::FirstRow {
                expected,
                found: first_row,
            })
        };
        if !holes.admit(first_row, expected) {
            index.note(out_of_turn().at(at));
            let Some(next) = next_header(facts, at + 1, stop, |row| holes.admit(row, expected))?
            else {
                break;
            };
            (at, suspicious) = (next, true);
            continue;
        }
        if first_row > expected && !suspicious {
            let (first, stop) = (expected, first_row);
            index.note(Error::new(ErrorKind::RowsMissing { first, stop }).at(at));
        }
        let found = match examine(
            facts,
            &mut cursor,
            at,
            stop,
            first_row,
            suspicious || first_row != expected,
        ) {
            Ok(found) => found,
            Err(error) if error.io_error().is_some() => return Err(error),
            Err(error) => Found::Bad(error),
        };
        match found {
            Found::Whole { end, rows } => {
                let unit = Unit {
                    offset: at,
                    end,
                    first_row,
                    rows,
                    checkpoint: None,
                };
                if first_row >= expected {
                    holes.leave(expected, first_row);
                    index.push(unit);
                } else if holes.fill(unit) {
                    index.end = end;
                } else {
                    index.note(out_of_turn().at(at));
                    // A stale copy may hide others.
                    let Some(next) =
                        next_header(facts, at + 1, stop, |row| holes.admit(row, expected))?
                    else {
                        break;
                    };
                    (at, suspicious) = (next, true);
                    continue;
                }
                (at, suspicious) = (end, false);
            }
            Found::Cut { rows } => {
                let Some(next) =
                    next_header(facts, at + 1, stop, |row| holes.admit(row, index.rows))?
                else {
                    if index.fault.is_none() {
                        index.tail = Some(Tail {
                            offset: at,
                            first_row,
                            rows,
                        });
                    }
                    break;
                };
                index.note(Error::new(ErrorKind::Truncated { inside: "a packet" }).at(at));
                (at, suspicious) = (next, true);
            }
            Found::Bad(error) => {
                index.note(error.at(at));
                let Some(next) =
                    next_header(facts, at + 1, stop, |row| holes.admit(row, index.rows))?
                else {
                    break;
                };
                (at, suspicious) = (next, true);
            }
        }
    }
    Ok(())
}

/// Measure the packet at `at`. Raw and LZ4 streaming packets are walked and hashed; batch packets say how long they
/// are, and are decompressed only if nothing good follows or `verify`.
fn examine(
    facts: &Arc<FileFacts>,
    cursor: &mut Cursor,
    at: u64,
    stop: u64,
    first_row: u64,
    verify: bool,
) -> Result<Found> {
    if facts.file_codec() != FileCodec::PacketLz4Batch {
        return measure(facts, at + HEADER_BYTES as u64, stop);
    }
    let mut buffer = Buffer::default();
    let prefix = buffer.fill(&*facts.source, at, PREFIX_BYTES.min(clamp(stop - at)))?;
    if prefix.len() < PREFIX_BYTES {
        return Ok(Found::Cut { rows: 0 });
    }
    let (plain, stored) = batch_sizes(prefix)?;
    check_plain_bytes(facts, plain, stored)?;
    let end = at + PREFIX_BYTES as u64 + stored + 8;
    if end > stop {
        return Ok(Found::Cut { rows: 0 });
    }
    if !verify {
        let next = buffer.fill(&*facts.source, end, HEADER_BYTES.min(clamp(stop - end)))?;
        if let Some(rows) = decode_header(next).and_then(|next| next.checked_sub(first_row))
            && rows <= plain
        {
            return Ok(Found::Whole { end, rows });
        }
    }
    cursor.open(&Unit {
        offset: at,
        end,
        first_row,
        rows: 0,
        checkpoint: None,
    })?;
    let rows = cursor.skip_framing()?;
    Ok(Found::Whole { end, rows })
}

/// Bytes read at a time while walking.
const WINDOW: usize = 1 << 20;

/// Walk and hash the rows of a raw or LZ4 streaming packet.
fn measure(facts: &FileFacts, body: u64, stop: u64) -> Result<Found> {
    let mut buffer = Buffer::default();
    let mut hasher = Hasher::default();
    let (mut base, mut rows, mut inside) = (body, 0_u64, 0_u64);
    loop {
        let room = clamp(stop.saturating_sub(base)).min(WINDOW);
        let bytes = buffer.fill(&*facts.source, base, room)?;
        let last = base + bytes.len() as u64 >= stop || bytes.len() < room;
        let mut at = 0;
        loop {
            if inside > 0 {
                let step = clamp(inside).min(bytes.len() - at);
                at += step;
                inside -= step as u64;
                if inside > 0 {
                    break;
                }
                rows += 1;
            }
            // A length takes at most 8 bytes; the terminator and hash take 13.
            if bytes.len() - at < 16 && !last {
                break;
            }
            let Some(length) = bytes.get(at..).and_then(vle::decode) else {
                break;
            };
            if length.value == vle::TERMINATOR {
                let end = at + length.bytes;
                let Some(stored) = bytes.get(end..).and_then(|rest| rest.first_chunk::<8>()) else {
                    break;
                };
                hasher.update(bytes.get(..end).unwrap_or_default());
                let (expected, found) = (u64::from_le_bytes(*stored), hasher.digest());
                if expected != found {
                    return Ok(Found::Bad(Error::new(ErrorKind::PacketChecksum {
                        expected,
                        found,
                    })));
                }
                return Ok(Found::Whole {
                    end: base + end as u64 + 8,
                    rows,
                });
            }
            if length.value > MAX_ROW_BYTES as u64 {
                return Ok(Found::Bad(Error::new(ErrorKind::Framing {
                    what: "an impossible row length",
                })));
            }
            at += length.bytes;
            inside = length.value;
            if inside == 0 {
                rows += 1;
            }
        }
        if last {
            return Ok(Found::Cut { rows });
        }
        hasher.update(bytes.get(..at).unwrap_or_default());
        base += at as u64;
    }
}

/// The next place from `from` on with a packet header whose first row is one of the `wanted`.
fn next_header(
    facts: &FileFacts,
    mut from: u64,
    stop: u64,
    wanted: impl Fn(u64) -> bool,
) -> Result<Option<u64>> {
    let mut buffer = Buffer::default();
    let finder = memchr::memmem::Finder::new(&MAGIC);
    while from + HEADER_BYTES as u64 <= stop {
        let bytes = buffer.fill(&*facts.source, from, clamp(stop - from).min(WINDOW))?;
        for at in finder.find_iter(bytes) {
            if bytes.get(at..).and_then(decode_header).is_some_and(&wanted) {
                return Ok(Some(from + at as u64));
            }
        }
        if bytes.len() < WINDOW {
            break;
        }
        from += (WINDOW - HEADER_BYTES + 1) as u64;
    }
    Ok(None)
}

fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
