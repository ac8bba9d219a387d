//! Test helpers: generators, chunkings, fault injection, the conservation laws.

#![forbid(unsafe_code)]

mod chunking;
mod random;

pub use chunking::{cut, every_chunking};
pub use random::Random;
