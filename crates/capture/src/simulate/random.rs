//! Seeded random numbers, one generator for each decision, so that no decision shifts another.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a counter put through a mixer; any seed is good.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator number `purpose` of `stream` under `seed`.
    pub(crate) fn new(seed: u64, stream: u64, purpose: u64) -> Self {
        let mut mixed = Self(seed);
        let first = mixed.next();
        let mut mixed = Self(first ^ stream.rotate_left(32) ^ purpose);
        Self(mixed.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `below - 1`; 0 if that is nothing.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        let wide = u128::from(self.next()) * (below as u128);
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}

/// Says yes with a fixed probability.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    random: Random,
    /// Yes below this, in 2^-64; `None` is never.
    threshold: Option<u64>,
}

impl Chance {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates, which is what is wanted
    pub(crate) fn new(probability: f64, random: Random) -> Self {
        let threshold =
            (probability > 0.0).then_some((probability * 18_446_744_073_709_551_616.0) as u64);
        Self { random, threshold }
    }

    pub(crate) fn hit(&mut self) -> bool {
        match self.threshold {
            None => false,
            Some(threshold) => self.random.next() <= threshold,
        }
    }

    /// Numbers for what follows from a yes.
    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}
