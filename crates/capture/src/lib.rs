//! Threads, sources, sinks, rotation: the recorder.

#![forbid(unsafe_code)]
