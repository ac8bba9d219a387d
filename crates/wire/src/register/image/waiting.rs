//! Stretches of registers that wait until their batch ends.
//!
//! A source that says everything many times a second replaces each time what it said before, and readers see only what
//! became of it when the batch ends. So the stretches of a page are looked at then, the newest first: it has the last
//! values, and the one before it tells which of them are new, most often all. What is older need not be looked at.

use std::ops::Range;

use tapeline_crc::lanes::{GROUP_LANES, Group, fill};

use super::super::packet::mark_bits;
use super::ahead::Layers;
use super::page::PAGE_WORDS;

/// Pages that may have something waiting.
const MAX_PAGES: usize = 8;
/// Stretches that may wait: of all packets that come with one read, if they are not small.
const MAX_STRETCHES: usize = 1024;

/// Neighbouring registers of a page as one packet sets them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch<'b> {
    /// The first.
    pub(super) slot: usize,
    pub(super) data: &'b [u8],
    pub(super) time_us: u64,
    /// Place of the one before it of the same page.
    before: Option<usize>,
}

impl Stretch<'_> {
    fn slots(&self) -> Range<usize> {
        self.slot..self.slot + self.data.len() / 2
    }
}

/// A page of which stretches wait.
#[derive(Debug)]
pub(super) struct WaitingPage {
    /// Place of the source, and number of its page.
    pub(super) source: usize,
    pub(super) number: usize,
    newest: usize,
    /// All slots of its stretches are among these.
    slots: Range<usize>,
}

/// What waits in a batch.
#[derive(Debug)]
pub(super) struct Waiting<'b> {
    stretches: Vec<Stretch<'b>>,
    pages: Vec<WaitingPage>,
}

impl<'b> Waiting<'b> {
    pub(super) const fn new() -> Self {
        Self {
            stretches: Vec::new(),
            pages: Vec::new(),
        }
    }

    #[inline(always)]
    pub(super) const fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Registers from `slot` on, all of this page; false if there is no room for them.
    #[inline]
    pub(super) fn add(
        &mut self,
        source: usize,
        number: usize,
        slot: usize,
        data: &'b [u8],
        time_us: u64,
    ) -> bool {
        let place = self.stretches.len();
        if place == MAX_STRETCHES {
            return false;
        }
        let mut stretch = Stretch {
            slot,
            data,
            time_us,
            before: None,
        };
        let slots = stretch.slots();
        if let Some(at) = self.position(source, number) {
            let page = self.pages.get_mut(at);
            stretch.before = page.map(|page| {
                page.slots.start = page.slots.start.min(slots.start);
                page.slots.end = page.slots.end.max(slots.end);
                std::mem::replace(&mut page.newest, place)
            });
        } else if self.pages.len() < MAX_PAGES {
            self.pages.push(WaitingPage {
                source,
                number,
                newest: place,
                slots,
            });
        } else {
            return false;
        }
        self.stretches.push(stretch);
        true
    }

    /// What waits for this page, which is then nothing.
    pub(super) fn take(&mut self, source: usize, number: usize) -> Option<WaitingPage> {
        let at = self.position(source, number)?;
        Some(self.pages.swap_remove(at))
    }

    fn position(&self, source: usize, number: usize) -> Option<usize> {
        let mut pages = self.pages.iter();
        pages.position(|page| page.source == source && page.number == number)
    }

    /// As [`Self::take`], of any page.
    pub(super) fn take_any(&mut self) -> Option<WaitingPage> {
        let page = self.pages.pop();
        if page.is_none() {
            self.stretches.clear();
        }
        page
    }

    pub(super) fn newest_first(
        &self,
        page: &WaitingPage,
    ) -> impl Iterator<Item = &Stretch<'b>> + Clone + use<'_, 'b> {
        let newest = self.stretches.get(page.newest);
        std::iter::successors(newest, |stretch| self.stretches.get(stretch.before?))
    }
}

/// What the stretches of a page come to.
pub(super) struct Outcome {
    /// The last values of the listed registers; others are 0.
    pub(super) values: [Group; PAGE_WORDS],
    pub(super) listed: [u64; PAGE_WORDS],
    /// Registers that have their last value in all stretches that list them, so that it may be the one from before.
    pub(super) steady: [u64; PAGE_WORDS],
    /// When each took its value; for steady ones when the oldest stretch says so.
    pub(super) times: [Layers; PAGE_WORDS],
}

impl Outcome {
    /// None if a group's registers took their values at too many different times.
    pub(super) fn of(waiting: &Waiting<'_>, page: &WaitingPage) -> Option<Self> {
        let mut all = [0; PAGE_WORDS];
        mark_bits(&mut all, page.slots.clone());
        let mut outcome = Self {
            values: [[0; _]; _],
            listed: [0; _],
            steady: [0; _],
            times: [Layers::NONE; _],
        };
        for stretch in waiting.newest_first(page) {
            if !outcome.add_older(stretch) {
                return None;
            }
            if outcome.listed == all && outcome.steady == [0; _] {
                break;
            }
        }
        Some(outcome)
    }

    /// One that is older than all before; whether it found room.
    fn add_older(&mut self, stretch: &Stretch<'_>) -> bool {
        let slots = stretch.slots();
        let mut here = [0; PAGE_WORDS];
        mark_bits(&mut here, slots.clone());
        let groups = slots.start / GROUP_LANES..slots.end.div_ceil(GROUP_LANES).min(PAGE_WORDS);
        let mut open = groups.clone();
        if open.all(|at| here[at] & (self.steady[at] | !self.listed[at]) == 0) {
            return true;
        }
        let unlisted = self.listed.map(|listed| !listed);
        let mut differs = [0; PAGE_WORDS];
        fill(
            &mut self.values,
            stretch.slot,
            stretch.data,
            &unlisted,
            &mut differs,
        );
        for at in groups {
            let (here, differs) = (here[at], differs[at]);
            let since = here & (unlisted[at] | self.steady[at] & !differs);
            self.steady[at] = self.steady[at] & !here | since;
            self.listed[at] |= here;
            if since != 0 && !self.times[at].put(since, stretch.time_us) {
                return false;
            }
        }
        true
    }
}
