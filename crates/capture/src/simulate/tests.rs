#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    thread,
    time::Duration,
};

use tapeline_sys::udp::{MAX_DATAGRAM_BYTES, UdpOptions, UdpReceiver};
use tapeline_wire::{
    frame::{FrameDecoder, FrameLayout, PERIOD_END, PERIOD_START},
    sequence::SequenceTable,
};

use super::{
    account::Expected,
    send::{Piece, pack},
    *,
};

fn options(to: Vec<Target>) -> RadarOptions {
    RadarOptions {
        to,
        streams: 4,
        frames: Some(2000),
        duration_s: None,
        payload_bytes: 300,
        rate_hz: 0.0,
        periodic: 0,
        faults: Faults::default(),
        seed: 1,
        first_sequence: 0,
        start_ns: Some(1_000_000),
        datagram_bytes: None,
        gso: true,
        connect_timeout_s: 10.0,
    }
}

fn every_fault(probability: f64) -> Faults {
    Faults {
        drop: probability,
        corrupt: probability,
        duplicate: probability,
        reorder: probability,
        garbage: probability,
    }
}

fn target(kind: TargetKind, address: Option<SocketAddr>, path: Option<PathBuf>) -> Target {
    Target {
        kind,
        url: "somewhere".to_owned(),
        address,
        path,
    }
}

fn tcp(listener: &TcpListener) -> Target {
    target(TargetKind::Tcp, listener.local_addr().ok(), None)
}

fn run(options: &RadarOptions) -> Summary {
    let mut simulation = RadarSimulation::start(options).unwrap();
    assert!(simulation.wait(Duration::from_secs(100)));
    simulation.finish()
}

/// Runs with one TCP receiver for each of `receivers`, and gives what each received.
fn run_over_tcp(mut options: RadarOptions, receivers: usize) -> (Summary, Vec<Vec<u8>>) {
    let listeners: Vec<TcpListener> = (0..receivers)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    options.to = listeners.iter().map(tcp).collect();
    let threads: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                listener
                    .accept()
                    .unwrap()
                    .0
                    .read_to_end(&mut bytes)
                    .unwrap();
                bytes
            })
        })
        .collect();
    let summary = run(&options);
    (
        summary,
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect(),
    )
}

/// What the recorder's own decoder and sequence table make of `chunks`, each the end of something.
fn receive<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Expected {
    let mut decoder = FrameDecoder::new(FrameLayout::default());
    let mut table = SequenceTable::new(65_536, 1024);
    let mut found = Expected::default();
    let mut valid_bytes = 0;
    for chunk in chunks {
        found.bytes_received += chunk.len() as u64;
        let mut take = |frame: tapeline_wire::frame::Frame<'_>| {
            let duplicates = table.totals().frames_duplicate;
            table.observe(frame.fields.stream_id, frame.fields.sequence);
            valid_bytes += frame.bytes.len() as u64;
            if table.totals().frames_duplicate == duplicates {
                found.frames_stored += 1;
                found.bytes_stored += frame.bytes.len() as u64;
            }
        };
        decoder.feed(chunk, &mut take);
        decoder.finish(&mut take);
    }
    let (frames, sequence) = (decoder.counters(), table.totals());
    found.frames_received = frames.frames_received;
    found.bytes_discarded = frames.bytes_discarded;
    found.frames_corrupt = ExpectedCorrupt {
        header_crc: frames.corrupt.header_crc,
        payload_crc: frames.corrupt.payload_crc,
        bad_version: frames.corrupt.bad_version,
        bad_length: frames.corrupt.bad_length,
        truncated: frames.corrupt.truncated,
    };
    found.gaps = sequence.gaps;
    found.frames_lost = sequence.frames_lost;
    found.frames_duplicate = sequence.frames_duplicate;
    found.frames_reordered = sequence.frames_reordered;
    found.restarts = sequence.restarts;
    assert_eq!(found.bytes_received, valid_bytes + found.bytes_discarded);
    found
}

/// What must hold in any account by itself.
fn assert_laws(account: &Account) {
    let expected = &account.expected;
    assert_eq!(
        account.frames_generated,
        account.frames_unique + account.frames_dropped + account.frames_corrupted
    );
    assert_eq!(
        account.frames_sent,
        account.frames_unique + account.frames_duplicated + account.frames_corrupted
    );
    assert_eq!(
        expected.frames_received,
        expected.frames_stored + expected.frames_duplicate
    );
    assert_eq!(expected.frames_duplicate, account.frames_duplicated);
    assert_eq!(account.bytes_sent, expected.bytes_received);
    if let (Some(first), Some(last)) = (account.first_sequence, account.last_sequence) {
        assert_eq!(
            last - first + 1,
            account.frames_unique + expected.frames_lost,
            "law 3"
        );
    }
}

#[test]
fn the_account_is_what_a_receiver_over_tcp_finds_to_the_last_number() {
    for (seed, probability, payload_bytes) in [
        (1, 0.0, 300),
        (2, 0.01, 1),
        (3, 0.05, 1400),
        (4, 0.3, 64),
        (5, 1.0, 10),
        (6, 0.1, 65_536),
    ] {
        for receivers in [1, 2, 4] {
            let frames = if payload_bytes > 10_000 { 300 } else { 3000 };
            let options = RadarOptions {
                seed,
                payload_bytes,
                faults: every_fault(probability),
                frames: Some(frames),
                ..options(Vec::new())
            };
            let (summary, bytes) = run_over_tcp(options, receivers);
            for (destination, bytes) in summary.destinations.iter().zip(&bytes) {
                assert_eq!(destination.error, None);
                assert_eq!(
                    receive([&bytes[..]].into_iter()),
                    destination.account.expected,
                    "seed {seed}"
                );
            }
            assert_eq!(summary.streams.len(), 4);
            for stream in &summary.streams {
                assert_laws(&stream.account);
                assert_eq!(stream.account.frames_generated, frames);
            }
            let mut total = Account::default();
            summary
                .streams
                .iter()
                .for_each(|stream| total.add(&stream.account));
            assert_eq!(total, summary.total);
        }
    }
}

#[test]
fn each_fault_alone_is_in_the_account() {
    let faults = |edit: fn(&mut Faults)| {
        let mut faults = Faults::default();
        edit(&mut faults);
        let (summary, bytes) = run_over_tcp(
            RadarOptions {
                faults,
                ..options(Vec::new())
            },
            1,
        );
        assert_eq!(receive([&bytes[0][..]].into_iter()), summary.total.expected);
        summary.total
    };
    let clean = faults(|_| {});
    assert_eq!(
        (
            clean.frames_unique,
            clean.expected.frames_lost,
            clean.expected.bytes_discarded
        ),
        (8000, 0, 0)
    );
    let dropped = faults(|faults| faults.drop = 0.1);
    assert!((600..1000).contains(&dropped.frames_dropped) && dropped.expected.gaps > 0);
    let corrupted = faults(|faults| faults.corrupt = 0.1);
    let corrupt = corrupted.expected.frames_corrupt;
    assert!(corrupt.header_crc > 100 && corrupt.payload_crc > 100);
    assert!(
        corrupt.header_crc + corrupt.payload_crc < corrupted.frames_corrupted,
        "magics are hit, too"
    );
    let duplicated = faults(|faults| faults.duplicate = 0.1);
    assert!((600..1000).contains(&duplicated.expected.frames_duplicate));
    let reordered = faults(|faults| faults.reorder = 0.1);
    assert!(reordered.expected.frames_reordered > 500 && reordered.expected.frames_lost == 0);
    let garbage = faults(|faults| faults.garbage = 0.1);
    assert_eq!(garbage.expected.bytes_discarded, garbage.garbage_bytes);
    assert!(garbage.garbage_bytes > 8000);
}

#[test]
fn the_same_seed_sends_the_same_bytes_at_any_rate() {
    let with = |seed, rate_hz| {
        let faults = every_fault(0.05);
        let options = RadarOptions {
            seed,
            rate_hz,
            faults,
            frames: Some(300),
            ..options(Vec::new())
        };
        run_over_tcp(options, 1).1
    };
    // Times follow from the rate, so the rates are two that give the same: none, and 1 MHz.
    assert!(with(7, 0.0) == with(7, 1e6));
    assert!(with(7, 0.0) != with(8, 0.0));
}

#[test]
fn one_fault_does_not_move_another() {
    let dropped = |reorder| {
        let faults = Faults {
            drop: 0.1,
            reorder,
            ..Faults::default()
        };
        run_over_tcp(
            RadarOptions {
                faults,
                ..options(Vec::new())
            },
            1,
        )
        .0
        .total
        .frames_dropped
    };
    assert_eq!(dropped(0.0), dropped(0.2));
}

#[test]
fn datagrams_hold_whole_frames_and_the_same_account() {
    for (datagram_bytes, gso) in [
        (None, true),
        (Some(2000), true),
        (Some(2000), false),
        (None, false),
    ] {
        let wanted = UdpOptions {
            receive_buffer_bytes: 8 << 20,
            gro: gso,
            ..UdpOptions::default()
        };
        let mut receiver = UdpReceiver::bind((Ipv4Addr::LOCALHOST, 0).into(), &wanted).unwrap();
        // What a machine with the smallest usual buffer (208 KiB) can hold, or more where there is more.
        let frames = if receiver.receive_buffer_bytes() >= 4 << 20 {
            300
        } else {
            20
        };
        let to = vec![target(TargetKind::Udp, receiver.local_addr().ok(), None)];
        let options = RadarOptions {
            faults: every_fault(0.05),
            frames: Some(frames),
            datagram_bytes,
            gso,
            ..options(to)
        };
        let summary = run(&options);
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        let mut buf = vec![0; 16 * MAX_DATAGRAM_BYTES];
        loop {
            let runs = receiver.receive(&mut buf, Duration::ZERO).unwrap().to_vec();
            if runs.is_empty() {
                break;
            }
            for run in runs {
                datagrams.extend(run.segments().map(|range| buf[range].to_vec()));
            }
        }
        assert_eq!(
            receiver.kernel_drops(),
            0,
            "the buffer was meant to hold everything"
        );
        let destination = &summary.destinations[0];
        assert_eq!(datagrams.len() as u64, destination.datagrams_sent);
        assert!(
            datagrams
                .iter()
                .all(|datagram| datagram.len() <= datagram_bytes.unwrap_or(340))
        );
        assert_eq!(
            receive(datagrams.iter().map(Vec::as_slice)),
            destination.account.expected
        );
    }
}

#[test]
fn periodics_are_marked() {
    let options = RadarOptions {
        periodic: 10,
        streams: 1,
        frames: Some(25),
        ..options(Vec::new())
    };
    let (_, bytes) = run_over_tcp(options, 1);
    let mut flags = Vec::new();
    let mut decoder = FrameDecoder::new(FrameLayout::default());
    decoder.feed(&bytes[0], &mut |frame: tapeline_wire::frame::Frame<'_>| {
        flags.push(frame.fields.flags)
    });
    assert_eq!(flags.len(), 25);
    for (number, flag) in flags.iter().enumerate() {
        let wanted = match number % 10 {
            0 => PERIOD_START,
            9 => PERIOD_END,
            _ => 0,
        };
        assert_eq!(*flag, wanted, "frame {number}");
    }
}

#[test]
fn a_file_holds_what_the_account_says() {
    let path = std::env::temp_dir().join(format!("tapeline-simulate-{}.dat", std::process::id()));
    let to = vec![target(TargetKind::File, None, Some(path.clone()))];
    let summary = run(&RadarOptions {
        faults: every_fault(0.02),
        ..options(to)
    });
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(receive([&bytes[..]].into_iter()), summary.total.expected);
}

#[test]
fn a_listener_that_comes_late_is_waited_for_and_one_that_never_comes_is_an_error() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let to = vec![target(TargetKind::Tcp, Some(address), None)];
    let simulation = RadarSimulation::start(&RadarOptions {
        frames: Some(1),
        ..options(to.clone())
    })
    .unwrap();
    let mut bytes = Vec::new();
    TcpListener::bind(address)
        .unwrap()
        .accept()
        .unwrap()
        .0
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(simulation.finish().total.bytes_sent, bytes.len() as u64);

    let summary = run(&RadarOptions {
        connect_timeout_s: 0.05,
        ..options(to)
    });
    assert!(summary.destinations[0].error.is_some());
    assert_eq!(summary.total.bytes_sent, 0);
}

#[test]
fn a_simulation_without_end_stops_when_told_and_its_account_is_right() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = RadarOptions {
        frames: None,
        ..options(vec![tcp(&listener)])
    };
    let mut simulation = RadarSimulation::start(&options).unwrap();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    });
    while simulation.bytes_sent() < 1 << 20 {
        assert!(!simulation.wait(Duration::from_millis(1)));
    }
    simulation.stop();
    let summary = simulation.finish();
    let bytes = reader.join().unwrap();
    assert_eq!(receive([&bytes[..]].into_iter()), summary.total.expected);
}

#[test]
fn stopping_does_not_wait_for_a_receiver_that_does_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = RadarOptions {
        frames: None,
        payload_bytes: 60_000,
        ..options(vec![tcp(&listener)])
    };
    let simulation = RadarSimulation::start(&options).unwrap();
    let _connection = listener.accept().unwrap();
    simulation.stop();
    // It may have stopped before the buffers were full; either way it ends.
    let summary = simulation.finish();
    assert_eq!(summary.streams.len(), 4);
}

#[test]
fn options_that_cannot_be_name_what_is_allowed() {
    let to = vec![target(
        TargetKind::Udp,
        Some((Ipv4Addr::LOCALHOST, 9).into()),
        None,
    )];
    type Edit = fn(&mut RadarOptions);
    let cases: [(Edit, &str); 7] = [
        (|options| options.to.clear(), "destinations"),
        (|options| options.streams = 0, "streams"),
        (|options| options.payload_bytes = 0, "payload"),
        (|options| options.payload_bytes = 70_000, "datagram"),
        (|options| options.faults.corrupt = 1.5, "corrupt"),
        (|options| options.faults.drop = f64::NAN, "drop"),
        (|options| options.rate_hz = -1.0, "rate"),
    ];
    for (edit, word) in cases {
        let mut options = options(to.clone());
        edit(&mut options);
        let text = RadarSimulation::start(&options).unwrap_err();
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn packing_cuts_where_datagrams_and_messages_end() {
    let piece = |bytes, alone| Piece {
        parts: 2,
        bytes,
        alone,
    };
    let pieces = [
        piece(40, false),
        piece(40, false),
        piece(40, false),
        piece(7, true),
        piece(40, false),
    ];
    let mut messages = Vec::new();
    let packed = |limit, gso, messages: &mut Vec<_>| {
        let datagrams = pack(pieces.iter().copied(), limit, gso, messages);
        let parts: Vec<_> = messages
            .iter()
            .map(|m: &tapeline_sys::udp::Message| m.parts.clone())
            .collect();
        let sizes: Vec<_> = messages
            .iter()
            .map(|m: &tapeline_sys::udp::Message| m.segment_bytes)
            .collect();
        (datagrams, parts, sizes)
    };
    assert_eq!(
        packed(None, true, &mut messages),
        (5, vec![0..6, 6..8, 8..10], vec![40, 0, 0])
    );
    assert_eq!(
        packed(None, false, &mut messages),
        (5, vec![0..2, 2..4, 4..6, 6..8, 8..10], vec![0; 5])
    );
    assert_eq!(
        packed(Some(90), true, &mut messages),
        (4, vec![0..4, 4..6, 6..8, 8..10], vec![0; 4])
    );
}
