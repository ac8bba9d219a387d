#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::cast_possible_truncation)]

use std::{
    cell::{Cell, RefCell},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use proptest::prelude::*;
use tapeline_testkit::Random;

use super::{
    layout::{at, lap_left},
    *,
};

/// A file of its own that goes away.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tapeline-ring-test-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn poke(&self, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(&self.0).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A payload that says which one it is and how long.
fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = Random::new(number).bytes(bytes);
    let n = bytes.min(8);
    payload[..n].copy_from_slice(&number.to_le_bytes()[..n]);
    payload
}

fn drain<M: Memory>(reader: &mut Reader<M>) -> (Vec<(u64, Vec<u8>)>, Progress) {
    let mut all = Vec::new();
    loop {
        let progress = reader
            .read(|record| {
                all.push((record.timestamp_us, record.payload.to_vec()));
                true
            })
            .unwrap();
        if progress != Progress::More {
            return (all, progress);
        }
    }
}

#[test]
fn what_is_written_is_read_in_order_and_the_end_is_seen() {
    let place = Place::new();
    let mut writer = Writer::open(&place.0, 1 << 16).unwrap();
    let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
    assert_eq!(drain(&mut reader), (vec![], Progress::Idle));
    let sent: Vec<_> = (0..20)
        .map(|n| (n * 7, payload(n, 50 * n as usize)))
        .collect();
    for (time, bytes) in &sent {
        writer.write(*time, bytes).unwrap();
    }
    assert_eq!(drain(&mut reader), (sent, Progress::Idle));
    let mut late = Reader::open(&place.0, Start::Newest).unwrap();
    assert_eq!(drain(&mut late), (vec![], Progress::Idle));
    drop(writer);
    assert_eq!(drain(&mut reader), (vec![], Progress::Closed));
    assert_eq!(reader.counters().records, 20);
    assert_eq!(reader.counters().overtaken_bytes, 0);
    assert_eq!(drain(&mut late).1, Progress::Closed);
}

#[test]
fn an_overtaken_reader_counts_what_it_missed_and_has_all_that_is_left() {
    let place = Place::new();
    let mut writer = Writer::open(&place.0, 4096).unwrap();
    let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
    let mut positions = Vec::new();
    for number in 0..1000 {
        positions.push(
            writer
                .write(number, &payload(number, (number % 90) as usize))
                .unwrap(),
        );
    }
    let (all, _) = drain(&mut reader);
    let first = all[0].0;
    let expected: Vec<_> = (first..1000)
        .map(|n| (n, payload(n, (n % 90) as usize)))
        .collect();
    assert_eq!(all, expected);
    // The oldest whole record: the one before it reaches into what was overwritten.
    assert_eq!(reader.counters().overtaken_bytes, positions[first as usize]);
    assert_eq!(reader.counters().overtakes, 1);
    assert!(positions[first as usize - 1] + 4096 < writer.write_position());
    assert!(positions[first as usize] + 4096 >= writer.write_position());
}

#[test]
fn a_second_producer_is_refused_and_a_later_one_goes_on() {
    let place = Place::new();
    let mut first = Writer::open(&place.0, 8192).unwrap();
    assert!(matches!(Writer::open(&place.0, 8192), Err(Error::Busy)));
    first.write(1, b"one").unwrap();
    drop(first);
    assert!(matches!(
        Writer::open(&place.0, 16384),
        Err(Error::OtherCapacity {
            found: 8192,
            asked: 16384
        })
    ));
    let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
    let mut second = Writer::open(&place.0, 8192).unwrap();
    second.write(2, b"two").unwrap();
    let (all, progress) = drain(&mut reader);
    assert_eq!(all, [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    assert_eq!(progress, Progress::Idle);
}

#[test]
fn sizes_at_the_limit() {
    let place = Place::new();
    for capacity in [0, 1000, 2048, 4097, 1 << 41] {
        assert!(matches!(
            Writer::open(&place.0, capacity),
            Err(Error::Capacity(_))
        ));
    }
    let mut writer = Writer::open(&place.0, 4096).unwrap();
    let most = writer.max_payload_bytes() as usize;
    assert!(matches!(
        writer.write(0, &vec![0; most + 1]),
        Err(Error::TooLarge { limit, .. }) if limit == most as u64
    ));
    let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
    for number in 0..50 {
        let bytes = payload(number, most - (number as usize % 3));
        writer.write(number, &bytes).unwrap();
        assert_eq!(drain(&mut reader).0, [(number, bytes)]);
    }
    assert_eq!(reader.counters().overtaken_bytes, 0);
}

#[test]
fn a_producer_that_died_while_writing_leaves_whole_records_only() {
    let place = Place::new();
    let mut writer = Writer::open(&place.0, 4096).unwrap();
    for number in 0..200 {
        writer.write(number, &payload(number, 60)).unwrap();
    }
    let (write, left) = (
        writer.write_position(),
        lap_left(writer.write_position(), 4096),
    );
    drop(writer);
    // As killed in the middle of a write: the oldest records given up, the reservation made, garbage in it, not closed.
    let header = Reader::open(&place.0, Start::Oldest)
        .unwrap()
        .header()
        .unwrap();
    let mut oldest = header.oldest_position;
    while oldest + 4096 < write + 800 {
        oldest += if lap_left(oldest, 4096) < 80 {
            lap_left(oldest, 4096)
        } else {
            80
        };
    }
    place.poke(at::OLDEST_POSITION, &oldest.to_le_bytes());
    place.poke(at::RESERVE_POSITION, &(write + 800).to_le_bytes());
    place.poke(4096 + write % 4096, &vec![0xEE; left.min(800) as usize]);
    place.poke(at::STATE, &0_u32.to_le_bytes());

    let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
    let (all, progress) = drain(&mut reader);
    assert_eq!(progress, Progress::Abandoned);
    assert_eq!(all.last().unwrap().0, 199);
    assert_eq!(reader.counters().corrupt_records, 0);
    let mut writer = Writer::open(&place.0, 4096).unwrap();
    for number in 200..260 {
        writer.write(number, &payload(number, 60)).unwrap();
        let (all, progress) = drain(&mut reader);
        assert_eq!(all, [(number, payload(number, 60))]);
        assert_eq!(progress, Progress::Idle);
    }
    assert_eq!(reader.counters().corrupt_records, 0);
}

#[test]
fn a_flipped_bit_costs_one_record() {
    let place = Place::new();
    let mut writer = Writer::open(&place.0, 1 << 14).unwrap();
    let positions: Vec<_> = (0..10)
        .map(|n| writer.write(n, &payload(n, 40)).unwrap())
        .collect();
    place.poke(4096 + positions[4] + 16 + 20, &[0xA5, 0x5A]);
    let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
    let times: Vec<u64> = drain(&mut reader).0.iter().map(|record| record.0).collect();
    assert_eq!(times, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert_eq!(
        (
            reader.counters().corrupt_records,
            reader.counters().corrupt_bytes
        ),
        (1, 56)
    );
    // A size that cannot be: everything to the next certain start is given up, and counted.
    place.poke(4096 + positions[6] + 8, &[0xFF, 0xFF, 0xFF, 0x7F]);
    let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
    assert_eq!(drain(&mut reader).0.len(), 5);
    assert_eq!(reader.counters().corrupt_bytes, 56 + 4 * 56);
    writer.write(10, b"next").unwrap();
    assert_eq!(drain(&mut reader).0, [(10, b"next".to_vec())]);
}

#[test]
fn a_file_that_is_cut_is_an_error_and_nothing_worse() {
    let place = Place::new();
    let mut writer = Writer::open(&place.0, 1 << 14).unwrap();
    writer.write(1, &[7; 5000]).unwrap();
    let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
    drop(writer);
    let file = OpenOptions::new().write(true).open(&place.0).unwrap();
    for bytes in [4096 + 100, 4096, 300, 10, 0] {
        file.set_len(bytes).unwrap();
        assert!(
            matches!(reader.read(|_| true), Err(Error::Truncated)),
            "{bytes}"
        );
        assert!(Reader::open(&place.0, Start::Oldest).is_err());
    }
    assert_eq!(reader.counters().records, 0);
}

#[test]
fn foreign_files_are_left_alone() {
    let place = Place::new();
    for content in [&b"hello"[..], &[0; 40000], &[1; 5000], b"TPLRING2"] {
        fs::write(&place.0, content).unwrap();
        assert!(matches!(
            Writer::open(&place.0, 4096),
            Err(Error::NotARing(_))
        ));
        assert!(Reader::open(&place.0, Start::Oldest).is_err());
        assert_eq!(fs::read(&place.0).unwrap(), content);
    }
    // What a maker leaves that was killed.
    fs::write(&place.0, vec![0; 6000]).unwrap();
    let mut writer = Writer::open(&place.0, 4096).unwrap();
    writer.write(0, b"x").unwrap();
}

#[test]
fn a_removed_ring_is_noticed() {
    let place = Place::new();
    let writer = Writer::open(&place.0, 4096).unwrap();
    let reader = Reader::open(&place.0, Start::Oldest).unwrap();
    assert!(!reader.is_unlinked() && reader.has_producer());
    fs::remove_file(&place.0).unwrap();
    assert!(reader.is_unlinked());
    drop(writer);
    assert!(!reader.has_producer());
}

#[test]
fn the_layout_in_the_file_is_the_documented_one() {
    let place = Place::new();
    let mut writer = Writer::open(&place.0, 4096).unwrap();
    writer.write(0x0102_0304_0506_0708, b"123456789").unwrap();
    drop(writer);
    let file = fs::read(&place.0).unwrap();
    assert_eq!(file.len(), 8192);
    assert_eq!(&file[..8], b"TPLRING1");
    assert_eq!(
        file[8..24],
        [1, 0, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(file[24..28], std::process::id().to_le_bytes());
    assert_eq!(file[28..32], [1, 0, 0, 0]);
    assert_eq!((file[128], file[256], file[384]), (32, 32, 0));
    let record = [
        &[8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0][..],
        // CRC32C of 123456789, the check value of its catalogue.
        &0xE306_9283_u32.to_le_bytes(),
        b"123456789",
    ]
    .concat();
    assert_eq!(file[4096..4096 + 25], record);
}

/// One producer as fast as it goes, readers of different speed: each gets whole records in order, and what it did
/// not get is counted to the byte.
#[test]
fn readers_of_different_speed_beside_a_fast_producer() {
    for capacity in [4096, 1 << 16, 1 << 20] {
        let place = Place::new();
        let mut writer = Writer::open(&place.0, capacity).unwrap();
        let (start, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let size = |number: u64| (number * 37 % 300) as usize;
        let records = 60_000;
        thread::scope(|scope| {
            let readers: Vec<_> = [0_u32, 20, 400]
                .into_iter()
                .map(|pause| {
                    let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
                    let (start, done) = (&start, &done);
                    scope.spawn(move || {
                        let (mut next, mut seen_bytes) = (0, 0);
                        start.store(true, Ordering::Release);
                        loop {
                            let progress = reader
                                .read(|record| {
                                    assert!(record.timestamp_us >= next, "in order");
                                    next = record.timestamp_us + 1;
                                    assert_eq!(
                                        record.payload,
                                        payload(record.timestamp_us, size(record.timestamp_us))
                                    );
                                    seen_bytes += ring_bytes(record.payload.len() as u32);
                                    true
                                })
                                .unwrap();
                            for _ in 0..pause {
                                thread::yield_now();
                            }
                            if progress == Progress::Closed {
                                break;
                            }
                        }
                        assert!(done.load(Ordering::Acquire));
                        assert_eq!(next, records, "the newest is always there");
                        let counters = *reader.counters();
                        assert_eq!(counters.corrupt_records, 0);
                        (seen_bytes, counters.overtaken_bytes, reader.position())
                    })
                })
                .collect();
            while !start.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let mut padding = 0;
            let mut end = 0;
            for number in 0..records {
                let position = writer
                    .write(number, &payload(number, size(number)))
                    .unwrap();
                padding += position - end;
                end = position + ring_bytes(size(number) as u32);
            }
            done.store(true, Ordering::Release);
            drop(writer);
            for reader in readers {
                let (seen, overtaken, position) = reader.join().unwrap();
                assert_eq!(position, end);
                // Everything was read, overtaken, or padding (some of which was overtaken, too).
                assert!(seen + overtaken <= end && seen + overtaken + padding >= end);
            }
        });
    }
}

/// Memory that changes under the reader's hands: after so many reads, some bytes are others.
struct Hostile {
    bytes: RefCell<Vec<u8>>,
    random: RefCell<Random>,
    reads: Cell<u32>,
}

impl Memory for Hostile {
    fn copy(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut random = self.random.borrow_mut();
        let mut bytes = self.bytes.borrow_mut();
        self.reads.set(self.reads.get() + 1);
        if random.one_in(3) {
            let place = if random.one_in(2) {
                [
                    at::WRITE_POSITION,
                    at::RESERVE_POSITION,
                    at::OLDEST_POSITION,
                ][random.index(3)] as usize
            } else {
                random.index(bytes.len().max(1))
            };
            let value = (random.below(1 << 15) * 8).to_le_bytes();
            for (byte, new) in bytes.iter_mut().skip(place).zip(value) {
                *byte = new;
            }
        }
        if random.one_in(200) {
            let length = random.index(bytes.len() + 1);
            bytes.truncate(length);
        }
        let start = offset as usize;
        let from = bytes
            .get(start..start + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.borrow().len() as u64)
    }

    fn has_producer(&self) -> bool {
        true
    }

    fn is_unlinked(&self) -> bool {
        false
    }
}

/// Every call either goes forward, says that nothing is there, or fails.
fn read_to_the_end(reader: &mut Reader<Hostile>) {
    for _ in 0..300 {
        let before = reader.position();
        match reader.read(|_| true) {
            Ok(Progress::More) => assert!(reader.position() > before),
            Ok(_) => assert_eq!(reader.position(), before),
            Err(_) => return,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn prop_memory_that_changes_is_survived(seed in any::<u64>(), sizes in prop::collection::vec(0_usize..900, 0..60)) {
        let place = Place::new();
        let mut writer = Writer::open(&place.0, 4096).unwrap();
        for (number, size) in sizes.iter().enumerate() {
            writer.write(number as u64, &payload(number as u64, *size)).unwrap();
        }
        let memory = Hostile {
            bytes: RefCell::new(fs::read(&place.0).unwrap()),
            random: RefCell::new(Random::new(seed)),
            reads: Cell::new(0),
        };
        if let Ok(mut reader) = Reader::over(memory, Start::Oldest) {
            read_to_the_end(&mut reader);
        }
    }

    /// Against a plain model: a list of records, of which the last lap is kept.
    #[test]
    fn prop_reader_and_writer_agree_with_a_list(
        steps in prop::collection::vec((0_usize..2033, any::<bool>()), 1..120),
        reopen in 0_usize..120,
    ) {
        let place = Place::new();
        let mut writer = Some(Writer::open(&place.0, 4096).unwrap());
        let mut reader = Reader::open(&place.0, Start::Oldest).unwrap();
        let mut written: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut next = 0_usize;
        for (number, (size, read)) in steps.iter().enumerate() {
            let bytes = payload(number as u64, *size);
            let position = writer.as_mut().unwrap().write(number as u64, &bytes).unwrap();
            written.push((position, bytes));
            if number == reopen {
                drop(writer.take());
                writer = Some(Writer::open(&place.0, 4096).unwrap());
            }
            if *read {
                let (end, _) = (writer.as_ref().unwrap().write_position(), ());
                let kept = written.iter().position(|(at, _)| at + 4096 >= end).unwrap();
                let first = kept.max(next);
                let (got, _) = drain(&mut reader);
                let expected: Vec<_> = (first..written.len())
                    .map(|n| (n as u64, written[n].1.clone()))
                    .collect();
                prop_assert_eq!(got, expected);
                next = written.len();
            }
        }
        prop_assert_eq!(reader.counters().corrupt_records, 0);
    }
}

#[test]
fn names_without_a_slash_are_in_shared_memory() {
    assert_eq!(path_of("battery"), PathBuf::from("/dev/shm/battery"));
    assert_eq!(path_of("./battery"), PathBuf::from("./battery"));
    assert!(File::open(path_of("/nowhere/at/all")).is_err());
}
