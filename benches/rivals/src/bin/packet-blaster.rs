//! The sender of register packets: clients that send as fast as they can from a buffer that stays in the cache, a
//! client that asks and measures the answers' times, and hostile ones; what was sent as JSON.

use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{
    io::{self, Read, Write},
    sync::Arc,
};
use tapeline_rivals::args::{Args, fail};
use tapeline_rivals::clock::realtime_ns;
use tapeline_rivals::packets::{Cycle, hostile, query};
use tapeline_rivals::socket::{raise_open_files, set_option};

fn main() {
    let args = Args::parse(&[
        "to",
        "clients",
        "packets",
        "seconds",
        "count",
        "query-us",
        "hostile",
        "send-buffer",
    ]);
    let Some(address) = args.text("to").map(str::to_owned) else {
        fail("--to HOST:PORT is missing")
    };
    let clients: u8 = args.value("clients", 1);
    let packets: u64 = args.value("packets", u64::MAX);
    let seconds: f64 = args.value("seconds", f64::INFINITY);
    if packets == u64::MAX && seconds.is_infinite() {
        fail("--packets or --seconds is missing");
    }
    let count: usize = args.value("count", 3);
    let send_buffer: i32 = args.value("send-buffer", 4 << 20);
    raise_open_files();

    let stop = Arc::new(AtomicBool::new(false));
    let queries = args.text("query-us").map(|_| {
        let (address, stop) = (address.clone(), Arc::clone(&stop));
        let interval = Duration::from_micros(args.value("query-us", 1000));
        thread::spawn(move || query::ask(&address, interval, &stop))
    });
    let start_us = (realtime_ns() / 1000) as u64;
    let senders: Vec<_> = (0..clients)
        .map(|client| {
            let socket = TcpStream::connect(&address).unwrap_or_else(|e| fail(&e.to_string()));
            set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, send_buffer).expect("SO_SNDBUF");
            (socket, Cycle::new(client, count, start_us))
        })
        .collect();
    let started_ns = realtime_ns();
    let enemies = args.text("hostile").map(|_| {
        let count = args.value("hostile", 0);
        let to = address
            .to_socket_addrs()
            .ok()
            .and_then(|mut all| all.next());
        let to = to.unwrap_or_else(|| fail("--to is no address"));
        // All of them while the good ones send.
        let during = Duration::from_secs_f64(seconds * 0.95);
        thread::spawn(move || hostile::attack(to, count, during))
    });
    let senders: Vec<_> = senders
        .into_iter()
        .map(|(socket, cycle)| thread::spawn(move || send(socket, cycle, packets, seconds)))
        .collect();
    let sent: Vec<(u64, u64)> = senders
        .into_iter()
        .map(|thread| {
            let sent = thread.join().expect("thread");
            sent.unwrap_or_else(|error| fail(&format!("sending: {error}")))
        })
        .collect();
    let ended_ns = realtime_ns();
    stop.store(true, Ordering::Relaxed);
    let mut times = queries.map_or_else(Vec::new, |thread| {
        let times = thread.join().expect("thread");
        times.unwrap_or_else(|error| fail(&format!("asking: {error}")))
    });
    times.sort_unstable();
    let at = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        let time = times.get(place.min(times.len().saturating_sub(1)));
        time.map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    let enemies = enemies.map_or_else(Default::default, |thread| thread.join().expect("thread"));
    println!(
        "{{\"packets\": {}, \"bytes\": {}, \"seconds\": {:.6}, \"started_ns\": {started_ns}, \"ended_ns\": {ended_ns}, \
         \"queries\": {}, \"query_p50_us\": {:.1}, \"query_p99_us\": {:.1}, \"query_max_us\": {:.1}, \
         \"hostile_connected\": {}, \"hostile_failed\": {}, \"slow_open\": {}}}",
        sent.iter().map(|one| one.0).sum::<u64>(),
        sent.iter().map(|one| one.1).sum::<u64>(),
        (ended_ns - started_ns) as f64 * 1e-9,
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        enemies.connected,
        enemies.failed,
        enemies.slow_open,
    );
}

/// Sends and waits until the other side has read everything; packets and bytes.
fn send(
    mut socket: TcpStream,
    mut cycle: Cycle,
    packets: u64,
    seconds: f64,
) -> io::Result<(u64, u64)> {
    let started = Instant::now();
    let (mut done, mut bytes) = (0, 0);
    while done < packets && started.elapsed().as_secs_f64() < seconds {
        let (part, now) = cycle.next(packets - done);
        socket.write_all(part)?;
        done += now;
        bytes += part.len() as u64;
    }
    socket.shutdown(Shutdown::Write)?;
    let _ = socket.read(&mut [0; 1]);
    Ok((done, bytes))
}
