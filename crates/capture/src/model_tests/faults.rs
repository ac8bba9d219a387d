//! Failures, kills and power cuts at every call.

use std::collections::BTreeMap;

use super::{
    CASES, Case, Input, check_second_law, check_whole, count_frames, frames, full, is_data,
    manifest, number, record, recover_and_check,
};
use crate::resume::recover_in;
use crate::simdisk::{Fault, Image, SimDisk};

fn images_of(case: &Case) -> (Vec<Image>, u64) {
    let input = Input::new(&frames(case, 0));
    let disk = SimDisk::new();
    disk.keep_images();
    let (summary, failure) = record(&disk, case, &input).unwrap();
    assert_eq!(failure, None, "{}", case.name);
    check_whole(&disk, case.name);
    check_second_law(&disk, case.name);
    assert!(number(&summary["streams"]["ch0"]["ledger"], "frames_stored") > 80);
    (disk.images(), disk.calls())
}

#[test]
fn a_kill_at_any_call_loses_nothing_that_was_written() {
    for case in &CASES {
        let (images, _) = images_of(case);
        for (n, image) in images.iter().enumerate() {
            let what = format!("{}, killed at step {n}", case.name);
            let disk = image.after_kill();
            recover_and_check(&disk, &image.files(), true, &what);
            check_second_law(&disk, &what);
        }
    }
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_that_was_synced() {
    let cuts = if full() { 200 } else { 3 };
    for case in &CASES {
        let (images, _) = images_of(case);
        for (n, image) in images.iter().enumerate() {
            for seed in 0..cuts {
                let what = format!("{}, power cut {seed} at step {n}", case.name);
                recover_and_check(&image.after_power_cut(seed), &image.durable(), false, &what);
            }
        }
    }
}

#[test]
fn recovery_can_be_cut_off_at_any_call_and_run_again() {
    for case in &CASES {
        let (images, _) = images_of(case);
        let step = if full() { 1 } else { images.len() / 6 };
        for (n, image) in images.iter().enumerate().skip(step).step_by(step.max(1)) {
            let disk = image.after_kill();
            disk.keep_images();
            let _ = recover_in(&disk.root());
            for (m, within) in disk.images().iter().enumerate() {
                let what = format!("{}, killed at step {n}, recovery at step {m}", case.name);
                recover_and_check(&within.after_kill(), &image.files(), true, &what);
                let what = format!("{what}, power cut");
                recover_and_check(
                    &within.after_power_cut(m as u64),
                    &image.durable(),
                    false,
                    &what,
                );
            }
        }
    }
}

#[test]
fn recovery_survives_a_failure_of_any_call() {
    for case in &CASES {
        let (images, _) = images_of(case);
        let image = &images[images.len() * 2 / 3];
        for fault in [Fault::Io, Fault::Short] {
            for n in 0.. {
                let disk = image.after_kill();
                disk.fail(n, fault);
                let result = recover_in(&disk.root());
                if !disk.fault_happened() {
                    break;
                }
                let what = format!("{}, recovery call {n}: {fault:?}", case.name);
                assert!(result.is_err(), "{what}: went unnoticed: {:?}", disk.log());
                let again = disk.image().after_kill();
                recover_and_check(&again, &image.files(), true, &what);
            }
        }
    }
}

#[test]
fn a_failure_of_any_call_stops_the_stream_and_spoils_nothing() {
    let kinds = [Fault::Io, Fault::Full, Fault::Short, Fault::FullFromHere];
    for case in &CASES {
        let input = Input::new(&frames(case, 0));
        let (_, calls) = images_of(case);
        for n in 0..calls + 4 {
            for (k, fault) in kinds.into_iter().enumerate() {
                if !full() && n % kinds.len() as u64 != k as u64 {
                    continue;
                }
                let disk = SimDisk::new();
                disk.fail(n, fault);
                let what = format!("{}, call {n}: {fault:?}", case.name);
                let outcome = record(&disk, case, &input);
                if !disk.fault_happened() {
                    continue;
                }
                let (said, ledger) = match &outcome {
                    Ok((summary, failure)) => {
                        (failure.clone(), Some(&summary["streams"]["ch0"]["ledger"]))
                    }
                    Err(e) => (Some(e.clone()), None),
                };
                assert!(said.is_some(), "{what}: went unnoticed: {:?}", disk.log());
                let image = disk.image();
                if let Some(ledger) = ledger {
                    let evicted = manifest(&disk).map_or((0, 0), |m| {
                        let all = m.streams.values().flat_map(|s| &s.evicted);
                        all.fold((0, 0), |sum, e| (sum.0 + e.frames, sum.1 + e.bytes))
                    });
                    let files = image.files();
                    let data = files.iter().filter(|(path, _)| is_data(path));
                    let (mut count, mut bytes) = evicted;
                    for (_, content) in data {
                        count += count_frames(content);
                        bytes += content.len() as u64;
                    }
                    // A manifest that could not be written may still list what was evicted.
                    if case.keep_segments.is_none() {
                        assert_eq!(
                            (
                                number(ledger, "frames_stored"),
                                number(ledger, "bytes_stored")
                            ),
                            (count, bytes),
                            "{what}: ledger and files: {:?}",
                            disk.log()
                        );
                    }
                }
                // A sync that failed is no sync: whatever has its final name must be there after a power cut.
                let files = image.files();
                for (path, durable) in image.durable() {
                    if let (true, Some(content)) = (path.ends_with(".dat"), files.get(&path)) {
                        assert_eq!(
                            durable,
                            *content,
                            "{what}: {path} is not durable: {:?}",
                            disk.log()
                        );
                    }
                }
                recover_and_check(&image.after_kill(), &image.files(), true, &what);
                recover_and_check(&image.after_power_cut(n), &image.durable(), false, &what);
            }
        }
    }
}

#[test]
fn the_next_recorder_goes_on_where_the_last_was_killed() {
    for case in &CASES {
        let (images, _) = images_of(case);
        let more = Input::new(&frames(case, 1000));
        let step = if full() { 1 } else { images.len() / 10 };
        for (n, image) in images.iter().enumerate().step_by(step.max(1)) {
            let what = format!("{}, killed at step {n}, next recorder", case.name);
            let disk = image.after_kill();
            let (_, failure) = record(&disk, case, &more).unwrap();
            assert_eq!(failure, None, "{what}");
            check_whole(&disk, &what);
            check_second_law(&disk, &what);
            let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for (name, stream) in manifest(&disk).unwrap().streams {
                numbers
                    .entry(name)
                    .or_default()
                    .extend(stream.segments.iter().map(|s| s.number));
            }
            for (name, all) in numbers {
                assert!(
                    all.is_sorted_by(|a, b| a < b),
                    "{what}: segment numbers of {name}: {all:?}"
                );
            }
        }
    }
}

#[test]
fn without_a_manifest_the_files_tell_the_layout() {
    for (header_crc, version_flags, length_bytes) in [(true, 4, 4), (false, 2, 8), (true, 2, 4)] {
        let layout = crate::config::LayoutConfig {
            magic: "0123456789abcdef".into(),
            version_flags,
            length_bytes,
            header_crc,
            ..Default::default()
        };
        let mut bytes = Vec::new();
        for sequence in 0..50 {
            let fields = tapeline_wire::frame::FrameFields {
                sequence,
                ..Default::default()
            };
            let frame = layout.layout().unwrap();
            frame.encode_frame(&fields, &[1; 300], &mut bytes).unwrap();
        }
        let whole = bytes.len() as u64;
        bytes.extend_from_slice(b"cut");
        let disk = SimDisk::new();
        disk.put("ch0", "ch0_000003_20261121T030000.000000Z.dat.part", &bytes);
        let report = recover_in(&disk.root()).unwrap();
        let found = &report.recovered["ch0"][0];
        assert_eq!(
            (found.bytes_kept, found.bytes_cut, found.frames),
            (whole, 3, 50)
        );
        let stream = &manifest(&disk).unwrap().streams["ch0"];
        assert_eq!(stream.layout.version_flags, version_flags);
        assert_eq!(stream.segments[0].bytes, whole);
    }
}
