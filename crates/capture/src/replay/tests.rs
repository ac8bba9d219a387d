#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, TcpListener},
    thread,
};

use tapeline_sys::udp::{MAX_DATAGRAM_BYTES, UdpOptions, UdpReceiver};
use tapeline_wire::frame::FrameFields;

use super::*;
use crate::simulate::TargetKind;

/// A directory of one test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tapeline-replay-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn frame(stream_id: u16, sequence: u64, timestamp_ns: u64, payload_bytes: usize) -> Vec<u8> {
    let fields = FrameFields {
        flags: 0,
        stream_id,
        sequence,
        timestamp_ns,
    };
    let mut out = Vec::new();
    let payload = vec![sequence.to_le_bytes()[0]; payload_bytes];
    FrameLayout::default()
        .encode_frame(&fields, &payload, &mut out)
        .unwrap();
    out
}

fn stream(name: &str, files: Vec<PathBuf>, to: usize) -> ReplayStream {
    let layout = LayoutFields {
        magic: "d1c64f93a7b25e8c".to_owned(),
        version_flags: 4,
        length_bytes: 4,
        header_crc: true,
        max_payload: 1 << 20,
    };
    ReplayStream {
        name: name.to_owned(),
        files,
        layout,
        to,
        packets: None,
    }
}

fn options(streams: Vec<ReplayStream>, speed: Option<f64>) -> ReplayOptions {
    ReplayOptions {
        to: Vec::new(),
        streams,
        speed,
        datagram_bytes: None,
        gso: true,
        connect_timeout_s: 10.0,
    }
}

fn target(kind: TargetKind, address: Option<std::net::SocketAddr>) -> Target {
    Target {
        kind,
        url: "there".to_owned(),
        address,
        path: None,
    }
}

fn over_tcp(mut options: ReplayOptions) -> (ReplaySummary, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    options.to = vec![target(TargetKind::Tcp, listener.local_addr().ok())];
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
    let summary = Replay::start(&options).unwrap().finish();
    (summary, reader.join().unwrap())
}

#[test]
fn segments_come_back_bit_for_bit_and_in_order() {
    let scratch = Scratch::new("order");
    // Larger than a chunk, with frames of very different sizes.
    let segment = |from: u64| -> Vec<u8> {
        (from..from + 40)
            .flat_map(|n| frame(3, n, n * 1000, if n % 3 == 0 { 200_000 } else { 5 }))
            .collect()
    };
    let (first, second) = (segment(0), segment(40));
    let files = vec![
        scratch.file("0.dat", &first),
        scratch.file("1.dat", &second),
    ];
    let (summary, bytes) = over_tcp(options(vec![stream("ch0", files, 0)], None));
    assert!(bytes == [first, second].concat());
    let told = &summary.streams[0];
    assert_eq!(
        (told.frames_sent, told.bytes_sent, told.bytes_skipped),
        (80, bytes.len() as u64, 0)
    );
    assert_eq!(summary.destinations[0].error, None);
}

#[test]
fn streams_with_one_destination_are_merged_by_time() {
    let scratch = Scratch::new("merge");
    let even: Vec<Vec<u8>> = (0..50).map(|n| frame(0, n, 2 * n, 10)).collect();
    let odd: Vec<Vec<u8>> = (0..50).map(|n| frame(1, n, 2 * n + 1, 10)).collect();
    let streams = vec![
        stream("a", vec![scratch.file("a", &even.concat())], 0),
        stream("b", vec![scratch.file("b", &odd.concat())], 0),
    ];
    let (_, bytes) = over_tcp(options(streams, Some(1.0)));
    let wanted: Vec<u8> = even
        .iter()
        .zip(&odd)
        .flat_map(|(even, odd)| [even.clone(), odd.clone()].concat())
        .collect();
    assert!(bytes == wanted);
}

#[test]
fn damage_is_left_out_and_counted() {
    let scratch = Scratch::new("damage");
    let good: Vec<Vec<u8>> = (0..3).map(|n| frame(0, n, n, 10)).collect();
    let bytes = [&good[0][..], b"rubbish", &good[1], &good[2][..20]].concat();
    let files = vec![scratch.file("a", &bytes), scratch.file("b", &good[2])];
    let (summary, sent) = over_tcp(options(vec![stream("ch0", files, 0)], None));
    assert!(sent == good.concat());
    assert_eq!(summary.streams[0].bytes_skipped, 7 + 20);
}

#[test]
fn each_frame_is_a_datagram() {
    let scratch = Scratch::new("udp");
    let frames: Vec<Vec<u8>> = (0..100).map(|n| frame(0, n, n, 100)).collect();
    let mut receiver = UdpReceiver::bind(
        (Ipv4Addr::LOCALHOST, 0).into(),
        &UdpOptions {
            gro: false,
            ..UdpOptions::default()
        },
    )
    .unwrap();
    let mut options = options(
        vec![stream("ch0", vec![scratch.file("a", &frames.concat())], 0)],
        Some(2.0),
    );
    options.to = vec![target(TargetKind::Udp, receiver.local_addr().ok())];
    let summary = Replay::start(&options).unwrap().finish();
    let mut buf = vec![0; 16 * MAX_DATAGRAM_BYTES];
    let mut got = Vec::new();
    while got.len() < frames.len() {
        let found = receiver
            .receive(&mut buf, Duration::from_secs(10))
            .unwrap()
            .to_vec();
        assert!(!found.is_empty());
        got.extend(
            found
                .iter()
                .map(|datagram| buf[datagram.offset..datagram.offset + datagram.bytes].to_vec()),
        );
    }
    assert!(got == frames);
    assert_eq!(summary.destinations[0].datagrams_sent, 100);
}

#[test]
fn frames_wait_for_their_time() {
    let mut clock = Clock::new(1_000, Some(2.0));
    assert_eq!(clock.until(1_000), None);
    assert_eq!(
        clock.until(0),
        None,
        "a time before the first is due at once"
    );
    let hour_ns = 3_600_000_000_000;
    let wait = clock.until(1_000 + hour_ns).unwrap();
    assert!(
        wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800),
        "half an hour at double speed"
    );
    assert_eq!(
        Clock::new(0, None).until(u64::MAX),
        None,
        "as fast as possible"
    );
}

#[test]
fn a_replay_that_waits_can_be_stopped() {
    let scratch = Scratch::new("stop");
    let bytes = [frame(0, 0, 0, 10), frame(0, 1, u64::MAX, 10)].concat();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options(
        vec![stream("ch0", vec![scratch.file("a", &bytes)], 0)],
        Some(1.0),
    );
    options.to = vec![target(TargetKind::Tcp, listener.local_addr().ok())];
    let mut replay = Replay::start(&options).unwrap();
    while replay.bytes_sent() == 0 {
        assert!(!replay.wait(Duration::from_millis(1)));
    }
    replay.stop();
    assert_eq!(replay.finish().streams[0].frames_sent, 1);
}

#[test]
fn what_cannot_be_is_an_error() {
    for speed in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        assert!(Replay::start(&options(Vec::new(), Some(speed))).is_err());
    }
    assert!(Replay::start(&options(vec![stream("ch0", Vec::new(), 0)], None)).is_err());
    let missing = stream("ch0", vec![PathBuf::from("does-not-exist.dat")], 0);
    let (summary, bytes) = over_tcp(options(vec![missing], None));
    assert!(bytes.is_empty());
    assert!(
        summary.destinations[0]
            .error
            .as_ref()
            .unwrap()
            .contains("does-not-exist.dat")
    );
}
