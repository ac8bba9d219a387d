//! A reader: copies, then looks whether it was overtaken.
//!
//! Every batch goes: load `write_position`; copy a run of bytes below it; load `reserve_position`. Whatever lies a
//! whole capacity below that may have been overwritten while it was copied and is not looked at: the reader loads
//! `oldest_position`, counts what is between and goes on there, in the same copy if it reaches so far. What is left
//! of the copy was whole when it was made. `writer.rs` says why loads in this order suffice.
//!
//! Nothing read is believed: sizes are checked against the lap, the ring and the run, payloads against their CRC.
//! Where a size cannot be, the next certain start of a record is the next lap, or `write_position`. Each call reads
//! a bounded amount and every step goes forward, so no content of the memory makes it hang.

use std::{fs::File, path::Path};

use tapeline_crc::crc32c;

use super::{
    error::Error,
    header::{Header, LAST_POSITION},
    layout::{
        ALIGNMENT, HEADER_BYTES, RECORD_HEADER_BYTES, Span, at, lap_left, record_bytes, span, state,
    },
    memory::{FileMemory, Memory},
};

/// Bytes copied at once: enough that three system calls are nothing beside the copy, small enough for a processor's
/// second-level cache.
const RUN_BYTES: u64 = 256 << 10;
/// Payloads above this are treated as damage, so that a file of holes cannot make the reader ask for gigabytes. 64
/// times the largest data packet.
const MAX_PAYLOAD_BYTES: u32 = 16 << 20;
/// Looks at a position that cannot be before it is believed that it stays so. Systems copy an aligned word at once;
/// were one ever torn, the next look would be whole.
const POSITION_ATTEMPTS: u32 = 8;

/// Where a new reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest whole record that is still there.
    Oldest,
    /// Behind the newest one.
    Newest,
}

/// One record, as copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Of its first byte.
    pub position: u64,
    /// As the producer gave it.
    pub timestamp_us: u64,
    /// Checked against its CRC32C.
    pub payload: &'a [u8],
}

/// What a reader has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Good records given.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Times the producer overtook this reader.
    pub overtakes: u64,
    /// Bytes of the ring that were overwritten before they were read, headers and padding included.
    pub overtaken_bytes: u64,
    /// Records whose payload contradicts its CRC, and sizes that cannot be.
    pub corrupt_records: u64,
    /// Bytes of the ring skipped for that reason.
    pub corrupt_bytes: u64,
}

/// How a call of [`Reader::read`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more to read at once.
    More,
    /// Everything was read; the producer may write more.
    Idle,
    /// Everything was read, and the producer has closed the ring.
    Closed,
    /// Everything was read, and the producer is gone without closing: it crashed, or none came yet.
    Abandoned,
}

/// Reads a ring. Any number of readers may; none is seen by the producer.
#[derive(Debug)]
pub struct Reader<M: Memory = FileMemory> {
    memory: M,
    capacity: u64,
    position: u64,
    counters: Counters,
    run: Vec<u8>,
}

impl Reader {
    /// Opens a ring.
    ///
    /// # Errors
    /// [`Error::NotARing`], [`Error::Truncated`], [`Error::Corrupt`], or what the system said.
    pub fn open(path: &Path, start: Start) -> Result<Self, Error> {
        // Opening a pipe would wait for its writer.
        let kind = path.metadata()?.file_type();
        if !kind.is_file() && !kind.is_dir() {
            return Err(Error::NotARing("it is not a file"));
        }
        Self::over(FileMemory(File::open(path)?), start)
    }
}

impl<M: Memory> Reader<M> {
    /// Reads a ring that is in any memory.
    ///
    /// # Errors
    /// As [`open`](Reader::open).
    pub fn over(memory: M, start: Start) -> Result<Self, Error> {
        let header = Header::read(&memory)?;
        let position = match start {
            Start::Oldest => header.oldest_position,
            Start::Newest => header.write_position,
        };
        if !is_position(position) {
            return Err(Error::Corrupt("a position that cannot be"));
        }
        Ok(Self {
            memory,
            capacity: header.capacity,
            position,
            counters: Counters::default(),
            run: Vec::new(),
        })
    }

    /// Where the next record is expected.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What was seen so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the header page says now.
    ///
    /// # Errors
    /// As [`open`](Reader::open).
    pub fn header(&self) -> Result<Header, Error> {
        Header::read(&self.memory)
    }

    /// Whether a producer has the ring now.
    pub fn has_producer(&self) -> bool {
        self.memory.has_producer()
    }

    /// Whether the file was removed: whoever opens the name again gets another one, or none.
    pub fn is_unlinked(&self) -> bool {
        self.memory.is_unlinked()
    }

    /// Gives the records of one run, at most [`RUN_BYTES`] or one record. `each` says whether it wants more of them;
    /// the next call goes on behind the last one it was given.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Corrupt`], or what the system said. The reader stays where it is.
    pub fn read(&mut self, mut each: impl FnMut(Record<'_>) -> bool) -> Result<Progress, Error> {
        let write = self.load_write()?;
        if write == self.position {
            return self.at_the_end();
        }
        if write - self.position > self.capacity {
            self.overtaken()?;
            return Ok(Progress::More);
        }
        let mut run = std::mem::take(&mut self.run);
        let progress = self.read_run(write, &mut run, &mut each);
        self.run = run;
        progress
    }

    fn read_run(
        &mut self,
        write: u64,
        run: &mut Vec<u8>,
        each: &mut impl FnMut(Record<'_>) -> bool,
    ) -> Result<Progress, Error> {
        let most = (write - self.position).min(lap_left(self.position, self.capacity));
        let mut wanted = most.min(RUN_BYTES);
        loop {
            let start = self.position;
            self.copy_run(wanted, run)?;
            let reserve = self.load(at::RESERVE_POSITION)?;
            if reserve < write {
                return Err(Error::Corrupt("its reservation is behind its records"));
            }
            let mut copied = run.as_slice();
            if reserve.saturating_sub(self.capacity) > start {
                // What lies behind the oldest record was whole when it was copied. Not to use it would let a fast
                // producer overtake the reader again and again.
                self.overtaken()?;
                let skip = usize::try_from(self.position - start).unwrap_or(usize::MAX);
                match copied.get(skip..) {
                    Some(rest) if !rest.is_empty() => copied = rest,
                    _ => return Ok(Progress::More),
                }
            }
            if self.position > write {
                return Ok(Progress::More);
            }
            let needed = self.parse(copied, write, each);
            // Nothing went forward: the record is longer than a run, and the next copy takes all of it.
            if self.position > start || needed <= wanted {
                return Ok(Progress::More);
            }
            wanted = needed.min(most);
        }
    }

    /// Takes records off a copy of what is at the reader's position. Gives the bytes of the record it stopped at.
    fn parse(&mut self, run: &[u8], write: u64, each: &mut impl FnMut(Record<'_>) -> bool) -> u64 {
        let mut rest = run;
        loop {
            let left = lap_left(self.position, self.capacity);
            let below = write - self.position;
            if left < RECORD_HEADER_BYTES && !rest.is_empty() {
                // Too little for a pad record: passed over.
                self.position += left.min(below);
                return 0;
            }
            let Some((header, _)) = rest.split_first_chunk::<16>() else {
                if below < RECORD_HEADER_BYTES && below > 0 {
                    self.damaged(left, below);
                    return 0;
                }
                return RECORD_HEADER_BYTES;
            };
            let header = u128::from_le_bytes(*header);
            #[allow(clippy::cast_possible_truncation)] // fields of the header
            let (timestamp_us, packet_size, checksum) =
                (header as u64, (header >> 64) as u32, (header >> 96) as u32);
            let (bytes, payload_bytes) = match span(packet_size, left, self.capacity) {
                Span::Pad(bytes) if bytes <= below => {
                    // The run never goes beyond the lap.
                    self.position += bytes;
                    return 0;
                }
                Span::Record(bytes, payload) if bytes <= below && payload <= MAX_PAYLOAD_BYTES => {
                    (bytes, payload)
                }
                Span::Record(..) | Span::Pad(_) | Span::Impossible => {
                    self.damaged(left, below);
                    return 0;
                }
            };
            let (Ok(length), Ok(payload_length)) =
                (usize::try_from(bytes), usize::try_from(payload_bytes))
            else {
                return bytes;
            };
            let (Some(record), Some(behind)) =
                (rest.get(16..16 + payload_length), rest.get(length..))
            else {
                return bytes;
            };
            rest = behind;
            let position = self.position;
            self.position += bytes;
            if crc32c(record) != checksum {
                self.counters.corrupt_records += 1;
                self.counters.corrupt_bytes += bytes;
                continue;
            }
            self.counters.records += 1;
            self.counters.payload_bytes += u64::from(payload_bytes);
            let more = each(Record {
                position,
                timestamp_us,
                payload: record,
            });
            if !more {
                return 0;
            }
        }
    }

    /// Leaves a place where no record can begin, for the next certain start of one.
    fn damaged(&mut self, lap_left: u64, below: u64) {
        let skipped = lap_left.min(below);
        self.counters.corrupt_records += 1;
        self.counters.corrupt_bytes += skipped;
        self.position += skipped;
    }

    /// Goes on at the oldest whole record, which is loaded after the position that showed that this is necessary.
    fn overtaken(&mut self) -> Result<(), Error> {
        let oldest = self.load(at::OLDEST_POSITION)?;
        if oldest <= self.position || !is_position(oldest) {
            return Err(Error::Corrupt("its oldest record was overwritten"));
        }
        self.counters.overtakes += 1;
        self.counters.overtaken_bytes += oldest - self.position;
        self.position = oldest;
        Ok(())
    }

    fn at_the_end(&self) -> Result<Progress, Error> {
        let closed = self.is_closed()?;
        let abandoned = !closed && !self.memory.has_producer();
        if !(closed || abandoned) {
            return Ok(Progress::Idle);
        }
        // What it wrote last, it wrote before it closed or died.
        if self.load_write()? != self.position {
            return Ok(Progress::More);
        }
        Ok(if closed {
            Progress::Closed
        } else {
            Progress::Abandoned
        })
    }

    fn is_closed(&self) -> Result<bool, Error> {
        let mut field = [0; 4];
        self.memory.copy(at::STATE, &mut field)?;
        Ok(u32::from_le_bytes(field) == state::CLOSED)
    }

    fn load_write(&self) -> Result<u64, Error> {
        for _ in 0..POSITION_ATTEMPTS {
            let write = self.load(at::WRITE_POSITION)?;
            if write >= self.position && is_position(write) {
                return Ok(write);
            }
        }
        Err(Error::Corrupt("its position went backwards or cannot be"))
    }

    fn load(&self, offset: u64) -> Result<u64, Error> {
        Ok(self.memory.load(offset)?)
    }

    /// Copies `bytes` from the reader's position on; they are within one lap.
    fn copy_run(&self, bytes: u64, run: &mut Vec<u8>) -> Result<(), Error> {
        let length = usize::try_from(bytes).map_err(|_| Error::Corrupt("a record too long"))?;
        run.resize(length, 0);
        let offset = HEADER_BYTES + (self.position & (self.capacity - 1));
        Ok(self.memory.copy(offset, run)?)
    }
}

fn is_position(position: u64) -> bool {
    position.is_multiple_of(ALIGNMENT) && position <= LAST_POSITION
}

/// Bytes that a record with this payload takes in the ring.
pub fn ring_bytes(payload_bytes: u32) -> u64 {
    record_bytes(payload_bytes)
}
