//! Clients that mean no good: garbage, half packets, lengths and counts that nothing can have, and slow ones that keep
//! their connection with a byte now and then.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{LEAST_LENGTH, RACK, push};
use crate::frame::Random;

/// Between two bytes of a slow client.
const SLOW: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(2);

/// What became of them.
#[derive(Debug, Default)]
pub struct Account {
    /// Connections that were made.
    pub connected: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// Most slow ones that were open at the same time.
    pub slow_open: usize,
}

/// Makes `count` connections, spread evenly over `during`.
pub fn attack(address: SocketAddr, count: u64, during: Duration) -> Account {
    let mut random = Random::new(7);
    let mut account = Account::default();
    let mut slow: Vec<TcpStream> = Vec::new();
    // Connections that wait to be closed by the other side.
    let mut waiting = std::collections::VecDeque::new();
    let start = Instant::now();
    let mut drip = start + SLOW;
    for number in 0..count {
        let due = start + during.mul_f64(number as f64 / count as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let Ok(mut socket) = TcpStream::connect_timeout(&address, CONNECT) else {
            account.failed += 1;
            continue;
        };
        account.connected += 1;
        let _ = socket.set_nonblocking(true);
        let bytes = match number % 4 {
            0 => random.bytes(1 + number as usize % 4096),
            1 => half_packet(),
            2 => oversize(number),
            _ => vec![LEAST_LENGTH as u8 + 4],
        };
        let _ = socket.write(&bytes);
        if number % 4 == 3 {
            slow.push(socket);
        } else {
            waiting.push_back(socket);
        }
        if waiting.len() > 64 {
            waiting.pop_front();
        }
        if Instant::now() >= drip {
            drip += SLOW;
            slow.retain_mut(|socket| socket.write(&[0]).is_ok());
        }
        account.slow_open = account.slow_open.max(slow.len());
    }
    account
}

fn half_packet() -> Vec<u8> {
    let mut packet = Vec::new();
    push(
        &mut packet,
        0,
        [9, 0, RACK, 0],
        (0..100u16).map(|at| (at, at)),
    );
    packet.truncate(packet.len() / 2);
    packet
}

/// A length that no packet has, or a count that its length contradicts.
fn oversize(number: u64) -> Vec<u8> {
    let mut packet = Vec::new();
    push(
        &mut packet,
        0,
        [9, 0, RACK, 0],
        (0..4u16).map(|at| (at, at)),
    );
    if number.is_multiple_of(8) {
        packet[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    } else {
        packet[17..21].copy_from_slice(&u32::MAX.to_le_bytes());
    }
    packet
}
