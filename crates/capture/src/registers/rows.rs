//! Packets as rows: one per register, in columns (spec/register-packets.md 3, sinks).
//!
//! The route is applied while building, so that a sink pays only for what it takes.

use tapeline_wire::register::{Kind, PacketRef};

use crate::registers::log_reader::walk;

/// Which packets a sink takes: all of `cmd`, `type` and `src_id` must allow one.
#[derive(Clone, Debug)]
pub struct Route {
    /// Bit per command.
    pub cmds: u8,
    /// Bit per source type.
    pub types: u8,
    /// Sorted; all if `None`.
    pub src_ids: Option<Vec<i32>>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            cmds: u8::MAX,
            types: u8::MAX,
            src_ids: None,
        }
    }
}

impl Route {
    /// Of lists of numbers; `None` allows all.
    #[must_use]
    pub fn new(cmds: Option<&[u8]>, types: Option<&[u8]>, src_ids: Option<Vec<i32>>) -> Self {
        let bits = |list: Option<&[u8]>| {
            list.map_or(u8::MAX, |list| {
                list.iter()
                    .fold(0, |bits, &n| bits | 1u8.checked_shl(n.into()).unwrap_or(0))
            })
        };
        let src_ids = src_ids.map(|mut ids| {
            ids.sort_unstable();
            ids
        });
        Self {
            cmds: bits(cmds),
            types: bits(types),
            src_ids,
        }
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.cmds == u8::MAX && self.types == u8::MAX && self.src_ids.is_none()
    }

    /// Whether this packet passes.
    #[must_use]
    pub fn allows(&self, packet: &PacketRef<'_>) -> bool {
        self.cmds >> packet.command as u8 & 1 == 1
            && self.types >> packet.source.kind as u8 & 1 == 1
            && self
                .src_ids
                .as_ref()
                .is_none_or(|ids| ids.binary_search(&packet.source.id).is_ok())
    }
}

/// Rows of data packets.
#[derive(Debug, Default)]
pub struct DataRows {
    /// Bits of the u64 on the wire.
    pub timestamp_us: Vec<i64>,
    /// 0 to 3.
    pub source_type: Vec<i8>,
    /// SBMU or rack number.
    pub src_id: Vec<u8>,
    /// 0 to 5.
    pub cmd: Vec<u8>,
    /// As sent.
    pub seq: Vec<u8>,
    /// Of the register.
    pub offset: Vec<u16>,
    /// Of the register.
    pub value: Vec<u16>,
}

/// Rows of simple packets.
#[derive(Debug, Default)]
pub struct SimpleRows {
    /// Seconds since the UNIX epoch.
    pub time: Vec<f64>,
    /// Rack.
    pub rack: Vec<i32>,
    /// Of the register.
    pub offset: Vec<i32>,
    /// Of the register.
    pub value: Vec<i32>,
}

/// What was taken of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of whole packets, in the route or not.
    pub bytes: usize,
    /// Packets of the route.
    pub packets: u64,
    /// Their bytes.
    pub packet_bytes: u64,
    /// Why it ended short of the end of the bytes.
    pub broken: Option<&'static str>,
}

/// Rows of the data packets in `bytes`.
#[must_use]
pub fn data_rows(bytes: &[u8], route: &Route) -> (DataRows, Taken) {
    let mut rows = DataRows::default();
    // a register is four bytes; a little too much where packets are small
    let most = bytes.len() / 4;
    rows.timestamp_us.reserve_exact(most);
    rows.source_type.reserve_exact(most);
    rows.src_id.reserve_exact(most);
    rows.cmd.reserve_exact(most);
    rows.seq.reserve_exact(most);
    rows.offset.reserve_exact(most);
    rows.value.reserve_exact(most);
    let taken = each(Kind::Packet, bytes, route, |packet| {
        let end = rows.offset.len() + packet.offsets().len();
        rows.timestamp_us
            .resize(end, packet.timestamp_us.cast_signed());
        rows.source_type
            .resize(end, (packet.source.kind as u8).cast_signed());
        rows.src_id.resize(end, narrow(packet.source.id));
        rows.cmd.resize(end, packet.command as u8);
        rows.seq.resize(end, packet.seq);
        rows.offset.extend(packet.offsets());
        rows.value.extend(packet.values());
    });
    (rows, taken)
}

/// Rows of the simple packets in `bytes`.
#[must_use]
pub fn simple_rows(bytes: &[u8], route: &Route) -> (SimpleRows, Taken) {
    let mut rows = SimpleRows::default();
    let most = bytes.len() / 4;
    rows.time.reserve_exact(most);
    rows.rack.reserve_exact(most);
    rows.offset.reserve_exact(most);
    rows.value.reserve_exact(most);
    let taken = each(Kind::Simple, bytes, route, |packet| {
        let end = rows.offset.len() + packet.offsets().len();
        rows.time.resize(end, packet.time_s);
        rows.rack.resize(end, packet.source.id);
        rows.offset.extend(packet.offsets().map(i32::from));
        rows.value.extend(packet.values().map(i32::from));
    });
    (rows, taken)
}

/// Packets of `bytes`, one entry each.
#[derive(Debug, Default)]
pub struct PacketRows {
    /// Byte in `bytes`.
    pub offset: Vec<u64>,
    /// Microseconds; of simple packets their time, rounded.
    pub timestamp_us: Vec<i64>,
    /// 0 to 3.
    pub source_type: Vec<i8>,
    /// SBMU or rack number.
    pub src_id: Vec<i32>,
    /// 0 to 5.
    pub cmd: Vec<u8>,
    /// As sent.
    pub seq: Vec<u8>,
    /// Registers.
    pub count: Vec<u32>,
}

/// The packets in `bytes`; offsets are counted from `base`.
#[must_use]
pub fn packet_rows(kind: Kind, bytes: &[u8], base: u64, route: &Route) -> (PacketRows, Taken) {
    let mut rows = PacketRows::default();
    let mut taken = Taken::default();
    let (consumed, broken) = walk(kind, bytes, |at, packet| {
        if route.allows(packet) {
            rows.offset.push(base + at as u64);
            rows.timestamp_us.push(packet.timestamp_us.cast_signed());
            rows.source_type
                .push((packet.source.kind as u8).cast_signed());
            rows.src_id.push(packet.source.id);
            rows.cmd.push(packet.command as u8);
            rows.seq.push(packet.seq);
            rows.count.push(packet.count);
            taken.packets += 1;
            taken.packet_bytes += packet.bytes.len() as u64;
        }
        true
    });
    taken.bytes = consumed;
    taken.broken = broken;
    (rows, taken)
}

/// The packets of the route, verbatim, one after the other.
#[must_use]
pub fn filtered(kind: Kind, bytes: &[u8], route: &Route) -> (Vec<u8>, Taken) {
    let mut out = Vec::with_capacity(bytes.len());
    let taken = each(kind, bytes, route, |packet| {
        out.extend_from_slice(packet.bytes);
    });
    (out, taken)
}

fn each(kind: Kind, bytes: &[u8], route: &Route, mut take: impl FnMut(&PacketRef<'_>)) -> Taken {
    let mut taken = Taken::default();
    let all = route.is_all();
    let (consumed, broken) = walk(kind, bytes, |_, packet| {
        if all || route.allows(packet) {
            take(packet);
            taken.packets += 1;
            taken.packet_bytes += packet.bytes.len() as u64;
        }
        true
    });
    taken.bytes = consumed;
    taken.broken = broken;
    taken
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // one byte on the wire
fn narrow(src_id: i32) -> u8 {
    src_id as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::registers::log_reader::tests::DATA;

    #[test]
    fn a_row_for_each_register_and_the_cut_packet_waits() {
        let mut bytes = DATA.repeat(3);
        bytes.extend(&DATA[..20]);
        let (rows, taken) = data_rows(&bytes, &Route::default());
        assert_eq!((taken.bytes, taken.packets, taken.broken), (87, 3, None));
        assert_eq!(rows.timestamp_us, [5; 6]);
        assert_eq!(rows.source_type, [2; 6]);
        assert_eq!(rows.src_id, [7; 6]);
        assert_eq!(rows.seq, [9; 6]);
        assert_eq!(rows.offset, [1, 3, 1, 3, 1, 3]);
        assert_eq!(rows.value, [2, 4, 2, 4, 2, 4]);
    }

    #[test]
    fn the_route_chooses_packets() {
        let mut full = DATA;
        full[13] = 1;
        let bytes = [DATA, full].concat();
        let counts = [
            Route::new(Some(&[1]), None, None),
            Route::new(None, Some(&[1, 3]), None),
            Route::new(None, None, Some(vec![9, 7])),
            Route::new(Some(&[0, 1, 2]), Some(&[2]), Some(vec![7])),
        ]
        .map(|route| filtered(Kind::Packet, &bytes, &route).1.packets);
        assert_eq!(counts, [1, 0, 2, 2]);
    }

    #[test]
    fn damage_ends_the_rows_and_is_told() {
        let mut bytes = DATA.repeat(2);
        bytes[29 + 13] = 77;
        let (rows, taken) = data_rows(&bytes, &Route::default());
        assert_eq!((rows.offset.len(), taken.bytes), (2, 29));
        assert_eq!(taken.broken, Some("unknown cmd or type"));
    }
}
