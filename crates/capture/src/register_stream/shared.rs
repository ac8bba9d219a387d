//! What the threads of a register stream share with each other and with whoever asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tapeline_wire::register::{ClosedCounters, ImageReader, InvalidCounters, Kind, RegisterLedger};

use crate::config::StreamConfig;
use crate::fs::DiskFile;
use crate::manifest::nested_json;
use crate::metrics::Published;

counters! {
    /// What the receiving thread counts.
    RegIn, REG_IN {
        bytes_received, packets, bytes_valid, registers, queries, syncs, full, length_mismatch, unknown_command,
        unknown_type, truncated, bytes_invalid, bytes_discarded, framing_lost, pending_bytes, gaps, lost, duplicates,
        reordered, replies, synced, unplaced, clients_accepted, clients_refused, ended, framing, idle, not_reading,
        broken, stopped, datagrams, datagrams_dropped, shm_overtakes, shm_overtaken_bytes, shm_records_corrupt,
        shm_bytes_corrupt, ring_used, ring_high_water, backpressure_ns, clients,
        receive_buffer, cut_packets, cut_bytes,
    }
}

counters! {
    /// What the write thread counts.
    RegOut, REG_OUT { packets, bytes, writes, keyframes, keyframe_bytes }
}

/// One segment of this session, as far as it is written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) number: u64,
    /// Final name.
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) keyframe_bytes: u64,
    pub(super) finished: bool,
}

/// The log of this session.
#[derive(Debug, Default)]
pub(super) struct LogState {
    pub(super) segments: Vec<Written>,
    /// Number of the first segment of this session, written or not.
    pub(super) first: u64,
    pub(super) ended: bool,
}

/// How far a log is written, for followers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// Number of the segment.
    pub segment: u64,
    /// Its final name; it ends in `.part` while it is open. Empty for one that is not there.
    pub path: String,
    /// Bytes passed to the kernel: whole packets.
    pub bytes_valid: u64,
    /// Our own packets at its start.
    pub keyframe_bytes: u64,
    /// It is written to its end.
    pub finished: bool,
    /// No further segment will come.
    pub ended: bool,
}

/// A register stream, as others see it.
pub(crate) struct RegisterShared {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    urls: Vec<String>,
    pub(super) received: Published<REG_IN>,
    pub(super) stored: Published<REG_OUT>,
    pub(super) rotate: AtomicBool,
    /// Bytes of valid packets that may be in the image.
    pub(super) applied: AtomicU64,
    /// Bytes of received packets in the log, and of those that are durable.
    pub(super) written: AtomicU64,
    pub(super) durable: AtomicU64,
    /// A sync of the log failed: what of it is on the disk is unknown.
    pub(super) sync_failed: Arc<AtomicBool>,
    /// The data files that are not closed for good, for whoever needs the log durable. Each knows whether a sync of it
    /// failed, whoever asked; opened anew, a file would not.
    pub(super) unclosed: Arc<Mutex<Vec<Arc<dyn DiskFile>>>>,
    pub(super) received_all: AtomicBool,
    /// The write thread is gone; what it did not write is refused.
    pub(super) written_all: AtomicBool,
    pub(super) log: Mutex<LogState>,
    pub(super) log_changed: Condvar,
    /// Segments from this number on are still needed by a sink.
    pub(crate) needed_from: AtomicU64,
    progress: Mutex<std::collections::BTreeMap<String, u64>>,
    pub(super) image: ImageReader,
    ring_bytes: u64,
}

impl RegisterShared {
    pub(super) fn new(
        stream: &StreamConfig,
        kind: Kind,
        urls: Vec<String>,
        image: ImageReader,
        first: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: stream.name.clone(),
            kind,
            urls,
            received: Published::default(),
            stored: Published::default(),
            rotate: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            written: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            sync_failed: Arc::default(),
            unclosed: Arc::default(),
            received_all: AtomicBool::new(false),
            written_all: AtomicBool::new(false),
            log: Mutex::new(LogState {
                first,
                ..LogState::default()
            }),
            log_changed: Condvar::new(),
            needed_from: AtomicU64::new(u64::MAX),
            progress: Mutex::default(),
            image,
            ring_bytes: stream.ring_bytes,
        })
    }

    pub(crate) fn rotate(&self) {
        self.rotate.store(true, Ordering::Release);
    }

    /// A sink is done with all segments below `segment`; retention keeps the others.
    pub(crate) fn sink_progress(&self, sink: &str, segment: u64) {
        if let Ok(mut progress) = self.progress.lock() {
            progress.insert(sink.to_owned(), segment);
            let least = progress.values().min().copied();
            self.needed_from
                .store(least.unwrap_or(u64::MAX), Ordering::Release);
        }
    }

    /// See `Recorder::log_position`.
    pub(crate) fn log_position(&self, after: Option<(u64, u64)>, timeout: Duration) -> LogPosition {
        let deadline = Instant::now() + timeout.min(Duration::from_secs(3600));
        let Ok(mut log) = self.log.lock() else {
            return none(after.map_or(0, |a| a.0));
        };
        let (segment, offset) = after.unwrap_or((log.first, 0));
        loop {
            let found = log.segments.iter().position(|s| s.number == segment);
            let place = found.and_then(|at| log.segments.get(at).map(|s| (at, s)));
            let left = deadline.saturating_duration_since(Instant::now());
            match place {
                Some((at, s)) if s.bytes > offset || s.finished || left.is_zero() => {
                    return LogPosition {
                        segment,
                        path: s.path.clone(),
                        bytes_valid: s.bytes,
                        keyframe_bytes: s.keyframe_bytes,
                        finished: s.finished,
                        ended: log.ended && s.finished && at + 1 == log.segments.len(),
                    };
                }
                None if log.ended || left.is_zero() => {
                    return LogPosition {
                        finished: log.ended,
                        ended: log.ended,
                        ..none(segment)
                    };
                }
                _ => {}
            }
            log = match self.log_changed.wait_timeout(log, left) {
                Ok((log, _)) => log,
                Err(_) => return none(segment),
            };
        }
    }

    /// Change what followers see, and wake them.
    pub(super) fn change_log(&self, change: impl FnOnce(&mut LogState)) {
        if let Ok(mut log) = self.log.lock() {
            change(&mut log);
        }
        self.log_changed.notify_all();
    }

    /// What was stored is read before what was received, so that nothing seems stored that was not received.
    pub(crate) fn ledger(&self) -> RegisterLedger {
        let gone =
            self.written_all.load(Ordering::Acquire) && self.received_all.load(Ordering::Acquire);
        let out = RegOut::from_array(self.stored.snapshot());
        let r = RegIn::from_array(self.received.snapshot());
        let refused = |received: u64, stored: u64| {
            if gone {
                received.saturating_sub(stored)
            } else {
                0
            }
        };
        RegisterLedger {
            bytes_received: r.bytes_received,
            packets_received: r.packets,
            bytes_valid: r.bytes_valid,
            registers_received: r.registers,
            packets_stored: out.packets,
            bytes_stored: out.bytes,
            packets_refused: refused(r.packets, out.packets),
            bytes_refused: refused(r.bytes_valid, out.bytes),
            bytes_invalid: r.bytes_invalid,
            bytes_discarded: r.bytes_discarded,
            framing_lost: r.framing_lost,
            gaps: r.gaps,
            packets_lost: r.lost,
            packets_duplicate: r.duplicates,
            packets_reordered: r.reordered,
            full_packets: r.full,
            queries: r.queries,
            replies: r.replies,
            syncs: r.syncs,
            synced: r.synced,
            registers_unplaced: r.unplaced,
            clients_accepted: r.clients_accepted,
            clients_refused: r.clients_refused,
            datagrams_received: r.datagrams,
            datagrams_dropped_by_kernel: r.datagrams_dropped,
            shm_overtakes: r.shm_overtakes,
            shm_overtaken_bytes: r.shm_overtaken_bytes,
            shm_records_corrupt: r.shm_records_corrupt,
            shm_bytes_corrupt: r.shm_bytes_corrupt,
            ring_high_water_bytes: r.ring_high_water,
            backpressure_ns: r.backpressure_ns,
            packets_invalid: InvalidCounters {
                length_mismatch: r.length_mismatch,
                unknown_command: r.unknown_command,
                unknown_type: r.unknown_type,
                truncated: r.truncated,
            },
            clients_closed: ClosedCounters {
                ended: r.ended,
                framing_lost: r.framing,
                idle: r.idle,
                not_reading: r.not_reading,
                broken: r.broken,
                stopped: r.stopped,
            },
        }
    }

    /// Whether something that reached the receiver, or its kernel, is not in the log. A packet of which a client had
    /// sent a part when the recorder was stopped had not reached it. A gap in a byte stream is the producer's to explain;
    /// one between datagrams is a loss.
    pub(crate) fn lost_anything(&self) -> bool {
        let l = self.ledger();
        let r = RegIn::from_array(self.received.snapshot());
        let mut i = l.packets_invalid;
        i.truncated = i.truncated.saturating_sub(r.cut_packets);
        l.bytes_discarded > r.cut_bytes
            || l.framing_lost > 0
            || l.packets_refused > 0
            || l.datagrams_dropped_by_kernel > 0
            || (l.datagrams_received > 0 && l.packets_lost > 0)
            || l.shm_overtakes > 0
            || l.shm_records_corrupt > 0
            || i.length_mismatch + i.unknown_command + i.unknown_type + i.truncated > 0
    }

    pub(crate) fn status(&self) -> Value {
        let out = RegOut::from_array(self.stored.snapshot());
        let r = RegIn::from_array(self.received.snapshot());
        json!({
            "ledger": nested_json(self.ledger().fields()),
            "wire": self.kind.name(),
            "addresses": self.urls,
            "ring_bytes": self.ring_bytes,
            "ring_used_bytes": r.ring_used,
            "ring_high_water_bytes": r.ring_high_water,
            "pending_bytes": r.pending_bytes,
            "held_bytes": 0,
            "writes": out.writes,
            "keyframes": out.keyframes,
            "keyframe_bytes": out.keyframe_bytes,
            "receive_buffer_bytes": r.receive_buffer,
            "clients": r.clients,
            "connections": r.clients,
            "connections_refused": r.clients_refused,
            "sources": self.image.sources().len(),
            "finished": self.received_all.load(Ordering::Acquire),
            "error": Value::Null,
        })
    }
}

fn none(segment: u64) -> LogPosition {
    LogPosition {
        segment,
        path: String::new(),
        bytes_valid: 0,
        keyframe_bytes: 0,
        finished: false,
        ended: false,
    }
}
