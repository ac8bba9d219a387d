//! The sender: valid frames over TCP or UDP for as little CPU as possible, and what it sent as JSON.
//!
//! `--build FILE` writes a stream (with faults, or a hostile one, if asked) to a file; `--send FILE` sends such a file over TCP
//! with sendfile, so that the sender copies nothing. Without them a small cyclic buffer stays in the cache and
//! only its headers change (sequence, timestamp, header CRC): endless, for runs by time and for UDP.
//! Several addresses, separated by commas, get one thread and one whole stream each.

use std::thread;
use tapeline_rivals::args::{Args, fail};
use tapeline_rivals::clock::{cpu_seconds, realtime_ns};

#[path = "../blaster/build.rs"]
mod build;
#[path = "../blaster/tcp.rs"]
mod tcp;
#[path = "../blaster/udp.rs"]
mod udp;

/// What one connection or socket sent.
struct Sent {
    frames: u64,
    bytes: u64,
}

/// How much to send and how fast.
#[derive(Clone)]
struct Plan {
    payload_bytes: usize,
    frames: u64,
    seconds: f64,
    /// Frames sent at leisure after all others, so that a receiver sees what it lost before them.
    tail: u64,
    frames_per_second: f64,
    gso: bool,
    send_buffer: i32,
    file: Option<String>,
}

fn main() {
    let args = Args::parse(&[
        "to",
        "payload",
        "frames",
        "seconds",
        "tail",
        "rate",
        "gso",
        "send",
        "send-buffer",
        "build",
        "fault",
        "hostile",
        "bytes",
        "seed",
    ]);
    let plan = Plan {
        payload_bytes: args.value("payload", 1_400),
        frames: args.value("frames", u64::MAX),
        seconds: args.value("seconds", f64::INFINITY),
        tail: args.value("tail", 0),
        frames_per_second: args.value("rate", f64::INFINITY),
        gso: args.is_set("gso"),
        send_buffer: args.value("send-buffer", 4 << 20),
        file: args.text("send").map(str::to_owned),
    };
    if let Some(path) = args.text("build") {
        let seed = args.value("seed", 1);
        let account = match args.text("hostile") {
            Some(kind) => {
                build::build_hostile(path, &plan, kind, args.value("bytes", 1 << 30), seed)
            }
            None => build::build(path, &plan, args.value("fault", 0.0), seed),
        };
        println!("{account}");
        return;
    }
    let Some(targets) = args.text("to") else {
        fail("--to tcp://HOST:PORT[,...] or udp://HOST:PORT is missing")
    };
    if plan.file.is_none() && plan.frames == u64::MAX && plan.seconds.is_infinite() {
        fail("--frames or --seconds is missing");
    }
    let (cpu_before, started_ns) = (cpu_seconds(), realtime_ns());
    let threads: Vec<_> = targets
        .split(',')
        .map(|target| {
            let plan = plan.clone();
            let target = target.to_owned();
            thread::spawn(move || match target.split_once("://") {
                Some(("tcp", address)) => tcp::send(address, &plan),
                Some(("udp", address)) => udp::send(address, &plan),
                _ => fail(&format!("{target}: neither tcp:// nor udp://")),
            })
        })
        .collect();
    let sent: Vec<Sent> = threads
        .into_iter()
        .map(|thread| {
            thread
                .join()
                .expect("thread")
                .unwrap_or_else(|error| fail(&error.to_string()))
        })
        .collect();
    let ended_ns = realtime_ns();
    let list = |field: fn(&Sent) -> u64| {
        sent.iter()
            .map(|one| field(one).to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    println!(
        "{{\"frames\": {}, \"bytes\": {}, \"frames_per_target\": [{}], \"seconds\": {:.6}, \"cpu_seconds\": {:.6}, \
         \"started_ns\": {started_ns}, \"ended_ns\": {ended_ns}}}",
        sent.iter().map(|one| one.frames).sum::<u64>(),
        sent.iter().map(|one| one.bytes).sum::<u64>(),
        list(|one| one.frames),
        (ended_ns - started_ns) as f64 * 1e-9,
        cpu_seconds() - cpu_before,
    );
}
