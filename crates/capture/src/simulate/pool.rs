//! Payloads that cost nothing to make: slices of one random pool, their checksums computed once.

use tapeline_crc::crc32c;

use super::random::Random;

/// Different payloads. They overlap in the pool, 64 bytes apart, so that all of them stay in the processor's cache.
const PAYLOADS: usize = 64;
const STEP: usize = 64;

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    bytes: Vec<u8>,
    payload_bytes: usize,
    checksums: Vec<u32>,
}

impl Pool {
    /// A pool of random bytes in which neither `magic` nor anything one flipped bit away from it can start: its
    /// first byte does not occur, nor its others in a row. What a receiver finds is thereby determined.
    pub(super) fn new(payload_bytes: usize, magic: [u8; 8], seed: u64) -> Self {
        let size = payload_bytes + (PAYLOADS - 1) * STEP;
        let [first, others @ ..] = magic;
        let mut attempt = 0;
        let bytes = loop {
            let bytes = fill(size, first, &mut Random::new(seed, attempt, u64::MAX));
            if !bytes.windows(others.len()).any(|window| window == others) {
                break bytes;
            }
            attempt += 1;
        };
        let checksums = (0..PAYLOADS)
            .map(|index| {
                crc32c(
                    bytes
                        .get(index * STEP..index * STEP + payload_bytes)
                        .unwrap_or_default(),
                )
            })
            .collect();
        Self {
            bytes,
            payload_bytes,
            checksums,
        }
    }

    /// Where the payload of frame `sequence` of `stream_id` starts, and its CRC32C.
    pub(super) fn payload(&self, stream_id: u16, sequence: u64) -> (usize, u32) {
        let index =
            usize::try_from(sequence.wrapping_add(u64::from(stream_id) * 7) % PAYLOADS as u64)
                .unwrap_or(0);
        (
            index * STEP,
            self.checksums.get(index).copied().unwrap_or(0),
        )
    }

    /// Bytes of the pool.
    pub(super) fn bytes(&self, start: usize, len: usize) -> &[u8] {
        self.bytes.get(start..start + len).unwrap_or_default()
    }

    /// Bytes of each payload.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }
}

/// Random bytes without `never`.
pub(super) fn fill(size: usize, never: u8, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(size);
    for byte in &mut bytes {
        if *byte == never {
            *byte = never.wrapping_add(1);
        }
    }
    bytes
}
