//! Any bytes as a file: rows or the documented error, the same rows by every way of reading, bounded memory.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tapeline_bcsv::{Limits, OnCorrupt, ReadOptions, Reader, Selection, validate_reader};
use tapeline_fuzz::Choices;

/// Far above what an input of this size can hold (times 255, the largest LZ4 ratio), far below the default.
const PACKET_BYTES: u64 = 16 << 20;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let choice = choices.byte();
    let options = ReadOptions {
        on_corrupt: if choice & 1 == 0 {
            OnCorrupt::Raise
        } else {
            OnCorrupt::Skip
        },
        follow: choice & 2 != 0,
        limits: Limits {
            packet_bytes: PACKET_BYTES,
            table_bytes: Some(4 * PACKET_BYTES),
            // little enough that packets are put out of it
            cache_bytes: 4096,
        },
        any_flags: choice & 4 != 0,
    };
    let start = choices.number(2);
    let Ok(reader) = Reader::from_source(Arc::new(choices.rest().to_vec()), options) else {
        return;
    };
    let _ = (reader.complete(), reader.packets(), reader.gaps());
    if options.follow {
        let _ = reader.poll();
    }
    let rows = reader.num_rows();

    let all = Selection {
        threads: 1,
        ..Selection::default()
    };
    let whole = reader.read(&all);
    if let Ok(batches) = &whole {
        let count: u64 = batches.iter().map(|batch| batch.rows as u64).sum();
        let end = batches
            .last()
            .map_or(0, |batch| batch.first_row + batch.rows as u64);
        assert!(count <= end, "{count} rows up to row {end}");
        if options.on_corrupt == OnCorrupt::Raise {
            let mut next = 0;
            for batch in batches {
                assert_eq!(batch.first_row, next, "rows left out without an error");
                next += batch.rows as u64;
            }
            assert_eq!(rows.ok(), Some(count), "rows counted and rows read");
        }
        // In pieces, the same rows.
        let pieces: Result<Vec<_>, _> = match reader.batches(&all, 1 + usize::from(choice >> 3)) {
            Ok(batches) => batches.collect(),
            Err(error) => Err(error),
        };
        let pieces = pieces.expect("what can be read at once can be read in pieces");
        assert_eq!(
            pieces.iter().map(|batch| batch.rows as u64).sum::<u64>(),
            count
        );
    }
    let part = Selection {
        start,
        stop: Some(start + 3),
        threads: 1,
        columns: Some(vec![0]),
    };
    if let Ok(batches) = reader.read(&part) {
        assert!(batches.iter().map(|batch| batch.rows).sum::<usize>() <= 3);
    }
    let row = reader.row(start);
    if let Ok(batch) = &row {
        assert_eq!((batch.rows, batch.first_row), (1, start));
    }
    let report = validate_reader(&reader);
    if let (Ok(report), Err(_)) = (&report, &whole) {
        assert!(
            !report.ok || options.follow,
            "a file that cannot be read is not valid"
        );
    }
});
