//! A safe face of the LZ4 block format: linked blocks, HC, bounded decoding.
//!
//! The C library (`lz4-sys`) does the work; the bindings declare what those omit. Output goes to the end of a
//! `Vec`, into capacity that is reserved but never zeroed.
//!
//! - [`Compressor`]: independent blocks, fast or HC, reusing its tables.
//! - [`StreamEncoder`]: blocks that may refer to the 64 KiB before them.
//! - [`decompress`]: one block, behind the plaintext of the blocks before it.
//! - [`literal_block`], [`literal_prefix`], [`literals_of`]: blocks that store bytes as they are.

#![allow(unsafe_code)]

mod ffi;
mod literal;
mod stream;

use std::os::raw::{c_char, c_int, c_void};

pub use literal::{literal_block, literal_prefix, literals_of};
pub use stream::StreamEncoder;

/// How far back a match may reach.
pub const WINDOW_BYTES: usize = 65_536;
/// Largest input of one block (the C library's `LZ4_MAX_INPUT_SIZE`).
pub const MAX_INPUT_BYTES: usize = 0x7E00_0000;

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// The fast method; higher acceleration is faster and compresses less.
    Fast {
        /// 1 or more.
        acceleration: i32,
    },
    /// The thorough method.
    High {
        /// 3 to 12.
        level: i32,
    },
}

/// A block could not be decoded: it is damaged, or longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedBlock;

impl std::fmt::Display for DamagedBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("damaged LZ4 block")
    }
}

impl std::error::Error for DamagedBlock {}

/// The largest block that some input can become.
#[must_use]
pub fn bound(input_bytes: usize) -> usize {
    input_bytes + input_bytes / 255 + 16
}

/// Compresses independent blocks. Keeps the tables of the C library between calls.
#[derive(Default)]
pub struct Compressor {
    fast: Vec<u64>,
    high: Vec<u64>,
}

impl Compressor {
    /// A compressor without tables; they come with the first use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Append the compressed block of `input` to `out`; returns its length.
    ///
    /// Input that the C library refuses (over [`MAX_INPUT_BYTES`]) becomes a block of literals.
    pub fn compress(&mut self, input: &[u8], effort: Effort, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        if input.is_empty() {
            // The library may look in front of the input, which an empty slice does not allow.
            literal_block(input, out);
            return 1;
        }
        out.reserve(bound(input.len()));
        let room = out.spare_capacity_mut();
        if let (Ok(bytes), Ok(capacity)) = (
            c_int::try_from(input.len()),
            c_int::try_from(room.len().min(i32::MAX as usize)),
        ) {
            let (from, to) = (
                input.as_ptr().cast::<c_char>(),
                room.as_mut_ptr().cast::<c_char>(),
            );
            let written = match effort {
                Effort::Fast { acceleration } => {
                    let state = table(&mut self.fast, ffi::sizes().0);
                    // SAFETY: `state` has LZ4_sizeofState() bytes aligned to 8; `from` and `to` are valid for
                    // `bytes` reads and `capacity` writes and do not overlap, as `out` is borrowed mutably.
                    unsafe {
                        ffi::LZ4_compress_fast_extState(
                            state,
                            from,
                            to,
                            bytes,
                            capacity,
                            acceleration,
                        )
                    }
                }
                Effort::High { level } => {
                    let state = table(&mut self.high, ffi::sizes().1);
                    // SAFETY: as above, with LZ4_sizeofStateHC() bytes.
                    unsafe {
                        ffi::LZ4_compress_HC_extStateHC(state, from, to, bytes, capacity, level)
                    }
                }
            };
            if let Some(written) = usize::try_from(written).ok().filter(|written| *written > 0) {
                // SAFETY: the C library has initialised `written` <= `capacity` bytes of the spare capacity.
                unsafe { out.set_len(start + written) };
                return written;
            }
        }
        literal_block(input, out);
        out.len() - start
    }
}

/// A table of at least `bytes` bytes, aligned to 8.
fn table(words: &mut Vec<u64>, bytes: usize) -> *mut c_void {
    if words.len() * 8 < bytes {
        words.resize(bytes.div_ceil(8), 0);
    }
    words.as_mut_ptr().cast()
}

/// Decode one block behind the end of `out`, which holds the plaintext of the blocks before it (as much as it
/// can refer to), and append at most `max_bytes`. Returns the bytes appended.
///
/// At most 255 bytes are reserved for each byte of `block`.
///
/// # Errors
///
/// [`DamagedBlock`]; `out` is as before.
pub fn decompress(
    block: &[u8],
    max_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<usize, DamagedBlock> {
    let start = out.len();
    let room = max_bytes.min(block.len().saturating_mul(255));
    out.reserve(room);
    let history = start.min(WINDOW_BYTES);
    let sizes = (
        c_int::try_from(block.len()),
        c_int::try_from(room),
        c_int::try_from(history),
    );
    let (Ok(block_bytes), Ok(room), Ok(history_bytes)) = sizes else {
        return Err(DamagedBlock);
    };
    let base = out.as_mut_ptr();
    // SAFETY: `start` bytes of `out` are initialised and `room` more are reserved, so `base + start` is inside the
    // allocation and writable for `room` bytes, and the `history` bytes in front of it are readable. The C library
    // stays inside both whatever the block says (LZ4_decompress_safe family). `block` does not overlap `out`.
    let written = unsafe {
        let to = base.add(start);
        let dictionary = to.sub(history).cast::<c_char>().cast_const();
        ffi::LZ4_decompress_safe_usingDict(
            block.as_ptr().cast(),
            to.cast(),
            block_bytes,
            room,
            dictionary,
            history_bytes,
        )
    };
    let written = usize::try_from(written).map_err(|_| DamagedBlock)?;
    // SAFETY: the C library has initialised `written` <= `room` bytes behind the old end.
    unsafe { out.set_len(start + written) };
    Ok(written)
}

#[cfg(test)]
mod tests;
