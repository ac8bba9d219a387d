//! Datagrams in batches.
//!
//! The receiver gets many datagrams in one system call, straight into slots of a buffer that the caller owns. With
//! generic receive offload (GRO) the kernel hands over runs of equal datagrams of one sender as one, which
//! [`Datagram::segment_bytes`] takes apart. The sender has the counterparts, `sendmmsg` and segmentation offload (GSO).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

#[cfg(all(target_os = "linux", not(tapeline_portable)))]
#[path = "udp/receiver.rs"]
mod receiver;
#[cfg(all(target_os = "linux", not(tapeline_portable)))]
#[path = "udp/sender.rs"]
mod sender;

#[cfg(any(not(target_os = "linux"), tapeline_portable))]
#[path = "udp/portable.rs"]
mod portable;

#[cfg(any(not(target_os = "linux"), tapeline_portable))]
pub use portable::{UdpReceiver, UdpSender};
#[cfg(all(target_os = "linux", not(tapeline_portable)))]
pub use receiver::UdpReceiver;
#[cfg(all(target_os = "linux", not(tapeline_portable)))]
pub use sender::UdpSender;

/// A buffer given to [`UdpReceiver::receive`] must hold at least one datagram, or run of datagrams, of this size.
pub const MAX_DATAGRAM_BYTES: usize = 65_536;

/// The largest payload of an IPv4 datagram: 65,535 less the IP and UDP headers.
pub const MAX_PAYLOAD_BYTES: usize = 65_507;

/// What to ask of a receiving socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Receive buffer to ask for; see [`UdpReceiver::receive_buffer_bytes`] for what was granted.
    pub receive_buffer_bytes: usize,
    /// Let the kernel join datagrams where it can.
    pub gro: bool,
    /// Ask for the kernel's time of arrival.
    pub timestamps: bool,
    /// Let several sockets share the address, the kernel spreading senders over them.
    pub reuse_port: bool,
    /// IPv4 group to join, and the address of the interface to join it on (the system's choice if `None`).
    pub multicast: Option<(Ipv4Addr, Option<Ipv4Addr>)>,
    /// IPv6 group to join, and the index of the interface to join it on (0: the system's choice).
    pub multicast_v6: Option<(Ipv6Addr, u32)>,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            receive_buffer_bytes: 32 << 20,
            gro: true,
            timestamps: false,
            reuse_port: false,
            multicast: None,
            multicast_v6: None,
        }
    }
}

/// One datagram, or with GRO a run of datagrams from one sender, in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it starts in the buffer.
    pub offset: usize,
    /// How long it is; 0 for an empty datagram.
    pub bytes: usize,
    /// The size of each datagram in the run, of which the last may be shorter; equal to `bytes` if it is no run.
    pub segment_bytes: usize,
    /// Kernel time of arrival (of the first in a run) in ns since the UNIX epoch; 0 if not asked for or not known.
    pub received_ns: u64,
}

impl Datagram {
    /// The datagrams of the run, as ranges of the buffer.
    pub fn segments(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (start, end) = (self.offset, self.offset + self.bytes);
        let step = self.segment_bytes.max(1);
        (start..end.max(start + 1))
            .step_by(step)
            .map(move |from| from..(from + step).min(end))
    }
}

/// One message of [`UdpSender::send_messages`]: consecutive parts, sent as one datagram or cut into several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which of the parts given belong to it.
    pub parts: Range<usize>,
    /// 0: the parts together are one datagram. Otherwise they are datagrams of this size, the last may be shorter;
    /// at most [`max_segments`] of them.
    pub segment_bytes: usize,
}

/// How many datagrams of `segment_bytes` one message may carry: the kernel's limits of 64 segments and 64 KiB.
pub fn max_segments(segment_bytes: usize) -> usize {
    (MAX_PAYLOAD_BYTES / segment_bytes.max(1)).clamp(1, 64)
}

/// Cuts a message of the network path into ones that are right for the system, shared by the senders.
fn check_segment(segment_bytes: usize) -> io::Result<()> {
    if segment_bytes == 0 || segment_bytes > MAX_PAYLOAD_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "a datagram of {segment_bytes} bytes cannot be sent (1 to {MAX_PAYLOAD_BYTES} can)"
            ),
        ));
    }
    Ok(())
}

/// Any address and port of the family of `peer`, to bind a sender to.
fn any_address(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The error for a receive buffer too small for one datagram.
fn check_buffer(bytes: usize) -> io::Result<()> {
    if bytes < MAX_DATAGRAM_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "a receive buffer of {bytes} bytes is smaller than a datagram ({MAX_DATAGRAM_BYTES})"
            ),
        ));
    }
    Ok(())
}
