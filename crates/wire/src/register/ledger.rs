//! The account of a register stream: nothing is lost silently.

use super::counters::{InvalidCounters, PacketCounters};
use super::sequence::SeqCounters;

/// Why connections ended, and how many did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClosedCounters {
    /// The client closed it.
    pub ended: u64,
    /// The framing was lost.
    pub framing_lost: u64,
    /// Silent for too long, or no whole packet in time.
    pub idle: u64,
    /// Did not read its answers.
    pub not_reading: u64,
    /// The connection broke.
    pub broken: u64,
    /// Open when the recorder stopped.
    pub stopped: u64,
}

macro_rules! ledger {
    ($($(#[$doc:meta])* $name:ident),+ $(,)? ; $($(#[$group_doc:meta])* $group:ident: $kind:ty { $($field:ident),+ }),+) => {
        /// Every count of one register stream.
        ///
        /// Laws: `bytes_received = bytes_valid + bytes_invalid + bytes_discarded + pending` and
        /// `packets_received = packets_stored + packets_refused + in flight`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct RegisterLedger {
            $($(#[$doc])* pub $name: u64,)+
            $($(#[$group_doc])* pub $group: $kind,)+
        }

        impl RegisterLedger {
            /// Names and values in a fixed order; grouped counts have dotted names.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                let mut all = Vec::with_capacity(48);
                $(all.push((stringify!($name), self.$name));)+
                $($(all.push((
                    concat!(stringify!($group), ".", stringify!($field)),
                    self.$group.$field,
                ));)+)+
                all
            }
        }
    };
}

ledger! {
    /// Bytes that came from the sources.
    bytes_received,
    /// Valid packets of every command.
    packets_received,
    /// Their bytes.
    bytes_valid,
    /// Registers listed in DIFF and FULL packets.
    registers_received,
    /// Packets written to the log (in a decoder: handed out).
    packets_stored,
    /// Their bytes.
    bytes_stored,
    /// Packets that were not logged because the disk refused.
    packets_refused,
    /// Their bytes.
    bytes_refused,
    /// Bytes of packets that were skipped as invalid.
    bytes_invalid,
    /// Bytes of packets that an end cut, and bytes after the framing was lost.
    bytes_discarded,
    /// Times the framing was lost.
    framing_lost,
    /// Times a source's sequence jumped ahead.
    gaps,
    /// Sequence numbers that were jumped over and did not come late.
    packets_lost,
    /// Sequence numbers that came twice; the packets are stored all the same.
    packets_duplicate,
    /// Sequence numbers that came late.
    packets_reordered,
    /// FULL packets.
    full_packets,
    /// QUERY packets.
    queries,
    /// REPLY packets sent.
    replies,
    /// SYNC packets.
    syncs,
    /// SYNCED packets sent.
    synced,
    /// Registers that found no place in the image within its limits; they are in the log.
    registers_unplaced,
    /// Connections taken.
    clients_accepted,
    /// Connections refused, because there were too many.
    clients_refused,
    /// Datagrams received.
    datagrams_received,
    /// Datagrams the kernel dropped because the socket's buffer was full.
    datagrams_dropped_by_kernel,
    /// Times the producer of a shared-memory ring overtook the recorder.
    shm_overtakes,
    /// Bytes of the ring that were overwritten before they were read.
    shm_overtaken_bytes,
    /// Records of the ring that contradict their checksum, and sizes that cannot be.
    shm_records_corrupt,
    /// Bytes of the ring that were skipped for that reason.
    shm_bytes_corrupt,
    /// The most the ring ever held.
    ring_high_water_bytes,
    /// Time nothing was received because the ring was full, in nanoseconds.
    backpressure_ns,
    ;
    /// Packets refused, by reason.
    packets_invalid: InvalidCounters { length_mismatch, unknown_command, unknown_type, truncated },
    /// Connections that ended, by reason.
    clients_closed: ClosedCounters { ended, framing_lost, idle, not_reading, broken, stopped }
}

impl RegisterLedger {
    /// Takes over what scanners counted.
    pub const fn set_packets(&mut self, counters: &PacketCounters) {
        self.packets_received = counters.packets;
        self.bytes_valid = counters.bytes_valid;
        self.registers_received = counters.registers;
        self.packets_invalid = counters.invalid;
        self.bytes_invalid = counters.bytes_invalid;
        self.bytes_discarded = counters.bytes_discarded;
        self.framing_lost = counters.framing_lost;
        self.full_packets = counters.full;
        self.queries = counters.queries;
        self.syncs = counters.syncs;
    }

    /// Takes over what the sequences counted.
    pub const fn set_sequence(&mut self, counters: &SeqCounters) {
        self.gaps = counters.gaps;
        self.packets_lost = counters.lost;
        self.packets_duplicate = counters.duplicates;
        self.packets_reordered = counters.reordered;
    }
}
