//! Operating-system calls, each with a portable path.
//!
//! The only crate besides the ring that knows what kernel it runs on. Linux has the fast path everywhere
//! (`recvmmsg`, GRO, huge pages); elsewhere the same functions exist with the same meaning and less speed, and a
//! field that says so where the caller must know ([`udp::UdpReceiver::gro`], a drop count that stays 0).
//! Nothing here knows what the bytes mean.

#![allow(unsafe_code)]

pub mod clock;
pub mod cpu;
pub mod fs;
pub mod memory;

#[cfg(unix)]
mod option;
pub mod poll;
#[cfg(unix)]
pub mod shared_file;
pub mod tcp;
pub mod udp;
pub mod vector;
