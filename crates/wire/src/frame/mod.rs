//! The frame wire: layout, encoder, and the two faces of one decoder.
//!
//! [`FrameScanner`] reads slices that the caller owns and answers with ranges; the recorder
//! validates frames inside its ring with it. [`FrameDecoder`] owns a bounded buffer and has feed
//! and finish. Both run the same parser, so their frames and counters are equal for equal bytes.

mod counters;
mod decoder;
mod layout;
mod scanner;

pub use counters::{CorruptCounters, FrameCounters};
pub use decoder::{Frame, FrameDecoder};
pub use layout::{
    DEFAULT_MAGIC, EncodeError, FrameFields, FrameLayout, LayoutError, MAX_HEADER_BYTES,
    MAX_PAYLOAD_LIMIT, PERIOD_END, PERIOD_START, VERSION,
};
pub use scanner::{FrameRef, FrameScanner};
