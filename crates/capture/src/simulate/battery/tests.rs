#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{fs, path::PathBuf};

use tapeline_wire::register::{Command, ImageLimits, Kind, PacketDecoder, RegisterImage};

use super::*;
use crate::simulate::TargetKind;

fn options(name: &str, clients: u32) -> BatteryOptions {
    let path = |client| {
        std::env::temp_dir().join(format!(
            "tapeline-battery-{name}-{client}-{}",
            std::process::id()
        ))
    };
    BatteryOptions {
        to: (0..clients)
            .map(|client| Target {
                kind: TargetKind::File,
                url: format!("file://{}", path(client).display()),
                address: None,
                path: Some(path(client)),
            })
            .collect(),
        clients,
        packets: Some(500),
        duration_s: None,
        count_min: 3,
        count_max: 3,
        registers: 200,
        delay_s: 0.0,
        random: false,
        full_every: 100,
        wire: "packet".to_owned(),
        seed: 7,
        start_us: Some(1_000_000),
        datagram_bytes: None,
        connect_timeout_s: 1.0,
        image: true,
    }
}

fn run(options: &BatteryOptions) -> (BatterySummary, Vec<Vec<u8>>) {
    let summary = BatterySimulation::start(options).unwrap().finish();
    let paths: Vec<PathBuf> = options.to.iter().filter_map(|to| to.path.clone()).collect();
    let bytes = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    paths.iter().for_each(|path| fs::remove_file(path).unwrap());
    (summary, bytes)
}

#[test]
fn the_account_is_what_a_decoder_finds_and_the_image_what_it_makes() {
    for (wire, random, clients) in [
        ("packet", false, 3),
        ("packet", true, 2),
        ("simple", false, 2),
        ("simple", true, 1),
    ] {
        let mut options = options(&format!("{wire}-{random}"), clients);
        options.random = random;
        options.wire = wire.to_owned();
        options.count_max = 40;
        let (summary, streams) = run(&options);
        let mut image = RegisterImage::new(ImageLimits::default());
        let (mut packets, mut full, mut registers) = (0, 0, 0);
        for bytes in &streams {
            let mut decoder = PacketDecoder::new(Kind::from_name(wire).unwrap());
            decoder
                .feed(bytes, &mut |packet| {
                    packets += 1;
                    full += u64::from(packet.command == Command::Full);
                    registers += u64::from(packet.count);
                    assert!(packet.command == Command::Full || (3..=40).contains(&packet.count));
                    let applied = image.apply(&packet);
                    assert_eq!(applied.refused, 0);
                })
                .unwrap();
            decoder.finish();
        }
        let total = summary.total;
        assert_eq!((total.packets_sent, total.full_packets), (packets, full));
        assert_eq!(packets, 500 * u64::from(clients));
        assert_eq!(
            full,
            if wire == "packet" {
                5 * u64::from(clients)
            } else {
                0
            }
        );
        assert_eq!(total.registers_sent, registers);
        assert_eq!(
            total.bytes_sent,
            streams.iter().map(|s| s.len() as u64).sum::<u64>()
        );
        assert_eq!(summary.image_digest, image.digest());
        let found = summary.image.unwrap().sources;
        assert_eq!(found.len(), clients as usize);
        for source in found {
            let of = image
                .sources()
                .into_iter()
                .find(|s| {
                    s.source().kind as u8 == source.source_type && s.source().id == source.src_id
                })
                .unwrap();
            assert_eq!(of.registers(), source.registers);
        }
    }
}

#[test]
fn the_seed_decides_every_byte() {
    let first = run(&options("seed-a", 2)).1;
    assert_eq!(first, run(&options("seed-b", 2)).1);
    let mut other = options("seed-c", 2);
    other.seed += 1;
    assert_ne!(first, run(&other).1);
    assert_ne!(first[0][21..], first[1][21..]);
}

#[test]
fn drifting_values_look_like_a_battery() {
    let mut options = options("drift", 1);
    options.packets = Some(20_000);
    let sources = run(&options).0.image.unwrap().sources;
    let registers = &sources[0].registers;
    assert_eq!(registers.len(), 200);
    for &(offset, value) in &registers[8..] {
        let range = if (offset - 8) % 5 == 4 {
            2_831..=3_281
        } else {
            3_000..=4_150
        };
        assert!(range.contains(&value), "{offset}: {value}");
    }
    assert!([0b000, 0b110, 0b011].contains(&registers[0].1));
    let cells: std::collections::HashSet<u16> = registers[8..12].iter().map(|r| r.1).collect();
    assert!(cells.len() > 1);
}

#[test]
fn every_client_has_a_source_of_its_own() {
    for kind in [Kind::Packet, Kind::Simple] {
        let sources: std::collections::HashSet<_> = (0..options::MOST_CLIENTS)
            .map(|client| {
                let source = rack::source_of(client, kind);
                (source.kind as u8, source.id)
            })
            .collect();
        assert_eq!(sources.len(), options::MOST_CLIENTS as usize);
    }
}

#[test]
fn options_out_of_range_are_named() {
    type Change = fn(&mut BatteryOptions);
    let changes: [(&str, Change); 8] = [
        ("clients", |o| o.clients = 0),
        ("clients", |o| o.clients = 1025),
        ("clients", |o| o.to.extend_from_within(..)),
        ("count", |o| o.count_min = 4),
        ("count", |o| o.count_max = 201),
        ("registers", |o| o.registers = 65_537),
        ("delay", |o| o.delay_s = f64::NAN),
        ("wire", |o| o.wire = "frame".to_owned()),
    ];
    for (name, change) in changes {
        let mut options = options("never", 1);
        change(&mut options);
        let text = BatterySimulation::start(&options).unwrap_err();
        assert!(text.contains(name), "{text}");
    }
    let mut options = options("never", 1);
    options.to[0].kind = TargetKind::Udp;
    options.registers = 65_536;
    assert!(options.check().unwrap_err().contains("datagram"));
}
