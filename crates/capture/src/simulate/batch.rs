//! What one send takes: pieces of two memories, in the order of the wire.

use std::io::IoSlice;

use super::pool::Pool;

/// Frames, broken frames and garbage, put together without copying payloads.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Headers, and whatever is not a plain frame.
    arena: Vec<u8>,
    parts: Vec<Part>,
    units: Vec<Unit>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    in_pool: bool,
    start: usize,
    bytes: usize,
}

/// One frame, broken frame or piece of garbage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// Consecutive parts of the batch.
    pub(super) parts: usize,
    pub(super) bytes: usize,
    /// Goes alone in a datagram.
    pub(super) alone: bool,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.parts.clear();
        self.units.clear();
    }

    pub(super) fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Adds a frame: a header just written, and a payload that starts at `start` in the pool.
    pub(super) fn frame(&mut self, header: &[u8], start: usize, payload_bytes: usize) {
        let header_start = self.put(header);
        self.parts.push(Part {
            in_pool: false,
            start: header_start,
            bytes: header.len(),
        });
        self.parts.push(Part {
            in_pool: true,
            start,
            bytes: payload_bytes,
        });
        self.units.push(Unit {
            parts: 2,
            bytes: header.len() + payload_bytes,
            alone: false,
        });
    }

    /// Adds bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8], alone: bool) {
        let start = self.put(bytes);
        self.parts.push(Part {
            in_pool: false,
            start,
            bytes: bytes.len(),
        });
        self.units.push(Unit {
            parts: 1,
            bytes: bytes.len(),
            alone,
        });
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        start
    }

    /// The pieces, for a gathering write.
    pub(super) fn slices<'a>(&'a self, pool: &'a Pool) -> Vec<IoSlice<'a>> {
        self.parts
            .iter()
            .map(|part| {
                IoSlice::new(if part.in_pool {
                    pool.bytes(part.start, part.bytes)
                } else {
                    self.arena
                        .get(part.start..part.start + part.bytes)
                        .unwrap_or_default()
                })
            })
            .collect()
    }
}
