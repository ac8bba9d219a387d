//! CRC32C (Castagnoli, reflected polynomial 0x82F63B78): one-shot, streaming, combining and range queries; XXH64; the long part of XXH3; and
//! comparisons of registers ([`lanes`]), which want the processor's vectors as the checksums do.
//!
//! All CRC functions take and give the finished checksum (what stands on the wire), never the raw
//! register; `update(0, bytes)` equals `crc32c(bytes)`.
//!
//! | path | where | how |
//! |---|---|---|
//! | `fold` | x86-64 with AVX-512 and VPCLMULQDQ | four 64-byte registers folded, 256 bytes a round |
//! | `three_way` | x86-64 with SSE4.2 and PCLMULQDQ | three chains of the CRC32 instruction, joined by a product |
//! | `short` | both, below 256 bytes | one chain |
//! | `arm` | aarch64 with the CRC extension | one chain |
//! | `portable` | the rest | eight tables |

#![allow(unsafe_code)]

#[cfg(all(target_arch = "aarch64", not(tapeline_portable)))]
mod arm;
pub mod lanes;
mod poly;
mod portable;
mod ranges;
#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
mod x86;
mod xxh3;
mod xxh64;

pub use ranges::{MovingRange, Ranges};
pub use xxh3::{STRIPE_BYTES, Xxh3Stripes};
pub use xxh64::{Xxh64, xxh64, xxh64_each};

/// Returns the CRC32C of `bytes`.
///
/// ```
/// assert_eq!(tapeline_crc::crc32c(b"123456789"), 0xE306_9283);
/// ```
#[must_use]
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    update(0, bytes)
}

/// Returns the CRC32C of what `crc` covers followed by `bytes`.
#[must_use]
#[inline]
pub fn update(crc: u32, bytes: &[u8]) -> u32 {
    !raw(!crc, bytes)
}

/// Returns the CRC32C of `bytes`, made to be inlined where their number is a small constant, as for
/// a header: then it is a few instructions without a call.
#[must_use]
#[inline(always)]
pub fn crc32c_inline(bytes: &[u8]) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    if x86::level() != x86::NONE {
        return !x86::inline(!0, bytes);
    }
    crc32c(bytes)
}

/// Which path this machine takes: `avx512`, `sse4.2`, `arm` or `portable`.
#[must_use]
pub fn path() -> &'static str {
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    match x86::level() {
        x86::AVX512 => return "avx512",
        x86::SSE42 => return "sse4.2",
        _ => {}
    }
    #[cfg(all(target_arch = "aarch64", not(tapeline_portable)))]
    if arm::available() {
        return "arm";
    }
    "portable"
}

/// Moves the register on over `bytes`: no inversion at either end.
#[inline]
fn raw(register: u32, bytes: &[u8]) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    {
        let level = x86::level();
        if level != x86::NONE {
            return x86::raw(level, register, bytes);
        }
    }
    #[cfg(all(target_arch = "aarch64", not(tapeline_portable)))]
    if arm::available() {
        return arm::raw(register, bytes);
    }
    portable::raw(register, bytes)
}

/// Returns the CRC32C of two runs of bytes of which the checksums are known, the second one
/// `second_bytes` long.
#[must_use]
pub fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    shift(first, second_bytes) ^ second
}

/// `register` after so many zero bytes.
#[inline]
fn shift(register: u32, bytes: u64) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    {
        let level = x86::level();
        if level != x86::NONE {
            return x86::shift(level, register, bytes);
        }
    }
    poly::shift(register, bytes)
}

/// What a register is multiplied by to stand some bytes further on.
#[derive(Clone, Copy, Debug, Default)]
struct Shift {
    plain: u32,
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    factor: u32,
}

impl Shift {
    fn by(bytes: u64) -> Self {
        Self {
            plain: shift(poly::ONE, bytes),
            // The form that a product by instructions wants: without the x^33 that they add.
            #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
            factor: shift(x86::X_MINUS_33, bytes),
        }
    }
}

/// CRC32C of a range of bytes of which the register is known at two marks inside (from a common
/// start before the range), the distance of the marks as a shift. `before_mark` and `after_mark`
/// are the bytes from the range's ends to the marks.
///
/// The register at the first mark holds the bytes before the range as well; those, moved to the
/// second mark, are taken out of the register there, and hashing goes on to the end.
#[inline]
fn range(marks: [u32; 2], before_mark: &[u8], after_mark: &[u8], shift: Shift) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    {
        let level = x86::level();
        if level != x86::NONE {
            return x86::range(level, marks, before_mark, after_mark, shift);
        }
    }
    plain_range(marks, before_mark, after_mark, shift)
}

fn plain_range(
    [first, last]: [u32; 2],
    before_mark: &[u8],
    after_mark: &[u8],
    shift: Shift,
) -> u32 {
    let start = first ^ raw(!0, before_mark);
    !raw(last ^ poly::multiply(start, shift.plain), after_mark)
}

/// Moves both registers on, each over its bytes, and gives the CRC32C of what is between them, which is as long as the
/// shift says.
#[inline]
fn moved(registers: &mut [u32; 2], out: &[u8], new: &[u8], shift: Shift) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    {
        let level = x86::level();
        if level != x86::NONE {
            return x86::moved(level, registers, out, new, shift);
        }
    }
    plain_moved(registers, out, new, shift)
}

fn plain_moved(registers: &mut [u32; 2], out: &[u8], new: &[u8], shift: Shift) -> u32 {
    *registers = [raw(registers[0], out), raw(registers[1], new)];
    !(registers[1] ^ poly::multiply(!registers[0], shift.plain))
}

/// Appends the register after each of the blocks; starts from the last one in the list.
fn marks(list: &mut Vec<u32>, blocks: &[[u8; 64]]) {
    let mut register = list.last().copied().unwrap_or(0);
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    {
        let level = x86::level();
        if level != x86::NONE {
            x86::marks(level, register, blocks, list);
            return;
        }
    }
    for block in blocks {
        register = raw(register, block);
        list.push(register);
    }
}

#[cfg(test)]
mod tests;
