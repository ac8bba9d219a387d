//! What the writer knows of a page before its readers do.
//!
//! Packets that list whole stretches of registers come many at a time, and each replaces what the last one said. Here
//! they only meet the writer's own plain bytes, compared and replaced by vectors, and mostly not even these (see
//! `waiting`). The page, of which every word is an atomic, learns what became of a group of 64 when the batch ends: its
//! last values, and for each register the time of its last change.

use std::ops::Range;

use tapeline_crc::lanes::{GROUP_LANES, Group, exchange, fill};

use super::super::packet::mark_bits;
use super::page::{PAGE_WORDS, Page};
use super::waiting::{Outcome, Stretch, Waiting, WaitingPage};

/// Times that the registers of a group may have before the page is told: a group that two packets share has two.
const LAYERS: usize = 3;
/// Stretches that do not wait after some whose outcome had more times than that: the next ones would, too.
const RETRY_AFTER: u32 = 10_000;

/// Registers of a group that took their values at the same time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layer {
    pub(super) registers: u64,
    pub(super) time_us: u64,
}

/// What changed in a group and is not in the page, no register in two of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layers {
    layers: [Layer; LAYERS],
    count: usize,
}

/// A page's groups as the last packet left them.
#[derive(Debug)]
pub(super) struct Ahead {
    groups: [Group; PAGE_WORDS],
    known: [u64; PAGE_WORDS],
    layers: [Layers; PAGE_WORDS],
    /// Groups that are here as they are in the page, or ahead of it.
    valid: u16,
    /// Groups that are ahead of it.
    unsettled: u16,
    /// Stretches that are not to wait.
    at_once: u32,
}

impl Ahead {
    pub(super) const fn new() -> Self {
        Self {
            groups: [[0; _]; _],
            known: [0; _],
            layers: [Layers::NONE; _],
            valid: 0,
            unsettled: 0,
            at_once: 0,
        }
    }

    /// Whether the next stretch may wait for the end of the batch.
    #[inline(always)]
    pub(super) const fn may_wait(&mut self) -> bool {
        let may = self.at_once == 0;
        self.at_once = self.at_once.saturating_sub(1);
        may
    }

    /// Sets what has waited.
    pub(super) fn set_waiting(&mut self, page: &Page, waiting: &Waiting<'_>, which: &WaitingPage) {
        if let Some(outcome) = Outcome::of(waiting, which) {
            self.settle(page);
            self.adopt(page, outcome);
            return;
        }
        self.at_once = RETRY_AFTER;
        let mut stretches: Vec<&Stretch<'_>> = waiting.newest_first(which).collect();
        stretches.reverse();
        for stretch in stretches {
            self.set(page, stretch.slot, stretch.data, stretch.time_us);
        }
    }

    /// Nothing is ahead of the page; afterwards neither.
    fn adopt(&mut self, page: &Page, mut outcome: Outcome) {
        let reached = (0..PAGE_WORDS).filter(|at| outcome.listed[*at] != 0);
        let reached = reached.fold(0, |reached, at| reached | 1 << at);
        if reached & !self.valid != 0 {
            self.fetch(page, reached & !self.valid);
        }
        let mut differs = [0; PAGE_WORDS];
        let values = outcome.values.as_flattened();
        fill(&mut self.groups, 0, values, &outcome.listed, &mut differs);
        for at in (0..PAGE_WORDS).filter(|at| reached >> at & 1 == 1) {
            let times = &mut outcome.times[at];
            times.take(outcome.steady[at] & self.known[at] & !differs[at]);
            self.known[at] |= outcome.listed[at];
            if times.count > 0 {
                times.settle(page, at);
                page.set_group(at, &self.groups[at], self.known[at]);
            }
        }
    }

    /// Sets the registers from `slot` on, which all are of this page; how many changed or became known.
    pub(super) fn set(&mut self, page: &Page, slot: usize, data: &[u8], time_us: u64) -> u32 {
        let stop = slot + data.len() / 2;
        if stop == slot {
            return 0;
        }
        let (first, last) = (slot / GROUP_LANES, (stop - 1) / GROUP_LANES);
        let reached = numbers(first..last + 1);
        if reached & !self.valid != 0 {
            self.fetch(page, reached & !self.valid);
        }
        let mut differs = [0; PAGE_WORDS];
        exchange(&mut self.groups, slot, data, &mut differs);
        // Wholly listed groups in which every register changed: most of them, or none, as a rule.
        let whole = slot.div_ceil(GROUP_LANES)..stop / GROUP_LANES;
        let all = differs.get(whole.clone()).unwrap_or_default();
        if !all.is_empty() && all.iter().fold(u64::MAX, |all, one| all & one) == u64::MAX {
            self.all(whole.clone(), time_us);
            let ends = (first..whole.start).chain(whole.end..last + 1);
            let changed = ends.map(|number| self.some(page, number, slot..stop, &differs, time_us));
            return changed.sum::<u32>() + all.iter().map(|all| all.count_ones()).sum::<u32>();
        }
        let groups = first..=last;
        groups
            .map(|number| self.some(page, number, slot..stop, &differs, time_us))
            .sum()
    }

    /// Every register of these groups changed.
    #[inline(always)]
    fn all(&mut self, groups: Range<usize>, time_us: u64) {
        for number in groups.clone() {
            self.layers[number % PAGE_WORDS].all(time_us);
        }
        for known in self.known.get_mut(groups.clone()).unwrap_or_default() {
            *known = u64::MAX;
        }
        self.unsettled |= numbers(groups);
    }

    /// What changed in a group of which the slots of a range are listed; how many.
    fn some(
        &mut self,
        page: &Page,
        number: usize,
        listed: Range<usize>,
        differs: &[u64; PAGE_WORDS],
        time_us: u64,
    ) -> u32 {
        let number = number % PAGE_WORDS;
        let here = number * GROUP_LANES;
        let mut bits = [0];
        let (start, stop) = (
            listed.start.max(here) - here,
            listed.end.min(here + GROUP_LANES) - here,
        );
        mark_bits(&mut bits, start..stop);
        let fresh = bits[0] & !self.known[number];
        let registers = differs[number] | fresh;
        if registers == 0 {
            return 0;
        }
        self.known[number] |= fresh;
        self.unsettled |= 1 << number;
        if registers == u64::MAX {
            self.layers[number].all(time_us);
        } else {
            self.layers[number].add(page, number, registers, time_us);
        }
        registers.count_ones()
    }

    /// Whether the page lacks something.
    pub(super) const fn is_unsettled(&self) -> bool {
        self.unsettled != 0
    }

    /// Tells the page everything.
    pub(super) fn settle(&mut self, page: &Page) {
        for number in 0..PAGE_WORDS {
            self.settle_group(page, number);
        }
    }

    fn settle_group(&mut self, page: &Page, number: usize) {
        if self.unsettled >> number & 1 == 1 {
            self.unsettled &= !(1 << number);
            self.layers[number].settle(page, number);
            page.set_group(number, &self.groups[number], self.known[number]);
        }
    }

    /// The page is told, and is then set without this: the group of a register, or all of them.
    #[inline(always)]
    pub(super) fn forget(&mut self, page: &Page, slot: usize) {
        let number = slot / GROUP_LANES % PAGE_WORDS;
        if self.valid >> number & 1 == 1 {
            self.settle_group(page, number);
            self.valid &= !(1 << number);
        }
    }

    pub(super) fn forget_all(&mut self, page: &Page) {
        self.settle(page);
        self.valid = 0;
    }

    #[cold]
    fn fetch(&mut self, page: &Page, groups: u16) {
        for number in (0..PAGE_WORDS).filter(|n| groups >> n & 1 == 1) {
            (self.groups[number], self.known[number]) = page.group(number);
        }
        self.valid |= groups;
    }
}

/// A bit for each of these groups.
#[inline(always)]
fn numbers(groups: Range<usize>) -> u16 {
    if groups.is_empty() {
        return 0;
    }
    u16::MAX >> (PAGE_WORDS - groups.len()) << groups.start
}

impl Layers {
    pub(super) const NONE: Self = Self {
        layers: [Layer {
            registers: 0,
            time_us: 0,
        }; _],
        count: 0,
    };

    #[inline(always)]
    fn all(&mut self, time_us: u64) {
        self.layers[0] = Layer {
            registers: u64::MAX,
            time_us,
        };
        self.count = 1;
    }

    fn add(&mut self, page: &Page, number: usize, registers: u64, time_us: u64) {
        if !self.put(registers, time_us) {
            // Times may be newer than values, so that these can go alone.
            self.settle(page, number);
            self.put(registers, time_us);
        }
    }

    /// The time of these registers, which no longer have another; false if there is no room for one more.
    pub(super) fn put(&mut self, registers: u64, time_us: u64) -> bool {
        self.take(registers);
        let Some(layer) = self.layers.get_mut(self.count) else {
            return false;
        };
        *layer = Layer { registers, time_us };
        self.count += 1;
        true
    }

    /// These registers have no time here.
    fn take(&mut self, registers: u64) {
        let mut kept = 0;
        for at in 0..self.count.min(LAYERS) {
            let mut layer = self.layers[at];
            layer.registers &= !registers;
            self.layers[kept] = layer;
            kept += usize::from(layer.registers != 0);
        }
        self.count = kept;
    }

    fn settle(&mut self, page: &Page, number: usize) {
        for layer in self.layers.iter().take(self.count) {
            page.set_times(number, *layer);
        }
        self.count = 0;
    }
}
