//! Reading the log of a register stream back (spec/register-packets.md 3 and 5): rows for the table sinks, the image
//! at a past moment, the history of one register.
//!
//! ```text
//! .pkt + .idx.bcsv ─▶ log_reader (packets, blocks) ─▶ rows          columns of the sinks
//!                                                   ├▶ touch, doubts which block touches which registers; what is in doubt
//!                                                   └▶ time_machine  image_at, history
//! ```
//!
//! A log holds only packets that the server found valid, so a packet that is none means damage: reading ends there
//! and says so. A packet that is not whole at the end of an open log is one that is being written.

mod ahead;
pub mod doubts;
pub mod log_reader;
pub mod rows;
pub mod time_machine;
pub mod touch;
