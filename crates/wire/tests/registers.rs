//! The register vectors, and properties of packets, decoder and image.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;
use tapeline_testkit::every_chunking;
use tapeline_wire::register::{
    Command, FramingReason, ImageLimits, ImagePosition, Kind, PacketDecoder, PacketFields,
    PacketRef, PacketScanner, RegisterImage, RegisterState, Source, SourceType, decode_image,
    encode_image, encode_packet, encode_simple,
};

fn vector(name: &str) -> (Vec<u8>, Value) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/register");
    let json = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    let bytes = std::fs::read(folder.join(format!("{name}.bin"))).unwrap();
    (bytes, serde_json::from_slice(&json).unwrap())
}

#[test]
fn vectors_for_every_chunking() {
    for (name, kind) in [
        ("packet", Kind::Packet),
        ("packet_malformed", Kind::Packet),
        ("simple", Kind::Simple),
    ] {
        let (bytes, want) = vector(name);
        let number = |field: &str| want[field].as_u64().unwrap();
        every_chunking(&bytes, |chunks| {
            let mut decoder = PacketDecoder::new(kind);
            let mut image = RegisterImage::default();
            let mut sums = [0; 2];
            let (mut applied, mut last_us) = (0, BTreeMap::new());
            let mut take = |packet: PacketRef<'_>| {
                image.apply(&packet);
                let at = usize::try_from(packet.offset).unwrap();
                assert_eq!(packet.bytes, &bytes[at..at + packet.packet_bytes()]);
                if packet.command.sets_registers() {
                    applied += 1;
                    sums[0] += packet.offsets().map(u64::from).sum::<u64>();
                    sums[1] += packet.values().map(u64::from).sum::<u64>();
                    last_us.insert(packet.source.id, packet.timestamp_us);
                }
            };
            for chunk in chunks {
                decoder.feed(chunk, &mut take).unwrap();
            }
            decoder.finish();
            let c = decoder.counters();
            assert_eq!(c.packets + c.invalid.length_mismatch, number("packets"));
            assert_eq!(c.invalid.length_mismatch, number("malformed"));
            assert_eq!(
                (c.registers, c.queries, c.full),
                (
                    number("registers"),
                    number("queries"),
                    number("full_packets")
                )
            );
            assert_eq!(applied, number("applied_packets"));
            assert_eq!(sums, [number("sum_offsets"), number("sum_values")]);
            assert_eq!(c.bytes_valid + c.bytes_invalid, number("bytes_sent"));
            for source in want["sources"].as_array().unwrap() {
                let id = source["src_id"]
                    .as_i64()
                    .or(source["rack"].as_i64())
                    .unwrap();
                let last = source["last_ts_us"].as_u64().unwrap();
                assert_eq!(last_us[&i32::try_from(id).unwrap()], last);
            }
        });
    }
}

#[test]
fn a_refused_packet_is_skipped_and_counted_by_reason() {
    let packet = |change: fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        encode_packet(&PacketFields::default(), &[(1, 2)], &mut bytes).unwrap();
        change(&mut bytes);
        bytes
    };
    let stream = [
        packet(|b| b[13] = 6),
        packet(|_| {}),
        packet(|b| b[14] = 4),
        packet(|b| b[17] = 2),
        packet(|b| b[20] = 0x80),
        packet(|b| b[16] = 9),
        packet(|b| b.truncate(24)),
    ]
    .concat();
    let mut reserved = Vec::new();
    let mut scanner = PacketScanner::new(Kind::Packet);
    let done = scanner.scan(&stream, true, &mut |p| reserved.push(p.reserved));
    assert_eq!(done, Ok(stream.len()));
    assert_eq!(reserved, [0, 9]);
    let c = scanner.counters();
    let i = c.invalid;
    assert_eq!(
        (
            i.unknown_command,
            i.unknown_type,
            i.length_mismatch,
            i.truncated
        ),
        (1, 1, 2, 1)
    );
    assert_eq!(
        (c.bytes_valid, c.bytes_invalid, c.bytes_discarded),
        (50, 100, 24)
    );
}

#[test]
fn lost_framing_keeps_what_came_before_and_says_why() {
    let mut good = Vec::new();
    encode_packet(&PacketFields::default(), &[(1, 2), (3, 4)], &mut good).unwrap();
    let mut simple = Vec::new();
    encode_simple(1.5, -7, &[(1, 2)], &mut simple).unwrap();
    let mut many = simple.clone();
    many[12..16].copy_from_slice(&65_537_u32.to_le_bytes());
    for (kind, good, bad, reason, found) in [
        (
            Kind::Packet,
            &good,
            16_u32.to_le_bytes().to_vec(),
            FramingReason::LengthBelowMinimum,
            16,
        ),
        (
            Kind::Packet,
            &good,
            262_162_u32.to_le_bytes().to_vec(),
            FramingReason::LengthAboveLimit,
            262_162,
        ),
        (
            Kind::Simple,
            &simple,
            many,
            FramingReason::CountAboveLimit,
            65_537,
        ),
    ] {
        let stream = [good.as_slice(), &bad, good].concat();
        every_chunking(&stream, |chunks| {
            let mut decoder = PacketDecoder::new(kind);
            let mut packets = 0;
            let mut last = Ok(());
            for chunk in chunks {
                last = decoder.feed(chunk, &mut |_| packets += 1);
            }
            let lost = last.unwrap_err();
            assert_eq!(
                (lost.offset, lost.reason, lost.found),
                (good.len() as u64, reason, found)
            );
            assert_eq!((packets, decoder.pending_bytes()), (1, 0));
            let c = *decoder.counters();
            assert_eq!(c.bytes_valid + c.bytes_discarded, stream.len() as u64);
            assert_eq!(c.framing_lost, 1);
            decoder.finish();
            decoder.feed(good, &mut |_| packets += 1).unwrap();
            assert_eq!(packets, 2);
        });
    }
}

#[test]
fn a_query_is_answered_in_the_order_asked() {
    let mut image = RegisterImage::default();
    let source = Source {
        kind: SourceType::Rack,
        id: 9,
    };
    let mut fields = PacketFields {
        timestamp_us: 5,
        source,
        ..Default::default()
    };
    let mut apply = |fields: &PacketFields, registers: &[(u16, u16)]| {
        let mut bytes = Vec::new();
        encode_packet(fields, registers, &mut bytes).unwrap();
        image.apply(&PacketRef::parse(Kind::Packet, &bytes).unwrap());
    };
    apply(&fields, &[(7, 70), (8, 80), (9, 90)]);
    fields.timestamp_us = 6;
    apply(&fields, &[(8, 81), (7, 70)]);
    let ask = |offsets: &[u16]| {
        let fields = PacketFields {
            source,
            command: Command::Query,
            seq: 200,
            timestamp_us: 1,
        };
        let registers: Vec<_> = offsets.iter().map(|o| (*o, 0)).collect();
        let (mut query, mut reply) = (Vec::new(), Vec::new());
        encode_packet(&fields, &registers, &mut query).unwrap();
        image.answer(&PacketRef::parse(Kind::Packet, &query).unwrap(), &mut reply);
        let reply = PacketRef::parse(Kind::Packet, &reply).unwrap();
        assert_eq!(
            (reply.command, reply.source, reply.seq),
            (Command::Reply, source, 200)
        );
        (reply.timestamp_us, reply.registers().collect::<Vec<_>>())
    };
    assert_eq!(ask(&[9, 1, 7]), (5, vec![(9, 90), (7, 70)]));
    assert_eq!(ask(&[8]), (6, vec![(8, 81)]));
    assert_eq!(ask(&[]), (6, vec![(7, 70), (8, 81), (9, 90)]));
    assert_eq!(ask(&[1]), (0, vec![]));
}

#[test]
fn what_a_lost_packet_may_have_set_is_in_doubt_until_set_again() {
    let mut image = RegisterImage::default();
    let source = Source::default();
    let mut send = |seq: u8, command: Command, registers: &[(u16, u16)]| {
        let fields = PacketFields {
            timestamp_us: 100 + u64::from(seq),
            source,
            command,
            seq,
        };
        let mut bytes = Vec::new();
        encode_packet(&fields, registers, &mut bytes).unwrap();
        image.apply(&PacketRef::parse(Kind::Packet, &bytes).unwrap());
        let since = |o| image.get(source, o).map(|s| s.unknown_since_us);
        [since(1), since(2), since(5000)]
    };
    let all: Vec<(u16, u16)> = vec![(1, 1), (2, 2), (5000, 3)];
    assert_eq!(send(0, Command::Full, &all), [Some(None); 3]);
    assert_eq!(send(1, Command::Diff, &[(1, 5)]), [Some(None); 3]);
    let doubt = Some(Some(101));
    assert_eq!(
        send(3, Command::Diff, &[(2, 2)]),
        [doubt, Some(None), doubt]
    );
    assert_eq!(
        send(4, Command::Diff, &[(1, 5)]),
        [Some(None), Some(None), doubt]
    );
    assert_eq!(
        send(5, Command::Full, &all[..2]),
        [Some(None), Some(None), None]
    );
}

/// What an image must be, kept the slow way.
#[derive(Default)]
struct Model(BTreeMap<Source, BTreeMap<u16, (u16, u64)>>);

impl Model {
    fn apply(&mut self, p: &PacketRef<'_>) {
        if !p.command.sets_registers() {
            return;
        }
        let registers = self.0.entry(p.source).or_default();
        for (offset, value) in p.registers() {
            let state = registers.entry(offset).or_insert((!value, 0));
            if state.0 != value {
                *state = (value, p.timestamp_us);
            }
        }
        if p.command == Command::Full {
            let listed: std::collections::BTreeSet<u16> = p.offsets().collect();
            registers.retain(|offset, _| listed.contains(offset));
        }
    }

    fn check(&self, image: &RegisterImage) {
        let found: Vec<_> = image.sources().iter().map(|s| s.source()).collect();
        assert_eq!(found, self.0.keys().copied().collect::<Vec<_>>());
        for (source, registers) in &self.0 {
            let states = image.source(*source).unwrap().states();
            let states: Vec<_> = states
                .iter()
                .map(|(o, s)| (*o, (s.value, s.changed_us)))
                .collect();
            assert_eq!(
                states,
                registers.iter().map(|(o, s)| (*o, *s)).collect::<Vec<_>>()
            );
        }
    }
}

fn packet() -> impl Strategy<Value = (PacketFields, Vec<(u16, u16)>)> {
    let scattered = prop::collection::vec((0..70_u16, 0..4_u16), 0..40);
    let run = (0..3000_u16, prop::collection::vec(0..4_u16, 0..300))
        .prop_map(|(first, values)| (first..).zip(values).collect::<Vec<_>>());
    // Several runs in a packet, as diffs with gaps and turns that begin again are.
    let runs = prop::collection::vec(run.clone(), 0..4).prop_map(|runs| runs.concat());
    // All of a word of the bit maps change at once, as a rule.
    let wild = (0..300_u16, prop::collection::vec(any::<u16>(), 0..300))
        .prop_map(|(first, values)| (first..).zip(values).collect::<Vec<_>>());
    let registers = prop_oneof![scattered, run, runs, wild];
    (0..4_u8, 0..2_i32, 0..4_u8, 0..1000_u64, registers).prop_map(
        |(command, id, seq, us, registers)| {
            let source = Source {
                kind: SourceType::Sbmu,
                id,
            };
            let command = Command::from_u8(command).unwrap();
            (
                PacketFields {
                    timestamp_us: us,
                    source,
                    command,
                    seq,
                },
                registers,
            )
        },
    )
}

/// What a reader sees of each source.
fn states(image: &RegisterImage) -> Vec<Vec<(u16, RegisterState)>> {
    let all = image.sources();
    all.iter().map(|source| source.states()).collect()
}

fn image_file(image: &RegisterImage) -> Vec<u8> {
    encode_image(&image.reader(), ImagePosition::default())
}

proptest! {
    #[test]
    fn the_image_is_what_a_brute_force_replay_gives(packets in prop::collection::vec(packet(), 0..30)) {
        let mut stream = Vec::new();
        for (fields, registers) in &packets {
            encode_packet(fields, registers, &mut stream).unwrap();
        }
        let (mut image, mut model) = (RegisterImage::default(), Model::default());
        let mut seen = 0;
        PacketScanner::new(Kind::Packet).scan(&stream, true, &mut |p| {
            let (fields, registers) = &packets[seen];
            assert_eq!((p.timestamp_us, p.source, p.command, p.seq), (fields.timestamp_us, fields.source, fields.command, fields.seq));
            assert_eq!(&p.registers().collect::<Vec<_>>(), registers);
            seen += 1;
            image.apply(&p);
            model.apply(&p);
        }).unwrap();
        prop_assert_eq!(seen, packets.len());
        model.check(&image);

        let position = ImagePosition { segment: 3, offset: 9, written_ns: 4 };
        let file = encode_image(&image.reader(), position);
        let (back, at) = decode_image(&file, ImageLimits::default()).unwrap();
        prop_assert_eq!(at, position);
        model.check(&back);
        prop_assert_eq!(back.digest(), image.digest());

        // The keyframes alone give the same values, and applying the whole again changes nothing.
        let mut keyframes = Vec::new();
        image.keyframes(Kind::Packet, &mut keyframes);
        let mut again = RegisterImage::default();
        PacketScanner::new(Kind::Packet).scan(&keyframes, true, &mut |p| { again.apply(&p); }).unwrap();
        prop_assert_eq!(again.digest(), image.digest());
        PacketScanner::new(Kind::Packet).scan(&stream, true, &mut |p| { image.apply(&p); }).unwrap();
        prop_assert_eq!(again.digest(), image.digest());
    }

    #[test]
    fn a_batch_ends_where_its_packets_one_by_one_do(
        packets in prop::collection::vec(packet(), 0..60),
        looks in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut stream = Vec::new();
        for (fields, registers) in &packets {
            encode_packet(fields, registers, &mut stream).unwrap();
        }
        let (mut single, mut together) = (RegisterImage::default(), RegisterImage::default());
        let mut batch = together.batch();
        let mut looks = looks.iter();
        PacketScanner::new(Kind::Packet).scan(&stream, true, &mut |p| {
            assert_eq!(single.apply(&p).refused, batch.apply(&p));
            if *looks.next().unwrap() {
                assert_eq!(states(&single), states(batch.settled()));
            }
        }).unwrap();
        drop(batch);
        prop_assert_eq!(states(&single), states(&together));
        prop_assert_eq!(image_file(&single), image_file(&together));
    }

    #[test]
    fn what_waits_in_a_batch_comes_to_what_its_packets_one_by_one_do(
        steps in prop::collection::vec(
            (0..1100_usize, 16..1100_usize, prop_oneof![4 => Just(0..0_u16), 2 => Just(0..2), 1 => Just(0..u16::MAX)], 0..12_u8, any::<bool>(), any::<u64>()),
            0..40,
        ),
        most_at_once in 1..40_usize,
    ) {
        // A rack that says nearly the same again and again, or all of it anew; seldom a number is missing, or a single
        // register comes between.
        let (mut values, mut stream, mut seq) = (vec![0_u16; 2200], Vec::new(), 0_u8);
        let mut ends = vec![0];
        for (number, (first, count, new, odd, look, seed)) in steps.into_iter().enumerate() {
            let mut random = seed | 1;
            for value in values.iter_mut().skip(first).take(count).filter(|_| !new.is_empty()) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *value = new.start + u16::try_from((random >> 33) % u64::from(new.end)).unwrap();
            }
            seq = seq.wrapping_add(1 + u8::from(odd == 0));
            let fields = PacketFields {
                timestamp_us: 1000 * number as u64,
                source: Source { kind: SourceType::Rack, id: i32::from(odd == 1) },
                command: Command::from_u8(u8::from(odd == 2)).unwrap(),
                seq,
            };
            let last = if odd == 3 { first + 1 } else { first + count };
            let registers: Vec<(u16, u16)> = (first..last).map(|at| (u16::try_from(at).unwrap(), values[at])).collect();
            encode_packet(&fields, &registers, &mut stream).unwrap();
            if look {
                ends.push(stream.len());
            }
        }
        ends.push(stream.len());
        let states = |image: &RegisterImage| {
            let all = image.sources();
            all.iter().map(|source| source.states()).collect::<Vec<_>>()
        };
        let (mut single, mut together) = (RegisterImage::default(), RegisterImage::default());
        for bounds in ends.windows(2) {
            let bytes = &stream[bounds[0]..bounds[1]];
            let mut batch = together.batch();
            let mut packets = 0;
            PacketScanner::new(Kind::Packet).scan(bytes, true, &mut |p| {
                single.apply(&p);
                batch.apply(&p);
                packets += 1;
                if packets % most_at_once == 0 {
                    assert_eq!(states(&single), states(batch.settled()));
                }
            }).unwrap();
            drop(batch);
            prop_assert_eq!(states(&single), states(&together));
        }
        let position = ImagePosition::default();
        prop_assert_eq!(encode_image(&single.reader(), position), encode_image(&together.reader(), position));
    }

    #[test]
    fn any_bytes_are_accounted_for_in_any_chunking(
        bytes in prop::collection::vec(prop_oneof![3 => 0..32_u8, 1 => any::<u8>()], 0..400), simple: bool
    ) {
        let kind = if simple { Kind::Simple } else { Kind::Packet };
        let mut first = None;
        every_chunking(&bytes, |chunks| {
            let mut decoder = PacketDecoder::new(kind);
            let mut packets = Vec::new();
            let mut lost = None;
            for chunk in chunks {
                let fed = decoder.feed(chunk, &mut |p| packets.push((p.offset, p.bytes.to_vec())));
                lost = fed.err().or(lost);
            }
            decoder.finish();
            let c = *decoder.counters();
            assert_eq!(c.bytes_valid + c.bytes_invalid + c.bytes_discarded, bytes.len() as u64);
            let result = (packets, c, lost);
            assert_eq!(first.get_or_insert_with(|| result.clone()), &result);
        });
    }

    #[test]
    fn any_bytes_are_an_image_or_an_error(cut in 0..900_usize, at in 0..900_usize, to: u8) {
        let mut image = RegisterImage::default();
        let mut bytes = Vec::new();
        encode_packet(&PacketFields::default(), &[(1, 2), (9000, 3)], &mut bytes).unwrap();
        image.apply(&PacketRef::parse(Kind::Packet, &bytes).unwrap());
        let mut file = encode_image(&image.reader(), ImagePosition::default());
        let whole = file.clone();
        file[at] = to;
        prop_assert!(file == whole || decode_image(&file, ImageLimits::default()).is_err());
        prop_assert!(decode_image(&whole[..cut], ImageLimits::default()).is_err());
    }
}
