//! `udp://`: datagrams of whole frames, received in batches straight into the ring.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tapeline_sys::udp::{UdpOptions, UdpReceiver};

use super::{DRAIN_BYTES, Ended, Stop, WAIT};
use crate::config::{SourceConfig, StreamConfig};
use crate::error::Error;
use crate::receive::{Receiver, now_ns};

/// Space offered to one receive call: sixteen of the largest datagrams.
const SPACE: usize = 16 * 65_536;

/// A bound socket.
pub(crate) struct Udp {
    socket: UdpReceiver,
    /// Bytes read since a stop was asked for.
    drained: u64,
}

impl Udp {
    pub(crate) fn bind(
        address: SocketAddr,
        source: &SourceConfig,
        stream: &StreamConfig,
    ) -> io::Result<Self> {
        let mut multicast = None;
        let mut multicast_v6 = None;
        match (source.group, source.interface) {
            (None, _) => {}
            (Some(IpAddr::V4(group)), None) => multicast = Some((group, None)),
            (Some(IpAddr::V4(group)), Some(IpAddr::V4(interface))) => {
                multicast = Some((group, Some(interface)))
            }
            (Some(IpAddr::V6(group)), None) => multicast_v6 = Some((group, 0)),
            (Some(_), Some(_)) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the interface of an IPv4 group is an IPv4 address, and of an IPv6 group it is left out",
                ));
            }
        }
        let options = UdpOptions {
            receive_buffer_bytes: usize::try_from(stream.receive_buffer_bytes)
                .unwrap_or(usize::MAX),
            gro: stream.gro,
            timestamps: false,
            reuse_port: false,
            multicast,
            multicast_v6,
        };
        Ok(Self {
            socket: UdpReceiver::bind(address, &options)?,
            drained: 0,
        })
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    pub(crate) fn step(&mut self, receiver: &mut Receiver, stop: &Stop) -> Option<Ended> {
        if receiver.counters.receive_buffer_bytes == 0 {
            receiver.counters.receive_buffer_bytes = self.socket.receive_buffer_bytes() as u64;
        }
        let ended = self.receive(receiver, stop);
        if ended.is_some() {
            receiver.counters.datagrams_dropped_by_kernel = self.socket.kernel_drops();
        }
        ended
    }

    fn receive(&mut self, receiver: &mut Receiver, stop: &Stop) -> Option<Ended> {
        let draining = stop.requested();
        if receiver.make_room(SPACE).is_err() {
            return Some(Ok(()));
        }
        let timeout = if draining { Duration::ZERO } else { WAIT };
        match self.socket.receive(receiver.space(), timeout) {
            Ok([]) => {
                receiver.counters.datagrams_dropped_by_kernel = self.socket.kernel_drops();
                receiver.idle();
                (draining || receiver.writer_gone()).then_some(Ok(()))
            }
            Ok(datagrams) => {
                let now = now_ns();
                let mut end = 0;
                for d in datagrams {
                    let received_ns = if d.received_ns == 0 {
                        now
                    } else {
                        d.received_ns
                    };
                    receiver.datagrams(d.offset, d.bytes, d.segment_bytes, received_ns);
                    end = end.max(d.offset + d.bytes);
                }
                receiver.counters.datagrams_dropped_by_kernel = self.socket.kernel_drops();
                receiver.datagrams_end(end);
                if draining {
                    self.drained += end as u64;
                }
                (self.drained > DRAIN_BYTES).then_some(Ok(()))
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => None,
            Err(e) => Some(Err(Error::io_bare("receiving", e))),
        }
    }
}
