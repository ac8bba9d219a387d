//! `include/tapeline_ring.h`, compiled as C11 and as C++17 without a warning, as the producer of rings read here.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use tapeline_ring::shared_memory::{Error, Progress, Reader, Start, Writer};

const LANGUAGES: [(&str, &[&str]); 2] = [
    ("gcc", &["-std=c11"]),
    ("g++", &["-x", "c++", "-std=c++17"]),
];

/// The producer in each language, compiled once.
fn producers() -> &'static [PathBuf] {
    static MADE: OnceLock<Vec<PathBuf>> = OnceLock::new();
    MADE.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        LANGUAGES
            .iter()
            .map(|(compiler, flags)| {
                let program =
                    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("producer-{compiler}"));
                let status = Command::new(compiler)
                    .args(*flags)
                    .args([
                        "-O2",
                        "-Wall",
                        "-Wextra",
                        "-Werror",
                        "-pedantic",
                        "-Wconversion",
                    ])
                    .arg("-I")
                    .arg(root.join("../../include"))
                    .arg(root.join("tests/c/producer.c"))
                    .arg("-o")
                    .arg(&program)
                    .status()
                    .unwrap_or_else(|error| panic!("{compiler} must be there: {error}"));
                assert!(status.success(), "{compiler} refuses the header");
                program
            })
            .collect()
    })
}

struct Ring(PathBuf);

impl Ring {
    fn new(name: &str, program: &Path) -> Self {
        let of = program.file_name().unwrap().to_string_lossy().into_owned();
        let path =
            std::env::temp_dir().join(format!("tapeline-ring-{name}-{of}-{}", std::process::id()));
        Self(path)
    }

    fn produce(&self, program: &Path, capacity: u64, first: u64, count: u64, mode: &str) -> Child {
        Command::new(program)
            .arg(&self.0)
            .args([capacity.to_string(), first.to_string(), count.to_string()])
            .arg(mode)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn line_of(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    line.trim().to_owned()
}

fn expected(number: u64) -> Vec<u8> {
    (0..number * 37 % 300)
        .map(|i| u8::try_from((number + i) % 251).unwrap())
        .collect()
}

/// Reads until the reader has nothing more, checks each record, and gives the numbers.
fn drain(reader: &mut Reader) -> (Vec<u64>, Progress) {
    let mut numbers = Vec::new();
    loop {
        let progress = reader
            .read(|record| {
                assert_eq!(record.payload, expected(record.timestamp_us));
                numbers.push(record.timestamp_us);
                true
            })
            .unwrap();
        if progress != Progress::More {
            return (numbers, progress);
        }
    }
}

#[test]
fn records_of_a_closed_ring_are_all_there() {
    for program in producers() {
        let ring = Ring::new("closed", program);
        let mut child = ring.produce(program, 1 << 20, 0, 3000, "close");
        assert_eq!(line_of(&mut child), "written");
        assert!(child.wait().unwrap().success());
        let mut reader = Reader::open(&ring.0, Start::Oldest).unwrap();
        assert_eq!(drain(&mut reader), ((0..3000).collect(), Progress::Closed));
        assert_eq!(reader.counters().overtaken_bytes, 0);
    }
}

#[test]
fn after_kill_9_what_was_written_is_there_and_the_next_producer_goes_on() {
    for program in producers() {
        let ring = Ring::new("killed", program);
        let mut child = ring.produce(program, 1 << 16, 0, 100, "hang");
        assert_eq!(line_of(&mut child), "written");
        let mut reader = Reader::open(&ring.0, Start::Oldest).unwrap();
        assert!(reader.has_producer());
        assert_eq!(reader.header().unwrap().producer_pid, child.id());
        assert!(matches!(Writer::open(&ring.0, 1 << 16), Err(Error::Busy)));
        let mut second = ring.produce(program, 1 << 16, 0, 1, "close");
        assert_eq!(second.wait().unwrap().code(), Some(3), "EBUSY");
        assert_eq!(drain(&mut reader), ((0..100).collect(), Progress::Idle));

        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(drain(&mut reader), (vec![], Progress::Abandoned));
        let mut third = ring.produce(program, 1 << 16, 100, 50, "close");
        assert!(third.wait().unwrap().success());
        assert_eq!(drain(&mut reader), ((100..150).collect(), Progress::Closed));
        // And ours goes on behind theirs.
        Writer::open(&ring.0, 1 << 16)
            .unwrap()
            .write(150, &expected(150))
            .unwrap();
        assert_eq!(drain(&mut reader), (vec![150], Progress::Closed));
    }
}

/// Killed in the middle of whatever it does, many times: readers find whole records in order, and nothing damaged.
#[test]
fn killed_at_any_moment_it_leaves_no_broken_record() {
    for program in producers() {
        let ring = Ring::new("moments", program);
        for round in 0..20_u64 {
            let mut child = ring.produce(program, 1 << 14, 0, 50 + round * 7, "run");
            assert_eq!(line_of(&mut child), "written");
            let mut reader = Reader::open(&ring.0, Start::Oldest).unwrap();
            // Two readers while it runs, one of which never reads before the kill.
            let mut late = Reader::open(&ring.0, Start::Oldest).unwrap();
            let mut next = None;
            for _ in 0..20 {
                reader
                    .read(|record| {
                        let number = record.timestamp_us;
                        // A new producer begins its numbers again.
                        assert!(next.is_none_or(|next| number >= next || number < 300));
                        assert_eq!(record.payload, expected(number));
                        next = Some(number + 1);
                        true
                    })
                    .unwrap();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            for reader in [&mut reader, &mut late] {
                let (_, progress) = drain(reader);
                assert_eq!(progress, Progress::Abandoned);
                assert_eq!(reader.counters().corrupt_records, 0);
            }
            assert_eq!(late.position(), reader.position());
        }
    }
}
