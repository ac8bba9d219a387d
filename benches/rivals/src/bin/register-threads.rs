//! The design that the register server replaces: a thread for each client, two receives for each packet (length, then
//! body), one mutex around the file and one around the image. Its file is buffered, which the old one's was too.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use tapeline_rivals::args::{Args, fail};
use tapeline_rivals::clock::{cpu_seconds, realtime_ns};
use tapeline_rivals::packets::{DIFF, FULL, LEAST_LENGTH, MAX_COUNT};
use tapeline_rivals::sink::RolledFiles;

/// Bytes collected before they are written.
const BUFFER_BYTES: usize = 64 << 10;

/// Registers of one source: value, and time of its change if it is known.
struct Source {
    values: Vec<u16>,
    changed_us: Vec<Option<u64>>,
}

type Image = HashMap<(u8, u8), Source>;

struct Log {
    files: RolledFiles,
    buffer: Vec<u8>,
}

impl Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.files.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

fn main() {
    let args = Args::parse(&["listen", "out", "keep", "connections"]);
    let Some(out) = args.text("out") else {
        fail("--out DIR is missing")
    };
    let files = RolledFiles::create(out, "threads_0", args.value("keep", 2)).expect("output");
    let log = Arc::new(Mutex::new(Log {
        files,
        buffer: Vec::with_capacity(BUFFER_BYTES),
    }));
    let image = Arc::new(Mutex::new(Image::new()));
    let listener = TcpListener::bind(args.text("listen").unwrap_or("127.0.0.1:0")).expect("bind");
    let (mut cpu_before, mut started_ns) = (cpu_seconds(), realtime_ns());
    let mut threads = Vec::new();
    for number in 0..args.value("connections", 1) {
        let (socket, _) = listener.accept().expect("accept");
        if number == 0 {
            (cpu_before, started_ns) = (cpu_seconds(), realtime_ns());
        }
        let (log, image) = (Arc::clone(&log), Arc::clone(&image));
        threads.push(thread::spawn(move || serve(socket, &log, &image)));
    }
    let mut packets = 0;
    for thread in threads {
        let served = thread.join().expect("thread");
        packets += served.unwrap_or_else(|error| fail(&error.to_string()));
    }
    let mut log = log.lock().expect("log");
    log.flush().expect("write");
    let known = image
        .lock()
        .expect("image")
        .values()
        .map(known)
        .sum::<usize>();
    println!(
        "{{\"packets\": {packets}, \"bytes\": {}, \"known\": {known}, \"cpu_seconds\": {:.6}, \
         \"started_ns\": {started_ns}, \"ended_ns\": {}}}",
        log.files.bytes,
        cpu_seconds() - cpu_before,
        realtime_ns(),
    );
}

fn known(source: &Source) -> usize {
    source.changed_us.iter().flatten().count()
}

/// One client to its end; its packets.
fn serve(mut socket: TcpStream, log: &Mutex<Log>, image: &Mutex<Image>) -> io::Result<u64> {
    let mut packets = 0;
    let mut packet = vec![0; 4 + LEAST_LENGTH + 4 * MAX_COUNT];
    loop {
        match socket.read_exact(&mut packet[..4]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(packets),
            other => other?,
        }
        let length = u32::from_le_bytes(packet[..4].try_into().expect("four bytes")) as usize;
        if !(LEAST_LENGTH..=packet.len() - 4).contains(&length) {
            return Err(io::Error::other("no packet"));
        }
        let packet = &mut packet[..4 + length];
        socket.read_exact(&mut packet[4..])?;
        log.lock().expect("log").write(packet)?;
        let mut image = image.lock().expect("image");
        apply(&mut image, packet)?;
        packets += 1;
    }
}

fn apply(image: &mut Image, packet: &[u8]) -> io::Result<()> {
    let time = u64::from_le_bytes(packet[4..12].try_into().expect("eight bytes"));
    let (id, command, kind) = (packet[12], packet[13], packet[14]);
    let count = u32::from_le_bytes(packet[17..21].try_into().expect("four bytes")) as usize;
    if packet.len() != 21 + 4 * count || command > FULL {
        return Err(io::Error::other("no packet"));
    }
    let source = image.entry((kind, id)).or_insert_with(|| Source {
        values: vec![0; 65_536],
        changed_us: vec![None; 65_536],
    });
    if command != DIFF {
        source.changed_us.fill(None);
    }
    let (control, data) = packet[21..].split_at(2 * count);
    for (offset, value) in control.chunks_exact(2).zip(data.chunks_exact(2)) {
        let offset = usize::from(u16::from_le_bytes([offset[0], offset[1]]));
        let value = u16::from_le_bytes([value[0], value[1]]);
        if source.changed_us[offset].is_none() || source.values[offset] != value {
            source.values[offset] = value;
            source.changed_us[offset] = Some(time);
        }
    }
    Ok(())
}
