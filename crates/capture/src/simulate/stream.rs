//! One stream: makes its frames, breaks some of them, and books both.
//!
//! Faults are chosen so that what a receiver finds is determined: one flipped bit is always caught by the check it
//! falls under, garbage holds no magic, late frames stay far inside every reorder window, and nothing is held back
//! before the first frame is out.

use tapeline_wire::frame::{FrameFields, FrameLayout, MAX_HEADER_BYTES, PERIOD_END, PERIOD_START};

use super::{
    account::{Account, Book, Damage},
    batch::Batch,
    options::RadarOptions,
    pool::{Pool, fill},
    random::{Chance, Random},
};

/// A frame that is held back comes after 1 to this many later ones.
const MOST_LATE: usize = 8;
/// Garbage comes in pieces of 1 to this many bytes.
const MOST_GARBAGE: usize = 256;

/// The generator of one stream.
#[derive(Debug)]
pub(super) struct Generator {
    layout: FrameLayout,
    stream_id: u16,
    next_sequence: u64,
    periodic: u64,
    first_sequence: u64,
    drop: Chance,
    corrupt: Chance,
    duplicate: Chance,
    reorder: Chance,
    garbage: Chance,
    held: Vec<Held>,
    scratch: Vec<u8>,
    book: Book,
}

/// A frame that will go out once so many frames have passed it.
#[derive(Clone, Copy, Debug)]
struct Held {
    fields: FrameFields,
    after: usize,
}

impl Generator {
    pub(super) fn new(options: &RadarOptions, layout: FrameLayout, stream_id: u16) -> Self {
        let chance = |probability, purpose| {
            Chance::new(
                probability,
                Random::new(options.seed, u64::from(stream_id), purpose),
            )
        };
        let faults = options.faults;
        Self {
            layout,
            stream_id,
            next_sequence: options.first_sequence,
            first_sequence: options.first_sequence,
            periodic: options.periodic,
            drop: chance(faults.drop, 1),
            corrupt: chance(faults.corrupt, 2),
            duplicate: chance(faults.duplicate, 3),
            reorder: chance(faults.reorder, 4),
            garbage: chance(faults.garbage, 5),
            held: Vec::with_capacity(MOST_LATE + 1),
            scratch: Vec::new(),
            book: Book::default(),
        }
    }

    pub(super) fn stream_id(&self) -> u16 {
        self.stream_id
    }

    pub(super) fn account(&self) -> &Account {
        &self.book.account
    }

    /// Makes the next frame and puts what becomes of it into `batch`.
    pub(super) fn step(&mut self, timestamp_ns: u64, pool: &Pool, batch: &mut Batch) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.book.account.frames_generated += 1;
        let fields = FrameFields {
            flags: self.flags(sequence),
            stream_id: self.stream_id,
            sequence,
            timestamp_ns,
        };
        // Every generator draws for every frame, so that no fault shifts where another falls.
        let (drop, corrupt, duplicate, reorder) = (
            self.drop.hit(),
            self.corrupt.hit(),
            self.duplicate.hit(),
            self.reorder.hit(),
        );
        if self.garbage.hit() {
            let bytes = 1 + self.garbage.random().below(MOST_GARBAGE);
            let [never, ..] = *self.layout.magic();
            batch.bytes(&fill(bytes, never, self.garbage.random()), true);
            self.book.garbage(bytes);
        }
        if drop {
            self.book.account.frames_dropped += 1;
        } else if corrupt {
            self.send_corrupted(&fields, pool, batch);
        } else if reorder && self.book.account.first_sequence.is_some() {
            self.book.account.frames_reordered += 1;
            // One more for the call below, which it does not count as passed by itself.
            let after = 2 + self.reorder.random().below(MOST_LATE);
            self.held.push(Held { fields, after });
        } else {
            self.send(&fields, pool, batch);
            if duplicate {
                self.book.account.frames_duplicated += 1;
                self.send(&fields, pool, batch);
            }
        }
        self.release(pool, batch);
    }

    /// Sends what is still held back.
    pub(super) fn finish(&mut self, pool: &Pool, batch: &mut Batch) {
        for held in std::mem::take(&mut self.held) {
            self.send(&held.fields, pool, batch);
        }
    }

    fn release(&mut self, pool: &Pool, batch: &mut Batch) {
        if self.held.is_empty() {
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        held.retain_mut(|held| {
            held.after -= 1;
            if held.after == 0 {
                self.send(&held.fields, pool, batch);
            }
            held.after > 0
        });
        self.held = held;
    }

    fn flags(&self, sequence: u64) -> u8 {
        if self.periodic == 0 {
            return 0;
        }
        let place = (sequence - self.first_sequence) % self.periodic;
        let start = if place == 0 { PERIOD_START } else { 0 };
        let end = if place == self.periodic - 1 {
            PERIOD_END
        } else {
            0
        };
        start | end
    }

    fn send(&mut self, fields: &FrameFields, pool: &Pool, batch: &mut Batch) {
        let mut header = [0; MAX_HEADER_BYTES];
        let (start, crc) = pool.payload(self.stream_id, fields.sequence);
        // The options were checked against the layout, so that every header can be written.
        let Ok(bytes) = self
            .layout
            .write_header(fields, pool.payload_bytes(), crc, &mut header)
        else {
            return;
        };
        batch.frame(
            header.get(..bytes).unwrap_or_default(),
            start,
            pool.payload_bytes(),
        );
        self.book
            .intact(fields.sequence, bytes + pool.payload_bytes());
    }

    fn send_corrupted(&mut self, fields: &FrameFields, pool: &Pool, batch: &mut Batch) {
        let mut header = [0; MAX_HEADER_BYTES];
        let (start, crc) = pool.payload(self.stream_id, fields.sequence);
        let Ok(bytes) = self
            .layout
            .write_header(fields, pool.payload_bytes(), crc, &mut header)
        else {
            return;
        };
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        frame.extend_from_slice(header.get(..bytes).unwrap_or_default());
        frame.extend_from_slice(pool.bytes(start, pool.payload_bytes()));
        let random = self.corrupt.random();
        // Payloads are most of a frame; headers are where decoders fail. The payload's CRC is the header's last field.
        let (damage, range) = match random.below(8) {
            0 => (Damage::Magic, 0..8),
            1..=3 => (Damage::HeaderCrc, 8..bytes - 4),
            _ => (Damage::PayloadCrc, bytes - 4..frame.len()),
        };
        let at = range.start + random.below(range.len());
        let bit = 1_u8 << random.below(8);
        if let Some(byte) = frame.get_mut(at) {
            *byte ^= bit;
        }
        batch.bytes(&frame, false);
        self.book.corrupted(damage, frame.len());
        self.scratch = frame;
    }
}
