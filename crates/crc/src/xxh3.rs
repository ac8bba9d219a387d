//! The long part of XXH3 in its 128-bit form, seed 0: what inputs of more than 240 bytes are made of.
//!
//! The input is taken in stripes of 64 bytes, each mixed into eight accumulators with a window of the secret that moves
//! by 8 bytes a stripe; after 16 stripes, a block, the accumulators are scrambled. The last stripe is the last 64 bytes
//! of the input, whatever of them has been mixed in already, so the caller keeps those.
//!
//! The vectors are written out: how a compiler turns the plain form into vectors depends on what surrounds it, and a
//! build in which it did not do so for `scramble` took 2.6 times as long.

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi64, _mm256_loadu_si256, _mm256_mul_epu32, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_shuffle_epi32, _mm256_slli_epi64, _mm256_srli_epi64,
    _mm256_storeu_si256, _mm256_xor_si256, _mm512_add_epi64, _mm512_loadu_si512, _mm512_mul_epu32,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shuffle_epi32, _mm512_slli_epi64,
    _mm512_srli_epi64, _mm512_storeu_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

/// Bytes mixed in at once.
pub const STRIPE_BYTES: usize = 64;

/// Stripes between two scrambles: as often as a window of 64 bytes can move in the secret.
const BLOCK_STRIPES: usize = (SECRET_BYTES - STRIPE_BYTES) / 8;
const SECRET_BYTES: usize = 192;
/// Where the windows for the last stripe and for the two halves of the result begin.
const LAST: usize = SECRET_BYTES - STRIPE_BYTES - 7;
const LOW: usize = 11;
const HIGH: usize = SECRET_BYTES - STRIPE_BYTES - 11;

const PRIME32_1: u32 = 0x9E37_79B1;
const PRIME32_2: u32 = 0x85EB_CA77;
const PRIME32_3: u32 = 0xC2B2_AE3D;
const PRIME64_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME64_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME64_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME64_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME64_5: u64 = 0x27D4_EB2F_1656_67C5;
const AVALANCHE: u64 = 0x1656_6791_9E37_79F9;

/// The secret of the algorithm for seed 0.
#[rustfmt::skip]
static SECRET: [u8; SECRET_BYTES] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
];

/// The state of a long input: stripes go in, in order.
#[derive(Clone, Debug)]
pub struct Xxh3Stripes {
    sums: [u64; 8],
    /// Stripes since the last scramble, less than a block.
    in_block: usize,
}

impl Default for Xxh3Stripes {
    fn default() -> Self {
        Self {
            sums: [
                PRIME32_3.into(),
                PRIME64_1,
                PRIME64_2,
                PRIME64_3,
                PRIME64_4,
                PRIME32_2.into(),
                PRIME64_5,
                PRIME32_1.into(),
            ],
            in_block: 0,
        }
    }
}

impl Xxh3Stripes {
    /// Mixes in the next stripes. The input must go on after them: its last bytes are for [`finish_128`](Self::finish_128).
    pub fn add(&mut self, stripes: &[[u8; STRIPE_BYTES]]) {
        #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: just asked.
            return unsafe { add_avx512(&mut self.sums, &mut self.in_block, stripes) };
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: just asked.
            return unsafe { add_avx2(&mut self.sums, &mut self.in_block, stripes) };
        }
        add_plain(&mut self.sums, &mut self.in_block, stripes);
    }

    /// The digest of an input of `bytes` bytes, more than 240, that ends with the stripe `last`.
    #[must_use]
    pub fn finish_128(mut self, last: &[u8; STRIPE_BYTES], bytes: u64) -> u128 {
        mix(&mut self.sums, last, LAST);
        let low = merge(&self.sums, LOW, bytes.wrapping_mul(PRIME64_1));
        let high = merge(&self.sums, HIGH, !bytes.wrapping_mul(PRIME64_2));
        u128::from(high) << 64 | u128::from(low)
    }
}

fn word(bytes: &[u8], index: usize) -> u64 {
    bytes
        .as_chunks::<8>()
        .0
        .get(index)
        .map_or(0, |word| u64::from_le_bytes(*word))
}

fn secret(from: usize) -> &'static [u8] {
    SECRET.get(from..from + STRIPE_BYTES).unwrap_or_default()
}

/// The stripes that are left of a block, and those after them.
fn cut(
    stripes: &[[u8; STRIPE_BYTES]],
    in_block: usize,
) -> (&[[u8; STRIPE_BYTES]], &[[u8; STRIPE_BYTES]]) {
    stripes.split_at(stripes.len().min(BLOCK_STRIPES - in_block))
}

fn add_plain(sums: &mut [u64; 8], in_block: &mut usize, mut stripes: &[[u8; STRIPE_BYTES]]) {
    while !stripes.is_empty() {
        let (block, rest) = cut(stripes, *in_block);
        for (i, stripe) in block.iter().enumerate() {
            mix(sums, stripe, (*in_block + i) * 8);
        }
        *in_block += block.len();
        if *in_block == BLOCK_STRIPES {
            let key = secret(SECRET_BYTES - STRIPE_BYTES);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = (*sum ^ (*sum >> 47) ^ word(key, i)).wrapping_mul(PRIME32_1.into());
            }
            *in_block = 0;
        }
        stripes = rest;
    }
}

fn mix(sums: &mut [u64; 8], stripe: &[u8; STRIPE_BYTES], window: usize) {
    const HALF: u64 = 0xFFFF_FFFF;
    let key = secret(window);
    for i in 0..8 {
        let value = word(stripe, i);
        let keyed = value ^ word(key, i);
        sums[i ^ 1] = sums[i ^ 1].wrapping_add(value);
        sums[i] = sums[i].wrapping_add((keyed & HALF).wrapping_mul(keyed >> 32));
    }
}

#[allow(clippy::cast_possible_truncation)] // the two halves of a product
fn merge(sums: &[u64; 8], window: usize, start: u64) -> u64 {
    let key = secret(window);
    let mut result = start;
    for (i, pair) in sums.as_chunks::<2>().0.iter().enumerate() {
        let product =
            u128::from(pair[0] ^ word(key, 2 * i)) * u128::from(pair[1] ^ word(key, 2 * i + 1));
        result = result.wrapping_add(product as u64 ^ (product >> 64) as u64);
    }
    result = (result ^ (result >> 37)).wrapping_mul(AVALANCHE);
    result ^ (result >> 32)
}

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
#[target_feature(enable = "avx512f")]
fn add_avx512(sums: &mut [u64; 8], in_block: &mut usize, mut stripes: &[[u8; STRIPE_BYTES]]) {
    // SAFETY: both are 64 bytes of ours, and the load asks for no alignment.
    let mut sum = unsafe { _mm512_loadu_si512(sums.as_ptr().cast::<__m512i>()) };
    let prime = _mm512_set1_epi64(i64::from(PRIME32_1));
    while !stripes.is_empty() {
        let (block, rest) = cut(stripes, *in_block);
        let mut products = _mm512_setzero_si512();
        let mut i = 0;
        // No iterator: those are not compiled for these instructions, and would be called for every stripe.
        while i < block.len() {
            // SAFETY: `i` is a stripe of the block, and `cut` gives no more than the secret has windows for: the last
            // one begins at 8 * (BLOCK_STRIPES - 1), 64 bytes before the end and more.
            let (value, key) = unsafe {
                (
                    _mm512_loadu_si512(block.as_ptr().add(i).cast::<__m512i>()),
                    _mm512_loadu_si512(SECRET.as_ptr().add(8 * (*in_block + i)).cast::<__m512i>()),
                )
            };
            let keyed = _mm512_xor_si512(value, key);
            let product = _mm512_mul_epu32(keyed, _mm512_srli_epi64::<32>(keyed));
            products = _mm512_add_epi64(products, product);
            // The other half of each pair: words 2, 3, 0, 1.
            sum = _mm512_add_epi64(sum, _mm512_shuffle_epi32::<0x4E>(value));
            i += 1;
        }
        sum = _mm512_add_epi64(sum, products);
        *in_block += block.len();
        if *in_block == BLOCK_STRIPES {
            let key = secret(SECRET_BYTES - STRIPE_BYTES);
            // SAFETY: `secret` gives 64 bytes of the 192.
            let key = unsafe { _mm512_loadu_si512(key.as_ptr().cast::<__m512i>()) };
            // 0x96: the exclusive or of the three.
            let keyed = _mm512_ternarylogic_epi64::<0x96>(sum, _mm512_srli_epi64::<47>(sum), key);
            let low = _mm512_mul_epu32(keyed, prime);
            let high = _mm512_mul_epu32(_mm512_srli_epi64::<32>(keyed), prime);
            sum = _mm512_add_epi64(low, _mm512_slli_epi64::<32>(high));
            *in_block = 0;
        }
        stripes = rest;
    }
    // SAFETY: as for the load; `sums` is borrowed mutably.
    unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast::<__m512i>(), sum) };
}

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
#[target_feature(enable = "avx2")]
fn add_avx2(sums: &mut [u64; 8], in_block: &mut usize, mut stripes: &[[u8; STRIPE_BYTES]]) {
    // SAFETY: the sums are two times 32 bytes of ours, and the load asks for no alignment.
    let (mut low, mut high) = unsafe {
        let at = sums.as_ptr().cast::<__m256i>();
        (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1)))
    };
    while !stripes.is_empty() {
        let (block, rest) = cut(stripes, *in_block);
        let mut products = (_mm256_setzero_si256(), _mm256_setzero_si256());
        let mut i = 0;
        while i < block.len() {
            // SAFETY: as in `add_avx512`; a stripe and a window are two times 32 bytes.
            let (value, key) = unsafe {
                let value = block.as_ptr().add(i).cast::<__m256i>();
                let key = SECRET.as_ptr().add(8 * (*in_block + i)).cast::<__m256i>();
                (
                    (_mm256_loadu_si256(value), _mm256_loadu_si256(value.add(1))),
                    (_mm256_loadu_si256(key), _mm256_loadu_si256(key.add(1))),
                )
            };
            products.0 = _mm256_add_epi64(products.0, product_avx2(value.0, key.0));
            products.1 = _mm256_add_epi64(products.1, product_avx2(value.1, key.1));
            low = _mm256_add_epi64(low, _mm256_shuffle_epi32::<0x4E>(value.0));
            high = _mm256_add_epi64(high, _mm256_shuffle_epi32::<0x4E>(value.1));
            i += 1;
        }
        low = _mm256_add_epi64(low, products.0);
        high = _mm256_add_epi64(high, products.1);
        *in_block += block.len();
        if *in_block == BLOCK_STRIPES {
            // SAFETY: the last two times 32 bytes of the secret.
            let key = unsafe {
                let at = SECRET
                    .as_ptr()
                    .add(SECRET_BYTES - STRIPE_BYTES)
                    .cast::<__m256i>();
                (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1)))
            };
            low = scramble_avx2(low, key.0);
            high = scramble_avx2(high, key.1);
            *in_block = 0;
        }
        stripes = rest;
    }
    // SAFETY: as for the load; `sums` is borrowed mutably.
    unsafe {
        let at = sums.as_mut_ptr().cast::<__m256i>();
        _mm256_storeu_si256(at, low);
        _mm256_storeu_si256(at.add(1), high);
    }
}

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
#[target_feature(enable = "avx2")]
#[inline]
fn product_avx2(value: __m256i, key: __m256i) -> __m256i {
    let keyed = _mm256_xor_si256(value, key);
    _mm256_mul_epu32(keyed, _mm256_srli_epi64::<32>(keyed))
}

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
#[target_feature(enable = "avx2")]
#[inline]
fn scramble_avx2(sum: __m256i, key: __m256i) -> __m256i {
    let prime = _mm256_set1_epi64x(i64::from(PRIME32_1));
    let folded = _mm256_xor_si256(sum, _mm256_srli_epi64::<47>(sum));
    let keyed = _mm256_xor_si256(folded, key);
    let low = _mm256_mul_epu32(keyed, prime);
    let high = _mm256_mul_epu32(_mm256_srli_epi64::<32>(keyed), prime);
    _mm256_add_epi64(low, _mm256_slli_epi64::<32>(high))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Bytes that no accumulator cancels out.
    fn bytes(count: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_le_bytes()[7]
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn every_path_gives_the_same_sums() {
        let bytes = bytes(64 * 70);
        let (stripes, _) = bytes.as_chunks::<STRIPE_BYTES>();
        for cut in [0, 1, 7, 15, 16, 17, 40, 70] {
            let mut plain = Xxh3Stripes::default();
            let mut fast = Xxh3Stripes::default();
            for part in [&stripes[..cut], &stripes[cut..]] {
                add_plain(&mut plain.sums, &mut plain.in_block, part);
                fast.add(part);
            }
            assert_eq!((fast.sums, fast.in_block), (plain.sums, plain.in_block));
            #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
            if is_x86_feature_detected!("avx2") {
                let mut half = Xxh3Stripes::default();
                for part in [&stripes[..cut], &stripes[cut..]] {
                    // SAFETY: just asked.
                    unsafe { add_avx2(&mut half.sums, &mut half.in_block, part) };
                }
                assert_eq!((half.sums, half.in_block), (plain.sums, plain.in_block));
            }
        }
    }
}
