//! A register log after a crash, any bytes in it and in its index: recovered, it is whole packets and a tail, and
//! whatever reads logs back (blocks, rows, touch index, image, history) says of it what its packets say.

#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tapeline_capture::recover_directory;
use tapeline_capture::registers::log_reader::{blocks, read_again};
use tapeline_capture::registers::rows::{Route, data_rows, packet_rows, simple_rows};
use tapeline_capture::registers::time_machine::{SegmentFiles, history, image_at, write_doubts};
use tapeline_capture::registers::touch;
use tapeline_fuzz::registers::{image, packets, slow};
use tapeline_fuzz::{Choices, scratch};
use tapeline_wire::register::Kind;

const STEM: &str = "rack/rack_000000_20261121T030000.000000Z";

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let choice = choices.byte();
    let kind = [Kind::Packet, Kind::Simple][usize::from(choice >> 1 & 1)];
    let directory = scratch();
    let path = |suffix: &str| directory.join(format!("{STEM}{suffix}"));
    let read = |suffix: &str| fs::read(path(suffix)).unwrap_or_default();
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(directory.join("rack")).expect("scratch directory");
    let indexed = choice & 0b1_1100 != 0;
    let index_bytes = if indexed {
        usize::from(choices.byte())
    } else {
        0
    };
    let index = choices.take(index_bytes).to_vec();
    let bytes = if choice & 1 == 0 {
        packets(&mut choices, kind)
    } else {
        choices.rest().to_vec()
    };
    let open = choice & 32 == 0;
    let extension = format!(".{}", kind.extension());
    let log = if open {
        format!("{extension}.part")
    } else {
        extension.clone()
    };
    write(&path(&log), &bytes);
    for (bit, suffix) in [(4, ".idx.bcsv.part"), (8, ".idx.bcsv"), (16, ".touch.bcsv")] {
        if choice & bit != 0 {
            write(&path(suffix), &index);
        }
    }

    // Whatever the state, reading changes nothing and cannot fail but by the system.
    let _ = look(kind, &path(&log), &path(""));
    let report = recover_directory(&directory);
    if !open {
        assert_eq!(read(&log), bytes, "what has a final name is not changed");
    }
    let Ok(_) = report else { return };
    let tail = format!("{extension}.tail");
    let kept = read(&extension);
    if open {
        assert_eq!(
            [kept.as_slice(), &read(&tail)].concat(),
            bytes,
            "every byte is kept, in its place"
        );
        assert!(!path(&log).exists());
        let (found, counters) = slow(kind, &kept);
        assert_eq!(
            counters.bytes_valid,
            kept.len() as u64,
            "only whole packets are kept"
        );
        // an index that had its final name before its log is left alone
        let none = found.is_empty() && choice & 8 == 0;
        assert_eq!(path(".idx.bcsv").exists(), !none, "packets have an index");
        let (mine, _) = slow(kind, &bytes);
        let whole = mine
            .iter()
            .scan(0, |end, packet| {
                (packet.offset == *end).then(|| *end = packet.end)
            })
            .count();
        assert_eq!(found.len(), whole, "no whole packet was cut off");
        if !found.is_empty() && choice & 16 == 0 {
            let seen = look(kind, &path(&extension), &path(""));
            // keyframes that an index claims are the recorder's own, and leave nothing behind
            if !indexed {
                assert_eq!(seen, Some(image(&found)));
            }
        }
    }
    assert!(!path(".idx.bcsv.part").exists());
    let before = [read(&extension), read(&tail), read(".idx.bcsv")];
    if let Ok(again) = recover_directory(&directory) {
        assert!(again.is_clean(), "recovery of what is recovered: {again:?}");
    }
    assert_eq!([read(&extension), read(&tail), read(".idx.bcsv")], before);
});

type Registers = std::collections::BTreeMap<(u8, i32), Vec<(u16, u16)>>;

/// Everything that reads a log; the image at its end.
fn look(kind: Kind, log: &Path, stem: &Path) -> Option<Registers> {
    let beside = |extension: &str| {
        stem.with_file_name(format!(
            "{}.{extension}",
            stem.file_name().unwrap_or_default().to_string_lossy()
        ))
    };
    let files = SegmentFiles {
        log: log.to_path_buf(),
        index: beside("idx.bcsv"),
        touch: beside("touch.bcsv"),
        doubts: beside("doubts.bcsv"),
        span_us: None,
    };
    let bytes = fs::read(log).ok()?;
    let mut found = blocks(log, &files.index, kind).ok()?;
    read_again(log, kind, &mut found).expect("the file is there");
    let all = Route::default();
    let (rows, taken) = packet_rows(kind, &bytes, 0, &all);
    let count = match kind {
        Kind::Packet => data_rows(&bytes, &all).0.offset.len(),
        Kind::Simple => simple_rows(&bytes, &all).0.offset.len(),
    };
    assert_eq!(rows.count.iter().map(|n| *n as usize).sum::<usize>(), count);
    assert!(taken.bytes <= bytes.len());
    let segments = [files];
    let image = image_at(kind, &segments, u64::MAX).expect("the file is there");
    let source = (2, 1);
    let slow = history(kind, &segments, source, 257, true).expect("the file is there");
    write_doubts(kind, &segments[0], None, true).expect("scratch directory");
    if !segments[0].touch.exists() {
        let built =
            touch::build(log, &found.blocks, kind, &segments[0].touch).expect("scratch directory");
        built.publish().expect("scratch directory");
        let quick = history(kind, &segments, source, 257, true).expect("the file is there");
        assert_eq!(
            (slow.timestamp_us, slow.value),
            (quick.timestamp_us, quick.value)
        );
        // A log without packets has none.
        let _ = fs::remove_file(&segments[0].touch);
    }
    fs::remove_file(&segments[0].doubts).expect("scratch directory");
    let known = image
        .sources
        .iter()
        .map(|(key, one)| (*key, one.registers().collect::<Vec<_>>()));
    Some(known.filter(|(_, list)| !list.is_empty()).collect())
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("scratch directory");
}
