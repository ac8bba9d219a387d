//! TCP: a file with sendfile, or an endless stream from a cyclic buffer.

use super::{Plan, Sent};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use tapeline_rivals::frame::{HEADER_BYTES, Random, patch_sequence, push_frame};
use tapeline_rivals::socket::set_option;

/// Bytes of one write: about as much as stays in the second-level cache.
const WRITE_BYTES: usize = 512 << 10;

/// Sends one whole stream and waits until the receiver has closed its side.
pub fn send(address: &str, plan: &Plan) -> io::Result<Sent> {
    let mut socket = TcpStream::connect(address)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, plan.send_buffer)?;
    let sent = match &plan.file {
        Some(path) => send_file(&socket, path, plan)?,
        None => send_cycle(&mut socket, plan)?,
    };
    socket.shutdown(Shutdown::Write)?;
    // The receiver closes when it has read everything.
    let _ = socket.read(&mut [0; 1]);
    Ok(sent)
}

fn send_file(socket: &TcpStream, path: &str, plan: &Plan) -> io::Result<Sent> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = 0;
    while bytes < length {
        // SAFETY: both descriptors are open; without an offset the file's own is used and moved on.
        let sent = unsafe {
            libc::sendfile(
                socket.as_raw_fd(),
                file.as_raw_fd(),
                std::ptr::null_mut(),
                (length - bytes) as usize,
            )
        };
        match sent {
            -1 => return Err(io::Error::last_os_error()),
            0 => break,
            sent => bytes += sent as u64,
        }
    }
    Ok(Sent {
        frames: bytes / (HEADER_BYTES + plan.payload_bytes) as u64,
        bytes,
    })
}

fn send_cycle(socket: &mut TcpStream, plan: &Plan) -> io::Result<Sent> {
    let frame_bytes = HEADER_BYTES + plan.payload_bytes;
    let count = (WRITE_BYTES / frame_bytes).max(1);
    let mut random = Random::new(1);
    let mut buffer = Vec::with_capacity(count * frame_bytes);
    for number in 0..count as u64 {
        push_frame(&mut buffer, number, 0, &random.bytes(plan.payload_bytes));
    }
    let started = Instant::now();
    let mut frames = 0;
    while frames < plan.frames && started.elapsed().as_secs_f64() < plan.seconds {
        let now = (count as u64).min(plan.frames - frames);
        let part = &mut buffer[..now as usize * frame_bytes];
        for (frame, sequence) in part.chunks_exact_mut(frame_bytes).zip(frames..) {
            patch_sequence(frame, sequence);
        }
        socket.write_all(part)?;
        frames += now;
        let due = Duration::from_secs_f64((frames as f64 / plan.frames_per_second).min(1e6));
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    Ok(Sent {
        frames,
        bytes: frames * frame_bytes as u64,
    })
}
