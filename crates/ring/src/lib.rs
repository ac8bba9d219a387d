//! A lock-free single-producer single-consumer byte ring made of fixed blocks.
//!
//! The producer claims a block, fills it in place (a receive call writes straight into it), and publishes it
//! together with a *tag*, such as the descriptors of the frames inside. The consumer takes it, works on the bytes
//! where they lie, and recycles it. Bytes are never copied and nothing is allocated after [`ring`] returns.
//!
//! The block that came back last is claimed first. While the consumer keeps up, the same few blocks go round and
//! stay in the processor's cache; the whole capacity is there when the consumer stalls.
//!
//! A consumer that [waits](Consumer::wait) names the bytes worth waking up for and is woken once for them, not once
//! a block. How a wake-up cannot get lost is told in `waiter.rs`; `tests/loom.rs` checks it over all interleavings.
//!
//! [`shared_memory`] holds another ring, between processes: one producer that never waits, any number of readers.

#![allow(unsafe_code)]

mod block;
mod consumer;
mod producer;
mod queue;
mod shared;
#[cfg(all(unix, not(loom)))]
pub mod shared_memory;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
mod waiter;

pub use block::Block;
pub use consumer::{Consumer, Wait};
pub use producer::Producer;
pub use shared::ring;
