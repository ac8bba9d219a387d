//! `udp://` and the dual path with real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Run, frame, frame_of, frames};
use serde_json::json;
use std::io::Write;

#[test]
fn datagrams_of_one_or_many_frames_with_and_without_gro() {
    for gro in [true, false] {
        let run = Run::start(&["udp"], json!({"gro": gro}));
        let socket = run.udp();
        let mut at = 0;
        for n in 0..200_u64 {
            let count = 1 + n % 7;
            socket.send(&frames(at..at + count)).unwrap();
            at += count;
        }
        run.until("datagrams_received", 200);
        let outcome = run.finish();
        assert_eq!(outcome.bytes, frames(0..at), "gro {gro}");
        assert_eq!(outcome.number("datagrams_received"), 200);
        assert_eq!(outcome.number("datagrams_dropped_by_kernel"), 0);
    }
}

#[test]
fn garbage_and_cut_datagrams_cost_only_themselves() {
    let run = Run::start(&["udp"], json!({}));
    let socket = run.udp();
    socket.send(&frames(0..5)).unwrap();
    socket.send(b"no frame at all").unwrap();
    socket.send(&frame(5)[..100]).unwrap();
    socket.send(&frame(5)[100..]).unwrap();
    socket
        .send(&[b"junk".to_vec(), frames(6..9)].concat())
        .unwrap();
    run.until("datagrams_received", 5);
    let outcome = run.finish();
    // A frame never spans datagrams: number 5 is lost.
    assert_eq!(outcome.sequences(), [0, 1, 2, 3, 4, 6, 7, 8]);
    assert_eq!(outcome.number("frames_lost"), 1);
    assert_eq!(
        outcome.number("bytes_discarded"),
        15 + frame(5).len() as u64 + 4
    );
    assert_eq!(outcome.number("frames_corrupt.truncated"), 1);
}

#[test]
fn the_largest_datagrams() {
    let run = Run::start(&["udp"], json!({}));
    let socket = run.udp();
    let sent: Vec<Vec<u8>> = (0..40).map(|n| frame_of(0, n, 0, 65_507 - 40)).collect();
    for datagram in &sent {
        assert_eq!(socket.send(datagram).unwrap(), datagram.len());
    }
    run.until("datagrams_received", 40);
    assert!(run.finish().bytes == sent.concat());
}

#[test]
fn what_udp_lost_the_archive_repairs() {
    for assembly in ["none", "count:10"] {
        let run = Run::start(
            &["udp", "tcp"],
            json!({"assembly": assembly, "hold_seconds": 20.0}),
        );
        let socket = run.udp();
        let lost = |n: &u64| n % 13 == 4;
        for n in (0..400).filter(|n| !lost(n)) {
            socket.send(&frame(n)).unwrap();
        }
        run.until(
            "datagrams_received",
            (0..400).filter(|n| !lost(n)).count() as u64,
        );
        // The archive lags behind: it begins when all of the real-time path is there.
        let mut archive = run.connect(1);
        archive.write_all(&frames(0..400)).unwrap();
        drop(archive);
        let repaired = (0..400).filter(lost).count() as u64;
        run.until("frames_received", 800 - repaired);
        let outcome = run.finish();
        assert_eq!(outcome.number("frames_repaired"), repaired, "{assembly}");
        assert_eq!(outcome.number("frames_lost"), 0, "{assembly}");
        assert_eq!(
            outcome.number("frames_duplicate"),
            400 - repaired,
            "{assembly}"
        );
        let mut all = outcome.sequences();
        if assembly == "count:10" {
            for ten in outcome.sequences().chunks(10).take(4) {
                assert!(ten.is_sorted(), "{ten:?}");
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..400).collect::<Vec<_>>());
    }
}

#[test]
fn repairs_are_counted_once_when_ids_have_their_own_segments() {
    let run = Run::start(
        &["udp", "tcp"],
        json!({"split_by_stream_id": true, "hold_seconds": 20.0}),
    );
    let socket = run.udp();
    let of = |n: u64| frame_of((n % 3) as u16, n / 3, 0, 100);
    let lost = |n: &u64| n % 10 == 5;
    for n in (0..300).filter(|n| !lost(n)) {
        socket.send(&of(n)).unwrap();
    }
    run.until("datagrams_received", 270);
    let mut archive = run.connect(1);
    archive
        .write_all(&(0..300).flat_map(of).collect::<Vec<_>>())
        .unwrap();
    drop(archive);
    run.until("frames_received", 570);
    let outcome = run.finish();
    assert_eq!(outcome.number("frames_repaired"), 30);
    assert_eq!(outcome.number("frames_lost"), 0);
    assert_eq!(outcome.stored.len(), 300);
}

#[test]
fn an_archive_that_is_cut_and_sends_again_from_the_start_brings_nothing_twice() {
    let run = Run::start(&["udp", "tcp"], json!({}));
    let socket = run.udp();
    for n in 0..50 {
        socket.send(&frame(n)).unwrap();
    }
    run.until("datagrams_received", 50);
    for part in [0..30, 0..80] {
        run.connect(1).write_all(&frames(part)).unwrap();
    }
    run.until("frames_received", 50 + 30 + 80);
    let outcome = run.finish();
    assert_eq!(outcome.sequences().len(), 80);
    assert_eq!(outcome.number("frames_duplicate"), 80);
    assert_eq!(outcome.number("frames_repaired"), 30);
}
