//! Everywhere else: the standard library's sockets, one datagram a call.

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::{
    Datagram, MAX_DATAGRAM_BYTES, Message, UdpOptions, any_address, check_buffer, check_segment,
};

/// A socket that receives datagrams.
#[derive(Debug)]
pub struct UdpReceiver {
    socket: UdpSocket,
    timeout: Option<Duration>,
    datagrams: Vec<Datagram>,
}

impl UdpReceiver {
    /// Opens a socket on `addr` (port 0: any free one). Buffer, GRO, times and port sharing are not to be had here.
    ///
    /// # Errors
    /// `AddrInUse` and whatever else the system says.
    pub fn bind(addr: SocketAddr, options: &UdpOptions) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr)?;
        #[cfg(unix)]
        {
            use std::os::fd::AsFd;
            crate::option::set_buffer(
                socket.as_fd(),
                libc::SO_RCVBUF,
                options.receive_buffer_bytes,
            )?;
        }
        if let Some((group, interface)) = &options.multicast {
            socket.join_multicast_v4(group, &interface.unwrap_or(Ipv4Addr::UNSPECIFIED))?;
        }
        if let Some((group, interface)) = &options.multicast_v6 {
            socket.join_multicast_v6(group, *interface)?;
        }
        Ok(Self {
            socket,
            timeout: None,
            datagrams: Vec::with_capacity(64),
        })
    }

    /// The address bound to.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The receive buffer granted; 0 if the system does not tell.
    pub fn receive_buffer_bytes(&self) -> usize {
        #[cfg(unix)]
        {
            use std::os::fd::AsFd;
            crate::option::buffer(self.socket.as_fd(), libc::SO_RCVBUF).unwrap_or(0)
        }
        #[cfg(not(unix))]
        0
    }

    /// Does the kernel join datagrams? Not here.
    pub fn gro(&self) -> bool {
        false
    }

    /// Datagrams that the kernel dropped; not told here, hence 0.
    pub fn kernel_drops(&self) -> u64 {
        0
    }

    /// Receives what is there, waiting up to `timeout` for the first datagram; empty on timeout.
    ///
    /// # Errors
    /// `InvalidInput` if `buf` is smaller than [`MAX_DATAGRAM_BYTES`]; otherwise what the socket says.
    pub fn receive(&mut self, buf: &mut [u8], timeout: Duration) -> io::Result<&[Datagram]> {
        check_buffer(buf.len())?;
        self.datagrams.clear();
        let mut offset = 0;
        let mut timeout = timeout.max(Duration::from_micros(1));
        while self.datagrams.len() < self.datagrams.capacity() {
            let Some(room) = buf
                .get_mut(offset..)
                .filter(|room| room.len() >= MAX_DATAGRAM_BYTES)
            else {
                break;
            };
            if self.timeout != Some(timeout) {
                self.socket.set_read_timeout(Some(timeout))?;
                self.timeout = Some(timeout);
            }
            match self.socket.recv(room) {
                Ok(bytes) => {
                    self.datagrams.push(Datagram {
                        offset,
                        bytes,
                        segment_bytes: bytes,
                        received_ns: 0,
                    });
                    offset += bytes.next_multiple_of(64);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) =>
                {
                    break;
                }
                Err(error) if self.datagrams.is_empty() => return Err(error),
                Err(_) => break,
            }
            timeout = Duration::from_micros(1);
        }
        Ok(&self.datagrams)
    }
}

/// A connected socket that sends datagrams.
#[derive(Debug)]
pub struct UdpSender {
    socket: UdpSocket,
    joined: Vec<u8>,
    refused: u64,
}

impl UdpSender {
    /// Opens a socket that sends to `peer`; the size of the send buffer is the system's choice here.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(peer: SocketAddr, _send_buffer_bytes: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind(any_address(peer))?;
        socket.connect(peer)?;
        Ok(Self {
            socket,
            joined: Vec::new(),
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

    /// Does the kernel cut messages into datagrams? Not here.
    pub fn gso(&self) -> bool {
        false
    }

    /// How often the peer's machine said that nobody listens.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Sends every slice as one datagram.
    ///
    /// # Errors
    /// What the system says; those before the one that failed are sent.
    pub fn send_batch(&mut self, datagrams: &[&[u8]]) -> io::Result<()> {
        for datagram in datagrams {
            loop {
                match self.socket.send(datagram) {
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        self.refused += 1;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Sends `bytes` as datagrams of `segment_bytes`, the last one shorter if they do not divide.
    ///
    /// # Errors
    /// `InvalidInput` if no datagram can have that size; otherwise what the system says.
    pub fn send_gso(&mut self, bytes: &[u8], segment_bytes: usize) -> io::Result<()> {
        check_segment(segment_bytes)?;
        bytes
            .chunks(segment_bytes)
            .try_for_each(|datagram| self.send_batch(&[datagram]))
    }

    /// Sends messages made of consecutive `parts` each.
    ///
    /// # Errors
    /// `InvalidInput` for parts that are not there or too long; otherwise what the system says.
    pub fn send_messages(&mut self, parts: &[IoSlice<'_>], messages: &[Message]) -> io::Result<()> {
        for message in messages {
            let parts = parts
                .get(message.parts.clone())
                .ok_or(io::ErrorKind::InvalidInput)?;
            let mut joined = std::mem::take(&mut self.joined);
            joined.clear();
            parts.iter().for_each(|part| joined.extend_from_slice(part));
            let segment_bytes = if message.segment_bytes == 0 {
                joined.len().max(1)
            } else {
                message.segment_bytes
            };
            let sent = self.send_gso(&joined, segment_bytes);
            self.joined = joined;
            sent?;
        }
        Ok(())
    }
}
