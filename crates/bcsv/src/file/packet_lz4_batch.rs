//! Packet LZ4 batch (format 6.6): header, u32 plain size, u32 stored size, one LZ4 block, XXH64 of the plaintext.

use tapeline_lz4::{Compressor, Effort, literal_prefix};

use super::FullPacket;
use crate::checksum::xxh64;
use crate::packet::{HEADER_BYTES, encode_header};

/// Header and the two sizes.
pub(crate) const PREFIX_BYTES: usize = HEADER_BYTES + 8;

/// Compresses payloads; remembers whether the last one was worth it.
#[derive(Default)]
pub(crate) struct Sealer {
    compressor: Compressor,
    sample: Vec<u8>,
    /// The last packet came out (nearly) as large as it went in.
    incompressible: bool,
}

/// Of each packet that may not compress, this much is tried first.
const SAMPLE_BYTES: usize = 64 << 10;

/// The stored form of a packet, around its payload where that is stored as it is.
#[derive(Default)]
pub(crate) struct Sealed {
    /// Everything in front of the payload, or everything.
    head: Vec<u8>,
    /// Whether the payload follows as it is.
    plain: bool,
    /// What is behind it.
    tail: [u8; 8],
}

impl Sealed {
    /// The bytes to be stored.
    pub(crate) fn parts<'a>(&'a self, packet: &'a FullPacket) -> [&'a [u8]; 3] {
        let payload = if self.plain {
            packet.payload.as_slice()
        } else {
            &[]
        };
        [&self.head, payload, &self.tail]
    }
}

impl Sealer {
    /// Append the stored form of a packet.
    pub(crate) fn seal(&mut self, packet: &FullPacket, effort: Effort, out: &mut Vec<u8>) {
        let mut sealed = Sealed {
            head: std::mem::take(out),
            ..Sealed::default()
        };
        self.seal_behind(packet, effort, &mut sealed);
        *out = std::mem::take(&mut sealed.head);
        if sealed.plain {
            out.extend_from_slice(&packet.payload);
        }
        out.extend_from_slice(&sealed.tail);
    }

    /// The stored form of a packet, without a copy of a payload that does not compress.
    pub(crate) fn seal_apart(&mut self, packet: &FullPacket, effort: Effort, sealed: &mut Sealed) {
        sealed.head.clear();
        self.seal_behind(packet, effort, sealed);
    }

    fn seal_behind(&mut self, packet: &FullPacket, effort: Effort, sealed: &mut Sealed) {
        let payload = packet.payload.as_slice();
        let out = &mut sealed.head;
        out.extend_from_slice(&encode_header(packet.first_row));
        let sizes_at = out.len();
        out.extend_from_slice(&[0; 8]);
        let block_at = out.len();
        sealed.plain = self.incompressible && self.sample_is_incompressible(payload, effort);
        if !sealed.plain {
            self.compressor.compress(payload, effort, out);
            let stored = out.len() - block_at;
            self.incompressible = stored >= payload.len() - payload.len() / 128;
            if stored > payload.len() + payload.len() / 255 + 16 {
                out.truncate(block_at);
                sealed.plain = true;
            }
        }
        let mut stored = out.len() - block_at;
        if sealed.plain {
            literal_prefix(payload.len(), out);
            stored = out.len() - block_at + payload.len();
        }
        // A payload is at most a packet (1 GiB) and a row (16 MiB).
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        let (plain, stored) = (size(payload.len()), size(stored));
        if let Some(sizes) = out.get_mut(sizes_at..block_at) {
            let (first, second) = sizes.split_at_mut(4);
            first.copy_from_slice(&plain);
            second.copy_from_slice(&stored);
        }
        sealed.tail = xxh64(payload).to_le_bytes();
    }

    /// Try a piece from the middle: below 1 % of gain the whole packet is not worth the work.
    fn sample_is_incompressible(&mut self, payload: &[u8], effort: Effort) -> bool {
        let middle = payload.len() / 2;
        let Some(sample) = payload.get(middle..middle + SAMPLE_BYTES) else {
            return false;
        };
        self.sample.clear();
        let stored = self.compressor.compress(sample, effort, &mut self.sample);
        stored >= SAMPLE_BYTES - SAMPLE_BYTES / 128
    }
}
