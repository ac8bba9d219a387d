//! The default frame layout (`spec/frame-stream.md` 1): building, patching and the quickest honest check.

use crc_fast::{CrcAlgorithm, checksum};

/// The default magic.
pub const MAGIC: [u8; 8] = [0xD1, 0xC6, 0x4F, 0x93, 0xA7, 0xB2, 0x5E, 0x8C];
/// Bytes of the default header.
pub const HEADER_BYTES: usize = 40;
/// Largest payload that the default layout allows.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// What stands there is not a frame.
#[derive(Debug)]
pub struct Invalid;

/// CRC32C.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Appends a whole frame.
pub fn push_frame(out: &mut Vec<u8>, sequence: u64, stream_id: u16, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(&stream_id.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&timestamp_ns(sequence).to_be_bytes());
    out.extend_from_slice(
        &u32::try_from(payload.len())
            .expect("payload below 4 GiB")
            .to_be_bytes(),
    );
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&crc32c(payload).to_be_bytes());
    out.extend_from_slice(payload);
    seal(&mut out[start..start + HEADER_BYTES]);
}

/// Gives a frame that is already built another sequence and the timestamp that goes with it.
#[inline]
pub fn patch_sequence(frame: &mut [u8], sequence: u64) {
    frame[12..20].copy_from_slice(&sequence.to_be_bytes());
    frame[20..28].copy_from_slice(&timestamp_ns(sequence).to_be_bytes());
    seal(&mut frame[..HEADER_BYTES]);
}

/// Writes the header CRC.
#[inline]
fn seal(header: &mut [u8]) {
    let crc = crc32c(&header[..32]);
    header[32..36].copy_from_slice(&crc.to_be_bytes());
}

/// A producer's clock that ticks once a microsecond and frame, from 2026-11-21 03:00 UTC.
fn timestamp_ns(sequence: u64) -> u64 {
    1_795_230_000_000_000_000 + sequence * 1_000
}

/// What is left of `bytes` after its whole, valid frames: (frames, bytes of them).
///
/// The rivals do not resynchronise: a clean stream is their best case.
///
/// # Errors
/// The offset of the first frame that is not valid.
#[inline]
pub fn scan(bytes: &[u8]) -> Result<(u64, usize), usize> {
    let (mut frames, mut at) = (0, 0);
    while let Some(total) = valid_frame(&bytes[at..]).map_err(|Invalid| at)? {
        frames += 1;
        at += total;
    }
    Ok((frames, at))
}

/// Bytes of the frame that `bytes` begins with; None while it is not whole.
///
/// # Errors
/// The frame is not valid.
#[inline]
pub fn valid_frame(bytes: &[u8]) -> Result<Option<usize>, Invalid> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let payload_bytes = word(28) as usize;
    if header[..8] != MAGIC || header[8] != 1 || !(1..=MAX_PAYLOAD).contains(&payload_bytes) {
        return Err(Invalid);
    }
    let Some(payload) = bytes[HEADER_BYTES..].get(..payload_bytes) else {
        return Ok(None);
    };
    if crc32c(&header[..32]) != word(32) || crc32c(payload) != word(36) {
        return Err(Invalid);
    }
    Ok(Some(HEADER_BYTES + payload_bytes))
}

/// A small generator for payload bytes and faults: xorshift64*, seeded, the same on every machine.
pub struct Random(u64);

impl Random {
    /// A generator; any seed will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.next_u64() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// Random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8))
            .flat_map(|_| self.next_u64().to_le_bytes())
            .collect();
        bytes.truncate(count);
        bytes
    }
}
