//! Rotation when nothing more comes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::io::Write;

use common::{Run, frame_of};
use serde_json::json;

#[test]
fn a_stream_that_falls_silent_inside_a_periodic_does_not_hold_its_segment_open() {
    let run = Run::start(
        &["tcp"],
        json!({"assembly": "markers", "rotate_seconds": 0.05, "hold_seconds": 0.05}),
    );
    let mut connection = run.connect(0);
    // PERIOD_START, a frame, and never a PERIOD_END.
    let sent = [frame_of(0, 0, 1, 500), frame_of(0, 1, 0, 500)].concat();
    connection.write_all(&sent).unwrap();
    run.until("periodics_incomplete", 1);
    // What comes later is another periodic, in another segment.
    connection.write_all(&frame_of(0, 2, 3, 500)).unwrap();
    run.until("periodics_complete", 1);
    drop(connection);
    let outcome = run.finish();
    assert_eq!(outcome.sequences(), [0, 1, 2]);
}
