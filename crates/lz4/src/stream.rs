//! Linked blocks: each may refer to the 64 KiB of plaintext before it.
//!
//! The C library keeps addresses of that plaintext, so it lives in a buffer that this type owns and does not
//! move while it is referred to: rows are copied behind each other; when the buffer is full the last 64 KiB go
//! to its start.

use std::os::raw::{c_char, c_int};

use crate::{DamagedBlock, Effort, WINDOW_BYTES, bound, ffi, table};

/// Room for new plaintext before the window is moved to the front.
const BUFFER_BYTES: usize = 4 * WINDOW_BYTES;

/// Compresses blocks that share a history. Only the fast method.
pub struct StreamEncoder {
    state: Vec<u64>,
    /// Plaintext: `filled` bytes, of which the last 64 KiB are the history.
    plain: Vec<u8>,
}

impl Default for StreamEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamEncoder {
    /// An encoder without history.
    #[must_use]
    pub fn new() -> Self {
        let bytes = ffi::sizes().0;
        let mut state = Vec::new();
        let pointer = table(&mut state, bytes);
        // SAFETY: `pointer` has `bytes` = LZ4_sizeofState() = sizeof(LZ4_stream_t) bytes, aligned to 8.
        unsafe { ffi::LZ4_initStream(pointer, bytes) };
        Self {
            state,
            plain: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    /// Forget the history.
    pub fn reset(&mut self) {
        self.plain.clear();
        // SAFETY: the state was initialised in `new` and belongs to `self`.
        unsafe { ffi::LZ4_resetStream_fast(self.state.as_mut_ptr().cast()) };
    }

    /// Start with this history (its last 64 KiB), as if it had been compressed.
    pub fn set_history(&mut self, history: &[u8]) {
        self.reset();
        let from = history.len().saturating_sub(WINDOW_BYTES);
        self.plain
            .extend_from_slice(history.get(from..).unwrap_or_default());
        let bytes = c_int::try_from(self.plain.len()).unwrap_or(0);
        // SAFETY: `plain` holds `bytes` initialised bytes and is neither moved nor changed there before the next
        // reset or `make_room`, which tells the library.
        unsafe {
            ffi::LZ4_loadDict(
                self.state.as_mut_ptr().cast(),
                self.plain.as_ptr().cast(),
                bytes,
            )
        };
    }

    /// The plaintext that the next block may refer to.
    #[must_use]
    pub fn history(&self) -> &[u8] {
        let from = self.plain.len().saturating_sub(WINDOW_BYTES);
        self.plain.get(from..).unwrap_or_default()
    }

    /// Append the block of `input` to `out`; returns its length. High effort is taken as acceleration 1.
    ///
    /// # Errors
    ///
    /// [`DamagedBlock`] if the input is over the C library's limit of 2 GB; nothing is appended then.
    pub fn compress(
        &mut self,
        input: &[u8],
        effort: Effort,
        out: &mut Vec<u8>,
    ) -> Result<usize, DamagedBlock> {
        let acceleration = match effort {
            Effort::Fast { acceleration } => acceleration,
            Effort::High { .. } => 1,
        };
        let worst = bound(input.len());
        let (Ok(bytes), Ok(room)) = (c_int::try_from(input.len()), c_int::try_from(worst)) else {
            return Err(DamagedBlock);
        };
        if input.is_empty() {
            crate::literal_block(input, out);
            return Ok(1);
        }
        self.make_room(input.len());
        let at = self.plain.len();
        self.plain.extend_from_slice(input);
        let start = out.len();
        out.reserve(worst);
        let to = out.spare_capacity_mut().as_mut_ptr().cast::<c_char>();
        // SAFETY: the input lies at `at` in `plain`, which `make_room` made large enough not to move here, and stays
        // there together with the 64 KiB before it until the next `make_room` or `reset`. `to` has `worst` >= `room`
        // writable bytes, which is the library's own bound.
        let written = unsafe {
            let from = self.plain.as_ptr().add(at).cast::<c_char>();
            ffi::LZ4_compress_fast_continue(
                self.state.as_mut_ptr().cast(),
                from,
                to,
                bytes,
                room,
                acceleration,
            )
        };
        let written = usize::try_from(written)
            .ok()
            .filter(|written| *written > 0)
            .ok_or(DamagedBlock)?;
        // SAFETY: the library has initialised `written` <= `worst` bytes of the spare capacity.
        unsafe { out.set_len(start + written) };
        Ok(written)
    }

    /// Make room for `bytes` more, moving the history to the front of the same or of a larger buffer.
    fn make_room(&mut self, bytes: usize) {
        if self.plain.len() + bytes <= self.plain.capacity() {
            return;
        }
        let kept = self.history().len();
        let capacity = self.plain.capacity();
        if kept + bytes <= capacity {
            let from = self.plain.len() - kept;
            if from == 0 {
                return;
            }
            // SAFETY: LZ4_saveDict moves (memmove) the last `kept` bytes of its history, which end at `plain`'s end, to
            // the front of `plain`, an area of `kept` <= capacity bytes, and refers to them there from now on.
            let saved = unsafe {
                let size = c_int::try_from(kept).unwrap_or(0);
                ffi::LZ4_saveDict(
                    self.state.as_mut_ptr().cast(),
                    self.plain.as_mut_ptr().cast(),
                    size,
                )
            };
            // The library keeps less only if it has less; then the bytes in front are its whole history.
            self.plain
                .truncate(usize::try_from(saved).unwrap_or(0).min(kept));
            return;
        }
        let mut larger: Vec<u8> = Vec::with_capacity(WINDOW_BYTES + 2 * bytes.max(WINDOW_BYTES));
        larger.extend_from_slice(self.history());
        // SAFETY: the library copies its last `kept` bytes over the equal ones at the front of `larger` and refers to
        // them there from now on; moving the `Vec` below does not move its buffer.
        let saved = unsafe {
            let size = c_int::try_from(kept).unwrap_or(0);
            ffi::LZ4_saveDict(
                self.state.as_mut_ptr().cast(),
                larger.as_mut_ptr().cast(),
                size,
            )
        };
        larger.truncate(usize::try_from(saved).unwrap_or(0).min(kept));
        self.plain = larger;
    }
}
