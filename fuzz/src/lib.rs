//! What the fuzz targets share: an input read as choices, a plain CRC, frames that are valid on purpose.
//!
//! Random bytes hardly ever pass two CRCs, so a target that must see valid frames reads its input as a script
//! (`stream`) whose instructions are frames, damaged frames and raw bytes.

pub mod registers;

use std::path::PathBuf;

use tapeline_wire::frame::FrameLayout;

/// The input, read from the front; past its end everything is zero.
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Reads `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A number of eight bytes or fewer, big-endian.
    pub fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes)
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// At most `count` bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        head
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// CRC32C, a byte at a time.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        crc >> 8 ^ CRC_TABLE[(crc as u8 ^ byte) as usize]
    })
}

/// The remainder of every byte, one bit at a time: the definition.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = crc >> 1 ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// One of the layouts a producer may use, with a small limit on payloads so that the limit is met.
pub fn layout(choice: u8) -> FrameLayout {
    let max_payload = [1, 16, 300, 1 << 20][usize::from(choice >> 5 & 3)];
    let magic = if choice & 8 == 0 {
        [0xD1, 0xC6, 0x4F, 0x93, 0xA7, 0xB2, 0x5E, 0x8C]
    } else {
        *b"AABAABAA"
    };
    let flags = if choice & 1 == 0 { 4 } else { 2 };
    let length = if choice & 2 == 0 { 4 } else { 8 };
    FrameLayout::new(magic, flags, length, choice & 4 == 0, max_payload).expect("an allowed layout")
}

/// Appends a frame, written from the table in the specification; `version` and `length` may be lies.
pub fn push_frame(
    out: &mut Vec<u8>,
    layout: &FrameLayout,
    version: u8,
    numbers: [u64; 2],
    id: u16,
    payload: &[u8],
    length: u64,
) {
    let start = out.len();
    out.extend_from_slice(layout.magic());
    out.extend_from_slice(&[version, (id & 3) as u8]);
    if layout.has_stream_id() {
        out.extend_from_slice(&(id >> 2).to_be_bytes());
    }
    out.extend_from_slice(&numbers[0].to_be_bytes());
    out.extend_from_slice(&numbers[1].to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes()[8 - usize::from(layout.length_bytes())..]);
    if layout.header_crc() {
        let crc = crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_be_bytes());
    }
    out.extend_from_slice(&crc32c(payload).to_be_bytes());
    out.extend_from_slice(payload);
}

/// Carries out a script: frames, damaged frames, raw bytes. At most 8 KiB, and the last frame, come of it.
pub fn stream(choices: &mut Choices<'_>, layout: &FrameLayout) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sequence = 0;
    while !choices.is_empty() && out.len() < 1 << 13 {
        let start = out.len();
        match choices.byte() % 10 {
            0..=2 => {
                let count = usize::from(choices.byte());
                let payload = choices.take(count);
                push_frame(
                    &mut out,
                    layout,
                    1,
                    [sequence, 1],
                    0,
                    payload,
                    payload.len() as u64,
                );
                sequence += 1;
            }
            3 => {
                let (numbers, id) = (
                    [choices.number(8), choices.number(8)],
                    choices.number(2) as u16,
                );
                let payload = choices.take(8);
                push_frame(
                    &mut out,
                    layout,
                    1,
                    numbers,
                    id,
                    payload,
                    payload.len() as u64,
                );
            }
            // a header that claims something else than what follows
            4 => {
                let length = choices.number(2);
                push_frame(&mut out, layout, 1, [sequence, 1], 0, &[7; 20], length);
            }
            5 => {
                let (version, length) = (choices.byte(), choices.number(8));
                push_frame(&mut out, layout, version, [sequence, 1], 0, &[7; 3], length);
            }
            // a frame with one byte changed
            6 => {
                push_frame(&mut out, layout, 1, [sequence, 1], 0, &[9; 30], 30);
                let at = start + usize::from(choices.byte()) % (out.len() - start);
                out[at] ^= choices.byte();
            }
            // a frame cut short
            7 => {
                push_frame(&mut out, layout, 1, [sequence, 1], 0, &[5; 40], 40);
                out.truncate(start + usize::from(choices.byte()) % (out.len() - start));
            }
            // a frame inside the payload of another, which may be damaged
            8 => {
                let mut inner = Vec::new();
                push_frame(&mut inner, layout, 1, [sequence + 1, 1], 0, &[1, 2, 3], 3);
                push_frame(
                    &mut out,
                    layout,
                    1,
                    [sequence, 1],
                    0,
                    &inner,
                    inner.len() as u64,
                );
                if let Some(last) = out.last_mut() {
                    *last ^= choices.byte();
                }
            }
            _ => {
                let count = usize::from(choices.byte() % 64);
                if choices.byte() % 2 == 0 {
                    out.extend_from_slice(choices.take(count));
                } else {
                    out.extend_from_slice(&layout.magic()[..count % 9]);
                }
            }
        }
    }
    out
}

/// Cuts `bytes` into pieces of pseudo-random sizes; `seed` 0 gives single bytes.
pub fn pieces(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let (mut rest, mut state, mut result) = (bytes, u64::from(seed), Vec::new());
    while !rest.is_empty() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(u64::from(seed));
        let count = if seed == 0 {
            1
        } else {
            (state >> 33) as usize % (usize::from(seed) * 3)
        };
        let (head, tail) = rest.split_at(count.min(rest.len()));
        result.push(head);
        rest = tail;
    }
    result
}

/// A directory of this process, in the one that `run.py` removes at the end.
pub fn scratch() -> PathBuf {
    let parent =
        std::env::var_os("TAPELINE_FUZZ_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = parent.join(format!("tapeline-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("scratch directory");
    path
}
