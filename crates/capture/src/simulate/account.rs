//! The producer's own account: what it did, and what must follow for a receiver.

use serde::Serialize;

/// Numbers of consecutive sequences of which it is known whether they were sent; more than any frame comes late.
const WINDOW: u64 = 128;

/// What the producer did with one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Sequence numbers used: unique + dropped + corrupted.
    pub frames_generated: u64,
    /// Frames on the wire, duplicates and corrupted ones included.
    pub frames_sent: u64,
    /// Sequence numbers that were sent intact at least once.
    pub frames_unique: u64,
    /// Not sent.
    pub frames_dropped: u64,
    /// Sent a second time.
    pub frames_duplicated: u64,
    /// Held back and sent later.
    pub frames_reordered: u64,
    /// Sent with a flipped bit.
    pub frames_corrupted: u64,
    /// Bytes that are no frame.
    pub garbage_bytes: u64,
    /// Everything.
    pub bytes_sent: u64,
    /// Sequence of the first frame sent intact.
    pub first_sequence: Option<u64>,
    /// Largest sequence sent intact.
    pub last_sequence: Option<u64>,
    /// What a receiver finds.
    pub expected: Expected,
}

/// What the ledger of a receiver that gets every byte in order must say, in the names of the specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// Every byte sent.
    pub bytes_received: u64,
    /// Intact frames, duplicates included.
    pub frames_received: u64,
    /// Intact frames, each once.
    pub frames_stored: u64,
    /// Their bytes.
    pub bytes_stored: u64,
    /// Candidates that fail, by reason.
    pub frames_corrupt: ExpectedCorrupt,
    /// Garbage and corrupted frames.
    pub bytes_discarded: u64,
    /// Jumps ahead.
    pub gaps: u64,
    /// Sequence numbers between the first and the last that did not come intact.
    pub frames_lost: u64,
    /// Intact frames that came before.
    pub frames_duplicate: u64,
    /// Intact frames behind a later one.
    pub frames_reordered: u64,
    /// Never: the producer goes on.
    pub restarts: u64,
}

/// The reasons a simulated fault can give. A flipped magic gives none: nothing says that a frame was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExpectedCorrupt {
    /// A bit between magic and header CRC, or of that CRC.
    pub header_crc: u64,
    /// A bit of the payload or of its CRC.
    pub payload_crc: u64,
    /// Covered by the header CRC, hence 0.
    pub bad_version: u64,
    /// Covered by the header CRC, hence 0.
    pub bad_length: u64,
    /// Frames are sent whole, hence 0.
    pub truncated: u64,
}

/// Which check a flipped bit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Magic,
    HeaderCrc,
    PayloadCrc,
}

/// An account in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) account: Account,
    /// Bit `i`: sequence `last_sequence - i` was sent intact.
    seen: u128,
}

impl Book {
    /// An intact frame goes out.
    pub(super) fn intact(&mut self, sequence: u64, frame_bytes: usize) {
        let Self { account, seen } = self;
        let expected = &mut account.expected;
        let bytes = frame_bytes as u64;
        account.frames_sent += 1;
        account.bytes_sent += bytes;
        expected.bytes_received += bytes;
        expected.frames_received += 1;
        let last = *account.last_sequence.get_or_insert(sequence);
        let new = if account.first_sequence.is_none() {
            account.first_sequence = Some(sequence);
            *seen = 1;
            true
        } else if sequence > last {
            let step = sequence - last;
            *seen = u32::try_from(step)
                .ok()
                .and_then(|step| seen.checked_shl(step))
                .unwrap_or(0)
                | 1;
            account.last_sequence = Some(sequence);
            expected.frames_lost += step - 1;
            expected.gaps += u64::from(step > 1);
            true
        } else {
            let back = last - sequence;
            debug_assert!(back < WINDOW, "frames are held back for a few frames only");
            let bit = 1_u128 << (back % WINDOW);
            let new = *seen & bit == 0;
            *seen |= bit;
            if new {
                expected.frames_reordered += 1;
                expected.frames_lost -= 1;
            } else {
                expected.frames_duplicate += 1;
            }
            new
        };
        if new {
            account.frames_unique += 1;
            expected.frames_stored += 1;
            expected.bytes_stored += bytes;
        }
    }

    /// A frame with a flipped bit goes out.
    pub(super) fn corrupted(&mut self, damage: Damage, frame_bytes: usize) {
        let Self { account, .. } = self;
        account.frames_sent += 1;
        account.frames_corrupted += 1;
        match damage {
            Damage::Magic => {}
            Damage::HeaderCrc => account.expected.frames_corrupt.header_crc += 1,
            Damage::PayloadCrc => account.expected.frames_corrupt.payload_crc += 1,
        }
        self.waste(frame_bytes);
    }

    /// Bytes that are no frame go out.
    pub(super) fn garbage(&mut self, bytes: usize) {
        self.account.garbage_bytes += bytes as u64;
        self.waste(bytes);
    }

    fn waste(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.account.bytes_sent += bytes;
        self.account.expected.bytes_received += bytes;
        self.account.expected.bytes_discarded += bytes;
    }
}

impl Account {
    /// Adds another stream's account. First and last sequence mean something in one stream only and stay as they are.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.frames_generated, other.frames_generated),
            (&mut self.frames_sent, other.frames_sent),
            (&mut self.frames_unique, other.frames_unique),
            (&mut self.frames_dropped, other.frames_dropped),
            (&mut self.frames_duplicated, other.frames_duplicated),
            (&mut self.frames_reordered, other.frames_reordered),
            (&mut self.frames_corrupted, other.frames_corrupted),
            (&mut self.garbage_bytes, other.garbage_bytes),
            (&mut self.bytes_sent, other.bytes_sent),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
        self.expected.add(&other.expected);
    }
}

impl Expected {
    fn add(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.frames_corrupt, &other.frames_corrupt);
        let pairs = [
            (&mut self.bytes_received, other.bytes_received),
            (&mut self.frames_received, other.frames_received),
            (&mut self.frames_stored, other.frames_stored),
            (&mut self.bytes_stored, other.bytes_stored),
            (&mut self.bytes_discarded, other.bytes_discarded),
            (&mut self.gaps, other.gaps),
            (&mut self.frames_lost, other.frames_lost),
            (&mut self.frames_duplicate, other.frames_duplicate),
            (&mut self.frames_reordered, other.frames_reordered),
            (&mut mine.header_crc, theirs.header_crc),
            (&mut mine.payload_crc, theirs.payload_crc),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
    }
}
