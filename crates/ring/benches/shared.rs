//! The ring in shared memory: records written per second with nobody reading, and bytes per second read.
//!
//! The reader reads through `pread`; the same copy out of a mapping stands beside it as `mapped`, without any of the
//! checks, to show what the choice costs (`src/shared_memory/memory.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss)]

fn main() {
    #[cfg(unix)]
    unix::main();
}

#[cfg(unix)]
mod unix {
    use std::{fs::OpenOptions, hint::black_box, path::PathBuf, time::Instant};

    use tapeline_ring::shared_memory::{Progress, Reader, Start, Writer, path_of};
    use tapeline_sys::shared_file::SharedMapping;

    const CAPACITY: u64 = 64 << 20;

    pub(super) fn main() {
        // `cargo test` runs benches once, small, for their result.
        let measured = std::env::args().any(|arg| arg == "--bench");
        let name = format!("tapeline-bench-{}", std::process::id());
        let directory = path_of("x").parent().unwrap().to_path_buf();
        let path = if directory.is_dir() {
            directory.join(name)
        } else {
            std::env::temp_dir().join(name)
        };
        for payload_bytes in [29, 512, 16_384] {
            case(&path, payload_bytes, measured);
            std::fs::remove_file(&path).unwrap();
        }
    }

    fn case(path: &PathBuf, payload_bytes: usize, measured: bool) {
        let payload = vec![0x5A; payload_bytes];
        let record = 16 + payload_bytes.next_multiple_of(8);
        let records = (usize::try_from(CAPACITY).unwrap() - 4096) / record - 1;
        let rounds = if measured { 9 } else { 1 };
        let mut writer = Writer::open(path, CAPACITY).unwrap();
        let (mut write, mut read, mut mapped) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut reader = Reader::open(path, Start::Newest).unwrap();
            let start = Instant::now();
            for number in 0..records {
                writer.write(number as u64, black_box(&payload)).unwrap();
            }
            write.push(start.elapsed().as_secs_f64());

            let (start, mut seen) = (Instant::now(), 0);
            while reader
                .read(|record| {
                    seen += usize::from(record.payload.len() == payload_bytes);
                    true
                })
                .unwrap()
                == Progress::More
            {}
            read.push(start.elapsed().as_secs_f64());
            assert_eq!(seen, records, "records were lost or repeated");

            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .unwrap();
            let mapping =
                SharedMapping::new(&file, usize::try_from(CAPACITY).unwrap() + 4096).unwrap();
            // Page tables first: a reader maps once.
            mapped.push(copy(&mapping));
            mapped.pop();
            mapped.push(copy(&mapping));
        }
        let bytes = (records * record) as f64;
        println!(
            "ring/shared/{payload_bytes}B  write {:.1} M records/s ({:.2} GB/s)  read {:.1} M records/s ({:.2} GB/s)  \
             mapped copy {:.2} GB/s",
            records as f64 / median(&mut write) / 1e6,
            bytes / median(&mut write) / 1e9,
            records as f64 / median(&mut read) / 1e6,
            bytes / median(&mut read) / 1e9,
            CAPACITY as f64 / median(&mut mapped) / 1e9,
        );
    }

    fn copy(mapping: &SharedMapping) -> f64 {
        let mut run = vec![0_u8; 256 << 10];
        let start = Instant::now();
        for offset in (0..mapping.bytes() - run.len()).step_by(run.len()) {
            // SAFETY: inside the mapping; this process does not write now.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    mapping.start().as_ptr().add(offset),
                    run.as_mut_ptr(),
                    run.len(),
                );
            }
            black_box(&run);
        }
        start.elapsed().as_secs_f64()
    }

    fn median(times: &mut [f64]) -> f64 {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }
}
