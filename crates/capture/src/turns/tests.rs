//! Who writes: the thread that received, or the one that stands by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Jobs, sync_channel};

use tapeline_wire::frame::{FrameFields, FrameLayout, FrameScanner};

use super::*;
use crate::config::{LayoutConfig, RecorderConfig, Sync};
use crate::fs::Dir;
use crate::keeper::Job;
use crate::metrics::{Published, Stored};
use crate::output::OutputShared;
use crate::receive::{Batch, Receiver};
use crate::simdisk::{Fault, SimDisk};
use crate::write::{Outputs, WriterSettings};

const BLOCK: usize = 1 << 20;

struct One(SimDisk, Arc<OutputShared>);

impl Outputs for One {
    fn open(
        &mut self,
        _: Option<u16>,
    ) -> crate::error::Result<(Arc<dyn Dir>, u64, Arc<OutputShared>)> {
        Ok((self.0.root(), 0, Arc::clone(&self.1)))
    }
}

/// A stream without its write thread.
struct Stream {
    disk: SimDisk,
    receiver: Receiver,
    writer: Arc<SharedWriter>,
    failed: Arc<AtomicBool>,
    stored: Arc<OutputShared>,
    sequence: u64,
    _keeper: Jobs<Job>,
}

fn layout() -> FrameLayout {
    LayoutConfig::default().layout().unwrap()
}

fn stream(options: TurnOptions) -> Stream {
    let config = r#"{"out": "sim", "streams": [{"name": "ch0", "sources": [{"kind": "stdin", "url": "-"}]}]}"#;
    let config = RecorderConfig::from_json(config).unwrap();
    let settings = WriterSettings {
        assemble: config.streams[0].assemble_options().unwrap(),
        sync: Sync::Segment,
        rotate_bytes: 1 << 30,
        rotate_after: None,
        keep_duplicates: false,
        split: false,
        window: 4096,
        max_held_blocks: 2,
        frames_limit: None,
    };
    let disk = SimDisk::new();
    let stored = Arc::new(OutputShared {
        name: "ch0".into(),
        stored: Published::default(),
        rotate: AtomicBool::new(false),
    });
    let (producer, consumer) = tapeline_ring::ring(BLOCK, 8, Batch::new).unwrap();
    let (jobs, keeper) = sync_channel(16);
    let opener = Box::new(One(disk.clone(), Arc::clone(&stored)));
    let writer = StreamWriter::new(settings, vec![consumer], opener, jobs).unwrap();
    let failed = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&failed);
    let writer = SharedWriter::new(writer, move |_| heard.store(true, Ordering::Release));
    let here = WriteHere::new(Arc::clone(&writer), options);
    let scanner = FrameScanner::new(layout());
    let receiver = Receiver::new(
        producer,
        scanner,
        Arc::default(),
        BLOCK,
        false,
        true,
        Some(here),
    );
    Stream {
        disk,
        receiver,
        writer,
        failed,
        stored,
        sequence: 0,
        _keeper: keeper,
    }
}

/// A frame a block.
fn options() -> TurnOptions {
    TurnOptions {
        block_bytes: 1000,
        // Never, on the slowest machine.
        slow: Duration::from_secs(3600),
        ..TurnOptions::default()
    }
}

impl Stream {
    /// A frame arrives; the one before it is passed on.
    fn frame(&mut self, sender_waits: bool) {
        let fields = FrameFields {
            sequence: self.sequence,
            ..FrameFields::default()
        };
        self.sequence += 1;
        let mut frame = Vec::new();
        layout()
            .encode_frame(&fields, &[7; 1000], &mut frame)
            .unwrap();
        let space = self.receiver.space(frame.len()).unwrap();
        space[..frame.len()].copy_from_slice(&frame);
        self.receiver.received(frame.len(), sender_waits, 1);
    }

    fn stored(&self) -> u64 {
        Stored::from_array(self.stored.stored.snapshot()).frames_stored
    }

    /// Ends with its write thread.
    fn finish(self) -> u64 {
        self.receiver.finish();
        let writer = Arc::clone(&self.writer);
        thread::spawn(move || writer.stand_by()).join().unwrap();
        Stored::from_array(self.stored.stored.snapshot()).frames_stored
    }
}

#[test]
fn what_a_waiting_sender_sent_is_written_by_the_thread_that_received_it() {
    let mut stream = stream(options());
    for sent in 0..100 {
        stream.frame(true);
        assert_eq!(stream.stored(), sent, "all but the frame in the open block");
    }
    assert_eq!(stream.finish(), 100);
}

#[test]
fn what_a_sender_that_does_not_wait_sent_is_left_to_the_write_thread() {
    let mut stream = stream(options());
    for _ in 0..6 {
        stream.frame(false);
        assert_eq!(stream.stored(), 0);
    }
    assert_eq!(stream.finish(), 6);
}

#[test]
fn a_receiver_goes_on_while_the_write_thread_has_the_writer() {
    let mut stream = stream(options());
    let writer = Arc::clone(&stream.writer);
    let taken = writer.try_take().unwrap();
    for _ in 0..2 {
        stream.frame(true);
        assert_eq!(stream.stored(), 0);
    }
    drop(taken);
    stream.frame(true);
    assert_eq!(stream.stored(), 2, "with what was left in the ring");
    assert_eq!(stream.finish(), 3);
}

#[test]
fn after_a_slow_turn_the_write_thread_has_its_time() {
    let mut stream = stream(TurnOptions {
        slow: Duration::ZERO,
        rest: Duration::from_secs(3600),
        ..options()
    });
    for _ in 0..6 {
        stream.frame(true);
    }
    assert_eq!(stream.stored(), 1);
    assert!(stream.receiver.counters.backpressure_ns > 0);
    assert_eq!(stream.finish(), 6);
}

#[test]
fn a_failing_disk_is_reported_and_stops_the_receiver() {
    let mut stream = stream(options());
    stream.frame(true);
    stream.frame(true);
    assert_eq!(stream.stored(), 1);
    stream.disk.fail(stream.disk.calls(), Fault::Io);
    stream.frame(true);
    assert!(stream.failed.load(Ordering::Acquire));
    assert!(stream.receiver.writer_gone());
    assert_eq!(stream.finish(), 1);
}
