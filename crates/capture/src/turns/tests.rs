//! Who writes: the thread that received, or the one that stands by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver as Receiving, Sender, channel, sync_channel};
use std::thread::{JoinHandle, ThreadId};

use tapeline_wire::frame::{FrameFields, FrameLayout, FrameScanner};

use super::*;
use crate::config::{LayoutConfig, RecorderConfig, Sync};
use crate::fs::Dir;
use crate::keeper::Job;
use crate::metrics::Received;
use crate::metrics::{Published, Stored};
use crate::output::OutputShared;
use crate::receive::{Batch, Receiver, Room, SourceShared};
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

/// What the source does next.
#[derive(Clone, Copy)]
enum Next {
    /// A frame arrives; the one before it is passed on.
    Frame {
        sender_waits: bool,
    },
    Panic,
    End,
}

/// A source that does what it is told, and says when it has nothing left to do.
struct Script {
    orders: Receiving<Next>,
    order: Option<Next>,
    idle: Sender<ThreadId>,
    sequence: u64,
}

impl Step for Script {
    fn step(&mut self, receiver: &mut Receiver, _: &Stop) -> Option<Ended> {
        let order = self.order.take().unwrap_or_else(|| {
            let _ = self.idle.send(thread::current().id());
            self.orders.recv().unwrap_or(Next::End)
        });
        match order {
            Next::Frame { sender_waits } => {
                match receiver.make_room(2000) {
                    Ok(Room::Made) => {}
                    Ok(Room::AfterTurn) => {
                        self.order = Some(order);
                        return None;
                    }
                    Err(_) => return Some(Ok(())),
                }
                let fields = FrameFields {
                    sequence: self.sequence,
                    ..FrameFields::default()
                };
                self.sequence += 1;
                let mut frame = Vec::new();
                layout()
                    .encode_frame(&fields, &[7; 1000], &mut frame)
                    .unwrap();
                receiver.space()[..frame.len()].copy_from_slice(&frame);
                receiver.received(frame.len(), sender_waits, 1);
                None
            }
            Next::Panic => panic!("as it was told"),
            Next::End => Some(Ok(())),
        }
    }
}

/// A stream with the thread that receives, and the one that stands by if it was started.
struct Stream {
    disk: SimDisk,
    turns: Arc<Turns>,
    orders: Sender<Next>,
    idle: Receiving<ThreadId>,
    threads: Vec<JoinHandle<()>>,
    failed: Arc<Mutex<Vec<String>>>,
    source: Arc<SourceShared>,
    stored: Arc<OutputShared>,
    _keeper: Receiving<Job>,
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
    let failed = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&failed);
    let pair = Arc::new(Pair::default());
    let source = Arc::new(SourceShared::default());
    let receiver = Receiver::new(
        producer,
        FrameScanner::new(layout()),
        Arc::clone(&source),
        BLOCK,
        false,
        true,
        Some((options, Arc::clone(&pair))),
    );
    let (orders, script) = channel();
    let (is_idle, idle) = channel();
    let script = Script {
        orders: script,
        order: None,
        idle: is_idle,
        sequence: 0,
    };
    let turns = Turns::new(
        options,
        Stop::default(),
        Feed::new(script, receiver),
        writer,
        pair,
        move |e| heard.lock().unwrap().push(e.to_string()),
    );
    let receiving = Arc::clone(&turns);
    let stream = Stream {
        disk,
        turns,
        orders,
        idle,
        threads: vec![thread::spawn(move || receiving.receive_first())],
        failed,
        source,
        stored,
        _keeper: keeper,
    };
    stream.idle.recv().unwrap();
    stream
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
    /// A frame arrives. Returns when all is done that the frame before it gave to do, with the thread that received.
    fn frame(&mut self, sender_waits: bool) -> ThreadId {
        self.orders.send(Next::Frame { sender_waits }).unwrap();
        self.idle.recv().unwrap()
    }

    fn stored(&self) -> u64 {
        Stored::from_array(self.stored.stored.snapshot()).frames_stored
    }

    fn received(&self) -> Received {
        Received::from_array(self.source.received.snapshot())
    }

    fn stand_by(&mut self) {
        let turns = Arc::clone(&self.turns);
        self.threads
            .push(thread::spawn(move || turns.write_first()));
    }

    /// Frames stored at the end.
    fn finish(mut self) -> u64 {
        let _ = self.orders.send(Next::End);
        if self.threads.len() < 2 {
            self.stand_by();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.stored()
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
    let turns = Arc::clone(&stream.turns);
    let taken = turns.try_take(&turns.writer).unwrap();
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
    assert!(stream.received().backpressure_ns > 0);
    assert_eq!(stream.finish(), 6);
}

#[test]
fn while_the_disk_holds_one_thread_up_the_other_receives_and_then_they_have_changed_places() {
    let mut stream = stream(TurnOptions {
        slow: Duration::ZERO,
        rest: Duration::ZERO,
        ..options()
    });
    let first = stream.frame(true);
    stream.disk.hold(true);
    stream.stand_by();
    // The write of the frame before does not end; these are received nevertheless.
    let second = stream.frame(true);
    assert_ne!(first, second);
    for _ in 0..4 {
        assert_eq!(stream.frame(true), second);
    }
    assert_eq!(stream.stored(), 0);
    let held_up = stream.received().backpressure_ns;
    assert!(held_up > 0);
    stream.disk.hold(false);
    assert_eq!(stream.finish(), 6);
}

#[test]
fn a_failing_disk_is_reported_and_stops_the_receiver() {
    let mut stream = stream(options());
    stream.frame(true);
    stream.frame(true);
    assert_eq!(stream.stored(), 1);
    stream.disk.fail(stream.disk.calls(), Fault::Io);
    stream
        .orders
        .send(Next::Frame { sender_waits: true })
        .unwrap();
    let failed = Arc::clone(&stream.failed);
    assert_eq!(stream.finish(), 1);
    assert_eq!(failed.lock().unwrap().len(), 1);
}

#[test]
fn a_panic_is_reported_and_what_was_received_before_is_stored() {
    let mut stream = stream(options());
    for _ in 0..3 {
        stream.frame(true);
    }
    stream.orders.send(Next::Panic).unwrap();
    let failed = Arc::clone(&stream.failed);
    assert_eq!(stream.finish(), 2, "all but the frame in the open block");
    let failed = failed.lock().unwrap();
    assert!(failed[0].contains("panicked"), "{failed:?}");
}
