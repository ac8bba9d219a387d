//! A page of registers: values, what is known, when each changed, what is in doubt.

use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use tapeline_crc::lanes::Group;

use super::super::packet::{EVERY_LANE, mark_bits};
use super::ahead::Layer;

/// Registers of a page.
pub const PAGE_REGISTERS: usize = 1024;
/// Words of a page's bit maps.
pub(super) const PAGE_WORDS: usize = PAGE_REGISTERS / 64;
/// The top bits of four registers.
const TOP_BITS: u64 = 0x8000 * EVERY_LANE;

#[derive(Debug)]
pub(super) struct Page {
    /// Four registers a word, the lowest in the lowest bits.
    pub(super) values: [AtomicU64; PAGE_REGISTERS / 4],
    pub(super) known: [AtomicU64; PAGE_WORDS],
    /// Each register's own time.
    changed_us: [AtomicU64; PAGE_REGISTERS],
    /// Registers whose time is that of their group: the 64 of a word that changed together.
    grouped: [AtomicU64; PAGE_WORDS],
    group_us: [AtomicU64; PAGE_WORDS],
    /// Known before a gap in the sequence, and not set since.
    pub(super) doubted: [AtomicU64; PAGE_WORDS],
    any_doubted: AtomicBool,
    /// Number of the source's gap up to which `doubted` is right; after later ones it is `known`.
    pub(super) gap: AtomicU32,
}

impl Page {
    pub(super) fn new(gap: u32) -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; _],
            known: [const { AtomicU64::new(0) }; _],
            changed_us: [const { AtomicU64::new(0) }; _],
            grouped: [const { AtomicU64::new(0) }; _],
            group_us: [const { AtomicU64::new(0) }; _],
            doubted: [const { AtomicU64::new(0) }; _],
            any_doubted: AtomicBool::new(false),
            gap: AtomicU32::new(gap),
        }
    }

    /// A page of stored values.
    pub(super) fn restored(
        known: impl Iterator<Item = u64>,
        doubted: impl Iterator<Item = u64>,
        values: impl Iterator<Item = u64>,
        changed_us: impl Iterator<Item = u64>,
    ) -> Box<Self> {
        let page = Box::new(Self::new(0));
        fill(&page.known, known);
        fill(&page.doubted, doubted);
        fill(&page.values, values);
        fill(&page.changed_us, changed_us);
        let any = page.doubted.iter().any(|word| word.load(Relaxed) != 0);
        page.any_doubted.store(any, Relaxed);
        page
    }

    /// Sets a register; whether it changed.
    #[inline(always)]
    pub(super) fn set(&self, slot: usize, value: u16, time_us: u64) -> bool {
        let slot = slot % PAGE_REGISTERS;
        let (word, shift) = (&self.values[slot / 4], slot % 4 * 16);
        let (known, bit) = (&self.known[slot / 64], 1 << (slot % 64));
        let (old, seen) = (word.load(Relaxed), known.load(Relaxed));
        let differs = (old >> shift ^ u64::from(value)) & 0xFFFF;
        if differs == 0 && seen & bit != 0 {
            return false;
        }
        self.changed_us[slot].store(time_us, Relaxed);
        self.on_their_own(slot / 64, bit);
        word.store(old ^ differs << shift, Release);
        if seen & bit == 0 {
            known.store(seen | bit, Release);
        }
        true
    }

    /// Sets four registers from a multiple of four on; how many changed.
    #[inline(always)]
    pub(super) fn set_four(&self, slot: usize, values: u64, time_us: u64) -> u32 {
        let slot = slot % PAGE_REGISTERS / 4 * 4;
        let known = &self.known[slot / 64];
        let seen = known.load(Relaxed);
        let word = &self.values[slot / 4];
        let differs = word.load(Relaxed) ^ values;
        let fresh = !(seen >> (slot % 64)) & 0xF;
        if differs == 0 && fresh == 0 {
            return 0;
        }
        let mut changed = 4;
        let mut lanes = 0xF;
        // A register's top bit of this is set if any of its bits differs: all of them, as a rule.
        if lanes_that_differ(differs) == TOP_BITS {
            for lane in 0..4 {
                self.changed_us[slot + lane].store(time_us, Relaxed);
            }
        } else {
            (changed, lanes) = (0, 0);
            for lane in 0..4 {
                if differs >> (16 * lane) & 0xFFFF != 0 || fresh >> lane & 1 != 0 {
                    self.changed_us[slot + lane].store(time_us, Relaxed);
                    changed += 1;
                    lanes |= 1 << lane;
                }
            }
        }
        self.on_their_own(slot / 64, lanes << (slot % 64));
        word.store(values, Release);
        if fresh != 0 {
            known.store(seen | 0xF << (slot % 64), Release);
        }
        changed
    }

    /// The values of the 64 registers of a word of the bit maps, and which are known.
    pub(super) fn group(&self, number: usize) -> (Group, u64) {
        let mut group = [0; _];
        let words = &self.values.as_chunks::<16>().0[number % PAGE_WORDS];
        for (bytes, word) in group.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.load(Relaxed).to_le_bytes();
        }
        (group, self.known[number % PAGE_WORDS].load(Relaxed))
    }

    /// Sets those values, after the times of those that changed.
    pub(super) fn set_group(&self, number: usize, group: &Group, known: u64) {
        let words = &self.values.as_chunks::<16>().0[number % PAGE_WORDS];
        for (word, value) in words.iter().zip(group.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*value), Release);
        }
        let seen = &self.known[number % PAGE_WORDS];
        if seen.load(Relaxed) != known {
            seen.store(known, Release);
        }
    }

    /// When registers of a group change, which they do after this.
    pub(super) fn set_times(&self, number: usize, layer: Layer) {
        let number = number % PAGE_WORDS;
        if layer.registers == u64::MAX {
            // One time for all of them: eight bytes to store for each would be most of the work.
            self.group_us[number].store(layer.time_us, Relaxed);
            self.grouped[number].store(u64::MAX, Release);
            return;
        }
        let mut left = layer.registers;
        while left != 0 {
            let slot = number * 64 + left.trailing_zeros() as usize;
            left &= left - 1;
            self.changed_us[slot].store(layer.time_us, Relaxed);
        }
        self.on_their_own(number, layer.registers);
    }

    /// From here on the times of these registers are their own; those have been stored.
    #[inline(always)]
    fn on_their_own(&self, word: usize, bits: u64) {
        let grouped = &self.grouped[word % PAGE_WORDS];
        let seen = grouped.load(Relaxed);
        if seen & bits != 0 {
            grouped.store(seen & !bits, Release);
        }
    }

    /// When the register took its value, or a later one.
    pub(super) fn changed_us(&self, slot: usize) -> u64 {
        let slot = slot % PAGE_REGISTERS;
        let grouped = self.grouped[slot / 64].load(Acquire);
        let time = if grouped >> (slot % 64) & 1 == 1 {
            &self.group_us[slot / 64]
        } else {
            &self.changed_us[slot]
        };
        time.load(Acquire)
    }

    /// Whether `doubted` is right only up to an earlier gap of the source.
    #[inline(always)]
    pub(super) fn is_before(&self, gap: u32) -> bool {
        self.gap.load(Relaxed) != gap
    }

    /// Brings `doubted` up to the source's gap `number`.
    #[cold]
    pub(super) fn doubt(&self, number: u32) {
        for (doubted, known) in self.doubted.iter().zip(&self.known) {
            doubted.store(known.load(Relaxed), Relaxed);
        }
        self.any_doubted.store(true, Relaxed);
        self.gap.store(number, Release);
    }

    pub(super) fn trust(&self, slot: usize) {
        let doubted = &self.doubted[slot % PAGE_REGISTERS / 64];
        doubted.store(doubted.load(Relaxed) & !(1 << (slot % 64)), Relaxed);
    }

    /// Registers of other bits are known no more.
    pub(super) fn keep_known(&self, bits: &[u64; PAGE_WORDS]) {
        for (known, bits) in self.known.iter().zip(bits) {
            known.store(known.load(Relaxed) & bits, Release);
        }
    }

    pub(super) fn trust_range(&self, slots: Range<usize>) {
        let mut bits = [0; PAGE_WORDS];
        mark_bits(&mut bits, slots);
        for (doubted, bits) in self.doubted.iter().zip(bits) {
            doubted.store(doubted.load(Relaxed) & !bits, Relaxed);
        }
    }

    pub(super) fn any_doubted(&self) -> bool {
        self.any_doubted.load(Relaxed)
    }

    pub(super) fn trust_all(&self, gap: u32) {
        if self.any_doubted.swap(false, Relaxed) {
            self.doubted.iter().for_each(|word| word.store(0, Relaxed));
        }
        self.gap.store(gap, Release);
    }
}

/// The top bit of each register of a word that differs at all.
#[inline(always)]
const fn lanes_that_differ(differs: u64) -> u64 {
    (((differs & !TOP_BITS) + !TOP_BITS) | differs) & TOP_BITS
}

#[allow(clippy::cast_possible_truncation)] // the low 16 bits are meant
pub(super) const fn lane(word: u64, slot: usize) -> u16 {
    (word >> (slot % 4 * 16)) as u16
}

fn fill(words: &[AtomicU64], from: impl Iterator<Item = u64>) {
    for (word, value) in words.iter().zip(from) {
        word.store(value, Relaxed);
    }
}
