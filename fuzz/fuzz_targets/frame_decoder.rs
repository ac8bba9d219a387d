//! Any bytes in any chunking: the frames and counts of a slow, obvious decoder, and every byte accounted for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapeline_fuzz::{Choices, crc32c, layout, pieces, stream};
use tapeline_wire::frame::{FrameCounters, FrameDecoder, FrameLayout, FrameScanner};

/// Offset and bytes of a frame.
type Found = Vec<(u64, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let (choice, seed) = (choices.byte(), choices.byte());
    let layout = layout(choice);
    let bytes = if choice & 16 == 0 {
        stream(&mut choices, &layout)
    } else {
        choices.rest().to_vec()
    };

    let (frames, counters) = slow(&bytes, &layout);
    assert_eq!(
        counters.valid_bytes + counters.bytes_discarded,
        bytes.len() as u64
    );
    for pieces in [vec![bytes.as_slice()], pieces(&bytes, seed)] {
        let mut decoder = FrameDecoder::new(layout);
        let mut found = Found::new();
        let mut fed = 0;
        for piece in pieces {
            decoder.feed(piece, &mut |frame| {
                found.push((frame.offset, frame.bytes.to_vec()))
            });
            fed += piece.len() as u64;
            let counters = decoder.counters();
            let pending = decoder.pending_bytes();
            assert_eq!(
                counters.valid_bytes + counters.bytes_discarded + pending as u64,
                fed
            );
            assert!(
                pending <= layout.max_frame_bytes() + 8,
                "more held than a frame and a magic"
            );
        }
        decoder.finish(&mut |frame| found.push((frame.offset, frame.bytes.to_vec())));
        assert_eq!(found, frames);
        assert_eq!(without_resyncs(decoder.counters()), counters);
        assert_eq!(decoder.pending_bytes(), 0);
    }

    // The lower face, a few frames at a time, as over a datagram.
    let mut scanner = FrameScanner::new(layout);
    let (mut at, mut found) = (0, Found::new());
    loop {
        let mut refs = Vec::new();
        let used = scanner.scan(&bytes[at..], true, 1 + usize::from(seed % 3), &mut refs);
        let place = |offset: usize| (at + offset) as u64;
        found.extend(
            refs.iter()
                .map(|one| (place(one.offset), bytes[at..][one.range()].to_vec())),
        );
        at += used;
        if at == bytes.len() {
            break;
        }
        assert!(used > 0, "no progress");
    }
    assert_eq!(found, frames);
    assert_eq!(without_resyncs(scanner.counters()), counters);
});

/// How often the place was lost follows from no rule of the specification that a slow decoder could share.
fn without_resyncs(counters: &FrameCounters) -> FrameCounters {
    FrameCounters {
        resyncs: 0,
        ..*counters
    }
}

/// `spec/frame-stream.md` 2, word for word, over the whole stream at once.
fn slow(bytes: &[u8], layout: &FrameLayout) -> (Found, FrameCounters) {
    let mut counters = FrameCounters::default();
    let mut found = Found::new();
    let (header_bytes, magic) = (layout.header_bytes(), layout.magic());
    let number = |at: usize, count: usize| {
        bytes[at..at + count]
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at..].starts_with(magic) {
            counters.bytes_discarded += 1;
            at += 1;
            continue;
        }
        if bytes.len() - at < header_bytes {
            counters.bytes_discarded += (bytes.len() - at) as u64;
            break;
        }
        let crc_at = at + header_bytes - 8;
        let length_bytes = usize::from(layout.length_bytes());
        let length_at =
            at + header_bytes - 4 - if layout.header_crc() { 4 } else { 0 } - length_bytes;
        let length = number(length_at, length_bytes);
        let payload_at = at + header_bytes;
        let next =
            if layout.header_crc() && number(crc_at, 4) != u64::from(crc32c(&bytes[at..crc_at])) {
                counters.corrupt.header_crc += 1;
                at + 1
            } else if bytes[at + 8] != 1 {
                counters.corrupt.bad_version += 1;
                at + 1
            } else if length == 0 || length > layout.max_payload() {
                counters.corrupt.bad_length += 1;
                at + 1
            } else if (bytes.len() - payload_at) < length as usize {
                counters.corrupt.truncated += 1;
                at + 1
            } else {
                let end = payload_at + length as usize;
                if number(payload_at - 4, 4) == u64::from(crc32c(&bytes[payload_at..end])) {
                    counters.frames_received += 1;
                    counters.valid_bytes += (end - at) as u64;
                    found.push((at as u64, bytes[at..end].to_vec()));
                    at = end;
                    continue;
                }
                counters.corrupt.payload_crc += 1;
                let at_frame = end == bytes.len() || bytes[end..].starts_with(magic);
                if layout.header_crc() && at_frame {
                    end
                } else {
                    at + 1
                }
            };
        counters.bytes_discarded += (next - at) as u64;
        at = next;
    }
    (found, counters)
}
