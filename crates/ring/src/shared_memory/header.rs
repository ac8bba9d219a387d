//! The header page, read and checked.

use super::{
    error::Error,
    layout::{ALIGNMENT, HEADER_BYTES, MAGIC, VERSION, at, capacity_is_valid, state},
    memory::Memory,
};

/// What the header page says at one moment. The positions are read one after the other while the producer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the ring.
    pub capacity: u64,
    /// Of the last producer.
    pub producer_pid: u32,
    /// The last producer said that it was done.
    pub closed: bool,
    /// End of the newest record.
    pub write_position: u64,
    /// End of what the producer may be writing.
    pub reserve_position: u64,
    /// Start of the oldest whole record.
    pub oldest_position: u64,
}

impl Header {
    /// Reads and checks the fixed fields; the positions as they are.
    ///
    /// # Errors
    /// [`Error::NotARing`], [`Error::Truncated`], or what the system said.
    pub fn read(memory: &impl Memory) -> Result<Self, Error> {
        let mut fixed = [0; 32];
        memory
            .copy(at::MAGIC, &mut fixed)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    Error::NotARing("the file is shorter than a header")
                }
                _ => error.into(),
            })?;
        if !fixed.starts_with(&MAGIC) {
            return Err(Error::NotARing("it does not begin with TPLRING1"));
        }
        if word(&fixed, at::VERSION) != VERSION {
            return Err(Error::NotARing("another version than 1"));
        }
        let capacity =
            u64::from(word(&fixed, at::CAPACITY)) | u64::from(word(&fixed, at::CAPACITY + 4)) << 32;
        if u64::from(word(&fixed, at::HEADER_BYTES)) != HEADER_BYTES || !capacity_is_valid(capacity)
        {
            return Err(Error::NotARing("its capacity or header size cannot be"));
        }
        if memory.bytes()? < HEADER_BYTES + capacity {
            return Err(Error::Truncated);
        }
        Ok(Self {
            capacity,
            producer_pid: word(&fixed, at::PRODUCER_PID),
            closed: word(&fixed, at::STATE) == state::CLOSED,
            // In this order none is ahead of one that was read before it (see `writer.rs`), except the oldest.
            write_position: memory.load(at::WRITE_POSITION)?,
            reserve_position: memory.load(at::RESERVE_POSITION)?,
            oldest_position: memory.load(at::OLDEST_POSITION)?,
        })
    }

    /// Checks the positions against each other; only while nobody writes they must agree.
    pub(super) fn check_positions(&self) -> Result<(), Error> {
        let Self {
            capacity,
            write_position: write,
            reserve_position: reserve,
            oldest_position: oldest,
            ..
        } = *self;
        let aligned = [write, reserve, oldest]
            .iter()
            .all(|position| position.is_multiple_of(ALIGNMENT));
        // 2^62 bytes are 15 years at 10 GB/s; below that no sum in this module overflows.
        if !aligned
            || oldest > write
            || write > reserve
            || reserve > LAST_POSITION
            || reserve - oldest > capacity
        {
            return Err(Error::Corrupt("its positions contradict each other"));
        }
        Ok(())
    }
}

/// No position can be larger.
pub(super) const LAST_POSITION: u64 = 1 << 62;

fn word(bytes: &[u8], offset: u64) -> u32 {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    bytes
        .get(start..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
