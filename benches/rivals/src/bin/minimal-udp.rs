//! The least that a UDP recorder must do: recvmmsg, count, discard. With `--gro`, runs of datagrams in one piece.
//!
//! It checks nothing and writes nothing, so its loss-free rate is what the kernel's receive path can give.
//! It ends when no datagram has come for `--idle-ms` after the first.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use tapeline_rivals::args::Args;
use tapeline_rivals::clock::{cpu_seconds, realtime_ns};
use tapeline_rivals::socket::{receive_buffer, set_option};

/// Datagrams (runs of datagrams with GRO) asked for in one call.
const BATCH: usize = 64;
/// Largest UDP datagram, and largest run that GRO makes.
const SLOT_BYTES: usize = 65_536;
/// Room for the two control messages: drops and segment size.
const CONTROL_BYTES: usize = 128;

/// What came in.
#[derive(Default)]
struct Account {
    datagrams: u64,
    bytes: u64,
    calls: u64,
    drops: u32,
}

/// Control data, aligned as the kernel's `cmsghdr` wants it.
#[repr(align(16))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

fn main() {
    let args = Args::parse(&["listen", "receive-buffer", "gro", "idle-ms"]);
    let socket = UdpSocket::bind(args.text("listen").unwrap_or("127.0.0.1:0")).expect("bind");
    let granted =
        receive_buffer(&socket, args.value("receive-buffer", 32 << 20)).expect("SO_RCVBUF");
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1).expect("SO_RXQ_OVFL");
    if args.is_set("gro") {
        set_option(&socket, libc::IPPROTO_UDP, libc::UDP_GRO, 1).expect("UDP_GRO");
    }
    println!(
        "{{\"listening\": \"{}\", \"receive_buffer\": {granted}}}",
        socket.local_addr().expect("local address")
    );
    let mut receiver = Receiver::new();
    receiver.wait(&socket, -1).expect("poll");
    let (cpu_before, started_ns) = (cpu_seconds(), realtime_ns());
    let mut account = Account::default();
    let mut last_ns = started_ns;
    while receiver
        .wait(&socket, args.value("idle-ms", 300))
        .expect("poll")
    {
        while receiver.receive(&socket, &mut account).expect("recvmmsg") {}
        last_ns = realtime_ns();
    }
    account.drops = drops(&socket).unwrap_or(account.drops);
    let seconds = (last_ns - started_ns) as f64 * 1e-9;
    println!(
        "{{\"datagrams\": {}, \"bytes\": {}, \"kernel_drops\": {}, \"calls\": {}, \"seconds\": {seconds:.6}, \
         \"cpu_seconds\": {:.6}, \"started_ns\": {started_ns}, \"ended_ns\": {last_ns}}}",
        account.datagrams,
        account.bytes,
        account.drops,
        account.calls,
        cpu_seconds() - cpu_before,
    );
}

/// Datagrams that the kernel dropped up to now, also those after the last that was received.
fn drops(socket: &UdpSocket) -> io::Result<u32> {
    /// Index of the drop count in the answer (`SK_MEMINFO_DROPS`, linux/sock_diag.h).
    const DROPS: usize = 8;
    let mut info = [0u32; DROPS + 1];
    let mut length = std::mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: the pointers describe `info` and `length`, which outlive the call.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if status == 0 {
        Ok(info[DROPS])
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The arrays that recvmmsg fills.
struct Receiver {
    messages: Vec<libc::mmsghdr>,
    // The headers point into these three; they are never moved or resized.
    _vectors: Vec<libc::iovec>,
    _slots: Vec<u8>,
    _controls: Vec<Control>,
}

impl Receiver {
    fn new() -> Self {
        let mut slots = vec![0u8; BATCH * SLOT_BYTES];
        let mut controls = vec![Control([0; CONTROL_BYTES]); BATCH];
        let mut vectors: Vec<libc::iovec> = slots
            .chunks_mut(SLOT_BYTES)
            .map(|slot| libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            })
            .collect();
        let messages = vectors
            .iter_mut()
            .zip(&mut controls)
            .map(|(vector, control)| {
                // SAFETY: an mmsghdr of zeros is a valid value: null pointers and lengths of 0.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                message
            })
            .collect();
        Self {
            messages,
            _vectors: vectors,
            _slots: slots,
            _controls: controls,
        }
    }

    /// Waits for a datagram; false when the time is over.
    fn wait(&self, socket: &UdpSocket, timeout_ms: i32) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, which outlives the call.
        match unsafe { libc::poll(&raw mut poll, 1, timeout_ms) } {
            -1 => Err(io::Error::last_os_error()),
            ready => Ok(ready > 0),
        }
    }

    /// Takes what is there; false when nothing is.
    fn receive(&mut self, socket: &UdpSocket, account: &mut Account) -> io::Result<bool> {
        for message in &mut self.messages {
            message.msg_hdr.msg_controllen = CONTROL_BYTES;
        }
        // SAFETY: every header points to an iovec, a slot and control data that live as long as `self`.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock {
                Ok(false)
            } else {
                Err(error)
            };
        }
        account.calls += 1;
        for message in &self.messages[..received as usize] {
            let bytes = message.msg_len as usize;
            account.bytes += bytes as u64;
            account.datagrams +=
                bytes.div_ceil(segment_bytes(message, account).unwrap_or(bytes).max(1)) as u64;
        }
        Ok(true)
    }
}

/// Reads the control messages: keeps the drop count, returns the segment size of a GRO run.
fn segment_bytes(message: &libc::mmsghdr, account: &mut Account) -> Option<usize> {
    let mut segment = None;
    // SAFETY: the kernel has filled msg_control and msg_controllen; CMSG_NXTHDR stays inside them.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(&raw const message.msg_hdr);
        while !control.is_null() {
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    account.drops = libc::CMSG_DATA(control).cast::<u32>().read_unaligned();
                }
                (libc::IPPROTO_UDP, libc::UDP_GRO) => {
                    segment =
                        usize::try_from(libc::CMSG_DATA(control).cast::<i32>().read_unaligned())
                            .ok();
                }
                _ => {}
            }
            control = libc::CMSG_NXTHDR(&raw const message.msg_hdr, control);
        }
    }
    segment
}
