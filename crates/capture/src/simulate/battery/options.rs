//! What a battery sends, and where to.

use serde::Deserialize;
use tapeline_sys::udp::MAX_PAYLOAD_BYTES;
use tapeline_wire::register::{Kind, MAX_COUNT};

use super::super::options::{Target, TargetKind};

/// Clients at most: one for each source of the packet wire (4 types of 256), the floor of connections that a server
/// must hold.
pub(super) const MOST_CLIENTS: u32 = 1024;

/// Everything a battery simulation can be told; `python/tapeline/simulate` fills it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatteryOptions {
    /// Destinations; client `i` goes to destination `i` modulo their number.
    pub to: Vec<Target>,
    /// Number of clients, each with a connection and a source of its own.
    pub clients: u32,
    /// Packets of each client; `None`: until stopped or `duration_s` has passed.
    pub packets: Option<u64>,
    /// Stop after this time.
    pub duration_s: Option<f64>,
    /// Fewest registers of a DIFF.
    pub count_min: u32,
    /// Most registers of a DIFF; each number between is as likely.
    pub count_max: u32,
    /// Registers of a source, from offset 0; a FULL lists them all.
    pub registers: u32,
    /// Seconds between two packets of a client; 0: as fast as the destination takes them.
    pub delay_s: f64,
    /// Random offsets and values instead of a battery's.
    pub random: bool,
    /// Every so many packets of a client, from its first, one is a FULL; 0: none. The simple wire has none.
    pub full_every: u64,
    /// `packet` or `simple`.
    pub wire: String,
    /// Decides about counts, offsets and values.
    pub seed: u64,
    /// Time of the first packet, the others following `delay_s` apart (1 us where that is 0); `None`: the clock.
    pub start_us: Option<u64>,
    /// Most bytes of a datagram; at least one packet goes into each. `None`: one packet.
    pub datagram_bytes: Option<usize>,
    /// How long to try to connect.
    pub connect_timeout_s: f64,
    /// Put the final image into the summary.
    pub image: bool,
}

impl BatteryOptions {
    /// Checks what types cannot say, and gives the wire.
    ///
    /// # Errors
    /// One line that names the option, its value and what is allowed.
    pub fn check(&self) -> Result<Kind, String> {
        let kind = Kind::from_name(&self.wire)
            .ok_or_else(|| format!("wire is {:?}; allowed are simple and packet", self.wire))?;
        if self.to.is_empty() || self.clients == 0 || self.clients > MOST_CLIENTS {
            return Err(format!(
                "clients is {}; it must be from 1 to {MOST_CLIENTS}",
                self.clients
            ));
        }
        if (self.clients as usize) < self.to.len() {
            return Err(format!(
                "clients is {}; it must be at least the number of destinations, {}",
                self.clients,
                self.to.len()
            ));
        }
        if self.registers == 0 || self.registers > MAX_COUNT {
            return Err(format!(
                "registers is {}; it must be from 1 to {MAX_COUNT}",
                self.registers
            ));
        }
        if self.count_min > self.count_max || self.count_max > self.registers {
            return Err(format!(
                "count is {}:{}; a packet lists from 0 to {} registers",
                self.count_min, self.count_max, self.registers
            ));
        }
        let times = [
            ("delay_s", Some(self.delay_s)),
            ("duration_s", self.duration_s),
            ("connect_timeout_s", Some(self.connect_timeout_s)),
        ];
        for (name, value) in times {
            if value.is_some_and(|value| !(value >= 0.0 && value.is_finite())) {
                return Err(format!("{name} must be 0 seconds or more"));
            }
        }
        let largest = if self.full_every > 0 && kind == Kind::Packet {
            self.registers
        } else {
            self.count_max
        };
        let limit = self.datagram_bytes.unwrap_or(MAX_PAYLOAD_BYTES);
        let udp = self.to.iter().any(|target| target.kind == TargetKind::Udp);
        if udp && (kind.packet_bytes(largest) > limit || limit > MAX_PAYLOAD_BYTES) {
            return Err(format!(
                "datagram_bytes is {limit}: a datagram must hold a packet ({} bytes) and not exceed {MAX_PAYLOAD_BYTES}",
                kind.packet_bytes(largest)
            ));
        }
        Ok(kind)
    }
}
