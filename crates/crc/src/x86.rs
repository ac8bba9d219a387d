//! x86-64: the CRC32 instruction of SSE4.2 for short runs, carry-less products for long ones.
//!
//! The instruction has a latency of 3 cycles and a throughput of 1, so one chain of it reaches a
//! third of what the core can do. Long runs are folded instead (Gopal et al., Intel 2009): a
//! register A that stands D bits before the place where the sum is kept contributes A x^D, and
//! x^D mod P is a constant. In the bit order of the registers a product of 64-bit halves comes out
//! with one factor x too many, hence the exponents minus one below.

use std::arch::asm;
use std::arch::x86_64::{
    __m512i, _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u16, _mm_crc32_u32, _mm_crc32_u64,
    _mm_cvtsi32_si128, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_xor_si128,
    _mm512_clmulepi64_epi128, _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_set_epi64,
    _mm512_set1_epi64, _mm512_ternarylogic_epi64, _mm512_unpacklo_epi64, _mm512_xor_si512,
    _mm512_zextsi128_si512,
};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::Shift;
use crate::poly::{byte_powers, multiply, x_to_the, x_to_the_minus};

pub(crate) const NONE: u8 = 1;
pub(crate) const SSE42: u8 = 2;
pub(crate) const AVX512: u8 = 3;

/// Below this one chain is done before a folded sum is joined.
const FOLD_BYTES: usize = 256;

/// What this machine can do; asked once, then one load.
#[inline]
pub(crate) fn level() -> u8 {
    static LEVEL: AtomicU8 = AtomicU8::new(0);
    // Relaxed: the value is the same whoever writes it, and nothing else hangs on it.
    match LEVEL.load(Ordering::Relaxed) {
        0 => {
            let level = detect();
            LEVEL.store(level, Ordering::Relaxed);
            level
        }
        level => level,
    }
}

#[cold]
fn detect() -> u8 {
    if !is_x86_feature_detected!("sse4.2") || !is_x86_feature_detected!("pclmulqdq") {
        NONE
    } else if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("vpclmulqdq") {
        AVX512
    } else {
        SSE42
    }
}

/// Moves the register on over `bytes`. `level` must be what [`level`] gave, and not [`NONE`].
#[inline]
pub(crate) fn raw(level: u8, register: u32, bytes: &[u8]) -> u32 {
    debug_assert!(level != NONE);
    if bytes.len() < FOLD_BYTES {
        // SAFETY: any level but NONE has SSE4.2.
        unsafe { short(register, bytes) }
    } else if level == AVX512 {
        // SAFETY: the level says that AVX-512F, VPCLMULQDQ, PCLMULQDQ and SSE4.2 are there.
        unsafe { fold(register, bytes) }
    } else {
        // SAFETY: any level but NONE has SSE4.2 and PCLMULQDQ.
        unsafe { three_way(register, bytes) }
    }
}

/// One chain, inlined into callers that are not compiled for SSE4.2: hence the assembler, which
/// needs no such permission. Only when [`level`] is not [`NONE`].
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // the instruction leaves the upper half zero
pub(crate) fn inline(register: u32, bytes: &[u8]) -> u32 {
    let mut c = u64::from(register);
    let (words, rest) = bytes.as_chunks::<8>();
    for w in words {
        // SAFETY: the callers have asked `level`, so the instruction is there; it reads and writes
        // registers only.
        unsafe {
            asm!("crc32 {c:r}, {w:r}", c = inout(reg) c, w = in(reg) u64::from_le_bytes(*w),
                options(pure, nomem, nostack, preserves_flags));
        }
    }
    for &b in rest {
        // SAFETY: as above.
        unsafe {
            asm!("crc32 {c:e}, {b}", c = inout(reg) c, b = in(reg_byte) b,
                options(pure, nomem, nostack, preserves_flags));
        }
    }
    c as u32
}

/// As [`crate::shift`]; of `level` the same is asked as for [`raw`].
#[inline]
pub(crate) fn shift(level: u8, register: u32, bytes: u64) -> u32 {
    debug_assert!(level != NONE);
    // SAFETY: any level but NONE has SSE4.2 and PCLMULQDQ.
    unsafe { shift_by_products(register, bytes) }
}

#[target_feature(enable = "sse4.2,pclmulqdq")]
fn shift_by_products(mut register: u32, mut bytes: u64) -> u32 {
    static FACTORS: [[u32; 256]; 8] = byte_powers(X_MINUS_33);
    for table in &FACTORS {
        if bytes == 0 {
            break;
        }
        let byte = (bytes & 0xFF) as usize;
        if byte != 0 {
            register = times(register, table[byte]);
        }
        bytes >>= 8;
    }
    register
}

/// As [`crate::range`]; of `level` the same is asked as for [`raw`].
#[inline]
pub(crate) fn range(
    level: u8,
    marks: [u32; 2],
    before_mark: &[u8],
    after_mark: &[u8],
    shift: Shift,
) -> u32 {
    debug_assert!(level != NONE);
    // SAFETY: any level but NONE has SSE4.2 and PCLMULQDQ.
    unsafe { range_of(marks, before_mark, after_mark, shift.factor) }
}

#[target_feature(enable = "sse4.2,pclmulqdq")]
fn range_of([first, last]: [u32; 2], before_mark: &[u8], after_mark: &[u8], factor: u32) -> u32 {
    let start = first ^ short(!0, before_mark);
    !short(last ^ times(start, factor), after_mark)
}

/// As [`crate::moved`]; of `level` the same is asked as for [`raw`].
#[inline]
pub(crate) fn moved(
    level: u8,
    registers: &mut [u32; 2],
    out: &[u8],
    new: &[u8],
    shift: Shift,
) -> u32 {
    debug_assert!(level != NONE);
    if out.len() < FOLD_BYTES {
        // SAFETY: any level but NONE has SSE4.2 and PCLMULQDQ.
        unsafe { moved_little(registers, out, new, shift.factor) }
    } else {
        *registers = [raw(level, registers[0], out), raw(level, registers[1], new)];
        // SAFETY: as above.
        !(registers[1] ^ unsafe { times(!registers[0], shift.factor) })
    }
}

/// The two chains side by side.
#[target_feature(enable = "sse4.2,pclmulqdq")]
#[allow(clippy::cast_possible_truncation)] // the instruction leaves the upper half zero
fn moved_little(registers: &mut [u32; 2], out: &[u8], new: &[u8], factor: u32) -> u32 {
    let (out_words, out_rest) = out.as_chunks::<8>();
    let (new_words, new_rest) = new.as_chunks::<8>();
    let [mut a, mut b] = registers.map(u64::from);
    for (out, new) in out_words.iter().zip(new_words) {
        a = _mm_crc32_u64(a, u64::from_le_bytes(*out));
        b = _mm_crc32_u64(b, u64::from_le_bytes(*new));
    }
    let [mut a, mut b] = [a as u32, b as u32];
    if !out_rest.is_empty() || !new_rest.is_empty() {
        (a, b) = (short(a, out_rest), short(b, new_rest));
    }
    *registers = [a, b];
    !(b ^ times(!a, factor))
}

/// As [`crate::marks`]; of `level` the same is asked as for [`raw`].
pub(crate) fn marks(level: u8, register: u32, blocks: &[[u8; 64]], out: &mut Vec<u32>) {
    debug_assert!(level != NONE);
    // SAFETY: any level but NONE has SSE4.2 and PCLMULQDQ.
    unsafe { marks_of(register, blocks, out) }
}

/// One chain of the instruction.
#[inline]
#[target_feature(enable = "sse4.2")]
#[allow(clippy::cast_possible_truncation)] // the instruction leaves the upper half zero
pub(crate) fn short(register: u32, bytes: &[u8]) -> u32 {
    let mut c = u64::from(register);
    let (words, mut rest) = bytes.as_chunks::<8>();
    for w in words {
        c = _mm_crc32_u64(c, u64::from_le_bytes(*w));
    }
    let mut c = c as u32;
    if let Some((w, tail)) = rest.split_first_chunk::<4>() {
        c = _mm_crc32_u32(c, u32::from_le_bytes(*w));
        rest = tail;
    }
    if let Some((w, tail)) = rest.split_first_chunk::<2>() {
        c = _mm_crc32_u16(c, u16::from_le_bytes(*w));
        rest = tail;
    }
    if let [b] = rest {
        c = _mm_crc32_u8(c, *b);
    }
    c
}

/// A constant factor in the form that [`times`] wants: x^-33 of it, because the product gains one
/// x and the instruction 32.
pub(crate) const fn factor(a: u32) -> u32 {
    multiply(a, X_MINUS_33)
}

pub(crate) const X_MINUS_33: u32 = x_to_the_minus(33);

/// `register` times what `factor` was made of.
#[target_feature(enable = "sse4.2,pclmulqdq")]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)] // bits, not numbers
pub(crate) fn times(register: u32, factor: u32) -> u32 {
    let a = _mm_cvtsi32_si128(register as i32);
    let b = _mm_cvtsi32_si128(factor as i32);
    let product = _mm_cvtsi128_si64(_mm_clmulepi64_si128::<0>(a, b));
    _mm_crc32_u64(0, product as u64) as u32
}

/// Three chains side by side over long and then over short stretches.
#[target_feature(enable = "sse4.2,pclmulqdq")]
pub(crate) fn three_way(register: u32, bytes: &[u8]) -> u32 {
    let (register, rest) = stretches::<1024>(register, bytes, const { shifts(1024) });
    let (register, rest) = stretches::<128>(register, rest, const { shifts(128) });
    short(register, rest)
}

const fn shifts(bytes: u64) -> [u32; 2] {
    [factor(x_to_the(16 * bytes)), factor(x_to_the(8 * bytes))]
}

#[target_feature(enable = "sse4.2,pclmulqdq")]
#[allow(clippy::cast_possible_truncation)] // the instruction leaves the upper half zero
fn stretches<const N: usize>(mut register: u32, bytes: &[u8], shift: [u32; 2]) -> (u32, &[u8]) {
    let mut rest = bytes;
    while let Some((a, tail)) = rest.split_first_chunk::<N>()
        && let Some((b, tail)) = tail.split_first_chunk::<N>()
        && let Some((c, tail)) = tail.split_first_chunk::<N>()
    {
        let mut sums = [u64::from(register), 0, 0];
        let words = a
            .as_chunks::<8>()
            .0
            .iter()
            .zip(b.as_chunks::<8>().0)
            .zip(c.as_chunks::<8>().0);
        for ((a, b), c) in words {
            sums[0] = _mm_crc32_u64(sums[0], u64::from_le_bytes(*a));
            sums[1] = _mm_crc32_u64(sums[1], u64::from_le_bytes(*b));
            sums[2] = _mm_crc32_u64(sums[2], u64::from_le_bytes(*c));
        }
        register =
            times(sums[0] as u32, shift[0]) ^ times(sums[1] as u32, shift[1]) ^ sums[2] as u32;
        rest = tail;
    }
    (register, rest)
}

/// The factors for the two halves of 16 bytes that stand `bits` before their sum.
const fn fold_by(bits: u64) -> (i64, i64) {
    (
        (x_to_the(bits + 63) as i64) << 32,
        (x_to_the(bits - 1) as i64) << 32,
    )
}

/// Four registers of 64 bytes; `bytes` must have at least [`FOLD_BYTES`].
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq,sse4.2")]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)] // bits, not numbers
pub(crate) fn fold(register: u32, bytes: &[u8]) -> u32 {
    let (blocks, rest) = bytes.as_chunks::<64>();
    let (rounds, singles) = blocks.as_chunks::<4>();
    let Some((first, rounds)) = rounds.split_first() else {
        return short(register, bytes);
    };
    let start = _mm512_zextsi128_si512(_mm_cvtsi32_si128(register as i32));
    let mut sums = [
        _mm512_xor_si512(load(&first[0]), start),
        load(&first[1]),
        load(&first[2]),
        load(&first[3]),
    ];
    let by_2048 = both(const { fold_by(4 * 512) });
    for round in rounds {
        for (sum, block) in sums.iter_mut().zip(round) {
            *sum = step(*sum, by_2048, load(block));
        }
    }
    let by_512 = both(const { fold_by(512) });
    let [a, b, c, d] = sums;
    // Two folds of one chain and one beside it.
    let cd = step(c, by_512, d);
    let ab = step(a, by_512, b);
    let mut sum = step(ab, both(const { fold_by(2 * 512) }), cd);
    for block in singles {
        sum = step(sum, by_512, load(block));
    }
    // The four quarters onto the last one.
    let (a, b, c) = const { (fold_by(384), fold_by(256), fold_by(128)) };
    let by_place = _mm512_set_epi64(0, 0, c.1, c.0, b.1, b.0, a.1, a.0);
    let low = _mm512_clmulepi64_epi128::<0x00>(sum, by_place);
    let high = _mm512_clmulepi64_epi128::<0x11>(sum, by_place);
    let moved = _mm512_xor_si512(low, high);
    let last = _mm_xor_si128(
        _mm_xor_si128(
            _mm512_extracti32x4_epi32::<0>(moved),
            _mm512_extracti32x4_epi32::<1>(moved),
        ),
        _mm_xor_si128(
            _mm512_extracti32x4_epi32::<2>(moved),
            _mm512_extracti32x4_epi32::<3>(sum),
        ),
    );
    let crc = _mm_crc32_u64(0, _mm_cvtsi128_si64(last) as u64);
    let crc = _mm_crc32_u64(crc, _mm_extract_epi64::<1>(last) as u64);
    short(crc as u32, rest)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(block: &[u8; 64]) -> __m512i {
    // SAFETY: an unaligned load of exactly the 64 bytes of the array.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

/// The factors in every 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn both(factors: (i64, i64)) -> __m512i {
    _mm512_unpacklo_epi64(_mm512_set1_epi64(factors.0), _mm512_set1_epi64(factors.1))
}

#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
fn step(sum: __m512i, factors: __m512i, block: __m512i) -> __m512i {
    let low = _mm512_clmulepi64_epi128::<0x00>(sum, factors);
    let high = _mm512_clmulepi64_epi128::<0x11>(sum, factors);
    // 0x96: exclusive or of three.
    _mm512_ternarylogic_epi64::<0x96>(low, high, block)
}

/// Four blocks at a time, each from 0 so that their chains overlap, then joined one after the other.
#[target_feature(enable = "sse4.2,pclmulqdq")]
#[allow(clippy::cast_possible_truncation)] // the instruction leaves the upper half zero
fn marks_of(mut register: u32, blocks: &[[u8; 64]], out: &mut Vec<u32>) {
    const BLOCK: u32 = factor(x_to_the(512));
    let (quads, rest) = blocks.as_chunks::<4>();
    for quad in quads {
        let mut sums = [0_u64; 4];
        for word in 0..8 {
            for (sum, block) in sums.iter_mut().zip(quad) {
                *sum = _mm_crc32_u64(*sum, u64::from_le_bytes(block.as_chunks::<8>().0[word]));
            }
        }
        for sum in sums {
            register = times(register, BLOCK) ^ sum as u32;
            out.push(register);
        }
    }
    for block in rest {
        register = short(register, block);
        out.push(register);
    }
}
