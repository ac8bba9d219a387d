//! Any bytes as a damaged file: the repaired file is valid, and holds no more rows than could be read.

#![no_main]

use std::fs;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use tapeline_bcsv::{Limits, repair, validate};
use tapeline_fuzz::scratch;

fuzz_target!(|data: &[u8]| {
    let directory = scratch();
    let [source, target]: [PathBuf; 2] = ["source", "target"].map(|name| directory.join(name));
    let _ = fs::remove_file(&target);
    fs::write(&source, data).expect("scratch directory");
    let limits = Limits {
        packet_bytes: 16 << 20,
        table_bytes: Some(64 << 20),
        ..Limits::default()
    };
    let before = validate(&source, limits);
    let repaired = repair(&source, &target, limits);
    assert_eq!(
        fs::read(&source).ok().as_deref(),
        Some(data),
        "the source is left as it is"
    );
    if let Ok(report) = repaired {
        let after = validate(&target, limits).expect("the repaired file can be opened");
        // None: a stream without rows cannot tell.
        assert!(after.ok && after.complete != Some(false), "{after:?}");
        assert_eq!(after.rows_readable, report.rows_readable, "{report:?}");
        if let Ok(before) = before {
            assert!(
                after.rows_readable <= before.rows_readable,
                "{before:?} {after:?}"
            );
        }
    }
});
