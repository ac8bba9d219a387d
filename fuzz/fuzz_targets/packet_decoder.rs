//! Any bytes in any chunking, on both wires: the packets and counts of a slow, obvious decoder, and the image they make.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use tapeline_fuzz::registers::{Plain, image, packets, slow};
use tapeline_fuzz::{Choices, pieces};
use tapeline_wire::register::{
    ImageLimits, Kind, PacketDecoder, PacketRef, PacketScanner, RegisterImage,
};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let (choice, seed) = (choices.byte(), choices.byte());
    let kind = [Kind::Packet, Kind::Simple][usize::from(choice & 1)];
    let bytes = if choice & 16 == 0 {
        packets(&mut choices, kind)
    } else {
        choices.rest().to_vec()
    };
    let (expected, counters) = slow(kind, &bytes);
    assert_eq!(
        counters.bytes_valid + counters.bytes_invalid + counters.bytes_discarded,
        bytes.len() as u64
    );

    let mut registers = RegisterImage::new(ImageLimits::default());
    for (number, pieces) in [vec![bytes.as_slice()], pieces(&bytes, seed)]
        .into_iter()
        .enumerate()
    {
        let mut decoder = PacketDecoder::new(kind);
        let mut found = Vec::new();
        for piece in pieces {
            let fed = decoder.feed(piece, &mut |packet| {
                found.push(plain(&packet, &bytes));
                if number == 0 {
                    registers.apply(&packet);
                }
            });
            let lost = decoder.counters().framing_lost > 0;
            assert_eq!(fed.is_err(), lost, "the loss is told, and told again");
            assert!(decoder.pending_bytes() <= kind.max_packet_bytes());
        }
        decoder.finish();
        assert_eq!(found, expected);
        assert_eq!(decoder.counters(), &counters);
        assert_eq!(decoder.pending_bytes(), 0);
    }

    let mut scanner = PacketScanner::new(kind);
    let mut found = Vec::new();
    let _ = scanner.scan(&bytes, true, &mut |packet| {
        found.push(plain(&packet, &bytes))
    });
    assert_eq!(found, expected);
    assert_eq!(scanner.counters(), &counters);

    let known: BTreeMap<_, _> = registers
        .sources()
        .iter()
        .map(|one| ((one.source().kind as u8, one.source().id), one.registers()))
        .filter(|(_, list)| !list.is_empty())
        .collect();
    assert_eq!(known, image(&expected));
});

fn plain(packet: &PacketRef<'_>, bytes: &[u8]) -> Plain {
    let offset = packet.offset as usize;
    let end = offset + packet.packet_bytes();
    assert_eq!(packet.bytes, &bytes[offset..end], "lent verbatim");
    assert_eq!(
        PacketRef::parse(packet.kind, packet.bytes).map(|p| p.count),
        Some(packet.count)
    );
    Plain {
        offset,
        end,
        command: packet.command as u8,
        source_type: packet.source.kind as u8,
        src_id: packet.source.id,
        seq: packet.seq,
        registers: packet.registers().collect(),
    }
}
