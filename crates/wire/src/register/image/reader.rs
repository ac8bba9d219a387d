//! The image, for threads that only read it.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::Xxh3;

use super::super::packet::Source;
use super::source::SourceImage;

#[derive(Debug)]
struct Shared {
    slots: Box<[OnceLock<Arc<SourceImage>>]>,
    used: AtomicUsize,
}

/// Reads an image while another thread writes it.
#[derive(Clone, Debug)]
pub struct ImageReader(Arc<Shared>);

impl ImageReader {
    pub(super) fn new(max_sources: usize) -> Self {
        Self(Arc::new(Shared {
            slots: (0..max_sources).map(|_| OnceLock::new()).collect(),
            used: AtomicUsize::new(0),
        }))
    }

    /// Shows readers a source more; None if there is no place left for it.
    pub(super) fn publish(&self, place: usize, image: Arc<SourceImage>) -> Option<()> {
        self.0.slots.get(place)?.set(image).ok()?;
        self.0.used.store(place + 1, Release);
        Some(())
    }

    /// The sources, sorted by type and number.
    #[must_use]
    pub fn sources(&self) -> Vec<Arc<SourceImage>> {
        let used = self.0.used.load(Acquire);
        let slots = self.0.slots.iter().take(used);
        let mut all: Vec<_> = slots.filter_map(|s| s.get().cloned()).collect();
        all.sort_unstable_by_key(|s| s.source());
        all
    }

    /// One source.
    #[must_use]
    pub fn source(&self, source: Source) -> Option<Arc<SourceImage>> {
        let used = self.0.used.load(Acquire);
        let mut slots = self.0.slots.iter().take(used).filter_map(OnceLock::get);
        slots.find(|s| s.source() == source).cloned()
    }

    /// XXH3-128 over what is known, 32 hexadecimal digits: for each source with a known register, sorted by
    /// type and number, `type u8, src_id i32`, then `offset u16, value u16` of its known registers by
    /// offset, little-endian.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Xxh3::new();
        let mut bytes = Vec::new();
        for source in self.sources() {
            let registers = source.registers();
            if registers.is_empty() {
                continue;
            }
            bytes.clear();
            bytes.push(source.source().kind as u8);
            bytes.extend_from_slice(&source.source().id.to_le_bytes());
            for (offset, value) in registers {
                bytes.extend_from_slice(&offset.to_le_bytes());
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            hash.update(&bytes);
        }
        format!("{:032x}", hash.digest128())
    }
}
