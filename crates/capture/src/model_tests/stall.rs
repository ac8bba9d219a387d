//! A disk that stops for a while: the ring fills, the sender waits, nothing is lost.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tapeline_wire::frame::FrameFields;

use super::{MAX_PAYLOAD, check_second_law, check_whole, layout, number};
use crate::config::RecorderConfig;
use crate::recorder::{CORES_OF_A_STREAM, Recorder};
use crate::simdisk::SimDisk;
use crate::turns::TurnOptions;

#[test]
fn a_disk_that_stops_holds_the_sender_back_and_loses_nothing() {
    stop_the_disk(CORES_OF_A_STREAM);
}

#[test]
fn so_does_one_that_stops_while_the_receiving_thread_writes() {
    stop_the_disk(1);
}

/// A disk that stands still, and goes on at the latest when a test gives up: its recorder could not end otherwise.
struct Held<'a>(&'a SimDisk);

impl<'a> Held<'a> {
    fn new(disk: &'a SimDisk) -> Self {
        disk.hold(true);
        Self(disk)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.hold(false);
    }
}

fn stop_the_disk(cores: usize) {
    const RING: u64 = 8 << 20;
    let config = json!({"out": "sim", "streams": [{
        "name": "ch0", "sources": [{"kind": "tcp", "url": "tcp://127.0.0.1:0", "address": "127.0.0.1:0"}],
        "layout": {"max_payload": MAX_PAYLOAD}, "ring_bytes": RING}]});
    let disk = SimDisk::new();
    let config = RecorderConfig::from_json(&config.to_string()).unwrap();
    let recorder = Recorder::start_on(cores, TurnOptions::default(), disk.root(), config).unwrap();
    let held = Held::new(&disk);
    let stream = |recorder: &Recorder| -> Value { recorder.status()["streams"]["ch0"].clone() };
    let url = stream(&recorder)["addresses"][0].clone();
    let address = url
        .as_str()
        .unwrap()
        .trim_start_matches("tcp://")
        .to_owned();
    // Four times the ring, more than the buffers of both sockets can take as well.
    let frames = 8000;
    let sender = std::thread::spawn(move || {
        let mut connection = TcpStream::connect(address).unwrap();
        let payload = vec![7; 4096];
        for sequence in 0..frames {
            let fields = FrameFields {
                sequence,
                ..FrameFields::default()
            };
            let mut frame = Vec::new();
            layout()
                .encode_frame(&fields, &payload, &mut frame)
                .unwrap();
            connection.write_all(&frame).unwrap();
        }
    });
    let until = |what: &dyn Fn(&Value) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !what(&stream(&recorder)) {
            assert!(Instant::now() < deadline, "{}", stream(&recorder));
            assert!(!recorder.wait(Duration::from_millis(1)), "it ended");
        }
    };
    // Whoever was to write waits for the disk, and the ring takes what it can.
    until(&|s| number(s, "ring_used_bytes") > RING / 2);
    until(&|s| number(&s["ledger"], "backpressure_ns") > 0);
    let stalled = stream(&recorder);
    assert!(number(&stalled["ledger"], "frames_received") < frames);
    assert_eq!(number(&stalled["ledger"], "frames_stored"), 0);
    drop(held);
    sender.join().unwrap();
    until(&|s| number(&s["ledger"], "frames_stored") == frames);
    recorder.stop();
    assert!(recorder.wait(Duration::from_secs(60)));
    assert!(recorder.take_failure().is_none());
    let ledger = recorder.summary()["streams"]["ch0"]["ledger"].clone();
    assert_eq!(number(&ledger, "frames_lost"), 0);
    assert_eq!(number(&ledger, "bytes_received"), frames * 4136);
    assert_eq!(number(&ledger, "bytes_stored"), frames * 4136);
    check_whole(&disk, "stalled");
    check_second_law(&disk, "stalled");
}
