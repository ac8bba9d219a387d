//! A client that asks for registers and measures how long the answer takes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{HEADER_BYTES, LEAST_LENGTH, QUERY, RACK, push};

/// Registers asked for at once.
const ASKED: u16 = 8;

/// Asks about source 0 every `interval` until told to stop; the times of all round trips.
///
/// # Errors
/// As the operating system gave them, or an answer that is none.
pub fn ask(address: &str, interval: Duration, stop: &AtomicBool) -> io::Result<Vec<Duration>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut times, mut packet, mut answer) = (Vec::new(), Vec::new(), vec![0; 1 << 16]);
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        packet.clear();
        let seq = (times.len() % 256) as u8;
        let asked = (0..ASKED).map(|offset| (offset, 0));
        push(&mut packet, 0, [0, QUERY, RACK, seq], asked);
        let asked = Instant::now();
        socket.write_all(&packet)?;
        let length = read_packet(&mut socket, &mut answer)?;
        times.push(asked.elapsed());
        if length < HEADER_BYTES || answer[15] != seq {
            return Err(io::Error::other("an answer to another question"));
        }
        due += interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(times)
}

/// Reads one packet into `buffer`; its length.
fn read_packet(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        match socket.read(&mut buffer[filled..])? {
            0 => return Err(io::Error::other("closed before the answer")),
            read => filled += read,
        }
        if filled >= 4 {
            let length = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
            if !(LEAST_LENGTH..buffer.len() - 4).contains(&length) {
                return Err(io::Error::other("no packet"));
            }
            if filled >= length + 4 {
                return Ok(length + 4);
            }
        }
    }
}
