//! The producer.
//!
//! # Order of stores
//!
//! For each record, in this order: `oldest_position` past everything the record will overwrite (release),
//! `reserve_position` to the record's end, a release fence, the bytes, `write_position` to the record's end
//! (release). Hence, for a reader with acquire loads or fences between its own steps:
//!
//! - who sees `write_position` sees the bytes below it;
//! - who copied a byte of the new record, and loads `reserve_position` afterwards, sees that it was reserved: the
//!   fence before the bytes pairs with the reader's fence behind its copy. That is how it learns that its copy may be
//!   a mixture;
//! - who sees `reserve_position` and loads `oldest_position` afterwards gets a record that was whole at that time.
//!
//! A producer that dies between two of these leaves at worst a reservation without bytes. The next one goes on at
//! `write_position` and never lowers `reserve_position`, because what the dead one may have overwritten stays lost.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    process,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use tapeline_crc::crc32c;
use tapeline_sys::shared_file::{SharedMapping, lock_exclusive};

use super::{
    error::Error,
    header::Header,
    layout::{
        ALIGNMENT, HEADER_BYTES, MAGIC, PAD, RECORD_HEADER_BYTES, Span, VERSION, at,
        capacity_is_valid, lap_left, max_payload_bytes, record_bytes, span, state,
    },
};

/// Writes records; never waits, overwrites the oldest. One at a time has a ring; the system's lock says who.
///
/// The file must not be cut while a producer has it: that is a `SIGBUS` for the producer.
#[derive(Debug)]
pub struct Writer {
    mapping: SharedMapping,
    capacity: u64,
    /// As in the file, which nobody else may change; kept here so that a damaged file cannot lead astray.
    write_position: u64,
    reserve_position: u64,
    oldest_position: u64,
    /// Holds the lock; after the mapping, so that the ring is unmapped before it is unlocked.
    file: File,
}

impl Writer {
    /// Makes the ring, or goes on with the one that is there, and takes it.
    ///
    /// # Errors
    /// [`Error::Capacity`]; [`Error::Busy`] if it has a producer; [`Error::OtherCapacity`] and [`Error::NotARing`]
    /// about what is there; what the system said, such as that there is no room for `capacity` bytes.
    pub fn open(path: &Path, capacity: u64) -> Result<Self, Error> {
        if !capacity_is_valid(capacity) {
            return Err(Error::Capacity(capacity));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        if !lock_exclusive(&file)? {
            return Err(Error::Busy);
        }
        if is_blank(&file, capacity)? {
            format(&mut file, capacity)?;
        }
        let header = Header::read(&super::memory::FileMemory(file.try_clone()?))?;
        if header.capacity != capacity {
            return Err(Error::OtherCapacity {
                found: header.capacity,
                asked: capacity,
            });
        }
        header.check_positions()?;
        let bytes =
            usize::try_from(HEADER_BYTES + capacity).map_err(|_| Error::Capacity(capacity))?;
        let writer = Self {
            mapping: SharedMapping::new(&file, bytes)?,
            capacity,
            write_position: header.write_position,
            reserve_position: header.reserve_position,
            oldest_position: header.oldest_position,
            file,
        };
        writer
            .word(at::PRODUCER_PID)
            .store(process::id().to_le(), Ordering::Relaxed);
        writer
            .word(at::STATE)
            .store(state::OPEN.to_le(), Ordering::Release);
        Ok(writer)
    }

    /// Appends a record and gives its position.
    ///
    /// # Errors
    /// [`Error::TooLarge`]: it would take more than half the ring.
    pub fn write(&mut self, timestamp_us: u64, payload: &[u8]) -> Result<u64, Error> {
        let limit = max_payload_bytes(self.capacity);
        let payload_bytes = match u32::try_from(payload.len()) {
            Ok(bytes) if u64::from(bytes) <= limit => bytes,
            _ => {
                return Err(Error::TooLarge {
                    bytes: payload.len() as u64,
                    limit,
                });
            }
        };
        // Before anything is reserved, so that the reservation is short.
        let checksum = crc32c(payload);
        let left = lap_left(self.write_position, self.capacity);
        let bytes = record_bytes(payload_bytes);
        let pad = if bytes > left { left } else { 0 };
        let start = self.write_position + pad;
        let end = start + bytes;
        self.reserve(end);
        if pad >= RECORD_HEADER_BYTES {
            self.put_header(self.write_position, 0, PAD, 0);
        }
        self.put_header(start, timestamp_us, payload_bytes, checksum);
        // SAFETY: the record lies inside one lap: `bytes` <= what is left of the lap at `start`, and the payload
        // begins behind the record's header. No reference into the mapping exists; readers of this process copy
        // through the system.
        unsafe {
            std::ptr::copy_nonoverlapping(
                payload.as_ptr(),
                self.data(start + RECORD_HEADER_BYTES),
                payload.len(),
            );
        }
        self.write_position = end;
        self.position(at::WRITE_POSITION)
            .store(end.to_le(), Ordering::Release);
        Ok(start)
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Where the next record, or the padding before it, begins.
    pub fn write_position(&self) -> u64 {
        self.write_position
    }

    /// Largest payload.
    pub fn max_payload_bytes(&self) -> u64 {
        max_payload_bytes(self.capacity)
    }

    /// Announces that everything below `end` from a lap ago is about to be overwritten.
    fn reserve(&mut self, end: u64) {
        if end <= self.reserve_position {
            // The reservation of a producer that died: its oldest position holds.
            return;
        }
        let before = self.oldest_position;
        while self.oldest_position + self.capacity < end {
            let left = lap_left(self.oldest_position, self.capacity);
            self.oldest_position += if left < RECORD_HEADER_BYTES {
                left
            } else {
                match span(self.packet_size(self.oldest_position), left, self.capacity) {
                    Span::Pad(bytes) | Span::Record(bytes, _) => bytes,
                    // Somebody else wrote here. The next lap begins with a record, whatever happens.
                    Span::Impossible => left,
                }
            };
        }
        if self.oldest_position != before {
            // Damage could lead beyond what was written; there is nothing older to read, then.
            self.oldest_position = self.oldest_position.min(self.write_position);
            self.position(at::OLDEST_POSITION)
                .store(self.oldest_position.to_le(), Ordering::Release);
        }
        self.reserve_position = end;
        self.position(at::RESERVE_POSITION)
            .store(end.to_le(), Ordering::Release);
        fence(Ordering::Release);
    }

    fn packet_size(&self, position: u64) -> u32 {
        // SAFETY: at least a record header is left in the lap (the caller looked), so its size field, at 8, lies
        // inside the mapping, and it is aligned to 4 because positions are aligned to 8.
        u32::from_le(unsafe { self.data(position + 8).cast::<u32>().read_volatile() })
    }

    fn put_header(&self, position: u64, timestamp_us: u64, packet_size: u32, checksum: u32) {
        let header =
            (u128::from(timestamp_us) | u128::from(packet_size) << 64 | u128::from(checksum) << 96)
                .to_le_bytes();
        // SAFETY: at least a record header is left in the lap (the caller looked); no reference into the mapping
        // exists.
        unsafe {
            std::ptr::copy_nonoverlapping(header.as_ptr(), self.data(position), header.len());
        }
    }

    /// Where `position` is in memory: always inside the data of the mapping, because the mask says so.
    #[allow(clippy::cast_possible_truncation)] // below the mapping's size, which is a usize
    fn data(&self, position: u64) -> *mut u8 {
        let offset = HEADER_BYTES + (position & (self.capacity - 1));
        // SAFETY: `offset` < HEADER_BYTES + capacity, the size of the mapping.
        unsafe { self.mapping.start().as_ptr().add(offset as usize) }
    }

    #[allow(clippy::cast_possible_truncation)] // constants of the header page
    fn position(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: inside the header page and aligned to 8 (`layout::at`); whatever bytes are there are a number.
        unsafe { AtomicU64::from_ptr(self.mapping.start().as_ptr().add(offset as usize).cast()) }
    }

    #[allow(clippy::cast_possible_truncation)] // constants of the header page
    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: as `position`, aligned to 4.
        unsafe { AtomicU32::from_ptr(self.mapping.start().as_ptr().add(offset as usize).cast()) }
    }
}

impl Drop for Writer {
    /// Closes the ring: readers that have everything see the end. The file stays.
    fn drop(&mut self) {
        self.word(at::STATE)
            .store(state::CLOSED.to_le(), Ordering::Release);
        debug_assert_eq!(self.write_position % ALIGNMENT, 0);
        let _ = &self.file;
    }
}

/// Whether nobody has finished making the ring: the magic is written last. What could be somebody's file is none.
fn is_blank(file: &File, capacity: u64) -> Result<bool, Error> {
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Ok(true);
    }
    let mut page = [0; 4096];
    let there = page.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
    let page = page.get_mut(..there).unwrap_or_default();
    file.read_exact_at(page, 0)?;
    if page.starts_with(&MAGIC) {
        return Ok(false);
    }
    let made = at::VERSION..at::PRODUCER_PID;
    let untouched = (0_u64..)
        .zip(page.iter())
        .all(|(offset, &byte)| byte == 0 || made.contains(&offset));
    if untouched && bytes <= HEADER_BYTES + capacity {
        return Ok(true);
    }
    Err(Error::NotARing("it does not begin with TPLRING1"))
}

/// Makes an empty ring. Zeros are written over its whole length, because a hole in a file in memory that cannot be
/// filled later, when the memory is used up, would kill the producer.
fn format(file: &mut File, capacity: u64) -> Result<(), Error> {
    file.set_len(0)?;
    let zeros = vec![0; 1 << 16];
    let mut left = HEADER_BYTES + capacity;
    while left > 0 {
        let part = zeros
            .len()
            .min(usize::try_from(left).unwrap_or(zeros.len()));
        file.write_all(zeros.get(..part).unwrap_or_default())?;
        left -= part as u64;
    }
    let mut head = Vec::with_capacity(24);
    head.extend_from_slice(&VERSION.to_le_bytes());
    #[allow(clippy::cast_possible_truncation)] // 4096
    head.extend_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    head.extend_from_slice(&capacity.to_le_bytes());
    file.write_all_at(&head, at::VERSION)?;
    file.write_all_at(&MAGIC, at::MAGIC)?;
    Ok(())
}
