//! Recording register packets: one event loop for all clients, one write thread, one log.
//!
//! ```text
//! clients ─▶ server / inputs (recv into ring blocks) ─▶ intake (validate, image, answers) ─▶ ring ─▶ log ─▶ segment
//!                                                          │                                        │
//!                                                          └──── image_store (image.bin) ◀──────────┘
//! ```
//!
//! The intake owns the image: it applies each packet where it was received, so that a query is answered at once
//! with everything before it on its connection, and it alone decides where a segment ends, so that the keyframes at the
//! start of the next one are the image at exactly that place of the log.

mod batch;
mod beside;
mod client;
mod image_store;
mod inputs;
mod intake;
mod log;
#[cfg(test)]
mod model_tests;
pub(crate) mod recover;
mod segment;
mod server;
mod shared;
mod shm;
mod start;

pub use shared::LogPosition;
pub(crate) use shared::RegisterShared;
pub(crate) use start::{Bound, start};
