//! One packet on its way into one source: runs of neighbours are found and set as wholes.

use super::super::packet::{PacketRef, four_from, mark_bits, run_bytes};
use super::ahead::Ahead;
use super::page::{PAGE_REGISTERS, PAGE_WORDS, Page};
use super::source::{PAGES, SourceImage};
use super::waiting::Waiting;
use super::{Applied, TouchedGroups};

/// Runs of consecutive offsets shorter than this are not worth looking for.
const MIN_RUN: usize = 16;

/// Registers that share a bit of [`TouchedGroups`].
const GROUP: usize = 16;

/// One packet on its way into one source.
pub(super) struct Run<'a, 'b> {
    pub(super) image: &'a SourceImage,
    pub(super) time_us: u64,
    pub(super) gap: u32,
    pub(super) pages: &'a mut usize,
    pub(super) max_pages: usize,
    pub(super) applied: &'a mut Applied,
    pub(super) touched: &'a mut TouchedGroups,
    pub(super) ahead: &'a mut [Option<Box<Ahead>>; PAGES],
    /// Number of the source, and pages that are behind their `ahead`.
    pub(super) place: usize,
    pub(super) unsettled: &'a mut Vec<(usize, usize)>,
    /// Where stretches wait, if they may.
    pub(super) waiting: Option<&'a mut Waiting<'b>>,
}

impl<'a, 'b> Run<'a, 'b> {
    #[inline]
    pub(super) fn set(&mut self, packet: &PacketRef<'b>) {
        let (mut control, mut data) = (packet.control, packet.data);
        let mut at = PAGES;
        let mut page = None;
        while let Some((offset, value)) = control.first_chunk::<2>().zip(data.first_chunk::<2>()) {
            let offset = u16::from_le_bytes(*offset);
            let number = usize::from(offset) / PAGE_REGISTERS;
            if number != at {
                at = number;
                page = self.page(number);
            }
            // Diffs are often runs with gaps: four neighbours that share a word cost little more than one register.
            let four = control.first_chunk::<8>().zip(data.first_chunk::<8>());
            let four = four.filter(|(offsets, _)| {
                offset.is_multiple_of(4) && u64::from_le_bytes(**offsets) == four_from(offset)
            });
            if four.is_some() {
                let run = run_bytes(control);
                if run >= 2 * MIN_RUN {
                    let (part, after) = data.split_at(run.min(data.len()));
                    self.set_run(usize::from(offset), part);
                    (control, data) = (control.get(run..).unwrap_or_default(), after);
                    continue;
                }
            }
            let taken = if four.is_some() { 4 } else { 1 };
            (control, data) = (past(control, taken), past(data, taken));
            self.touched[number % PAGES] |= 1 << (usize::from(offset) % PAGE_REGISTERS / GROUP);
            let Some((page, doubted)) = page else {
                self.applied.refused += taken;
                continue;
            };
            let slot = usize::from(offset) % PAGE_REGISTERS;
            self.set_waiting(number, page);
            if let Some(ahead) = &mut self.ahead[number % PAGES] {
                ahead.forget(page, slot);
            }
            self.applied.changed += match four {
                Some((_, values)) => page.set_four(slot, u64::from_le_bytes(*values), self.time_us),
                None => u32::from(page.set(slot, u16::from_le_bytes(*value), self.time_us)),
            };
            if doubted {
                (slot..slot + taken as usize).for_each(|slot| page.trust(slot));
            }
        }
    }

    /// Registers from `first` on, none left out.
    fn set_run(&mut self, first: usize, data: &'b [u8]) {
        let mut offset = first;
        let mut rest = data;
        while !rest.is_empty() {
            let here = (PAGE_REGISTERS - offset % PAGE_REGISTERS).min(rest.len() / 2);
            let (part, after) = rest.split_at(2 * here);
            mark_bits(
                self.touched,
                offset / GROUP..(offset + here).div_ceil(GROUP),
            );
            match self.page(offset / PAGE_REGISTERS) {
                Some((page, doubted)) => self.set_in_page(page, doubted, offset, part),
                None => self.applied.refused += u32::try_from(here).unwrap_or(u32::MAX),
            }
            offset += here;
            rest = after;
        }
    }

    fn set_in_page(&mut self, page: &Page, doubted: bool, offset: usize, data: &'b [u8]) {
        let (number, slot) = (offset / PAGE_REGISTERS % PAGES, offset % PAGE_REGISTERS);
        let ahead = self.ahead[number].get_or_insert_with(|| Box::new(Ahead::new()));
        if !doubted
            && let Some(waiting) = &mut self.waiting
            && ahead.may_wait()
            && waiting.add(self.place, number, slot, data, self.time_us)
        {
            return;
        }
        self.set_waiting(number, page);
        let ahead = self.ahead[number].get_or_insert_with(|| Box::new(Ahead::new()));
        let settled = !ahead.is_unsettled();
        self.applied.changed += ahead.set(page, slot, data, self.time_us);
        if doubted {
            // Only what is in the page is beyond doubt.
            ahead.settle(page);
            page.trust_range(slot..slot + data.len() / 2);
        }
        if settled && ahead.is_unsettled() {
            self.unsettled.push((self.place, number));
        }
    }

    /// The page, and whether some of its registers are in doubt.
    fn page(&mut self, number: usize) -> Option<(&'a Page, bool)> {
        let slot = self.image.slot(number)?;
        let page = match slot.get() {
            Some(page) => page,
            None => {
                if *self.pages >= self.max_pages {
                    return None;
                }
                *self.pages += 1;
                slot.get_or_init(|| Box::new(Page::new(self.gap)))
            }
        };
        if page.is_before(self.gap) {
            self.set_waiting(number, page);
            // What is known now is in doubt.
            if let Some(ahead) = &mut self.ahead[number % PAGES] {
                ahead.settle(page);
            }
            page.doubt(self.gap);
        }
        Some((page, page.any_doubted()))
    }

    /// What waits for a page is set, before what comes later.
    #[inline(always)]
    fn set_waiting(&mut self, number: usize, page: &Page) {
        if let Some(waiting) = &mut self.waiting
            && !waiting.is_empty()
            && let Some(which) = waiting.take(self.place, number)
            && let Some(ahead) = &mut self.ahead[number % PAGES]
        {
            ahead.set_waiting(page, waiting, &which);
            if ahead.is_unsettled() {
                self.unsettled.push((self.place, number));
            }
        }
    }

    pub(super) fn forget_all_but(&mut self, packet: &PacketRef<'_>) {
        // What is not listed becomes unknown.
        self.touched.fill(u64::MAX);
        let mut listed = [0_u64; PAGES * PAGE_WORDS];
        for (first, values) in packet.runs() {
            let first = usize::from(first);
            mark_bits(&mut listed, first..first + values.len() / 2);
        }
        for (number, listed) in listed.as_chunks::<PAGE_WORDS>().0.iter().enumerate() {
            if let Some(page) = self.image.page(number) {
                self.set_waiting(number, page);
                if let Some(ahead) = &mut self.ahead[number % PAGES] {
                    ahead.forget_all(page);
                }
                page.keep_known(listed);
                page.trust_all(self.gap);
            }
        }
        self.image.trust();
    }
}

/// What is behind `count` registers.
#[inline(always)]
fn past(bytes: &[u8], count: u32) -> &[u8] {
    bytes.get(2 * count as usize..).unwrap_or_default()
}
