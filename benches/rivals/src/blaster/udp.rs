//! UDP: sendmmsg, or one call per run of datagrams that the kernel cuts (GSO).

use super::{Plan, Sent};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use tapeline_rivals::frame::{HEADER_BYTES, Random, patch_sequence, push_frame};
use tapeline_rivals::socket::set_option;

/// Largest UDP payload over IPv4.
const MAX_DATAGRAM: usize = 65_507;
/// Segments that the kernel takes in one GSO send (UDP_MAX_SEGMENTS was 64 up to Linux 6.8).
const MAX_SEGMENTS: usize = 64;
/// Before each frame of the tail: time for the slowest receiver to empty its socket buffer.
const TAIL_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of frames kept for sending: they stay in the cache.
const CYCLE_BYTES: usize = 512 << 10;

/// Sends one frame per datagram, at the rate of the plan.
pub fn send(address: &str, plan: &Plan) -> io::Result<Sent> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(address)?;
    set_option(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_SNDBUFFORCE,
        plan.send_buffer,
    )
    .or_else(|_| set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, plan.send_buffer))?;
    // Sleeps end when they should, not 50 us later.
    // SAFETY: PR_SET_TIMERSLACK takes a number and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1u64) };
    let frame_bytes = HEADER_BYTES + plan.payload_bytes;
    let per_message = if plan.gso {
        (MAX_DATAGRAM / frame_bytes).clamp(1, MAX_SEGMENTS)
    } else {
        1
    };
    if plan.gso {
        set_option(
            &socket,
            libc::IPPROTO_UDP,
            libc::UDP_SEGMENT,
            frame_bytes as i32,
        )?;
    }
    let mut batch = Batch::new(
        (CYCLE_BYTES / frame_bytes / per_message).max(1),
        per_message,
        frame_bytes,
    );
    let started = Instant::now();
    let mut frames = 0;
    while frames < plan.frames && started.elapsed().as_secs_f64() < plan.seconds {
        let ahead = frames as f64 / plan.frames_per_second - started.elapsed().as_secs_f64();
        if ahead > 0.0 {
            std::thread::sleep(Duration::from_secs_f64(ahead));
        }
        frames += batch.send(&socket, frames, plan.frames - frames)?;
    }
    for _ in 0..plan.tail {
        std::thread::sleep(TAIL_PAUSE);
        frames += batch.send(&socket, frames, 1)?;
    }
    Ok(Sent {
        frames,
        bytes: frames * frame_bytes as u64,
    })
}

/// Frames in one piece, and message headers that point to runs of them.
struct Batch {
    bytes: Vec<u8>,
    frame_bytes: usize,
    per_message: usize,
    vectors: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

impl Batch {
    fn new(messages: usize, per_message: usize, frame_bytes: usize) -> Self {
        let mut random = Random::new(2);
        let mut bytes = Vec::with_capacity(messages * per_message * frame_bytes);
        for number in 0..(messages * per_message) as u64 {
            push_frame(
                &mut bytes,
                number,
                0,
                &random.bytes(frame_bytes - HEADER_BYTES),
            );
        }
        let mut vectors: Vec<libc::iovec> = bytes
            .chunks_mut(per_message * frame_bytes)
            .map(|run| libc::iovec {
                iov_base: run.as_mut_ptr().cast(),
                iov_len: run.len(),
            })
            .collect();
        let messages = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: an mmsghdr of zeros is a valid value: null pointers and lengths of 0.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self {
            bytes,
            frame_bytes,
            per_message,
            vectors,
            messages,
        }
    }

    /// Sends one batch, at most `limit` frames; returns how many.
    fn send(&mut self, socket: &UdpSocket, sequence: u64, limit: u64) -> io::Result<u64> {
        let frames = (limit as usize).min(self.messages.len() * self.per_message);
        for (frame, sequence) in self
            .bytes
            .chunks_exact_mut(self.frame_bytes)
            .take(frames)
            .zip(sequence..)
        {
            patch_sequence(frame, sequence);
        }
        let messages = frames.div_ceil(self.per_message);
        let full = self.per_message * self.frame_bytes;
        for vector in &mut self.vectors[..messages] {
            vector.iov_len = full;
        }
        self.vectors[messages - 1].iov_len = frames * self.frame_bytes - (messages - 1) * full;
        let mut done = 0;
        while done < messages {
            // SAFETY: the headers point to `vectors`, those to `bytes`; both live in `self` and are not resized.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.messages.as_mut_ptr().add(done),
                    (messages - done) as u32,
                    0,
                )
            };
            match sent {
                -1 => {
                    let error = io::Error::last_os_error();
                    if !matches!(
                        error.raw_os_error(),
                        Some(libc::EINTR | libc::ENOBUFS | libc::EAGAIN)
                    ) {
                        return Err(error);
                    }
                }
                sent => done += sent as usize,
            }
        }
        Ok(frames as u64)
    }
}
