//! Loops over numbers compiled twice: for any processor of the target, and for one with wider vectors.
//!
//! The compiler turns plain loops into vector instructions, but only into those of the target's baseline. [`widest`]
//! runs a piece of [`Work`] inside a function that is compiled for more, if the processor has it. The results are the
//! same: no operation is contracted or reordered.

/// Something to be compiled for every level. Mark `run` and what it calls `#[inline(always)]`: a function that is
/// called and not inlined stays at the baseline.
pub trait Work {
    /// What it gives.
    type Output;

    /// Whether vectors of 64 bytes help: not work that spends its time moving single values in and out of them.
    const WIDE: bool = false;

    /// Do it.
    fn run(self) -> Self::Output;
}

/// Do the work with the widest vectors that this processor has.
#[inline]
pub fn widest<W: Work>(work: W) -> W::Output {
    imp::widest(work)
}

/// Which of 64 bytes are `byte`: a bit for each, the lowest for the first.
#[inline(always)]
#[must_use]
pub fn equal_bytes(block: &[u8; 64], byte: u8) -> u64 {
    imp::equal_bytes(block, byte)
}

/// The same with plain words, which is what other processors do.
#[cfg(any(test, not(all(target_arch = "x86_64", not(tapeline_portable)))))]
#[inline(always)]
fn equal_bytes_plainly(block: &[u8; 64], byte: u8) -> u64 {
    const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    let mut found = 0;
    for (i, eight) in block.as_chunks::<8>().0.iter().enumerate() {
        let off = u64::from_le_bytes(*eight) ^ (u64::from(byte) * 0x0101_0101_0101_0101);
        // The top bit of each byte that is zero, exactly; then the eight bits moved together.
        let zero = !(((off & LOW) + LOW) | off | LOW);
        found |= ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
    }
    found
}

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
mod imp {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Work;

    const UNKNOWN: u8 = 0;
    const BASELINE: u8 = 1;
    const V3: u8 = 2;
    const V4: u8 = 3;
    static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);

    #[inline]
    pub(super) fn widest<W: Work>(work: W) -> W::Output {
        let level = match LEVEL.load(Ordering::Relaxed) {
            UNKNOWN => detect(),
            level => level,
        };
        match level {
            // SAFETY: `detect` found every feature of `run_v4` on this processor.
            V4 if W::WIDE => unsafe { run_v4(work) },
            // SAFETY: and of `run_v3`, which are some of those.
            V4 | V3 => unsafe { run_v3(work) },
            _ => work.run(),
        }
    }

    #[inline(always)]
    pub(super) fn equal_bytes(block: &[u8; 64], byte: u8) -> u64 {
        let mut found = 0;
        for (i, sixteen) in block.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: SSE2 belongs to every processor of this architecture; sixteen bytes are read from an array of
            // sixteen, and this load asks for no alignment.
            let mask = unsafe {
                let bytes = _mm_loadu_si128(sixteen.as_ptr().cast());
                _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed())))
            };
            found |= u64::from(mask.cast_unsigned()) << (16 * i);
        }
        found
    }

    #[cold]
    fn detect() -> u8 {
        let v3 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        let v4 = v3
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let level = match (v4, v3) {
            (true, _) => V4,
            (_, true) => V3,
            _ => BASELINE,
        };
        LEVEL.store(level, Ordering::Relaxed);
        level
    }

    #[target_feature(
        enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl"
    )]
    fn run_v4<W: Work>(work: W) -> W::Output {
        work.run()
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn run_v3<W: Work>(work: W) -> W::Output {
        work.run()
    }
}

#[cfg(not(all(target_arch = "x86_64", not(tapeline_portable))))]
mod imp {
    use super::Work;
    pub(super) use super::equal_bytes_plainly as equal_bytes;

    #[inline]
    pub(super) fn widest<W: Work>(work: W) -> W::Output {
        work.run()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sums<'a>(&'a [f32], f32);

    impl Work for Sums<'_> {
        type Output = Vec<u32>;

        #[inline(always)]
        fn run(self) -> Vec<u32> {
            let sums = self.0.iter().map(|x| (x * self.1 + self.1).to_bits());
            sums.collect()
        }
    }

    #[test]
    fn every_level_gives_the_same() {
        let values: Vec<f32> = (0_u16..1000).map(|i| f32::from(i) * 0.1).collect();
        assert_eq!(widest(Sums(&values, 1.1)), Sums(&values, 1.1).run());
    }

    #[test]
    fn bytes_are_found_wherever_they_are() {
        for (byte, other) in [(b',', b'x'), (0, 1), (0x80, 0), (0xFF, 0xFE), (b'\n', 0x8A)] {
            for place in 0..64 {
                let mut block = [other; 64];
                block[place] = byte;
                block[63 - place] = byte;
                let wanted = 1 << place | 1 << (63 - place);
                assert_eq!(equal_bytes(&block, byte), wanted);
                assert_eq!(equal_bytes_plainly(&block, byte), wanted);
            }
        }
    }
}
