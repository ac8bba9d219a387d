//! A radar producer with faults whose every consequence is known (requirement F9), and a battery (`battery/`, P5).
//!
//! Each destination has a thread, each stream a generator of frames and faults (`stream.rs`). A generator decides by
//! its own seeded random numbers alone, so the same seed gives the same faults at any speed and on any transport,
//! and books everything twice (`account.rs`): what the producer did, and what a receiver that gets every byte in
//! order must find. The second is not computed with the recorder's code, so that the two can be compared.
//!
//! Sending costs as little as it can, because the receiver shares the machine: payloads are slices of one small
//! pool whose checksums are known, headers are written once, and the kernel gathers both (`batch.rs`, `send.rs`).

mod account;
mod batch;
mod battery;
mod options;
mod pace;
mod pool;
mod radar;
mod random;
pub(crate) mod send;
mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod threads;

pub use account::{Account, Expected, ExpectedCorrupt};
pub use battery::{
    BatteryOptions, BatterySimulation, BatterySummary, BatteryTotal, ClientAccount, Image,
    ImageSource,
};
pub use options::{Faults, RadarOptions, Target, TargetKind};
pub use radar::{DestinationAccount, RadarSimulation, StreamAccount, Summary};
