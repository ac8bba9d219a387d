//! Sinks: where a stream's frames end.

pub(crate) mod segment;
