//! What the rivals and the sender share: the frame, the packet, the rolled output files, the clocks, the arguments.
//!
//! Nothing here comes from tapeline's crates. A rival is written as its author would write it for speed,
//! with as little as the task allows, because it is the yardstick: a slow one would flatter us.

pub mod args;
pub mod clock;
pub mod frame;
pub mod packets;
pub mod sink;
pub mod socket;
