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

    /// Do it.
    fn run(self) -> Self::Output;
}

/// Do the work with the widest vectors that this processor has.
#[inline]
pub fn widest<W: Work>(work: W) -> W::Output {
    imp::widest(work)
}

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
mod imp {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Work;

    const UNKNOWN: u8 = 0;
    const BASELINE: u8 = 1;
    const V3: u8 = 2;
    static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);

    #[inline]
    pub(super) fn widest<W: Work>(work: W) -> W::Output {
        let level = match LEVEL.load(Ordering::Relaxed) {
            UNKNOWN => detect(),
            level => level,
        };
        if level == V3 {
            // SAFETY: `detect` found every feature of `run_v3` on this processor.
            unsafe { run_v3(work) }
        } else {
            work.run()
        }
    }

    #[cold]
    fn detect() -> u8 {
        let v3 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        let level = if v3 { V3 } else { BASELINE };
        LEVEL.store(level, Ordering::Relaxed);
        level
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn run_v3<W: Work>(work: W) -> W::Output {
        work.run()
    }
}

#[cfg(not(all(target_arch = "x86_64", not(tapeline_portable))))]
mod imp {
    use super::Work;

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
}
