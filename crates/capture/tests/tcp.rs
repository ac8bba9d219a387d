//! `tcp://` with real sockets: any chunking, any size, any number of connections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Run, Temp, config, frame, frame_of, frames, source};
use serde_json::json;
use std::io::Write;
use std::time::Duration;
use tapeline_capture::Recorder;

#[test]
fn one_byte_at_a_time() {
    let run = Run::start(&["tcp"], json!({}));
    let sent = frames(0..40);
    let mut connection = run.connect(0);
    connection.set_nodelay(true).unwrap();
    for byte in &sent {
        connection.write_all(&[*byte]).unwrap();
    }
    drop(connection);
    run.until("bytes_received", sent.len() as u64);
    assert_eq!(run.finish().bytes, sent);
}

#[test]
fn frames_of_every_size_up_to_the_largest() {
    let run = Run::start(&["tcp"], json!({}));
    let sizes = [
        1,
        2,
        39,
        40,
        41,
        1400,
        4095,
        65_535,
        65_536,
        262_143,
        (1 << 20) - 1,
        1 << 20,
    ];
    let all: Vec<usize> = sizes.iter().cycle().take(60).copied().collect();
    let sent: Vec<u8> = all
        .iter()
        .zip(0..)
        .flat_map(|(size, n)| frame_of(0, n, 0, *size))
        .collect();
    run.send(&sent);
    run.until("bytes_received", sent.len() as u64);
    assert!(run.finish().bytes == sent);
}

#[test]
fn the_next_connection_goes_on_where_the_last_was_cut_in_a_frame() {
    let run = Run::start(&["tcp"], json!({}));
    let cut = frame(10);
    run.send(&[frames(0..10), cut[..100].to_vec()].concat());
    run.send(&frames(10..20));
    run.until("frames_received", 20);
    let outcome = run.finish();
    assert_eq!(outcome.bytes, frames(0..20));
    assert_eq!(outcome.number("bytes_discarded"), 100);
    assert_eq!(outcome.number("frames_corrupt.truncated"), 1);
    assert_eq!(outcome.number("restarts"), 0);
}

#[test]
fn a_producer_that_starts_again_begins_an_epoch() {
    let run = Run::start(&["tcp"], json!({}));
    run.send(&frames(0..50));
    run.until("frames_received", 50);
    run.send(&frames(0..30));
    run.until("frames_received", 80);
    let outcome = run.finish();
    assert_eq!(outcome.number("restarts"), 1);
    assert_eq!(outcome.number("frames_duplicate"), 0);
    assert_eq!(outcome.bytes, [frames(0..50), frames(0..30)].concat());
}

#[test]
fn many_connections_in_turn() {
    let run = Run::start(&["tcp"], json!({}));
    for n in 0..100 {
        run.send(&frames(n * 5..n * 5 + 5));
    }
    run.until("frames_received", 500);
    assert_eq!(run.finish().bytes, frames(0..500));
}

#[test]
fn loss_reorder_and_late_frames_are_counted_with_every_rule() {
    for assembly in ["none", "count:8", "markers"] {
        let run = Run::start(&["tcp"], json!({"assembly": assembly}));
        // 20 to 24 are lost, 50 and 51 change places, 60 comes at the end, 70 twice.
        let mut order: Vec<u64> = (0..20).chain(25..100).filter(|n| *n != 60).collect();
        let at = order.iter().position(|n| *n == 50).unwrap();
        order.swap(at, at + 1);
        order.insert(at + 30, 70);
        order.push(60);
        let sent: Vec<u8> = order
            .iter()
            .flat_map(|n| frame_of(0, *n, u8::from(n % 8 == 0) | u8::from(n % 8 == 7) << 1, 300))
            .collect();
        run.send(&sent);
        run.until("frames_received", order.len() as u64);
        let outcome = run.finish();
        assert_eq!(outcome.number("frames_lost"), 5, "{assembly}");
        assert_eq!(outcome.number("frames_duplicate"), 1, "{assembly}");
        assert_eq!(outcome.number("frames_reordered"), 2, "{assembly}");
        assert_eq!(outcome.stored.len(), 95, "{assembly}");
    }
}

#[test]
fn each_stream_id_may_have_its_own_segments() {
    let run = Run::start(
        &["tcp"],
        json!({"split_by_stream_id": true, "rotate_bytes": 5000}),
    );
    let sent: Vec<u8> = (0..50)
        .flat_map(|n| (0..3).flat_map(move |id| frame_of(id, n, 0, 100)))
        .collect();
    run.send(&sent);
    run.until("frames_received", 150);
    let out = run.out.clone();
    let outcome = run.finish();
    assert_eq!(outcome.stored.len(), 150);
    for id in 0..3 {
        let prefix = format!("ch0.{id}_");
        let of_id = outcome.files.iter().filter(|f| {
            f.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(&prefix)
        });
        assert!(of_id.count() >= 1, "{out:?}");
    }
}

#[test]
fn stream_ids_past_the_limit_are_refused_and_counted() {
    let run = Run::start(&["tcp"], json!({}));
    let sent: Vec<u8> = (0..1030).flat_map(|id| frame_of(id, 7, 0, 50)).collect();
    let size = frame_of(0, 7, 0, 50).len() as u64;
    run.send(&sent);
    run.until("bytes_received", sent.len() as u64);
    let outcome = run.finish();
    assert_eq!(outcome.stored.len(), 1024);
    assert_eq!(outcome.number("bytes_discarded"), 6 * size);
}

#[test]
fn segments_roll_by_size_time_and_on_demand() {
    let run = Run::start(
        &["tcp"],
        json!({"rotate_bytes": 20_000, "assembly": "count:10"}),
    );
    run.send(&frames(0..500));
    run.until("frames_stored", 500);
    assert!(run.finish().files.len() >= 5);

    let run = Run::start(&["tcp"], json!({}));
    let mut connection = run.connect(0);
    for part in 0..3_u64 {
        connection
            .write_all(&frames(part * 10..part * 10 + 10))
            .unwrap();
        run.until("frames_stored", part * 10 + 10);
        run.recorder.rotate();
        let listed = |run: &Run| {
            run.recorder.summary()["streams"]["ch0"]["files"]
                .as_array()
                .unwrap()
                .len() as u64
        };
        while listed(&run) < 2 * (part + 1) {
            let _ = run.recorder.wait(Duration::from_millis(1));
        }
    }
    drop(connection);
    assert_eq!(run.finish().files.len(), 3);

    let run = Run::start(&["tcp"], json!({"rotate_seconds": 0.05}));
    run.send(&frames(0..10));
    while run.recorder.summary()["streams"]["ch0"]["files"]
        .as_array()
        .unwrap()
        .is_empty()
    {
        let _ = run.recorder.wait(Duration::from_millis(1));
    }
    assert_eq!(run.finish().files.len(), 1);
}

#[test]
fn a_gap_that_holds_back_more_than_the_ring_stops_nobody() {
    // The smallest ring, periodics that wait for a frame that never comes, three times the ring behind it.
    let run = Run::start(
        &["tcp"],
        json!({"ring_bytes": 9 << 20, "assembly": "count:1000", "hold_seconds": 5.0}),
    );
    let sent: Vec<u8> = (0..3000)
        .filter(|n| n % 1000 != 1)
        .flat_map(|n| frame_of(0, n, 0, 10_000))
        .collect();
    run.send(&sent);
    run.until("frames_received", 2997);
    let outcome = run.finish();
    assert_eq!(outcome.stored.len(), 2997);
    assert!(outcome.bytes == sent);
}

#[test]
fn a_stop_in_mid_stream_takes_what_had_arrived() {
    let run = Run::start(&["tcp"], json!({}));
    let sent = frames(0..2000);
    let mut connection = run.connect(0);
    // Smaller than the socket buffers: after this call the kernel has it all.
    connection.write_all(&sent).unwrap();
    let outcome = run.finish();
    assert_eq!(outcome.bytes, sent);
}

#[test]
fn a_limit_of_frames_ends_the_recording() {
    let run = Run::start_with(&["tcp"], json!({}), json!({"count": 100}));
    run.send(&frames(0..100));
    assert!(run.recorder.wait(Duration::from_secs(60)));
    assert_eq!(run.finish().stored.len(), 100);
}

#[test]
fn what_cannot_be_is_refused_at_the_start() {
    let temp = Temp::new();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut taken = source("tcp");
    taken["address"] = json!(busy.local_addr().unwrap());
    let refused = |c| Recorder::start(c).err().map(|e| e.to_string()).unwrap();
    let why = refused(config(&temp.0, &[taken], json!({}), json!({})));
    assert!(why.contains("ch0"), "{why}");

    let file = temp.0.join("file");
    std::fs::write(&file, "x").unwrap();
    let why = refused(config(&file, &[source("tcp")], json!({}), json!({})));
    assert!(why.contains("file"), "{why}");

    let first = Run::start_in(&temp.0.join("run"), &["tcp"], json!({}));
    let why = refused(config(&first.out, &[source("tcp")], json!({}), json!({})));
    assert!(why.contains("another recorder"), "{why}");
}

#[test]
fn a_second_recorder_in_the_directory_continues() {
    let temp = Temp::new();
    for round in 0..3_u64 {
        let run = Run::start_in(&temp.0, &["tcp"], json!({}));
        run.send(&frames(round * 10..round * 10 + 10));
        run.until("frames_stored", 10);
        run.recorder.stop();
        assert!(run.recorder.wait(Duration::from_secs(60)));
    }
    let text = std::fs::read(temp.0.join("recording.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let stream = &manifest["streams"]["ch0"];
    assert_eq!(stream["ledger"]["frames_stored"], 30);
    let numbers: Vec<u64> = stream["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert!(
        tapeline_capture::recover_directory(&temp.0)
            .unwrap()
            .is_clean()
    );
}
