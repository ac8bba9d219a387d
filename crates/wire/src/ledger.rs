//! The account of a stream: nothing is lost silently (`spec/frame-stream.md 4`).

use std::fmt;

use crate::frame::{CorruptCounters, FrameCounters};
use crate::sequence::SequenceCounters;

macro_rules! ledger {
    ($($(#[$doc:meta])* $name:ident),+ $(,)? ; corrupt after $after:ident) => {
        /// Every count of one stream, in the words and the order of the specification.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Ledger {
            $($(#[$doc])* pub $name: u64,)+
            /// Candidates refused, by reason.
            pub frames_corrupt: CorruptCounters,
        }

        impl Ledger {
            /// Names and values in the order of the specification; the reasons of
            /// `frames_corrupt` have dotted names.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                let mut all = Vec::with_capacity(24);
                $(
                    all.push((stringify!($name), self.$name));
                    if stringify!($name) == stringify!($after) {
                        let c = &self.frames_corrupt;
                        all.push(("frames_corrupt.header_crc", c.header_crc));
                        all.push(("frames_corrupt.payload_crc", c.payload_crc));
                        all.push(("frames_corrupt.bad_version", c.bad_version));
                        all.push(("frames_corrupt.bad_length", c.bad_length));
                        all.push(("frames_corrupt.truncated", c.truncated));
                    }
                )+
                all
            }

            /// Adds another stream's account: counts add up, of `ring_high_water_bytes` the
            /// larger stays.
            pub fn add(&mut self, other: &Self) {
                let high_water = self.ring_high_water_bytes.max(other.ring_high_water_bytes);
                $(self.$name = self.$name.saturating_add(other.$name);)+
                self.ring_high_water_bytes = high_water;
                self.frames_corrupt.add(&other.frames_corrupt);
            }
        }
    };
}

ledger! {
    /// Bytes that came from the sources.
    bytes_received,
    /// Valid frames, duplicates included.
    frames_received,
    /// Frames written (in a decoder: handed out).
    frames_stored,
    /// Bytes of the frames stored, headers included.
    bytes_stored,
    /// Times a decoder lost its place and searched for a magic.
    resyncs,
    /// Bytes that belong to no valid frame.
    bytes_discarded,
    /// Times the sequence jumped ahead.
    gaps,
    /// Sequence numbers between the first and the last seen that never came.
    frames_lost,
    /// Frames seen before; dropped unless duplicates are kept.
    frames_duplicate,
    /// Frames that came after a later one.
    frames_reordered,
    /// Frames that came after their periodic was closed.
    frames_late,
    /// Producer restarts seen in the sequence.
    restarts,
    /// UDP datagrams received.
    datagrams_received,
    /// UDP datagrams the kernel dropped because the socket's buffer was full.
    datagrams_dropped_by_kernel,
    /// The most the ring ever held.
    ring_high_water_bytes,
    /// Time the receiver waited for the writer, in nanoseconds.
    backpressure_ns,
    /// Periodics with all their frames.
    periodics_complete,
    /// Periodics closed with frames missing.
    periodics_incomplete,
    /// Frames that one path lost and the other brought.
    frames_repaired,
    ; corrupt after bytes_stored
}

impl Ledger {
    /// Takes over what a scanner counted.
    pub const fn set_frames(&mut self, counters: &FrameCounters) {
        self.frames_received = counters.frames_received;
        self.bytes_discarded = counters.bytes_discarded;
        self.resyncs = counters.resyncs;
        self.frames_corrupt = counters.corrupt;
    }

    /// Takes over what a sequence tracker or table counted.
    pub const fn set_sequence(&mut self, counters: &SequenceCounters) {
        self.gaps = counters.gaps;
        self.frames_lost = counters.frames_lost;
        self.frames_duplicate = counters.frames_duplicate;
        self.frames_reordered = counters.frames_reordered;
        self.restarts = counters.restarts;
    }

    /// Checks the conservation laws 1 and 2 for a stream that drops duplicates.
    ///
    /// `pending_bytes` are received and not decided yet, `valid_bytes` belong to valid frames,
    /// `frames_in_flight` are received and neither stored nor dropped yet.
    ///
    /// # Errors
    ///
    /// [`LawBroken`] with both sides of the first law that does not hold.
    pub fn check(
        &self,
        pending_bytes: u64,
        valid_bytes: u64,
        frames_in_flight: u64,
    ) -> Result<(), LawBroken> {
        self.check_dropped(
            pending_bytes,
            valid_bytes,
            frames_in_flight,
            self.frames_duplicate,
        )
    }

    /// As [`Self::check`], for a stream that stores duplicates as well.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn check_keeping_duplicates(
        &self,
        pending_bytes: u64,
        valid_bytes: u64,
        frames_in_flight: u64,
    ) -> Result<(), LawBroken> {
        self.check_dropped(pending_bytes, valid_bytes, frames_in_flight, 0)
    }

    fn check_dropped(
        &self,
        pending_bytes: u64,
        valid_bytes: u64,
        frames_in_flight: u64,
        dropped: u64,
    ) -> Result<(), LawBroken> {
        let accounted =
            u128::from(valid_bytes) + u128::from(self.bytes_discarded) + u128::from(pending_bytes);
        if u128::from(self.bytes_received) != accounted {
            return Err(LawBroken {
                law: 1,
                received: self.bytes_received,
                accounted,
            });
        }
        let accounted =
            u128::from(self.frames_stored) + u128::from(dropped) + u128::from(frames_in_flight);
        if u128::from(self.frames_received) != accounted {
            return Err(LawBroken {
                law: 2,
                received: self.frames_received,
                accounted,
            });
        }
        Ok(())
    }
}

/// A conservation law does not hold: something was lost, or counted twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LawBroken {
    /// Number of the law in `spec/frame-stream.md 4`.
    pub law: u8,
    /// Bytes (law 1) or frames (law 2) received.
    pub received: u64,
    /// What became of them, summed up.
    pub accounted: u128,
}

impl fmt::Display for LawBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, terms) = match self.law {
            1 => ("bytes", "valid frames + discarded + pending"),
            _ => ("frames", "stored + dropped duplicates + in flight"),
        };
        let Self {
            law,
            received,
            accounted,
        } = self;
        write!(
            f,
            "conservation law {law}: {received} {what} received, but {terms} = {accounted}"
        )
    }
}

impl std::error::Error for LawBroken {}
