//! The register packets of a stream's logs, one file after the other, in file order.
//!
//! Only the oldest log's keyframe is sent, and at once: it is the state that what follows builds on. Keyframes of later
//! logs say what the receiver knows already.

use std::{collections::VecDeque, io, ops::Range, path::PathBuf};

use tapeline_wire::register::Kind;

use crate::registers::log_reader::{read_packets, walk};

/// Bytes read at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// One log.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) path: PathBuf,
    /// Bytes of keyframes at its start.
    pub(super) keyframe_bytes: u64,
}

/// Reads packets ahead, a chunk at a time.
#[derive(Debug)]
pub(super) struct PacketReader {
    kind: Kind,
    logs: VecDeque<Log>,
    /// Where reading goes on in the first of `logs`.
    at: Option<u64>,
    first: bool,
    /// When keyframes are due.
    first_ns: u64,
    buffer: Vec<u8>,
    /// Due time and place in `buffer` of the packets read ahead.
    found: VecDeque<(u64, Range<usize>)>,
    skipped: u64,
}

impl PacketReader {
    pub(super) fn new(kind: Kind, logs: Vec<Log>, first_us: u64) -> Self {
        Self {
            kind,
            logs: logs.into(),
            at: None,
            first: true,
            first_ns: first_us.saturating_mul(1000),
            buffer: Vec::new(),
            found: VecDeque::new(),
            skipped: 0,
        }
    }

    /// When the next packet of those read ahead is due.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.found.front().map(|(due_ns, _)| *due_ns)
    }

    /// Passes the next packet and says where its bytes are until the next `refill`.
    pub(super) fn pass(&mut self) -> Option<Range<usize>> {
        self.found.pop_front().map(|(_, range)| range)
    }

    /// The bytes of a range given by `pass`.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Bytes so far that are no whole packet.
    pub(super) fn skipped_bytes(&self) -> u64 {
        self.skipped
    }

    /// Reads on once everything read ahead is passed; false at the end of the last log.
    ///
    /// # Errors
    /// What the system says, with the file's name.
    pub(super) fn refill(&mut self) -> io::Result<bool> {
        while self.found.is_empty() {
            let Some(log) = self.logs.front() else {
                return Ok(false);
            };
            let named =
                |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", log.path.display()));
            let size = std::fs::metadata(&log.path).map_err(named)?.len();
            let begin = if self.first { 0 } else { log.keyframe_bytes };
            let at = self.at.unwrap_or(begin);
            read_packets(
                &log.path,
                self.kind,
                at,
                size,
                CHUNK_BYTES,
                &mut self.buffer,
            )
            .map_err(named)?;
            let keyframe_end = log.keyframe_bytes;
            let (first_ns, found) = (self.first_ns, &mut self.found);
            let (taken, broken) = walk(self.kind, &self.buffer, |place, packet| {
                let due_ns = if at + (place as u64) < keyframe_end {
                    first_ns
                } else {
                    packet.timestamp_us.saturating_mul(1000)
                };
                found.push_back((due_ns, place..place + packet.bytes.len()));
                true
            });
            let next = at + taken as u64;
            if broken.is_some() || taken == 0 || next >= size {
                // framing cannot be found again behind damage: the rest of this log is not sent
                self.skipped += size.saturating_sub(next);
                self.logs.pop_front();
                self.first = false;
                self.at = None;
            } else {
                self.at = Some(next);
            }
        }
        Ok(true)
    }
}
