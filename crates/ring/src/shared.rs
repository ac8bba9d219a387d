//! What both ends see, and the function that makes them.

use std::io;

use tapeline_sys::memory::Region;

use crate::{
    Block, Consumer, Producer,
    queue::queue,
    sync::{Arc, AtomicBool, AtomicU32, AtomicU64, CachePadded},
    waiter::Waiter,
};

/// State shared by the two ends, each side's writes on lines of their own.
pub(crate) struct Shared {
    pub(crate) producer: CachePadded<ProducerSide>,
    pub(crate) consumer: CachePadded<ConsumerSide>,
}

/// Written by the producer.
pub(crate) struct ProducerSide {
    /// Bytes published since the start.
    pub(crate) published_bytes: AtomicU64,
    /// Counts calls of `flush`; a change makes a waiting consumer ready.
    pub(crate) flushes: AtomicU32,
    pub(crate) closed: AtomicBool,
    /// Where the producer sleeps when it is out of blocks.
    pub(crate) waiter: Waiter,
}

/// Written by the consumer.
pub(crate) struct ConsumerSide {
    /// Bytes recycled since the start.
    pub(crate) recycled_bytes: AtomicU64,
    /// `published_bytes` from which a sleeping consumer wants to be woken.
    pub(crate) wanted_bytes: AtomicU64,
    pub(crate) gone: AtomicBool,
    /// Where the consumer sleeps.
    pub(crate) waiter: Waiter,
}

/// Makes a ring of `blocks` blocks of `block_bytes` bytes, all of them with the producer, each with a `tag()`.
///
/// The memory is one anonymous mapping, asked to be of huge pages, and touched here, so that no page fault meets
/// the receive thread. Nothing is allocated afterwards.
///
/// # Errors
/// `InvalidInput` if either number is 0 or their product does not fit; otherwise what the operating system said
/// when it was asked for the memory.
pub fn ring<T: Send>(
    block_bytes: usize,
    blocks: usize,
    tag: impl FnMut() -> T,
) -> io::Result<(Producer<T>, Consumer<T>)> {
    let bytes = block_bytes
        .checked_mul(blocks)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a ring needs at least one block of one byte",
            )
        })?;
    let memory = std::sync::Arc::new(Region::new(bytes)?);
    let shared = Arc::new(Shared {
        producer: CachePadded(ProducerSide {
            published_bytes: AtomicU64::new(0),
            flushes: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            waiter: Waiter::new(),
        }),
        consumer: CachePadded(ConsumerSide {
            recycled_bytes: AtomicU64::new(0),
            wanted_bytes: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            waiter: Waiter::new(),
        }),
    });
    let (filled_in, filled_out) = queue(blocks);
    let (free_in, free_out) = queue(blocks);
    let free = Block::cut(&memory, block_bytes, blocks, tag);
    Ok((
        Producer::new(
            Arc::clone(&shared),
            std::sync::Arc::clone(&memory),
            filled_in,
            free_out,
            free,
        ),
        Consumer::new(shared, memory, filled_out, free_in),
    ))
}
