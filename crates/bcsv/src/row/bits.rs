//! Bit fields: least significant bit first, crossing bytes (format 8).

/// Eight bytes from `at` on as a little-endian number; bytes behind the end count as zero.
#[inline(always)]
pub(crate) fn load(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(eight) => u64::from_le_bytes(*eight),
        None => load_tail(bytes, at),
    }
}

#[cold]
fn load_tail(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter()
        .take(8)
        .rev()
        .fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

/// Store eight bytes at `at`. The caller keeps eight bytes of slack behind everything that it means to store.
#[inline(always)]
pub(crate) fn store(bytes: &mut [u8], at: usize, word: u64) {
    if let Some(eight) = bytes
        .get_mut(at..)
        .and_then(|rest| rest.first_chunk_mut::<8>())
    {
        *eight = word.to_le_bytes();
    }
}

/// Collects bit fields into bytes.
pub(crate) struct BitWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
    word: u64,
    used: u32,
}

impl<'a> BitWriter<'a> {
    /// Write from the start of `bytes`, which has eight bytes of slack.
    #[inline(always)]
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            word: 0,
            used: 0,
        }
    }

    /// Append `width` (at most 32) bits; the bits of `value` above them are zero.
    #[inline(always)]
    pub(crate) fn push(&mut self, value: u64, width: u32) {
        self.word |= value << self.used;
        self.used += width;
        if self.used >= 32 {
            store(self.bytes, self.at, self.word);
            self.at += 4;
            self.word >>= 32;
            self.used -= 32;
        }
    }

    /// Store what is left, padded with zeros.
    #[inline(always)]
    pub(crate) fn finish(self) {
        store(self.bytes, self.at, self.word);
    }
}

/// `width` bits (at most 32) from bit `bit` on.
#[inline(always)]
pub(crate) fn field(bytes: &[u8], bit: usize, width: u32) -> u64 {
    (load(bytes, bit / 8) >> (bit % 8)) & ((1 << width) - 1)
}
