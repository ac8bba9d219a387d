//! Linux: many datagrams a call by `sendmmsg`, and many a message by segmentation offload.

use std::{
    io::{self, IoSlice},
    mem,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use super::{Message, any_address, check_segment, max_segments};
use crate::option::{set_buffer, set_option};

/// Messages a call takes at most (`UIO_MAXIOV`, the kernel's limit, is 1,024; past 64 nothing is gained).
const BATCH: usize = 64;
/// Parts a message may have (`UIO_MAXIOV`).
const MOST_PARTS: usize = 1024;
/// Refusals in a row after which the peer counts as not there.
const MOST_REFUSALS: u32 = 1000;

/// A connected socket that sends datagrams in batches.
pub struct UdpSender {
    socket: UdpSocket,
    headers: Box<[libc::mmsghdr]>,
    /// One control message each: the segment size.
    control: Box<[[u64; 4]]>,
    gso: bool,
    refused: u64,
}

// SAFETY: the pointers in `headers` are written anew before every call and not read after it.
unsafe impl Send for UdpSender {}

impl UdpSender {
    /// Opens a socket that sends to `peer`, asking for a send buffer of `send_buffer_bytes` (0: the system's default).
    ///
    /// # Errors
    /// What the system says. UDP does not know whether anyone listens.
    pub fn connect(peer: SocketAddr, send_buffer_bytes: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind(any_address(peer))?;
        if send_buffer_bytes > 0 {
            set_buffer(socket.as_fd(), libc::SO_SNDBUF, send_buffer_bytes)?;
        }
        socket.connect(peer)?;
        // Known since Linux 4.18; setting the default of 0 only asks whether it is.
        let gso = set_option(
            socket.as_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            0 as libc::c_int,
        )
        .is_ok();
        Ok(Self {
            socket,
            // SAFETY: all-zero is a valid header, pointing at nothing.
            headers: (0..BATCH).map(|_| unsafe { mem::zeroed() }).collect(),
            control: vec![[0; 4]; BATCH].into_boxed_slice(),
            gso,
            refused: 0,
        })
    }

    /// The address sent from.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Does the kernel cut messages into datagrams? Without it the same datagrams are sent one by one.
    pub fn gso(&self) -> bool {
        self.gso
    }

    /// How often the peer's machine said that nobody listens. Such datagrams are lost, as UDP's are.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Sends every slice as one datagram.
    ///
    /// # Errors
    /// What the system says; those before the one that failed are sent.
    pub fn send_batch(&mut self, datagrams: &[&[u8]]) -> io::Result<()> {
        for datagrams in datagrams.chunks(BATCH) {
            let mut parts = [IoSlice::new(&[]); BATCH];
            for (part, datagram) in parts.iter_mut().zip(datagrams) {
                *part = IoSlice::new(datagram);
            }
            self.send_runs(&parts, datagrams.len(), |index| (index..index + 1, 0))?;
        }
        Ok(())
    }

    /// Sends `bytes` as datagrams of `segment_bytes`, the last one shorter if they do not divide.
    ///
    /// # Errors
    /// `InvalidInput` if no datagram can have that size; otherwise what the system says.
    pub fn send_gso(&mut self, bytes: &[u8], segment_bytes: usize) -> io::Result<()> {
        check_segment(segment_bytes)?;
        if !self.gso {
            let datagrams: Vec<&[u8]> = bytes.chunks(segment_bytes).collect();
            return self.send_batch(&datagrams);
        }
        let message_bytes = segment_bytes * max_segments(segment_bytes);
        for bytes in bytes.chunks(message_bytes * BATCH) {
            let mut parts = [IoSlice::new(&[]); BATCH];
            let mut count = 0;
            for (part, message) in parts.iter_mut().zip(bytes.chunks(message_bytes)) {
                *part = IoSlice::new(message);
                count += 1;
            }
            self.send_runs(&parts, count, |index| (index..index + 1, segment_bytes))?;
        }
        Ok(())
    }

    /// Sends messages made of consecutive `parts` each, without copying them together.
    ///
    /// # Errors
    /// `InvalidInput` for parts that are not there, too many or too long; otherwise what the system says.
    pub fn send_messages(&mut self, parts: &[IoSlice<'_>], messages: &[Message]) -> io::Result<()> {
        for message in messages {
            let count = message.parts.len();
            if count > MOST_PARTS || message.parts.end > parts.len() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("a message of {count} parts"),
                ));
            }
            if message.segment_bytes > 0 {
                check_segment(message.segment_bytes)?;
                if !self.gso {
                    // The plain path, for old kernels: joined, then cut.
                    let joined: Vec<u8> = parts
                        .get(message.parts.clone())
                        .unwrap_or_default()
                        .iter()
                        .flat_map(|part| &**part)
                        .copied()
                        .collect();
                    self.send_gso(&joined, message.segment_bytes)?;
                }
            }
        }
        if !self.gso {
            for message in messages.iter().filter(|message| message.segment_bytes == 0) {
                self.send_runs(parts, 1, |_| (message.parts.clone(), 0))?;
            }
            return Ok(());
        }
        for messages in messages.chunks(BATCH) {
            self.send_runs(parts, messages.len(), |index| {
                messages.get(index).map_or((0..0, 0), |message| {
                    (message.parts.clone(), message.segment_bytes)
                })
            })?;
        }
        Ok(())
    }

    /// Sends `count <= BATCH` messages, of which `message(i)` tells the parts (checked) and the segment size or 0.
    fn send_runs(
        &mut self,
        parts: &[IoSlice<'_>],
        count: usize,
        message: impl Fn(usize) -> (std::ops::Range<usize>, usize),
    ) -> io::Result<()> {
        for (index, (header, control)) in self
            .headers
            .iter_mut()
            .zip(&mut self.control)
            .take(count)
            .enumerate()
        {
            let (range, segment_bytes) = message(index);
            let parts = parts.get(range).unwrap_or_default();
            header.msg_len = 0;
            // An `IoSlice` is an `iovec` on Unix (its documentation), and sending does not write through it.
            header.msg_hdr.msg_iov = parts.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_iovlen = parts.len() as _;
            header.msg_hdr.msg_control = ptr::null_mut();
            header.msg_hdr.msg_controllen = 0;
            if let Ok(segment @ 1..) = u16::try_from(segment_bytes) {
                /// Bytes of the u16 that the message carries.
                const BYTES: libc::c_uint = 2;
                // SAFETY: these compute sizes only.
                let (space, len) = unsafe { (libc::CMSG_SPACE(BYTES), libc::CMSG_LEN(BYTES)) };
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = space as _;
                // SAFETY: the control buffer is aligned and has the room for one header and a u16 (24 of 32 bytes).
                unsafe {
                    let first = libc::CMSG_FIRSTHDR(&raw const header.msg_hdr);
                    (*first).cmsg_level = libc::SOL_UDP;
                    (*first).cmsg_type = libc::UDP_SEGMENT;
                    (*first).cmsg_len = len as _;
                    libc::CMSG_DATA(first)
                        .cast::<u16>()
                        .write_unaligned(segment);
                }
            }
        }
        let mut sent = 0;
        let mut refusals = 0;
        while sent < count {
            let left = libc::c_uint::try_from(count - sent).unwrap_or(0);
            // SAFETY: `count` headers were filled above with parts and control that live through the call.
            let result = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    self.headers.as_mut_ptr().add(sent),
                    left,
                    0,
                )
            };
            if let Ok(more @ 1..) = usize::try_from(result) {
                sent += more;
                refusals = 0;
                continue;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                // The news is of a datagram sent before; this one was not sent.
                io::ErrorKind::ConnectionRefused if refusals < MOST_REFUSALS => {
                    self.refused += 1;
                    refusals += 1;
                }
                _ => return Err(error),
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for UdpSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpSender")
            .field("socket", &self.socket)
            .field("gso", &self.gso)
            .finish_non_exhaustive()
    }
}
