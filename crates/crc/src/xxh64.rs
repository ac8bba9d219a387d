//! XXH64, seed 0: the hash of BCSV packets and of the blocks of register logs.
//!
//! Four chains of a multiplication, a rotation and an addition over words of eight bytes. With the four in one vector
//! register a round is as long as its chain, 5 cycles for 32 bytes where the vector multiplication takes 3; the scalar
//! unit has one multiplier for the eight multiplications of a round. On processors whose vector multiplication of 64-bit
//! words takes long (Intel's: 15 cycles) the scalar path is the faster one.

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;
const STRIPE: usize = 32;

/// XXH64 of bytes that arrive in pieces.
///
/// ```
/// let mut hash = tapeline_crc::Xxh64::default();
/// hash.update(b"12345");
/// hash.update(b"6789");
/// assert_eq!(hash.digest(), tapeline_crc::xxh64(b"123456789"));
/// ```
#[derive(Clone, Debug)]
pub struct Xxh64 {
    chains: [u64; 4],
    total: u64,
    pending: [u8; STRIPE],
}

impl Default for Xxh64 {
    fn default() -> Self {
        Self::new()
    }
}

impl Xxh64 {
    const fn new() -> Self {
        Self {
            chains: [
                PRIME_1.wrapping_add(PRIME_2),
                PRIME_2,
                0,
                PRIME_1.wrapping_neg(),
            ],
            total: 0,
            pending: [0; STRIPE],
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let held = self.held();
        self.total += bytes.len() as u64;
        let mut rest = bytes;
        if held > 0 {
            let (head, after) = bytes.split_at(bytes.len().min(STRIPE - held));
            self.pending[held..held + head.len()].copy_from_slice(head);
            if held + head.len() < STRIPE {
                return;
            }
            let stripe = self.pending;
            stripes(&mut self.chains, &[stripe]);
            rest = after;
        }
        let (whole, tail) = rest.as_chunks::<STRIPE>();
        stripes(&mut self.chains, whole);
        self.pending[..tail.len()].copy_from_slice(tail);
    }

    /// The hash of all bytes so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hash = if self.total >= STRIPE as u64 {
            let [a, b, c, d] = self.chains;
            let sum = a.rotate_left(1).wrapping_add(b.rotate_left(7));
            let sum = sum.wrapping_add(c.rotate_left(12).wrapping_add(d.rotate_left(18)));
            self.chains.iter().fold(sum, |hash, &chain| {
                (hash ^ round(0, chain))
                    .wrapping_mul(PRIME_1)
                    .wrapping_add(PRIME_4)
            })
        } else {
            PRIME_5
        };
        hash = hash.wrapping_add(self.total);
        let (words, rest) = self.pending[..self.held()].as_chunks::<8>();
        for word in words {
            hash = (hash ^ round(0, u64::from_le_bytes(*word)))
                .rotate_left(27)
                .wrapping_mul(PRIME_1)
                .wrapping_add(PRIME_4);
        }
        let (half, rest) = rest.as_chunks::<4>();
        for half in half {
            let word = u64::from(u32::from_le_bytes(*half));
            hash = (hash ^ word.wrapping_mul(PRIME_1))
                .rotate_left(23)
                .wrapping_mul(PRIME_2)
                .wrapping_add(PRIME_3);
        }
        for byte in rest {
            hash = (hash ^ u64::from(*byte).wrapping_mul(PRIME_5))
                .rotate_left(11)
                .wrapping_mul(PRIME_1);
        }
        hash = (hash ^ hash >> 33).wrapping_mul(PRIME_2);
        hash = (hash ^ hash >> 29).wrapping_mul(PRIME_3);
        hash ^ hash >> 32
    }

    #[allow(clippy::cast_possible_truncation)] // below 32
    const fn held(&self) -> usize {
        (self.total % STRIPE as u64) as usize
    }
}

/// XXH64 of some bytes.
#[must_use]
pub fn xxh64(bytes: &[u8]) -> u64 {
    let mut hash = Xxh64::default();
    hash.update(bytes);
    hash.digest()
}

/// XXH64 of each of some inputs: on processors that have the vector path four at a time, which together take little
/// longer than one, because a chain leaves the multiplier idle most of the time. They should be of about one length.
#[must_use]
pub fn xxh64_each(inputs: &[&[u8]]) -> Vec<u64> {
    let mut hashes = Vec::with_capacity(inputs.len());
    for inputs in inputs.chunks(4) {
        match *inputs {
            [a, b] => hashes.extend(side_by_side([a, b])),
            [a, b, c] => hashes.extend(side_by_side([a, b, c])),
            [a, b, c, d] => hashes.extend(side_by_side([a, b, c, d])),
            _ => hashes.extend(inputs.iter().map(|input| xxh64(input))),
        }
    }
    hashes
}

fn side_by_side<const N: usize>(inputs: [&[u8]; N]) -> [u64; N] {
    let mut hashes = [const { Xxh64::new() }; N];
    #[allow(unused_mut)] // only the vector path takes something off
    let mut rest = inputs;
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    if vector::fast() {
        let whole = inputs.map(|input| input.as_chunks().0);
        let stripes = whole.iter().map(|whole| whole.len()).min().unwrap_or(0);
        let mut chains = [Xxh64::new().chains; N];
        // SAFETY: `fast` says that AVX-512F, DQ and VL are there.
        unsafe { vector::stripes_of_each(&mut chains, whole, stripes) };
        for ((hash, chains), rest) in hashes.iter_mut().zip(chains).zip(&mut rest) {
            hash.chains = chains;
            hash.total = (STRIPE * stripes) as u64;
            *rest = rest.get(STRIPE * stripes..).unwrap_or_default();
        }
    }
    for (hash, rest) in hashes.iter_mut().zip(rest) {
        hash.update(rest);
    }
    hashes.map(|hash| hash.digest())
}

#[inline(always)]
const fn round(chain: u64, word: u64) -> u64 {
    chain
        .wrapping_add(word.wrapping_mul(PRIME_2))
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

fn stripes(chains: &mut [u64; 4], stripes: &[[u8; STRIPE]]) {
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    if vector::fast() {
        // SAFETY: `fast` says that AVX-512F, DQ and VL are there.
        return unsafe { vector::stripes(chains, stripes) };
    }
    scalar(chains, stripes);
}

fn scalar(chains: &mut [u64; 4], stripes: &[[u8; STRIPE]]) {
    let mut now = *chains;
    for stripe in stripes {
        for (chain, word) in now.iter_mut().zip(stripe.as_chunks::<8>().0) {
            *chain = round(*chain, u64::from_le_bytes(*word));
        }
    }
    *chains = now;
}

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
mod vector {
    use std::arch::x86_64::{
        __cpuid, _mm256_add_epi64, _mm256_loadu_si256, _mm256_mullo_epi64, _mm256_rol_epi64,
        _mm256_set1_epi64x, _mm256_storeu_si256,
    };
    use std::sync::LazyLock;

    use super::{PRIME_1, PRIME_2, STRIPE};

    /// Whether this path can run here and is the faster one: AMD multiplies 64-bit words in 3 cycles.
    pub(super) fn fast() -> bool {
        static FAST: LazyLock<bool> = LazyLock::new(|| {
            let vendor = __cpuid(0);
            let amd = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes)
                == [*b"Auth", *b"enti", *b"cAMD"];
            amd && available()
        });
        *FAST
    }

    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    }

    /// The first `count` stripes of each input, in turn; none of them may have fewer.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub(super) fn stripes_of_each<const N: usize>(
        chains: &mut [[u64; 4]; N],
        inputs: [&[[u8; STRIPE]]; N],
        count: usize,
    ) {
        let first = _mm256_set1_epi64x(PRIME_1.cast_signed());
        let second = _mm256_set1_epi64x(PRIME_2.cast_signed());
        let inputs = inputs.map(|input| &input[..count]);
        // SAFETY: 32 bytes are there to read, at any alignment.
        let mut now = chains.map(|chains| unsafe { _mm256_loadu_si256(chains.as_ptr().cast()) });
        for at in 0..count {
            for (now, input) in now.iter_mut().zip(inputs) {
                // SAFETY: 32 bytes are there to read, at any alignment.
                let words = unsafe { _mm256_loadu_si256(input[at].as_ptr().cast()) };
                let sum = _mm256_add_epi64(*now, _mm256_mullo_epi64(words, second));
                *now = _mm256_mullo_epi64(_mm256_rol_epi64::<31>(sum), first);
            }
        }
        for (chains, now) in chains.iter_mut().zip(now) {
            // SAFETY: 32 bytes are there to write, at any alignment.
            unsafe { _mm256_storeu_si256(chains.as_mut_ptr().cast(), now) };
        }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub(super) fn stripes(chains: &mut [u64; 4], stripes: &[[u8; STRIPE]]) {
        let first = _mm256_set1_epi64x(PRIME_1.cast_signed());
        let second = _mm256_set1_epi64x(PRIME_2.cast_signed());
        // SAFETY: 32 bytes are there to read, at any alignment.
        let mut now = unsafe { _mm256_loadu_si256(chains.as_ptr().cast()) };
        for stripe in stripes {
            // SAFETY: 32 bytes are there to read, at any alignment.
            let words = unsafe { _mm256_loadu_si256(stripe.as_ptr().cast()) };
            let sum = _mm256_add_epi64(now, _mm256_mullo_epi64(words, second));
            now = _mm256_mullo_epi64(_mm256_rol_epi64::<31>(sum), first);
        }
        // SAFETY: 32 bytes are there to write, at any alignment.
        unsafe { _mm256_storeu_si256(chains.as_mut_ptr().cast(), now) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn bytes(n: usize) -> Vec<u8> {
        // the sequence of the reference's own self-test
        let mut state = 2_654_435_761_u64;
        (0..n)
            .map(|_| {
                let byte = state.to_le_bytes()[7];
                state = state.wrapping_mul(PRIME_1);
                byte
            })
            .collect()
    }

    #[test]
    fn known_answers() {
        assert_eq!(xxh64(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"a"), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xxh64(b"abc"), 0x44BC_2CF5_AD77_0999);
        let text = b"Nobody inspects the spammish repetition";
        assert_eq!(xxh64(text), 0xFBCE_A83C_8A37_8BF1);
    }

    #[test]
    fn cut_anywhere() {
        let all = bytes(200);
        for stop in 0..=all.len() {
            let whole = xxh64(&all[..stop]);
            for cut in 0..=stop {
                let mut hash = Xxh64::default();
                hash.update(&all[..cut]);
                hash.update(&all[cut..stop]);
                assert_eq!(hash.digest(), whole, "{cut} of {stop}");
            }
        }
    }

    #[test]
    fn each_of_some_is_as_alone() {
        let all = bytes(1000);
        for lengths in [[100, 40, 0, 7, 1000, 64], [999, 998, 997, 996, 3, 33]] {
            let inputs = lengths.map(|n| &all[..n]);
            for n in 0..=inputs.len() {
                let expected: Vec<u64> = inputs[..n].iter().map(|input| xxh64(input)).collect();
                assert_eq!(xxh64_each(&inputs[..n]), expected, "{n} of {lengths:?}");
            }
        }
    }

    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    #[test]
    fn both_paths_agree() {
        if !vector::available() {
            return;
        }
        let all = bytes(4096);
        let whole = all.as_chunks().0;
        for n in 0..=whole.len() {
            let mut one = Xxh64::default().chains;
            let mut other = one;
            scalar(&mut one, &whole[..n]);
            // SAFETY: asked above.
            unsafe { vector::stripes(&mut other, &whole[..n]) };
            assert_eq!(one, other, "{n} stripes");
        }
    }
}
