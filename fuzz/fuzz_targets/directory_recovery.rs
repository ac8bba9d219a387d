//! A recording after a crash: any bytes in its files, recovered. Whole frames are kept, every other byte is in the tail.

#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tapeline_capture::recover_directory;
use tapeline_fuzz::{Choices, layout, scratch, stream};
use tapeline_wire::frame::{FrameDecoder, FrameLayout};

const STEM: &str = "ch0/ch0_000000_20261121T030000.000000Z";
/// The layout that a directory without a manifest is taken to have.
const DEFAULT_LAYOUT: u8 = 0x60;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let choice = choices.byte();
    let directory = scratch();
    let path = |suffix: &str| directory.join(format!("{STEM}{suffix}"));
    let read = |suffix: &str| fs::read(path(suffix)).unwrap_or_default();
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(directory.join("ch0")).expect("scratch directory");
    let index = choices.take(usize::from(choices_len(choice))).to_vec();
    let layout = layout(DEFAULT_LAYOUT);
    assert_eq!(layout.max_payload(), FrameLayout::default().max_payload());
    let bytes = if choice & 1 == 0 {
        stream(&mut choices, &layout)
    } else {
        choices.rest().to_vec()
    };
    let open = choice & 2 == 0;
    write(&path(if open { ".dat.part" } else { ".dat" }), &bytes);
    if choice & 4 != 0 {
        write(&path(".idx.bcsv.part"), &index);
    }
    if choice & 8 != 0 && !open {
        write(&path(".idx.bcsv"), &index);
    }
    if choice & 16 != 0 {
        write(&directory.join("recording.json"), &index);
    }

    let report = recover_directory(&directory);
    if !open {
        assert_eq!(read(".dat"), bytes, "what has a final name is not changed");
    }
    let Ok(_) = report else {
        // Nothing may be gone, whatever could not be done.
        if open && choice & 16 != 0 {
            assert_eq!(
                [read(".dat"), read(".dat.part"), read(".dat.tail")].concat(),
                bytes
            );
        }
        return;
    };
    if open {
        let (kept, tail) = (read(".dat"), read(".dat.tail"));
        assert_eq!(
            [kept.as_slice(), &tail].concat(),
            bytes,
            "every byte is kept, in its place"
        );
        assert!(!path(".dat.part").exists());
        let mut decoder = FrameDecoder::new(layout);
        let mut frames = 0;
        decoder.feed(&kept, &mut |_| frames += 1);
        decoder.finish(&mut |_| frames += 1);
        assert_eq!(
            decoder.counters().bytes_discarded,
            0,
            "only whole frames are kept"
        );
        assert_eq!(
            path(".idx.bcsv").exists(),
            frames > 0,
            "frames have an index"
        );
    }
    assert!(!path(".idx.bcsv.part").exists());
    let before = [read(".dat"), read(".dat.tail"), read(".idx.bcsv")];
    let again = recover_directory(&directory);
    if let Ok(again) = again {
        assert!(again.is_clean(), "recovery of what is recovered: {again:?}");
    }
    assert_eq!([read(".dat"), read(".dat.tail"), read(".idx.bcsv")], before);
});

fn choices_len(choice: u8) -> u8 {
    if choice & 0b1_1100 == 0 { 0 } else { choice }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("scratch directory");
}
