//! CRC32C: one-shot, streaming, combining and range queries.

#![allow(unsafe_code)]
