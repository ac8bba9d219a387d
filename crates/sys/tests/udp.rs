//! UDP over real loopback sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    io::IoSlice,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use tapeline_sys::udp::{
    MAX_DATAGRAM_BYTES, MAX_PAYLOAD_BYTES, Message, UdpOptions, UdpReceiver, UdpSender,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn options() -> UdpOptions {
    UdpOptions {
        gro: false,
        receive_buffer_bytes: 4 << 20,
        ..UdpOptions::default()
    }
}

fn pair(options: &UdpOptions) -> (UdpReceiver, UdpSender) {
    let receiver = UdpReceiver::bind((Ipv4Addr::LOCALHOST, 0).into(), options).unwrap();
    let sender = UdpSender::connect(receiver.local_addr().unwrap(), 4 << 20).unwrap();
    (receiver, sender)
}

/// A datagram that tells its number and length, and is filled from both.
fn datagram(number: usize, bytes: usize) -> Vec<u8> {
    let mut datagram: Vec<u8> = (0..bytes)
        .map(|i| ((i * 7 + number * 13) % 251).to_le_bytes()[0])
        .collect();
    if let Some(head) = datagram.first_chunk_mut::<8>() {
        *head = number.to_le_bytes();
    }
    datagram
}

/// Receives until `count` datagrams are there.
fn receive(receiver: &mut UdpReceiver, buf: &mut [u8], count: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while all.len() < count {
        let found = receiver.receive(buf, PATIENCE).unwrap().to_vec();
        assert!(!found.is_empty(), "{} of {count} datagrams came", all.len());
        for run in found {
            all.extend(run.segments().map(|range| buf[range].to_vec()));
        }
    }
    assert_eq!(all.len(), count);
    all
}

#[test]
fn a_batch_arrives_in_order_and_whole() {
    let (mut receiver, mut sender) = pair(&options());
    let mut buf = vec![0; 4 * MAX_DATAGRAM_BYTES];
    assert!(
        receiver
            .receive(&mut buf, Duration::ZERO)
            .unwrap()
            .is_empty()
    );
    assert!(
        receiver
            .receive(&mut buf, Duration::from_millis(1))
            .unwrap()
            .is_empty()
    );
    let sent: Vec<Vec<u8>> = (0..100)
        .map(|number| datagram(number, 1 + number * 5))
        .collect();
    sender
        .send_batch(&sent.iter().map(Vec::as_slice).collect::<Vec<_>>())
        .unwrap();
    let mut got = receive(&mut receiver, &mut buf, sent.len());
    // Spilled datagrams follow those that fitted; all are there.
    got.sort_by_key(Vec::len);
    assert!(got == sent);
    assert_eq!(receiver.kernel_drops(), 0);
}

#[test]
fn datagrams_longer_than_the_slots_are_neither_cut_nor_lost() {
    let (mut receiver, mut sender) = pair(&options());
    let mut buf = vec![0; MAX_DATAGRAM_BYTES];
    // Small ones first, so that the slots become small, then a mix with the largest there are.
    for round in 0..5 {
        let small: Vec<Vec<u8>> = (0..20).map(|number| datagram(number, 100)).collect();
        sender
            .send_batch(&small.iter().map(Vec::as_slice).collect::<Vec<_>>())
            .unwrap();
        assert!(
            receive(&mut receiver, &mut buf, 20) == small,
            "round {round}"
        );
        for _ in 0..100 {
            sender.send_batch(&[&small[0]]).unwrap();
            receive(&mut receiver, &mut buf, 1);
        }
        let sizes = [
            100,
            30_000,
            8,
            MAX_PAYLOAD_BYTES,
            9_000,
            100,
            MAX_PAYLOAD_BYTES,
            50,
        ];
        let mixed: Vec<Vec<u8>> = sizes
            .iter()
            .enumerate()
            .map(|(number, &bytes)| datagram(number, bytes))
            .collect();
        sender
            .send_batch(&mixed.iter().map(Vec::as_slice).collect::<Vec<_>>())
            .unwrap();
        let mut got = receive(&mut receiver, &mut buf, mixed.len());
        got.sort_by_key(|datagram| datagram[0]);
        assert!(got == mixed, "round {round}");
    }
}

#[test]
fn an_empty_datagram_is_one() {
    let (mut receiver, mut sender) = pair(&options());
    sender.send_batch(&[b"", b"x"]).unwrap();
    let mut buf = vec![0; MAX_DATAGRAM_BYTES * 2];
    let got = receive(&mut receiver, &mut buf, 2);
    assert_eq!(got, [b"".to_vec(), b"x".to_vec()]);
}

#[test]
fn a_small_buffer_is_refused() {
    let (mut receiver, _sender) = pair(&options());
    assert!(receiver.receive(&mut [0; 1000], Duration::ZERO).is_err());
}

#[test]
fn segmented_messages_arrive_as_the_same_datagrams_with_and_without_gro() {
    for gro in [false, true] {
        let (mut receiver, mut sender) = pair(&UdpOptions { gro, ..options() });
        assert!(gro || !receiver.gro());
        let sent: Vec<Vec<u8>> = (0..100)
            .map(|number| datagram(number, 1400))
            .chain([datagram(100, 77)])
            .collect();
        sender.send_gso(&sent.concat(), 1400).unwrap();
        let mut buf = vec![0; 16 * MAX_DATAGRAM_BYTES];
        assert!(
            receive(&mut receiver, &mut buf, sent.len()) == sent,
            "gro {gro}"
        );
        if receiver.gro() && sender.gso() {
            sender.send_gso(&sent.concat(), 1400).unwrap();
            let runs = receiver.receive(&mut buf, PATIENCE).unwrap();
            assert!(
                runs[0].bytes > runs[0].segment_bytes,
                "the kernel joins what it cut"
            );
        }
    }
}

#[test]
fn messages_of_parts_are_joined_and_cut() {
    let (mut receiver, mut sender) = pair(&options());
    let bytes: Vec<Vec<u8>> = (0..4).map(|number| datagram(number, 500)).collect();
    let parts: Vec<IoSlice<'_>> = bytes.iter().map(|part| IoSlice::new(part)).collect();
    let messages = [
        Message {
            parts: 0..1,
            segment_bytes: 0,
        },
        Message {
            parts: 1..4,
            segment_bytes: 1000,
        },
        Message {
            parts: 0..4,
            segment_bytes: 0,
        },
    ];
    sender.send_messages(&parts, &messages).unwrap();
    let mut buf = vec![0; 16 * MAX_DATAGRAM_BYTES];
    let got = receive(&mut receiver, &mut buf, 4);
    let wanted = [
        bytes[0].clone(),
        bytes[1..3].concat(),
        bytes[3].clone(),
        bytes.concat(),
    ];
    assert!(got == wanted);
    assert!(
        sender
            .send_messages(
                &parts,
                &[Message {
                    parts: 3..5,
                    segment_bytes: 0
                }]
            )
            .is_err()
    );
    assert!(sender.send_gso(&[0; 10], 0).is_err());
}

#[test]
fn nobody_there_is_counted_not_an_error() {
    let peer = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut sender = UdpSender::connect(peer, 0).unwrap();
    for _ in 0..50 {
        sender.send_batch(&[b"hello"]).unwrap();
    }
    if cfg!(all(target_os = "linux", not(tapeline_portable))) {
        assert!(sender.refused() > 0);
    }
}

#[cfg(all(target_os = "linux", not(tapeline_portable)))]
#[test]
fn kernel_drops_are_counted_exactly_even_after_the_last_datagram() {
    for gro in [false, true] {
        let options = UdpOptions {
            receive_buffer_bytes: 20_000,
            gro,
            ..options()
        };
        let (mut receiver, mut sender) = pair(&options);
        let mut buf = vec![0; 16 * MAX_DATAGRAM_BYTES];
        let mut received = 0;
        let mut sent = 0;
        for round in 0..5 {
            let datagrams: Vec<Vec<u8>> = (0..300).map(|number| datagram(number, 1400)).collect();
            sender
                .send_batch(&datagrams.iter().map(Vec::as_slice).collect::<Vec<_>>())
                .unwrap();
            sent += datagrams.len();
            loop {
                let runs = receiver.receive(&mut buf, Duration::ZERO).unwrap();
                if runs.is_empty() {
                    break;
                }
                received += runs.iter().map(|run| run.segments().count()).sum::<usize>();
            }
            let drops = usize::try_from(receiver.kernel_drops()).unwrap();
            assert!(drops > 0);
            assert_eq!(received + drops, sent, "round {round}, gro {gro}");
        }
    }
}

#[cfg(all(target_os = "linux", not(tapeline_portable)))]
#[test]
fn kernel_stamps_arrivals() {
    let (mut receiver, mut sender) = pair(&UdpOptions {
        timestamps: true,
        ..options()
    });
    let before = tapeline_sys::clock::realtime_ns();
    sender.send_batch(&[b"now"]).unwrap();
    let mut buf = vec![0; MAX_DATAGRAM_BYTES];
    let received_ns = receiver.receive(&mut buf, PATIENCE).unwrap()[0].received_ns;
    // The wall clock may be adjusted meanwhile; it does not move by a minute.
    assert!(
        received_ns.abs_diff(before) < 60_000_000_000,
        "{received_ns} {before}"
    );
}

#[test]
fn granted_buffer_and_address_are_told() {
    let (receiver, _sender) = pair(&options());
    assert_ne!(receiver.local_addr().unwrap().port(), 0);
    if cfg!(all(target_os = "linux", not(tapeline_portable))) {
        assert!(receiver.receive_buffer_bytes() > 0);
    }
    let taken = receiver.local_addr().unwrap();
    let error = UdpReceiver::bind(taken, &options()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[cfg(all(target_os = "linux", not(tapeline_portable)))]
#[test]
fn shared_ports_and_groups_are_joined() {
    let options = UdpOptions {
        reuse_port: true,
        ..options()
    };
    let first = UdpReceiver::bind((Ipv4Addr::LOCALHOST, 0).into(), &options).unwrap();
    UdpReceiver::bind(first.local_addr().unwrap(), &options).unwrap();

    let group = Ipv4Addr::new(239, 255, 77, 77);
    let options = UdpOptions {
        multicast: Some((group, Some(Ipv4Addr::LOCALHOST))),
        reuse_port: false,
        ..options
    };
    let mut receiver = UdpReceiver::bind((group, 0).into(), &options).unwrap();
    let std::net::SocketAddr::V4(addr) = receiver.local_addr().unwrap() else {
        panic!("bound to IPv4")
    };
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.set_multicast_loop_v4(true).unwrap();
    sender.send_to(b"to the group", addr).unwrap();
    let mut buf = vec![0; MAX_DATAGRAM_BYTES];
    let found = receiver.receive(&mut buf, PATIENCE).unwrap().to_vec();
    assert_eq!(&buf[found[0].offset..][..found[0].bytes], b"to the group");
}

#[cfg(all(target_os = "linux", not(tapeline_portable)))]
#[test]
fn ipv6_works_where_there_is_any() {
    let Ok(mut receiver) = UdpReceiver::bind("[::1]:0".parse().unwrap(), &options()) else {
        return; // The machine has no IPv6.
    };
    let mut sender = UdpSender::connect(receiver.local_addr().unwrap(), 0).unwrap();
    sender.send_batch(&[b"six"]).unwrap();
    let mut buf = vec![0; MAX_DATAGRAM_BYTES];
    assert_eq!(receive(&mut receiver, &mut buf, 1), [b"six"]);
}
