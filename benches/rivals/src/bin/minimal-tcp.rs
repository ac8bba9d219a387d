//! The least that a TCP recorder must do: recv, frame parse, CRC32C, 1 MB writes. One thread per connection.
//!
//! No resync, no sequence, no ledger, no index, no sync: what remains is the price of the kernel's copies
//! and of one checksum, which no recorder can go below. With `--file` the source is a file.

use std::fs::File;
use std::io::{self, Read};
use std::net::TcpListener;
use std::thread;
use tapeline_rivals::args::{Args, fail};
use tapeline_rivals::clock::{cpu_seconds, realtime_ns};
use tapeline_rivals::frame::{HEADER_BYTES, MAX_PAYLOAD, scan};
use tapeline_rivals::sink::RolledFiles;
use tapeline_rivals::socket::receive_buffer;

/// What one connection brought.
struct Account {
    frames: u64,
    bytes: u64,
    reads: u64,
    writes: u64,
}

fn main() {
    let args = Args::parse(&[
        "listen",
        "connections",
        "file",
        "out",
        "keep",
        "write-bytes",
        "receive-buffer",
    ]);
    let Some(out) = args.text("out").map(str::to_owned) else {
        fail("--out DIR is missing")
    };
    let keep = args.value("keep", 2);
    let write_bytes = args.value("write-bytes", 1 << 20);
    let mut handles = Vec::new();
    let mut cpu_before = cpu_seconds();
    let mut started_ns = realtime_ns();
    if let Some(path) = args.text("file") {
        let source = File::open(path).unwrap_or_else(|error| fail(&format!("{path}: {error}")));
        handles.push(thread::spawn(move || {
            record(source, &out, "minimal_0", keep, write_bytes)
        }));
    } else {
        let listener =
            TcpListener::bind(args.text("listen").unwrap_or("127.0.0.1:0")).expect("bind");
        if let Some(bytes) = args.text("receive-buffer") {
            // On the listener, before any connection: the window is agreed on when it is made.
            receive_buffer(
                &listener,
                bytes
                    .parse()
                    .unwrap_or_else(|_| fail("--receive-buffer BYTES")),
            )
            .expect("SO_RCVBUF");
        }
        println!(
            "{{\"listening\": \"{}\"}}",
            listener.local_addr().expect("local address")
        );
        for number in 0..args.value("connections", 1) {
            let (socket, _) = listener.accept().expect("accept");
            if number == 0 {
                (cpu_before, started_ns) = (cpu_seconds(), realtime_ns());
            }
            let out = out.clone();
            handles.push(thread::spawn(move || {
                record(
                    socket,
                    &out,
                    &format!("minimal_{number}"),
                    keep,
                    write_bytes,
                )
            }));
        }
    }
    let accounts: Vec<Account> = handles
        .into_iter()
        .map(|handle| {
            handle
                .join()
                .expect("thread")
                .unwrap_or_else(|error| fail(&error.to_string()))
        })
        .collect();
    let ended_ns = realtime_ns();
    let total = |field: fn(&Account) -> u64| accounts.iter().map(field).sum::<u64>();
    let seconds = (ended_ns - started_ns) as f64 * 1e-9;
    println!(
        "{{\"frames\": {}, \"bytes\": {}, \"reads\": {}, \"writes\": {}, \"seconds\": {seconds:.6}, \
         \"cpu_seconds\": {:.6}, \"bytes_per_second\": {:.0}, \"started_ns\": {started_ns}, \"ended_ns\": {ended_ns}}}",
        total(|account| account.frames),
        total(|account| account.bytes),
        total(|account| account.reads),
        total(|account| account.writes),
        cpu_seconds() - cpu_before,
        total(|account| account.bytes) as f64 / seconds,
    );
}

/// Records one source to its end.
fn record(
    mut source: impl Read,
    out: &str,
    stem: &str,
    keep: usize,
    write_bytes: usize,
) -> io::Result<Account> {
    let mut sink = RolledFiles::create(out, stem, keep)?;
    // Room for one write and, behind it, the start of the frame that does not fit any more.
    let room = MAX_PAYLOAD.min(write_bytes / 8) + HEADER_BYTES;
    let mut buffer = vec![0; write_bytes + room];
    let (mut checked, mut filled) = (0, 0);
    let mut account = Account {
        frames: 0,
        bytes: 0,
        reads: 0,
        writes: 0,
    };
    loop {
        let received = match source.read(&mut buffer[filled..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        account.reads += 1;
        filled += received;
        let (frames, bytes) = scan(&buffer[checked..filled]).map_err(|at| {
            io::Error::other(format!(
                "no frame at byte {}",
                sink.bytes as usize + checked + at
            ))
        })?;
        account.frames += frames;
        checked += bytes;
        if checked >= write_bytes || received == 0 || filled == buffer.len() {
            if checked > 0 {
                sink.write(&buffer[..checked])?;
            } else if filled == buffer.len() {
                buffer.resize(buffer.len() * 2, 0);
            }
            buffer.copy_within(checked..filled, 0);
            filled -= checked;
            checked = 0;
        }
        if received == 0 {
            break;
        }
    }
    if filled > 0 {
        return Err(io::Error::other(format!(
            "{filled} bytes after the last frame"
        )));
    }
    account.bytes = sink.bytes;
    account.writes = sink.writes;
    Ok(account)
}
