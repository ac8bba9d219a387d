//! The register wires: packets, the two faces of one decoder, the sequence per source, the image.
//!
//! [`PacketScanner`] reads slices that the caller owns and lends out every valid packet in place;
//! the server validates packets where it received them. [`PacketDecoder`] owns a bounded buffer and
//! has feed and finish. Both run the same parser, so packets and counters are equal for equal bytes.
//! The wires are `spec/register-packets.md 1` ([`Kind::Simple`]) and `2` ([`Kind::Packet`]).

mod counters;
mod decoder;
mod encode;
mod image;
mod ledger;
mod packet;
mod scanner;
mod sequence;

pub use counters::{InvalidCounters, PacketCounters};
pub use decoder::PacketDecoder;
pub use encode::{EncodeError, PacketFields, encode_packet, encode_simple};
pub use image::{
    Applied, ImageBatch, ImageFileError, ImageLimits, ImagePosition, ImageReader, PAGE_REGISTERS,
    RegisterImage, RegisterState, SourceImage, TouchedGroups, decode_image, encode_image,
};
pub use ledger::{ClosedCounters, RegisterLedger};
pub use packet::{
    Command, Kind, MAX_COUNT, PACKET_HEADER_BYTES, PacketRef, SIMPLE_HEADER_BYTES, Source,
    SourceType, mark_bits,
};
pub use scanner::{FramingLost, FramingReason, PacketScanner};
pub use sequence::{SeqCounters, SeqTable, SeqTracker, SeqVerdict};
