//! What is known of a running stream: the ledger put together from what its threads publish.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tapeline_wire::frame::CorruptCounters;
use tapeline_wire::ledger::Ledger;

use crate::config::{RecorderConfig, StreamConfig};
use crate::manifest::ledger_json;
use crate::metrics::{Published, Received, Stored};
use crate::output::OutputShared;
use crate::receive::SourceShared;

/// What the threads of one stream share with whoever asks.
pub(crate) struct StreamShared {
    pub(crate) name: String,
    urls: Vec<String>,
    pub(crate) sources: Vec<Arc<SourceShared>>,
    outputs: Mutex<Vec<Arc<OutputShared>>>,
    split: bool,
    ring_bytes: u64,
}

impl StreamShared {
    pub(crate) fn new(stream: &StreamConfig, urls: Vec<String>, sources: usize) -> Self {
        Self {
            name: stream.name.clone(),
            urls,
            sources: (0..sources).map(|_| Arc::default()).collect(),
            outputs: Mutex::default(),
            split: stream.split_by_stream_id,
            ring_bytes: stream.ring_bytes * sources as u64,
        }
    }

    /// The shared part of an output, made when it is new.
    pub(crate) fn output(&self, name: String) -> Arc<OutputShared> {
        let new = Arc::new(OutputShared {
            name,
            stored: Published::default(),
            rotate: AtomicBool::new(false),
        });
        if let Ok(mut outputs) = self.outputs.lock() {
            outputs.push(Arc::clone(&new));
        }
        new
    }

    pub(crate) fn rotate(&self) {
        for output in self.outputs() {
            output.rotate.store(true, Ordering::Release);
        }
    }

    pub(crate) fn keeps_duplicates(&self, config: &RecorderConfig) -> bool {
        config
            .streams
            .iter()
            .any(|s| s.name == self.name && s.keep_duplicates)
    }

    fn outputs(&self) -> Vec<Arc<OutputShared>> {
        self.outputs.lock().map(|o| o.clone()).unwrap_or_default()
    }

    /// Ledgers by output; one, named as the stream, unless stream ids are split.
    pub(crate) fn ledgers(&self) -> Vec<(String, Ledger)> {
        if !self.split {
            return vec![(self.name.clone(), self.ledger())];
        }
        let mut all: Vec<_> = self
            .outputs()
            .iter()
            .map(|o| (o.name.clone(), split_ledger(&snapshot(o))))
            .collect();
        all.push((self.name.clone(), self.ledger()));
        all
    }

    pub(crate) fn ledger_of(&self, output: &str) -> Option<Ledger> {
        self.ledgers()
            .into_iter()
            .find(|(name, _)| name == output)
            .map(|(_, ledger)| ledger)
    }

    /// The whole stream. What was stored is read before what was received, so that nothing seems stored that had not been received.
    pub(crate) fn ledger(&self) -> Ledger {
        let outputs: Vec<Stored> = self.outputs().iter().map(|o| snapshot(o)).collect();
        let mut sum = Ledger::default();
        for source in &self.sources {
            sum.add(&received_part(&Received::from_array(
                source.received.snapshot(),
            )));
        }
        let (mut refused, mut repaired) = ((0, 0), 0);
        for stored in &outputs {
            sum.add(&stored_part(stored));
            refused = (
                refused.0.max(stored.frames_refused),
                refused.1.max(stored.bytes_refused),
            );
            repaired = repaired.max(stored.frames_repaired);
            if !self.split {
                break;
            }
        }
        // The paths are compared for the stream as a whole: every output carries the same number.
        sum.frames_repaired = repaired;
        // Frames of stream ids past the limit are refused as if they had been no frames.
        sum.frames_received = sum.frames_received.saturating_sub(refused.0);
        sum.bytes_discarded += refused.1;
        sum
    }

    pub(crate) fn status(&self) -> Value {
        let received: Vec<Received> = self
            .sources
            .iter()
            .map(|s| Received::from_array(s.received.snapshot()))
            .collect();
        let sum = |f: fn(&Received) -> u64| received.iter().map(f).sum::<u64>();
        let finished = self
            .sources
            .iter()
            .all(|s| s.finished.load(Ordering::Acquire));
        let held: u64 = self.outputs().iter().map(|o| snapshot(o).held_bytes).sum();
        let writes: u64 = self.outputs().iter().map(|o| snapshot(o).writes).sum();
        json!({
            "ledger": ledger_json(&self.ledger()),
            "addresses": self.urls,
            "ring_bytes": self.ring_bytes,
            "ring_used_bytes": sum(|r| r.ring_used_bytes),
            "ring_high_water_bytes": sum(|r| r.ring_high_water_bytes),
            "pending_bytes": sum(|r| r.pending_bytes),
            "held_bytes": held,
            "writes": writes,
            "receive_buffer_bytes": sum(|r| r.receive_buffer_bytes),
            "connections": sum(|r| r.connections),
            "connections_refused": sum(|r| r.connections_refused),
            "finished": finished,
            "error": Value::Null,
        })
    }
}

fn snapshot(output: &OutputShared) -> Stored {
    Stored::from_array(output.stored.snapshot())
}

fn received_part(r: &Received) -> Ledger {
    Ledger {
        bytes_received: r.bytes_received,
        frames_received: r.frames_received,
        bytes_discarded: r.bytes_discarded,
        resyncs: r.resyncs,
        datagrams_received: r.datagrams_received,
        datagrams_dropped_by_kernel: r.datagrams_dropped_by_kernel,
        ring_high_water_bytes: r.ring_high_water_bytes,
        backpressure_ns: r.backpressure_ns,
        frames_corrupt: CorruptCounters {
            header_crc: r.header_crc,
            payload_crc: r.payload_crc,
            bad_version: r.bad_version,
            bad_length: r.bad_length,
            truncated: r.truncated,
        },
        ..Ledger::default()
    }
}

fn stored_part(s: &Stored) -> Ledger {
    Ledger {
        frames_stored: s.frames_stored,
        bytes_stored: s.bytes_stored,
        gaps: s.gaps,
        frames_lost: s.frames_lost,
        frames_duplicate: s.frames_duplicate,
        frames_reordered: s.frames_reordered,
        frames_late: s.frames_late,
        restarts: s.restarts,
        frames_repaired: s.frames_repaired,
        periodics_complete: s.periodics_complete,
        periodics_incomplete: s.periodics_incomplete,
        ..Ledger::default()
    }
}

/// The ledger of one stream id: it received what was taken for it.
fn split_ledger(s: &Stored) -> Ledger {
    Ledger {
        bytes_received: s.bytes_taken,
        frames_received: s.frames_taken,
        frames_repaired: 0,
        ..stored_part(s)
    }
}
