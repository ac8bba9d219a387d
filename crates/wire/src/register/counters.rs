//! What a scanner of register packets counts.

/// Packets that were refused and skipped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InvalidCounters {
    /// The body contradicts the length.
    pub length_mismatch: u64,
    /// `cmd` above 5.
    pub unknown_command: u64,
    /// `type` above 3.
    pub unknown_type: u64,
    /// The stream ended inside the packet.
    pub truncated: u64,
}

/// Totals of a scanner. `bytes_valid + bytes_invalid + bytes_discarded` is what it consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCounters {
    /// Valid packets of every command.
    pub packets: u64,
    /// Their bytes.
    pub bytes_valid: u64,
    /// Registers listed in DIFF and FULL packets.
    pub registers: u64,
    /// QUERY packets.
    pub queries: u64,
    /// SYNC packets.
    pub syncs: u64,
    /// FULL packets.
    pub full: u64,
    /// Packets refused, by reason.
    pub invalid: InvalidCounters,
    /// Bytes of packets that were skipped whole.
    pub bytes_invalid: u64,
    /// Bytes of a packet that the end cut, and all bytes after the framing was lost.
    pub bytes_discarded: u64,
    /// Times the framing was lost.
    pub framing_lost: u64,
}

impl PacketCounters {
    /// Adds another scanner's totals.
    pub const fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes_valid += other.bytes_valid;
        self.registers += other.registers;
        self.queries += other.queries;
        self.syncs += other.syncs;
        self.full += other.full;
        self.invalid.length_mismatch += other.invalid.length_mismatch;
        self.invalid.unknown_command += other.invalid.unknown_command;
        self.invalid.unknown_type += other.invalid.unknown_type;
        self.invalid.truncated += other.invalid.truncated;
        self.bytes_invalid += other.bytes_invalid;
        self.bytes_discarded += other.bytes_discarded;
        self.framing_lost += other.framing_lost;
    }
}
