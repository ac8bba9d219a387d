//! Linux: one `recvmmsg` a batch, into slots of the caller's buffer.
//!
//! The size of a slot follows the largest datagram seen lately, because what a slot has over its datagram is ring
//! memory that holds nothing. A datagram longer than its slot continues in a spill area of this socket's own. It is
//! moved behind the others where the buffer has room, and kept for the next call where it has not: it is never
//! cut and never lost, and the slots grow at once, so that moving stays rare.
//!
//! Trap: what waits in the spill area must be delivered before the next `recvmmsg` writes there.

use std::{
    cell::Cell,
    io, mem,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

use super::{Datagram, MAX_DATAGRAM_BYTES, UdpOptions, check_buffer};
use crate::option::{buffer, option, set_buffer, set_option};

/// Datagrams a call asks for at most. At 64 the call's own cost is already a hundredth of the datagrams'.
const BATCH: usize = 128;
/// Slot sizes are multiples of this, so that slots start on cache lines.
const SLOT_STEP: usize = 128;
/// Calls after which the slots may shrink to what these calls saw.
const WINDOW: u32 = 64;
/// Control bytes a message may bring: drop count, time, GRO size, with room to spare.
const CONTROL_WORDS: usize = 16;

/// A socket that receives datagrams in batches.
pub struct UdpReceiver {
    socket: UdpSocket,
    gro: bool,
    timeout: Option<Duration>,
    slots: Slots,
    drops: Cell<Drops>,
    headers: Box<[libc::mmsghdr]>,
    parts: Box<[[libc::iovec; 2]]>,
    control: Box<[[u64; CONTROL_WORDS]]>,
    /// `BATCH` areas of `MAX_DATAGRAM_BYTES`; pages are touched only when something spills.
    spill: Vec<u8>,
    /// Spilled datagrams not yet delivered: the area and the rest as in `Datagram`, oldest first.
    kept: Vec<Datagram>,
    datagrams: Vec<Datagram>,
}

// SAFETY: the pointers in `headers` and `parts` are written anew before every call and not read after it.
unsafe impl Send for UdpReceiver {}

impl UdpReceiver {
    /// Opens a socket on `addr` (port 0: any free one).
    ///
    /// # Errors
    /// `AddrInUse` and whatever else the system says. A smaller buffer or no GRO is no error; see the accessors.
    pub fn bind(addr: SocketAddr, options: &UdpOptions) -> io::Result<Self> {
        let socket = open(addr)?;
        let multicast = options.multicast.is_some() || options.multicast_v6.is_some();
        if multicast {
            // Several receivers of a group on one machine are the rule.
            set_option(
                socket.as_fd(),
                libc::SOL_SOCKET,
                libc::SO_REUSEADDR,
                1 as libc::c_int,
            )?;
        }
        if options.reuse_port {
            set_option(
                socket.as_fd(),
                libc::SOL_SOCKET,
                libc::SO_REUSEPORT,
                1 as libc::c_int,
            )?;
        }
        // Before the bind, so that no datagram arrives under other settings.
        set_buffer(
            socket.as_fd(),
            libc::SO_RCVBUF,
            options.receive_buffer_bytes,
        )?;
        set_option(
            socket.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_RXQ_OVFL,
            1 as libc::c_int,
        )?;
        if options.timestamps {
            set_option(
                socket.as_fd(),
                libc::SOL_SOCKET,
                libc::SO_TIMESTAMPNS,
                1 as libc::c_int,
            )?;
        }
        // Refused before Linux 5.0.
        let gro = options.gro
            && set_option(
                socket.as_fd(),
                libc::SOL_UDP,
                libc::UDP_GRO,
                1 as libc::c_int,
            )
            .is_ok();
        bind(&socket, addr)?;
        let socket = UdpSocket::from(socket);
        if let Some((group, interface)) = &options.multicast {
            // Only groups this socket joined, not all that anyone on the machine did.
            set_option(
                socket.as_fd(),
                libc::IPPROTO_IP,
                libc::IP_MULTICAST_ALL,
                0 as libc::c_int,
            )?;
            socket
                .join_multicast_v4(group, &interface.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED))?;
        }
        if let Some((group, interface)) = &options.multicast_v6 {
            socket.join_multicast_v6(group, *interface)?;
        }
        Ok(Self {
            socket,
            gro,
            timeout: None,
            slots: Slots::new(gro),
            drops: Cell::new(Drops::default()),
            // SAFETY: all-zero is a valid header, pointing at nothing.
            headers: (0..BATCH).map(|_| unsafe { mem::zeroed() }).collect(),
            parts: (0..BATCH)
                .map(|_| {
                    [libc::iovec {
                        iov_base: ptr::null_mut(),
                        iov_len: 0,
                    }; 2]
                })
                .collect(),
            control: vec![[0; CONTROL_WORDS]; BATCH].into_boxed_slice(),
            spill: vec![0; BATCH * MAX_DATAGRAM_BYTES],
            kept: Vec::with_capacity(BATCH),
            datagrams: Vec::with_capacity(BATCH),
        })
    }

    /// The address bound to.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The receive buffer granted, in the unit in which it was asked for; 0 if the system does not tell.
    pub fn receive_buffer_bytes(&self) -> usize {
        buffer(self.socket.as_fd(), libc::SO_RCVBUF).unwrap_or(0)
    }

    /// Does the kernel join datagrams?
    pub fn gro(&self) -> bool {
        self.gro
    }

    /// Datagrams that the kernel dropped on this socket since it was opened, up to this moment.
    ///
    /// One system call. Every drop counts, also one after the last datagram received, which the counts that come
    /// with datagrams (`SO_RXQ_OVFL`) cannot show. A run that arrives joined (GRO) and is dropped counts as one: the
    /// kernel (seen up to 6.18) counts buffers, so that with a segmenting sender this is a lower bound of datagrams.
    pub fn kernel_drops(&self) -> u64 {
        /// Index of the drop count in the answer (`SK_MEMINFO_DROPS`, linux/sock_diag.h).
        const MEMINFO_DROPS: usize = 8;
        let mut drops = self.drops.get();
        // Unknown before Linux 4.12: the counts received with datagrams remain.
        if let Ok(info) = option::<9, u32>(self.socket.as_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO)
        {
            drops.see(info[MEMINFO_DROPS]);
            self.drops.set(drops);
        }
        drops.total
    }

    /// Receives what is there, waiting up to `timeout` for the first datagram; empty on timeout or a signal.
    ///
    /// The datagrams lie in `buf`, mostly in consecutive slots, with gaps between them; `buf` must have at least
    /// [`MAX_DATAGRAM_BYTES`]. A zero timeout does not wait.
    ///
    /// # Errors
    /// `InvalidInput` if `buf` is too small; otherwise what the socket says.
    pub fn receive(&mut self, buf: &mut [u8], timeout: Duration) -> io::Result<&[Datagram]> {
        check_buffer(buf.len())?;
        self.datagrams.clear();
        if !self.kept.is_empty() {
            self.deliver_kept(buf, 0);
            return Ok(&self.datagrams);
        }
        let slot = self.slots.bytes;
        let wanted = (buf.len() / slot).min(BATCH);
        self.point_at(buf, slot, wanted);
        let count = self.call(wanted, timeout)?;
        let mut largest = 0;
        for index in 0..count {
            let datagram = self.read_header(index, slot);
            largest = largest.max(datagram.bytes);
            if datagram.bytes <= slot {
                self.datagrams.push(datagram);
            } else {
                // Make it whole in its spill area, from where it goes behind the others.
                let area = index * MAX_DATAGRAM_BYTES;
                let from = index * slot;
                if let (Some(to), Some(from)) = (
                    self.spill.get_mut(area..area + slot),
                    buf.get(from..from + slot),
                ) {
                    to.copy_from_slice(from);
                }
                self.kept.push(Datagram {
                    offset: area,
                    ..datagram
                });
            }
        }
        if !self.kept.is_empty() {
            self.deliver_kept(buf, (count * slot).next_multiple_of(SLOT_STEP));
        }
        if count > 0 {
            self.slots.saw(largest);
        }
        Ok(&self.datagrams)
    }

    /// Moves kept datagrams into `buf` from `offset` on, as many as fit.
    fn deliver_kept(&mut self, buf: &mut [u8], mut offset: usize) {
        let mut delivered = 0;
        for kept in &self.kept {
            let Some(to) = buf.get_mut(offset..offset + kept.bytes) else {
                break;
            };
            let Some(from) = self.spill.get(kept.offset..kept.offset + kept.bytes) else {
                break;
            };
            to.copy_from_slice(from);
            self.datagrams.push(Datagram { offset, ..*kept });
            offset = (offset + kept.bytes).next_multiple_of(SLOT_STEP);
            delivered += 1;
        }
        self.kept.drain(..delivered);
    }

    /// Points the first `wanted` headers at the slots of `buf`.
    fn point_at(&mut self, buf: &mut [u8], slot: usize, wanted: usize) {
        debug_assert!(wanted * slot <= buf.len());
        let base = buf.as_mut_ptr();
        let spill = self.spill.as_mut_ptr();
        let all = self
            .headers
            .iter_mut()
            .zip(&mut self.parts)
            .zip(&mut self.control)
            .take(wanted);
        for (index, ((header, parts), control)) in all.enumerate() {
            // SAFETY: `wanted` slots fit `buf`, and `index < BATCH` areas fit `spill`, each split at `slot`.
            *parts = unsafe {
                [
                    libc::iovec {
                        iov_base: base.add(index * slot).cast(),
                        iov_len: slot,
                    },
                    libc::iovec {
                        iov_base: spill.add(index * MAX_DATAGRAM_BYTES + slot).cast(),
                        iov_len: MAX_DATAGRAM_BYTES - slot,
                    },
                ]
            };
            header.msg_len = 0;
            header.msg_hdr.msg_iov = parts.as_mut_ptr();
            header.msg_hdr.msg_iovlen = if slot < MAX_DATAGRAM_BYTES { 2 } else { 1 };
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = mem::size_of_val(control) as _;
            header.msg_hdr.msg_flags = 0;
        }
    }

    /// The system call: how many headers it filled.
    fn call(&mut self, wanted: usize, timeout: Duration) -> io::Result<usize> {
        let flags = if timeout.is_zero() {
            libc::MSG_DONTWAIT
        } else {
            // One call does all: it sleeps for the first datagram (up to SO_RCVTIMEO) and takes the rest as it is.
            let timeout = timeout.max(Duration::from_micros(1));
            if self.timeout != Some(timeout) {
                self.socket.set_read_timeout(Some(timeout))?;
                self.timeout = Some(timeout);
            }
            libc::MSG_WAITFORONE
        };
        let wanted = libc::c_uint::try_from(wanted).unwrap_or(0);
        // SAFETY: `wanted` headers point at memory that is ours or the caller's for the length of the call
        // (`point_at`), each at its own slot, area and control buffer.
        let count = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                wanted,
                flags as _,
                ptr::null_mut(),
            )
        };
        if let Ok(count) = usize::try_from(count) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
            _ => Err(error),
        }
    }

    /// What header `index` says after the call.
    fn read_header(&self, index: usize, slot: usize) -> Datagram {
        let mut datagram = Datagram {
            offset: index * slot,
            bytes: 0,
            segment_bytes: 0,
            received_ns: 0,
        };
        let Some(message) = self.headers.get(index) else {
            return datagram;
        };
        datagram.bytes = message.msg_len as usize;
        datagram.segment_bytes = datagram.bytes;
        let header = &message.msg_hdr;
        if header.msg_controllen == 0 {
            return datagram;
        }
        // SAFETY: the kernel filled `msg_controllen` bytes of this message's control buffer, which still lives.
        let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
        // SAFETY: null or a whole control header inside that buffer, by the macro's contract.
        while let Some(found) = unsafe { control.as_ref() } {
            // SAFETY: the data follows its header.
            let data = unsafe { libc::CMSG_DATA(control) };
            match (found.cmsg_level, found.cmsg_type) {
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    // SAFETY: this kind carries a u32, not necessarily aligned.
                    let count = unsafe { data.cast::<u32>().read_unaligned() };
                    let mut drops = self.drops.get();
                    drops.see(count);
                    self.drops.set(drops);
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    // SAFETY: this kind carries a timespec.
                    let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
                    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
                    datagram.received_ns =
                        seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    // SAFETY: this kind carries an int.
                    let segment = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                    if let Ok(segment @ 1..) = usize::try_from(segment) {
                        datagram.segment_bytes = segment.min(datagram.bytes);
                    }
                }
                _ => {}
            }
            // SAFETY: both belong to the message just read.
            control = unsafe { libc::CMSG_NXTHDR(header, control) };
        }
        datagram
    }
}

impl std::fmt::Debug for UdpReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpReceiver")
            .field("socket", &self.socket)
            .field("gro", &self.gro)
            .finish_non_exhaustive()
    }
}

/// The size of a slot, and what decides about the next.
#[derive(Debug)]
struct Slots {
    bytes: usize,
    largest: usize,
    calls: u32,
    window: u32,
}

impl Slots {
    fn new(gro: bool) -> Self {
        // Without GRO the first datagrams tell the size. With it they tell nothing: runs grow with the load.
        Self {
            bytes: MAX_DATAGRAM_BYTES,
            largest: 0,
            calls: 0,
            window: if gro { WINDOW } else { 1 },
        }
    }

    fn saw(&mut self, bytes: usize) {
        let fit = |bytes: usize| {
            bytes
                .next_multiple_of(SLOT_STEP)
                .clamp(SLOT_STEP, MAX_DATAGRAM_BYTES)
        };
        self.largest = self.largest.max(bytes);
        self.calls += 1;
        if bytes > self.bytes {
            self.bytes = fit(bytes);
        } else if self.calls >= self.window {
            self.bytes = fit(self.largest);
        } else {
            return;
        }
        self.largest = 0;
        self.calls = 0;
        self.window = (self.window * 2).min(WINDOW);
    }
}

/// The kernel's 32-bit drop count, extended. Counts that travel with datagrams are older than ones asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Drops {
    total: u64,
    last: u32,
}

impl Drops {
    fn see(&mut self, count: u32) {
        let step = count.wrapping_sub(self.last);
        // More than half the range ahead is behind.
        if step <= u32::MAX / 2 {
            self.total += u64::from(step);
            self.last = count;
        }
    }
}

/// A socket of the family of `addr`.
fn open(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: no memory is passed.
    let descriptor = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn bind(socket: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    match addr {
        SocketAddr::V4(addr) => bind_raw(
            socket,
            &libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*addr.ip()).to_be(),
                },
                sin_zero: [0; 8],
            },
        ),
        SocketAddr::V6(addr) => bind_raw(
            socket,
            &libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: addr.ip().octets(),
                },
                sin6_scope_id: addr.scope_id(),
            },
        ),
    }
}

/// The constants of address families are ints, the field is shorter.
fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or(0)
}

fn bind_raw<T>(socket: &OwnedFd, addr: &T) -> io::Result<()> {
    let bytes =
        libc::socklen_t::try_from(mem::size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `bytes` bytes of `addr`.
    let result = unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(addr).cast(), bytes) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_counts_extend_over_wraps_and_ignore_older_ones() {
        let mut drops = Drops::default();
        for count in [5, 3, 5, u32::MAX / 2, u32::MAX - 1, u32::MAX - 5, 3] {
            drops.see(count);
        }
        assert_eq!(drops.total, (1 << 32) + 3);
    }

    #[test]
    fn slots_grow_at_once_and_shrink_after_a_window() {
        let mut slots = Slots::new(false);
        slots.saw(1440);
        assert_eq!(slots.bytes, 1536);
        slots.saw(9000);
        assert_eq!(slots.bytes, 9088);
        for _ in 0..WINDOW {
            slots.saw(100);
        }
        assert_eq!(slots.bytes, 128);
        let mut slots = Slots::new(true);
        slots.saw(100);
        assert_eq!(slots.bytes, MAX_DATAGRAM_BYTES);
    }
}
