//! The design that tapeline replaces (requirement F10): one mutex around the buffer between the receiver and
//! the writer, and one write per frame. `--items N` measures the hand-over alone, with 64-byte items.

use std::collections::VecDeque;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;
use tapeline_rivals::args::{Args, fail};
use tapeline_rivals::clock::{cpu_seconds, realtime_ns};
use tapeline_rivals::frame::{HEADER_BYTES, Invalid, MAX_PAYLOAD, valid_frame};
use tapeline_rivals::sink::RolledFiles;

/// Bytes that may wait between the two threads: as many as in tapeline's ring by default.
const SHARED_BYTES: usize = 64 << 20;

/// A queue under a mutex, with one condition for each side.
struct Shared<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<T>,
    weight: usize,
    closed: bool,
}

impl<T> Shared<T> {
    fn new(capacity: usize) -> Self {
        let state = Mutex::new(State {
            items: VecDeque::new(),
            weight: 0,
            closed: false,
        });
        Self {
            state,
            filled: Condvar::new(),
            drained: Condvar::new(),
            capacity,
        }
    }

    fn push(&self, item: T, weight: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.weight + weight > self.capacity {
            state = self
                .drained
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.weight += weight;
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
    }

    fn pop(&self, weight: impl Fn(&T) -> usize) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(item) = state.items.pop_front() {
                state.weight -= weight(&item);
                drop(state);
                self.drained.notify_one();
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed = true;
        self.filled.notify_one();
    }
}

fn main() {
    let args = Args::parse(&["listen", "file", "out", "keep", "items"]);
    if let Some(items) = args.text("items") {
        hand_over(items.parse().unwrap_or_else(|_| fail("--items N")));
        return;
    }
    let Some(out) = args.text("out") else {
        fail("--out DIR is missing")
    };
    let mut sink = RolledFiles::create(out, "old_0", args.value("keep", 2)).expect("output");
    let mut source: Box<dyn Read + Send> = if let Some(path) = args.text("file") {
        Box::new(File::open(path).unwrap_or_else(|error| fail(&format!("{path}: {error}"))))
    } else {
        let listener =
            TcpListener::bind(args.text("listen").unwrap_or("127.0.0.1:0")).expect("bind");
        println!(
            "{{\"listening\": \"{}\"}}",
            listener.local_addr().expect("local address")
        );
        Box::new(listener.accept().expect("accept").0)
    };
    let (cpu_before, started_ns) = (cpu_seconds(), realtime_ns());
    let shared: Arc<Shared<Vec<u8>>> = Arc::new(Shared::new(SHARED_BYTES));
    let receiver = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let frames = receive(&mut *source, &shared);
            shared.close();
            frames
        })
    };
    while let Some(frame) = shared.pop(Vec::len) {
        sink.write(&frame).expect("write");
    }
    let ended_ns = realtime_ns();
    let frames = receiver
        .join()
        .expect("thread")
        .unwrap_or_else(|error| fail(&error.to_string()));
    let seconds = (ended_ns - started_ns) as f64 * 1e-9;
    println!(
        "{{\"frames\": {frames}, \"bytes\": {}, \"writes\": {}, \"seconds\": {seconds:.6}, \"cpu_seconds\": {:.6}, \
         \"bytes_per_second\": {:.0}, \"started_ns\": {started_ns}, \"ended_ns\": {ended_ns}}}",
        sink.bytes,
        sink.writes,
        cpu_seconds() - cpu_before,
        sink.bytes as f64 / seconds,
    );
}

/// Receives, validates and hands over one frame at a time.
fn receive(source: &mut (impl Read + ?Sized), shared: &Shared<Vec<u8>>) -> io::Result<u64> {
    let mut buffer = vec![0; 2 * (MAX_PAYLOAD + HEADER_BYTES)];
    let (mut filled, mut frames) = (0, 0);
    loop {
        let received = source.read(&mut buffer[filled..])?;
        if received == 0 {
            return Ok(frames);
        }
        filled += received;
        let mut at = 0;
        while let Some(bytes) =
            valid_frame(&buffer[at..filled]).map_err(|Invalid| io::Error::other("no frame"))?
        {
            shared.push(buffer[at..at + bytes].to_vec(), bytes);
            frames += 1;
            at += bytes;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// Hands 64-byte items from one thread to another and prints the rate.
fn hand_over(items: u64) {
    let shared: Arc<Shared<[u64; 8]>> = Arc::new(Shared::new(SHARED_BYTES));
    let started = Instant::now();
    let producer = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            for number in 0..items {
                shared.push(black_box([number; 8]), 64);
            }
            shared.close();
        })
    };
    let (mut count, mut sum) = (0u64, 0u64);
    while let Some(item) = shared.pop(|_| 64) {
        count += 1;
        sum = sum.wrapping_add(item[7]);
    }
    let seconds = started.elapsed().as_secs_f64();
    producer.join().expect("thread");
    assert_eq!(
        (count, sum),
        (items, (0..items).fold(0, u64::wrapping_add)),
        "every item, once"
    );
    println!(
        "{{\"items\": {items}, \"seconds\": {seconds:.6}, \"items_per_second\": {:.0}}}",
        items as f64 / seconds
    );
}
