//! Any bytes as an unfinished segment: nothing is thrown away, what is kept is whole frames with an index that covers them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapeline_capture::fuzzing::recover_part;
use tapeline_wire::frame::{FrameDecoder, FrameLayout};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    let assembly = ["none", "markers", "count:1", "count:7"][usize::from(choice % 4)];
    let layout = FrameLayout::default();
    let found = recover_part(bytes, assembly);
    let kept = found.dat.as_deref().unwrap_or_default();
    let tail = found.tail.as_deref().unwrap_or_default();
    assert_eq!(
        [kept, tail].concat(),
        bytes,
        "prefix and tail are the input"
    );
    assert!(found.dat.as_deref() != Some(&[]), "an empty segment");
    assert!(
        found.changed_nothing_again,
        "a second recovery changes something"
    );

    let (mut frames, mut end) = (0u64, 0);
    let mut decoder = FrameDecoder::new(layout);
    let mut emit = |frame: tapeline_wire::frame::Frame<'_>| {
        frames += 1;
        end += frame.bytes.len();
    };
    decoder.feed(kept, &mut emit);
    decoder.finish(&mut emit);
    assert_eq!(end, kept.len(), "the prefix is whole frames");
    assert_eq!(found.frames, frames, "frames in the manifest");
    assert_eq!(
        found.index_rows.is_some(),
        frames > 0,
        "an index for a segment"
    );
    assert!(found.index_rows.unwrap_or(0) <= frames);

    // The tail does not begin with a frame: the prefix is as long as it can be.
    let mut decoder = FrameDecoder::new(layout);
    let mut first = None;
    let mut discarded = 0;
    let mut emit = |frame: tapeline_wire::frame::Frame<'_>| {
        first.get_or_insert_with(|| frame.bytes.to_vec());
    };
    decoder.feed(tail, &mut emit);
    decoder.finish(&mut emit);
    if let Some(first) = first {
        discarded = usize::from(tail.starts_with(&first));
    }
    assert_eq!(discarded, 0, "a whole frame was cut off");
});
