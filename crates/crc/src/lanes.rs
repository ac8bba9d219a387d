//! Sixteen-bit numbers in bytes, little-endian, compared many at a time: the registers of packets.
//!
//! They lie at any byte, 64 of them are a group, which is what a word of a bit map speaks of. With AVX-512BW a group is
//! two vectors whose comparison is that word; the portable path asks first whether none or all differ, which any
//! compiler makes vectors of, and looks one by one only where it is neither.

/// Numbers of a group.
pub const GROUP_LANES: usize = 64;

/// A group's bytes.
pub type Group = [u8; 2 * GROUP_LANES];

/// How many bytes at the start of `lanes` hold `first`, `first + 1` and so on, up to 65,535.
#[must_use]
#[inline]
pub fn ascending(lanes: &[u8], first: u16) -> usize {
    let most = 2 * (65_536 - usize::from(first));
    let lanes = lanes.get(..most).unwrap_or(lanes);
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    if vector::available() {
        // SAFETY: `available` says that AVX-512F and BW are there.
        return unsafe { vector::ascending(lanes, first) };
    }
    ascending_plain(lanes, first)
}

/// Puts `new` into the groups, from lane `at` of the first one on, and tells for each group in which bits of `differs`
/// something changed. Groups that are not reached keep their word.
///
/// What does not fit into the groups, or has no word, is left out.
#[inline]
pub fn exchange(groups: &mut [Group], at: usize, new: &[u8], differs: &mut [u64]) {
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    if vector::available() {
        // SAFETY: `available` says that AVX-512F and BW are there.
        return unsafe { vector::exchange(groups, at, new, differs) };
    }
    exchange_plain(groups, at, new, differs);
}

/// As [`exchange`], but a lane takes what is new only if its bit of `empty` is set; the others stay as they are.
///
/// `differs` tells of all lanes that are reached.
#[inline]
pub fn fill(groups: &mut [Group], at: usize, new: &[u8], empty: &[u64], differs: &mut [u64]) {
    #[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
    if vector::available() {
        // SAFETY: `available` says that AVX-512F and BW are there.
        return unsafe { vector::fill(groups, at, new, empty, differs) };
    }
    fill_plain(groups, at, new, empty, differs);
}

fn ascending_plain(lanes: &[u8], first: u16) -> usize {
    let (mut bytes, mut want) = (0, first);
    for block in lanes.as_chunks::<64>().0 {
        // No early end within a block: this compiles to vector code.
        let mut differs = 0;
        for (word, n) in block.as_chunks::<2>().0.iter().zip(0..32) {
            differs |= u16::from_le_bytes(*word) ^ want.wrapping_add(n);
        }
        if differs != 0 {
            break;
        }
        bytes += block.len();
        want = want.wrapping_add(32);
    }
    for word in lanes.get(bytes..).unwrap_or_default().as_chunks::<2>().0 {
        if u16::from_le_bytes(*word) != want {
            break;
        }
        bytes += 2;
        want = want.wrapping_add(1);
    }
    bytes
}

fn exchange_plain(groups: &mut [Group], at: usize, new: &[u8], differs: &mut [u64]) {
    replace_plain(groups, at, new, std::iter::repeat(&u64::MAX), differs);
}

fn fill_plain(groups: &mut [Group], at: usize, new: &[u8], empty: &[u64], differs: &mut [u64]) {
    replace_plain(groups, at, new, empty.iter(), differs);
}

fn replace_plain<'a>(
    groups: &mut [Group],
    at: usize,
    new: &[u8],
    takes: impl Iterator<Item = &'a u64>,
    differs: &mut [u64],
) {
    let (mut lane, mut rest) = (at, new);
    for ((group, differs), takes) in groups.iter_mut().zip(differs).zip(takes) {
        let Some(room) = group.get_mut(2 * lane..) else {
            lane -= GROUP_LANES;
            continue;
        };
        let (now, after) = rest.split_at(room.len().min(rest.len() / 2 * 2));
        if now.is_empty() {
            // Nothing left, or the group ends where `at` is.
            lane = lane.saturating_sub(GROUP_LANES);
            continue;
        }
        *differs = replace_group(group, lane, now, *takes);
        (lane, rest) = (0, after);
    }
}

fn replace_group(group: &mut Group, lane: usize, now: &[u8], takes: u64) -> u64 {
    let mut new = *group;
    new[2 * lane..2 * lane + now.len()].copy_from_slice(now);
    let (mut differs, mut same) = (0, 0);
    let pairs = || {
        let lanes = group.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0);
        lanes.map(|(old, new)| (u16::from_le_bytes(*old), u16::from_le_bytes(*new)))
    };
    for (old, new) in pairs() {
        differs |= old ^ new;
        same |= if old == new { u16::MAX } else { 0 };
    }
    let mask = match (differs, same) {
        (0, _) => 0,
        (_, 0) => u64::MAX,
        _ => pairs().enumerate().fold(0, |mask, (lane, (old, new))| {
            mask | u64::from(old != new) << lane
        }),
    };
    if takes == u64::MAX {
        *group = new;
        return mask;
    }
    let lanes = group.as_chunks_mut::<2>().0.iter_mut().enumerate();
    for (lane, old) in lanes.filter(|(lane, _)| takes >> lane & 1 == 1) {
        *old = new.as_chunks().0[lane];
    }
    mask
}

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
mod vector {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi16, _mm512_cmpneq_epi16_mask, _mm512_loadu_si512,
        _mm512_mask_blend_epi16, _mm512_mask_cmpneq_epi16_mask, _mm512_mask_loadu_epi16,
        _mm512_maskz_loadu_epi16, _mm512_set1_epi16, _mm512_storeu_si512,
    };

    use super::{GROUP_LANES, Group};

    /// Bytes and lanes of a vector.
    const BYTES: usize = 64;
    const LANES: usize = 32;

    static FROM_ZERO: [u16; LANES] = {
        let mut lanes = [0; LANES];
        let mut n = 0;
        while n < LANES {
            #[allow(clippy::cast_possible_truncation)] // below 32
            {
                lanes[n] = n as u16;
            }
            n += 1;
        }
        lanes
    };

    #[inline(always)]
    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn ascending(lanes: &[u8], first: u16) -> usize {
        // SAFETY: 64 bytes are there to read.
        let from_zero = unsafe { _mm512_loadu_si512(FROM_ZERO.as_ptr().cast()) };
        let step = _mm512_set1_epi16(32);
        let mut want = _mm512_add_epi16(from_zero, _mm512_set1_epi16(first.cast_signed()));
        let (whole, rest) = lanes.as_chunks::<BYTES>();
        // Most runs are long: four vectors at a look, and one by one where they are not all right.
        let mut looked = 0;
        for four in whole.as_chunks::<4>().0 {
            let mut wrong = 0;
            let mut next = want;
            for block in four {
                // SAFETY: 64 bytes are there to read, at any alignment.
                let found = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
                wrong |= _mm512_cmpneq_epi16_mask(found, next);
                next = _mm512_add_epi16(next, step);
            }
            if wrong != 0 {
                break;
            }
            want = next;
            looked += four.len();
        }
        for (number, block) in whole.iter().enumerate().skip(looked) {
            // SAFETY: 64 bytes are there to read, at any alignment.
            let found = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            let differs = _mm512_cmpneq_epi16_mask(found, want);
            if differs != 0 {
                return BYTES * number + 2 * differs.trailing_zeros() as usize;
            }
            want = _mm512_add_epi16(want, step);
        }
        let listed = low_bits(rest.len() / 2);
        // SAFETY: only the lanes of the mask are read, and `rest` has those.
        let found = unsafe { _mm512_maskz_loadu_epi16(listed, rest.as_ptr().cast()) };
        let differs = _mm512_mask_cmpneq_epi16_mask(listed, found, want);
        let right = if differs == 0 {
            rest.len() / 2
        } else {
            differs.trailing_zeros() as usize
        };
        BYTES * whole.len() + 2 * right
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn exchange(groups: &mut [Group], at: usize, new: &[u8], differs: &mut [u64]) {
        replace::<true>(groups, at, new, &[], differs);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn fill(
        groups: &mut [Group],
        at: usize,
        new: &[u8],
        empty: &[u64],
        differs: &mut [u64],
    ) {
        replace::<false>(groups, at, new, empty, differs);
    }

    /// What is new goes into all lanes, or only into those of `empty`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn replace<const ALL: bool>(
        groups: &mut [Group],
        at: usize,
        new: &[u8],
        empty: &[u64],
        differs: &mut [u64],
    ) {
        let first = at / GROUP_LANES;
        let (Some(groups), Some(differs)) = (groups.get_mut(first..), differs.get_mut(first..))
        else {
            return;
        };
        let takes = |number: usize| {
            if ALL {
                return u64::MAX;
            }
            empty.get(first + number).copied().unwrap_or(0)
        };
        let mut reached = groups.iter_mut().zip(differs).enumerate();
        let (lane, mut rest) = (at % GROUP_LANES, new);
        if lane != 0
            && let Some((number, (group, differs))) = reached.next()
        {
            let lanes = (rest.len() / 2).min(GROUP_LANES - lane);
            let now;
            (now, rest) = rest.split_at(2 * lanes);
            if lanes > 0 {
                *differs = part(group, lane, now, takes(number));
            }
        }
        let (wholes, rest) = rest.as_chunks();
        for (now, (number, (group, differs))) in wholes.iter().zip(reached.by_ref()) {
            *differs = whole(group, now, takes(number));
        }
        if rest.len() > 1
            && let Some((number, (group, differs))) = reached.next()
        {
            *differs = part(group, 0, rest, takes(number));
        }
    }

    /// All lanes of a group.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn whole(group: &mut Group, now: &Group, takes: u64) -> u64 {
        let [low, high] = now.as_chunks().0 else {
            return 0;
        };
        half(group, 0, takes, |_| load(low)) | half(group, 1, takes, |_| load(high)) << LANES
    }

    /// Those from `lane` on for which `now` has bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn part(group: &mut Group, lane: usize, now: &[u8], takes: u64) -> u64 {
        let listed = (u64::MAX >> (GROUP_LANES - now.len() / 2)) << lane;
        // Where the group's first lane would be.
        let start = now.as_ptr().wrapping_sub(2 * lane);
        #[allow(clippy::cast_possible_truncation)] // the halves are meant
        let (low, high) = (listed as u32, (listed >> LANES) as u32);
        // SAFETY: only the lanes of the mask are read; those are the bytes of `now`.
        let low = half(group, 0, takes, |old| unsafe {
            _mm512_mask_loadu_epi16(old, low, start.cast())
        });
        // SAFETY: as above.
        let high = half(group, 1, takes, |old| unsafe {
            _mm512_mask_loadu_epi16(old, high, start.wrapping_add(BYTES).cast())
        });
        low | high << LANES
    }

    /// One vector of a group is replaced, where the group's `takes` says so; in which lanes it differed.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn half(
        group: &mut Group,
        number: usize,
        takes: u64,
        new: impl FnOnce(__m512i) -> __m512i,
    ) -> u64 {
        let half = &mut group.as_chunks_mut::<BYTES>().0[number];
        let old = load(half);
        let new = new(old);
        #[allow(clippy::cast_possible_truncation)] // the half is meant
        let takes = (takes >> (LANES * number)) as u32;
        let left = match takes {
            u32::MAX => new,
            _ => _mm512_mask_blend_epi16(takes, old, new),
        };
        if takes != 0 {
            // SAFETY: 64 bytes are there to write, at any alignment.
            unsafe { _mm512_storeu_si512(half.as_mut_ptr().cast(), left) };
        }
        u64::from(_mm512_cmpneq_epi16_mask(old, new))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load(bytes: &[u8; BYTES]) -> __m512i {
        // SAFETY: 64 bytes are there to read, at any alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// Ones for so many lanes, fewer than a vector has.
    #[inline(always)]
    const fn low_bits(lanes: usize) -> u32 {
        (1 << lanes) - 1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn bytes(n: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let byte = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..n).map(byte).collect()
    }

    #[test]
    fn ascending_ends_at_the_first_that_is_wrong() {
        for (first, count) in [(0_u16, 200), (7, 64), (1000, 31), (65_500, 100)] {
            let right = 65_536_usize.min(usize::from(first) + count) - usize::from(first);
            let numbers = (0..count).map(|n| first.wrapping_add(u16::try_from(n).unwrap()));
            let lanes: Vec<u8> = numbers.flat_map(u16::to_le_bytes).collect();
            for wrong in 0..=count {
                let mut lanes = lanes.clone();
                if let Some(byte) = lanes.get_mut(2 * wrong + 1) {
                    *byte ^= 0x10;
                }
                for odd in 0..2 {
                    let lanes = &lanes[..lanes.len() - odd];
                    let expected = 2 * wrong.min(right).min(lanes.len() / 2);
                    assert_eq!(ascending(lanes, first), expected, "{first} {wrong}");
                    let most = lanes.len().min(2 * right);
                    assert_eq!(ascending_plain(&lanes[..most], first), expected);
                }
            }
        }
    }

    #[test]
    fn exchange_tells_which_lanes_changed() {
        for seed in 0..400 {
            let random = bytes(4, seed);
            let at = usize::from(random[0]);
            let mut new = bytes(
                2 * usize::from(random[1]) + usize::from(random[2] & 1),
                seed + 1,
            );
            let old = [bytes(512, seed + 2), new.clone()];
            let old: Vec<u8> = old[usize::from(random[3] & 1)]
                .iter()
                .copied()
                .cycle()
                .take(512)
                .collect();
            if random[3] & 2 == 0 && !new.is_empty() {
                // Only some differ.
                let from = old.iter().cycle().skip(2 * at % 512);
                new.iter_mut()
                    .zip(from)
                    .step_by(7)
                    .for_each(|(new, old)| *new = *old);
            }
            let mut expected = old.clone();
            let mut masks = [0_u64; 4];
            for (n, pair) in new.as_chunks::<2>().0.iter().enumerate() {
                let Some(lane) = expected.get_mut(2 * (at + n)..2 * (at + n) + 2) else {
                    break;
                };
                masks[(at + n) / 64] |= u64::from(lane != pair) << ((at + n) % 64);
                lane.copy_from_slice(pair);
            }
            for exchange in [exchange, exchange_plain] {
                let mut groups = old.as_chunks().0.to_vec();
                let mut differs = [0; 4];
                exchange(&mut groups, at, &new, &mut differs);
                assert_eq!(groups.as_flattened(), expected, "{seed}");
                assert_eq!(differs, masks, "{seed}");
            }
            let some = bytes(32, seed + 3);
            let mut empty = [0, u64::MAX, 0, 0];
            for at in [2, 3] {
                empty[at] = u64::from_le_bytes(some.as_chunks().0[at]);
            }
            let filled = expected.chunks(2).zip(old.chunks(2)).enumerate();
            let filled: Vec<u8> = filled
                .flat_map(|(lane, (new, old))| {
                    let takes = empty[lane / 64] >> (lane % 64) & 1 == 1;
                    if takes { new } else { old }
                })
                .copied()
                .collect();
            for fill in [fill, fill_plain] {
                let mut groups = old.as_chunks().0.to_vec();
                let mut differs = [0; 4];
                fill(&mut groups, at, &new, &empty, &mut differs);
                assert_eq!(groups.as_flattened(), filled, "{seed}");
                assert_eq!(differs, masks, "{seed}");
            }
        }
    }
}
