//! The rings of all frame streams, made before any source is bound.
//!
//! Making one touches all its memory, which takes 20 ms, and ten times as much where a hypervisor has to find the
//! memory first. A source that is bound already would leave what arrives meanwhile in a socket's buffer, which a fast
//! UDP stream fills in less; so whoever sees the address bound finds a recorder that reads. They are made side by
//! side, as many at a time as there are cores.

use std::thread;

use tapeline_ring::{Consumer, Producer, ring};
use tapeline_sys::memory::available_bytes;

use crate::config::StreamConfig;
use crate::error::{Error, Result};
use crate::receive::Batch;

/// Both ends of one.
pub(crate) type Ring = (Producer<Batch>, Consumer<Batch>);

/// A ring for each source of each stream, in their order; none for register streams, which make their own.
pub(crate) fn make(streams: &[StreamConfig]) -> Result<Vec<Vec<Ring>>> {
    let bytes = memory_bytes(streams);
    if let Some(available) = available_bytes().filter(|&available| bytes > available) {
        // Touching it all would not fail: the kernel would kill something.
        return Err(Error::config(format!(
            "streams: their rings take {bytes} bytes together, and {available} are available; make ring_bytes smaller"
        )));
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let each = streams.len().div_ceil(cores).max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = streams
            .chunks(each)
            .map(|part| scope.spawn(move || part.iter().map(of_stream).collect::<Result<Vec<_>>>()))
            .collect();
        let mut rings = Vec::with_capacity(streams.len());
        for part in parts {
            let made = part
                .join()
                .map_err(|_| Error::state("a thread that made rings is gone".into()))?;
            rings.extend(made?);
        }
        Ok(rings)
    })
}

/// What the rings of all streams take, those of register streams too.
fn memory_bytes(streams: &[StreamConfig]) -> u64 {
    let of = |s: &StreamConfig| s.ring_bytes.saturating_mul(s.sources.len() as u64);
    streams.iter().map(of).fold(0, u64::saturating_add)
}

fn of_stream(stream: &StreamConfig) -> Result<Vec<Ring>> {
    if stream.register_kind().is_some() {
        return Ok(Vec::new());
    }
    let (block_bytes, blocks) = stream.ring_blocks(&stream.layout.layout()?)?;
    let one = |_| {
        ring(block_bytes, blocks, Batch::new)
            .map_err(|e| Error::io_bare("making the ring", e).of_stream(&stream.name))
    };
    stream.sources.iter().map(one).collect()
}
