//! The least that a recorder of register packets must do with the bytes: receive and write. It looks at none of them.

use std::io::Read;
use std::net::TcpListener;
use std::thread;
use tapeline_rivals::args::{Args, fail};
use tapeline_rivals::clock::{cpu_seconds, realtime_ns};
use tapeline_rivals::sink::RolledFiles;

/// Bytes of one write.
const WRITE_BYTES: usize = 1 << 20;

fn main() {
    let args = Args::parse(&["listen", "out", "keep", "connections"]);
    let Some(out) = args.text("out").map(str::to_owned) else {
        fail("--out DIR is missing")
    };
    let keep = args.value("keep", 2);
    let listener = TcpListener::bind(args.text("listen").unwrap_or("127.0.0.1:0")).expect("bind");
    let (mut cpu_before, mut started_ns) = (cpu_seconds(), realtime_ns());
    let mut threads = Vec::new();
    for number in 0..args.value("connections", 1) {
        let (mut socket, _) = listener.accept().expect("accept");
        if number == 0 {
            (cpu_before, started_ns) = (cpu_seconds(), realtime_ns());
        }
        let mut sink = RolledFiles::create(&out, &format!("bytes_{number}"), keep).expect("output");
        threads.push(thread::spawn(move || -> std::io::Result<u64> {
            let (mut buffer, mut filled) = (vec![0; WRITE_BYTES], 0);
            loop {
                let received = socket.read(&mut buffer[filled..])?;
                filled += received;
                if filled == buffer.len() || received == 0 {
                    sink.write(&buffer[..filled])?;
                    filled = 0;
                }
                if received == 0 {
                    return Ok(sink.bytes);
                }
            }
        }));
    }
    let mut bytes = 0;
    for thread in threads {
        let copied = thread.join().expect("thread");
        bytes += copied.unwrap_or_else(|error| fail(&error.to_string()));
    }
    println!(
        "{{\"bytes\": {bytes}, \"cpu_seconds\": {:.6}, \"started_ns\": {started_ns}, \"ended_ns\": {}}}",
        cpu_seconds() - cpu_before,
        realtime_ns(),
    );
}
