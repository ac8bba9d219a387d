//! What is used of the C library, declared here because the bindings crate omits half of it.

use std::os::raw::{c_char, c_int, c_void};

// Links the library.
use lz4_sys as _;

unsafe extern "C" {
    pub(crate) fn LZ4_sizeofState() -> c_int;
    pub(crate) fn LZ4_sizeofStateHC() -> c_int;
    pub(crate) fn LZ4_compress_fast_extState(
        state: *mut c_void,
        source: *const c_char,
        target: *mut c_char,
        source_bytes: c_int,
        target_bytes: c_int,
        acceleration: c_int,
    ) -> c_int;
    pub(crate) fn LZ4_compress_HC_extStateHC(
        state: *mut c_void,
        source: *const c_char,
        target: *mut c_char,
        source_bytes: c_int,
        target_bytes: c_int,
        level: c_int,
    ) -> c_int;
    pub(crate) fn LZ4_initStream(buffer: *mut c_void, bytes: usize) -> *mut c_void;
    pub(crate) fn LZ4_resetStream_fast(stream: *mut c_void);
    pub(crate) fn LZ4_loadDict(
        stream: *mut c_void,
        dictionary: *const c_char,
        bytes: c_int,
    ) -> c_int;
    pub(crate) fn LZ4_saveDict(stream: *mut c_void, buffer: *mut c_char, bytes: c_int) -> c_int;
    pub(crate) fn LZ4_compress_fast_continue(
        stream: *mut c_void,
        source: *const c_char,
        target: *mut c_char,
        source_bytes: c_int,
        target_bytes: c_int,
        acceleration: c_int,
    ) -> c_int;
    pub(crate) fn LZ4_decompress_safe_usingDict(
        source: *const c_char,
        target: *mut c_char,
        source_bytes: c_int,
        target_bytes: c_int,
        dictionary: *const c_char,
        dictionary_bytes: c_int,
    ) -> c_int;
}

/// Bytes of the tables of the fast and of the thorough method.
pub(crate) fn sizes() -> (usize, usize) {
    // SAFETY: pure functions without arguments.
    let (fast, high) = unsafe { (LZ4_sizeofState(), LZ4_sizeofStateHC()) };
    (
        usize::try_from(fast).unwrap_or(0),
        usize::try_from(high).unwrap_or(0),
    )
}
