//! Test helpers: generators, chunkings, fault injection, the conservation laws.

#![forbid(unsafe_code)]
