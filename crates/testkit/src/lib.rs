//! Test helpers: generators, chunkings, fault injection, the conservation laws.

#![forbid(unsafe_code)]

mod chunking;
mod faults;
mod laws;
mod random;

pub use chunking::{cut, every_chunking};
pub use faults::{Sent, faulty_stream};
pub use laws::{assert_laws, assert_producer_law};
pub use random::Random;
