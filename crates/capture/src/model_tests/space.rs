//! Retention, and a disk that fills up.

use super::{
    CASES, Input, check_second_law, check_whole, config, frames, manifest, number, record,
};
use crate::config::{OnLowDisk, RecorderConfig};
use crate::recorder::Recorder;
use crate::simdisk::SimDisk;
use std::time::Duration;

const STEADY: usize = 1;

/// Record 60 KB with `change` in the configuration and so many bytes free.
fn run(free: Option<u64>, change: impl FnOnce(&mut RecorderConfig)) -> (SimDisk, Recorder) {
    let case = &CASES[STEADY];
    let input = Input::new(&frames(case, 0));
    let disk = SimDisk::new();
    if let Some(free) = free {
        disk.set_free(free);
    }
    let mut config = config(case, &input);
    change(&mut config);
    let recorder = Recorder::start_in(disk.root(), config).unwrap();
    assert!(recorder.wait(Duration::from_secs(60)));
    (disk, recorder)
}

#[test]
fn only_the_newest_segments_are_kept_and_the_others_are_accounted_for() {
    for by_bytes in [false, true] {
        let (disk, recorder) = run(None, |c| {
            if by_bytes {
                c.keep_bytes = Some(25_000);
            } else {
                c.keep_segments = Some(1);
            }
        });
        assert!(recorder.take_failure().is_none());
        check_whole(&disk, "kept");
        check_second_law(&disk, "kept");
        let stream = &manifest(&disk).unwrap().streams["ch0"];
        let reason = if by_bytes {
            "keep_bytes"
        } else {
            "keep_segments"
        };
        assert_eq!(stream.segments.len(), 1);
        assert_eq!(stream.evicted.len(), 2);
        assert!(stream.evicted.iter().all(|e| e.reason == reason));
        assert_eq!(stream.segments[0].number, 2);
    }
}

#[test]
fn numbers_go_on_after_everything_was_evicted() {
    let case = &CASES[STEADY];
    let (disk, _) = run(None, |c| {
        c.keep_segments = Some(0);
        c.streams[0].rotate_bytes /= 2;
    });
    let first = &manifest(&disk).unwrap().streams["ch0"];
    // So many that the oldest ones are summed up (sooner in tests than otherwise).
    let gone = first.evicted.iter().map(|e| e.segments).sum::<u64>();
    assert!(gone > first.evicted.len() as u64 && first.segments.is_empty());
    let (summary, failure) = record(&disk, case, &Input::new(&frames(case, 500))).unwrap();
    assert_eq!(failure, None);
    assert!(number(&summary["streams"]["ch0"]["ledger"], "frames_stored") > 0);
    assert_eq!(
        manifest(&disk).unwrap().streams["ch0"].segments[0].number,
        gone
    );
    check_whole(&disk, "after the eviction of all");
}

/// As `run`, with a second stream `ch1` of the same frames.
fn run_two(free: Option<u64>, change: impl FnOnce(&mut RecorderConfig)) -> (SimDisk, Recorder) {
    run(free, |c| {
        let mut other = c.streams[0].clone();
        other.name = "ch1".into();
        c.streams.push(other);
        change(c);
    })
}

/// Numbers of the segments that a stream still has, and why the others went.
fn kept(disk: &SimDisk, stream: &str) -> (Vec<u64>, Vec<String>) {
    let stream = &manifest(disk).unwrap().streams[stream];
    (
        stream.segments.iter().map(|s| s.number).collect(),
        stream.evicted.iter().map(|e| e.reason.clone()).collect(),
    )
}

#[test]
fn a_limit_of_one_stream_leaves_the_other_alone() {
    for by_bytes in [false, true] {
        let (disk, recorder) = run_two(None, |c| {
            if by_bytes {
                c.streams[0].keep_bytes = Some(25_000);
            } else {
                c.streams[0].keep_segments = Some(1);
            }
        });
        assert!(recorder.take_failure().is_none());
        check_whole(&disk, "one stream limited");
        check_second_law(&disk, "one stream limited");
        let reason = if by_bytes {
            "keep_bytes"
        } else {
            "keep_segments"
        };
        assert_eq!(
            kept(&disk, "ch0"),
            (vec![2], vec![reason.into(), reason.into()])
        );
        assert_eq!(kept(&disk, "ch1"), (vec![0, 1, 2], vec![]));
    }
}

#[test]
fn a_limit_of_the_recording_holds_for_all_streams_together() {
    let (disk, recorder) = run_two(None, |c| {
        c.keep_segments = Some(3);
        c.streams[1].keep_segments = Some(2);
    });
    assert!(recorder.take_failure().is_none());
    check_whole(&disk, "the recording limited");
    let (first, second) = (kept(&disk, "ch0").0, kept(&disk, "ch1").0);
    assert_eq!(first.len() + second.len(), 3, "{first:?} {second:?}");
    assert!(second.len() <= 2, "{second:?}");
    // Whatever the order in which the two were closed: of each the newest are there.
    for numbers in [first, second] {
        let newest: Vec<u64> = (0..3).skip(3 - numbers.len()).collect();
        assert_eq!(numbers, newest);
    }
}

#[test]
fn the_stream_ids_of_a_stream_share_its_limit() {
    let case = &CASES[3];
    assert!(case.split);
    let input = Input::new(&frames(case, 0));
    let disk = SimDisk::new();
    let mut config = config(case, &input);
    config.streams[0].keep_segments = Some(2);
    let recorder = Recorder::start_in(disk.root(), config).unwrap();
    assert!(recorder.wait(Duration::from_secs(60)));
    assert!(recorder.take_failure().is_none());
    check_whole(&disk, "ids share a limit");
    let streams = manifest(&disk).unwrap().streams;
    let left: usize = streams.values().map(|s| s.segments.len()).sum();
    let gone: usize = streams.values().map(|s| s.evicted.len()).sum();
    assert_eq!(left, 2);
    assert!(gone > 0 && streams.len() > 1);
}

#[test]
fn at_its_own_floor_a_stream_gives_way_before_the_others() {
    // A first session leaves 60 KB of each stream; 190,000 bytes are free then, so both may end the second.
    let (disk, _) = run_two(None, |_| {});
    disk.set_free(190_000);
    let case = &CASES[STEADY];
    let input = Input::new(&frames(case, 500));
    let mut config = config(case, &input);
    let mut other = config.streams[0].clone();
    other.name = "ch1".into();
    config.streams.push(other);
    config.min_free_bytes = Some(0);
    config.streams[1].min_free_bytes = Some(1 << 20);
    config.streams[1].on_low_disk = Some(OnLowDisk::Evict);
    let recorder = Recorder::start_in(disk.root(), config).unwrap();
    assert!(recorder.wait(Duration::from_secs(60)));
    if let Some(e) = recorder.take_failure() {
        panic!("{e}: {:?}", disk.log());
    }
    check_whole(&disk, "evicted at a stream's floor");
    check_second_law(&disk, "evicted at a stream's floor");
    let (left, gone) = kept(&disk, "ch1");
    assert!(
        gone.len() >= 3 && gone.iter().all(|reason| reason == "min_free_bytes"),
        "{left:?} {gone:?}"
    );
    assert_eq!(kept(&disk, "ch0").1, Vec::<String>::new());
    let m = manifest(&disk).unwrap();
    let told = m.events.iter().filter(|e| e.kind == "low_disk");
    assert!(told.clone().count() > 0);
    assert!(told.clone().all(|e| e.stream.as_deref() == Some("ch1")));
}

#[test]
fn at_its_own_floor_a_stream_that_may_not_evict_stops_the_recording() {
    let (disk, recorder) = run_two(Some(1 << 20), |c| {
        c.min_free_bytes = Some(0);
        c.on_low_disk = OnLowDisk::Evict;
        c.streams[1].min_free_bytes = Some(2 << 20);
        c.streams[1].on_low_disk = Some(OnLowDisk::Stop);
    });
    let failure = recorder.take_failure().unwrap();
    assert_eq!(failure.stream(), Some("ch1"));
    let why = failure.to_string();
    assert!(why.contains("min_free_bytes"), "{why}");
    check_whole(&disk, "stopped at a stream's floor");
}

#[test]
fn at_the_floor_the_recorder_stops_and_says_so() {
    let (disk, recorder) = run(Some(1 << 20), |c| c.min_free_bytes = Some(2 << 20));
    let why = recorder.take_failure().unwrap().to_string();
    assert!(why.contains("min_free_bytes"), "{why}");
    let m = manifest(&disk).unwrap();
    assert_eq!(
        m.events.iter().filter(|e| e.kind == "low_disk").count(),
        1,
        "{:?}",
        m.events
    );
    check_whole(&disk, "stopped at the floor");
}

#[test]
fn at_the_floor_the_oldest_segments_make_room() {
    // A first session leaves 60 KB that may go; with them gone the second has room enough.
    let case = &CASES[STEADY];
    let (disk, _) = run(None, |_| {});
    disk.set_free(200_000);
    let input = Input::new(&frames(case, 500));
    let mut config = config(case, &input);
    config.min_free_bytes = Some(150_000);
    config.on_low_disk = OnLowDisk::Evict;
    let recorder = Recorder::start_in(disk.root(), config).unwrap();
    assert!(recorder.wait(Duration::from_secs(60)));
    if let Some(e) = recorder.take_failure() {
        panic!("{e}: {:?}", disk.log());
    }
    check_whole(&disk, "evicted at the floor");
    check_second_law(&disk, "evicted at the floor");
    let stream = &manifest(&disk).unwrap().streams["ch0"];
    assert!(!stream.evicted.is_empty());
    for (n, gone) in stream.evicted.iter().enumerate() {
        assert_eq!(gone.reason, "min_free_bytes");
        assert!(
            gone.name.starts_with(&format!("ch0_{n:06}_")),
            "the oldest first"
        );
    }
}

#[test]
fn a_full_disk_ends_the_stream_and_the_files_are_whole_frames() {
    let (disk, recorder) = run(Some(45_000), |c| c.min_free_bytes = Some(0));
    let why = recorder.take_failure().unwrap().to_string();
    assert!(why.contains("ch0"), "{why}");
    let ledger = recorder.summary()["streams"]["ch0"]["ledger"].clone();
    let files = disk.image().files();
    let data = files.iter().filter(|(path, _)| super::is_data(path));
    let (mut count, mut bytes) = (0, 0);
    for (_, content) in data {
        count += super::count_frames(content);
        bytes += content.len() as u64;
    }
    assert!(count > 0);
    assert_eq!(
        (
            number(&ledger, "frames_stored"),
            number(&ledger, "bytes_stored")
        ),
        (count, bytes)
    );
    disk.set_free(1 << 30);
    super::recover_and_check(&disk, &files, true, "after the disk was full");
}
