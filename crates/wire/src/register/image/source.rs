//! The registers of one source.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::super::packet::Source;
use super::page::{PAGE_REGISTERS, PAGE_WORDS, Page, lane};

/// Pages of a source.
pub(super) const PAGES: usize = 65_536 / PAGE_REGISTERS;
/// No moment.
const NEVER: u64 = u64::MAX;
/// No number: those of packets are bytes.
const NO_SEQ: u32 = u32::MAX;

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterState {
    /// Its value.
    pub value: u16,
    /// When it took that value: the packet's time, in microseconds since the UNIX epoch.
    pub changed_us: u64,
    /// A packet that may have set it was lost and nothing has set it since; the value is of this
    /// time or earlier.
    pub unknown_since_us: Option<u64>,
}

/// The registers of one source, as readers see them.
#[derive(Debug)]
pub struct SourceImage {
    source: Source,
    pages: [OnceLock<Box<Page>>; PAGES],
    last_us: AtomicU64,
    /// Number up to which its packets came; [`NO_SEQ`] before the first.
    last_seq: AtomicU32,
    gaps: AtomicU32,
    unknown_since_us: AtomicU64,
}

impl SourceImage {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            pages: [const { OnceLock::new() }; _],
            last_us: AtomicU64::new(0),
            last_seq: AtomicU32::new(NO_SEQ),
            gaps: AtomicU32::new(0),
            unknown_since_us: AtomicU64::new(NEVER),
        }
    }

    /// Whose registers these are.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Time of the last DIFF or FULL, in microseconds since the UNIX epoch.
    #[must_use]
    pub fn last_us(&self) -> u64 {
        self.last_us.load(Relaxed)
    }

    /// Number up to which its packets came, counted around the circle of 256; None on the simple wire.
    #[must_use]
    pub fn last_seq(&self) -> Option<u8> {
        u8::try_from(self.last_seq.load(Relaxed)).ok()
    }

    /// The register at `offset`; None if it is not known.
    #[must_use]
    pub fn get(&self, offset: u16) -> Option<RegisterState> {
        let slot = usize::from(offset) % PAGE_REGISTERS;
        let page = self.page(usize::from(offset) / PAGE_REGISTERS)?;
        let bit = 1_u64 << (slot % 64);
        if page.known[slot / 64].load(Acquire) & bit == 0 {
            return None;
        }
        let value = lane(page.values[slot / 4].load(Acquire), slot);
        let changed_us = page.changed_us(slot);
        let doubted = page.gap.load(Acquire) != self.gaps.load(Relaxed)
            || page.doubted[slot / 64].load(Relaxed) & bit != 0;
        Some(RegisterState {
            value,
            changed_us,
            unknown_since_us: doubted.then(|| self.unknown_since_us.load(Relaxed)),
        })
    }

    /// The known registers with their values, by offset.
    #[must_use]
    pub fn registers(&self) -> Vec<(u16, u16)> {
        let mut all = Vec::new();
        self.for_each_known(|offset, page, slot| {
            all.push((offset, lane(page.values[slot / 4].load(Acquire), slot)));
        });
        all
    }

    /// The known registers with values and times, by offset.
    #[must_use]
    pub fn states(&self) -> Vec<(u16, RegisterState)> {
        let mut all = Vec::new();
        self.for_each_known(|offset, _, _| {
            if let Some(state) = self.get(offset) {
                all.push((offset, state));
            }
        });
        all
    }

    /// How many registers are known.
    #[must_use]
    pub fn known(&self) -> u32 {
        let pages = self.pages.iter().filter_map(OnceLock::get);
        pages
            .flat_map(|page| &page.known)
            .map(|word| word.load(Relaxed).count_ones())
            .sum()
    }

    /// A packet came: up to its number, and of its time.
    #[inline]
    pub(super) fn arrived(&self, seq: Option<u8>, time_us: u64, missed: bool) {
        if let Some(seq) = seq {
            self.last_seq.store(u32::from(seq), Relaxed);
        }
        if missed {
            self.doubt();
        }
        self.last_us.store(time_us, Relaxed);
    }

    /// Packets were lost: what was known until now may have changed since the last one.
    #[cold]
    fn doubt(&self) {
        let since = self.last_us().min(self.unknown_since_us.load(Relaxed));
        self.unknown_since_us.store(since, Relaxed);
        let gaps = self.gaps().wrapping_add(1);
        self.gaps.store(gaps, Release);
    }

    /// A FULL came: nothing is in doubt any more.
    pub(super) fn trust(&self) {
        self.unknown_since_us.store(NEVER, Relaxed);
    }

    /// Number of the last gap in the sequence.
    pub(super) fn gaps(&self) -> u32 {
        self.gaps.load(Relaxed)
    }

    pub(super) fn slot(&self, number: usize) -> Option<&OnceLock<Box<Page>>> {
        self.pages.get(number)
    }

    pub(super) fn page(&self, number: usize) -> Option<&Page> {
        self.pages.get(number)?.get().map(Box::as_ref)
    }

    pub(super) fn doubted_now(&self, page: &Page) -> [u64; PAGE_WORDS] {
        let from = if page.gap.load(Acquire) == self.gaps.load(Relaxed) {
            &page.doubted
        } else {
            &page.known
        };
        std::array::from_fn(|word| from[word].load(Relaxed))
    }

    pub(super) fn unknown_since_us(&self) -> Option<u64> {
        Some(self.unknown_since_us.load(Relaxed)).filter(|&us| us != NEVER)
    }

    fn for_each_known(&self, mut visit: impl FnMut(u16, &Page, usize)) {
        for (number, page) in self.pages.iter().enumerate() {
            let Some(page) = page.get() else { continue };
            for (word, known) in page.known.iter().enumerate() {
                let mut left = known.load(Acquire);
                while left != 0 {
                    let slot = word * 64 + left.trailing_zeros() as usize;
                    left &= left - 1;
                    if let Ok(offset) = u16::try_from(number * PAGE_REGISTERS + slot) {
                        visit(offset, page, slot);
                    }
                }
            }
        }
    }
}

/// A source out of an image file.
pub(super) struct Restored {
    pub(super) source: Source,
    pub(super) last_us: u64,
    pub(super) last_seq: Option<u8>,
    pub(super) unknown_since_us: Option<u64>,
    pub(super) pages: Vec<(usize, Box<Page>)>,
}

impl Restored {
    pub(super) fn into_image(self) -> SourceImage {
        let image = SourceImage::new(self.source);
        image.last_us.store(self.last_us, Relaxed);
        let since = self.unknown_since_us.unwrap_or(NEVER);
        image.unknown_since_us.store(since, Relaxed);
        let seq = self.last_seq.map_or(NO_SEQ, u32::from);
        image.last_seq.store(seq, Relaxed);
        for (number, page) in self.pages {
            if let Some(slot) = image.pages.get(number) {
                slot.set(page).ok();
            }
        }
        image
    }
}
