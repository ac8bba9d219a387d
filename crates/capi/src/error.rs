//! Status codes, and the last error of the calling thread.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tapeline_bcsv::{Error, ErrorClass};

use crate::check;

/// Done.
pub const TLB_OK: i32 = 0;
/// No more batches; not an error.
pub const TLB_END: i32 = 1;
/// The bytes of the file are wrong.
pub const TLB_CORRUPT: i32 = -1;
/// Right, but of a version or codec that this library does not know, or an impossible combination of options.
pub const TLB_UNSUPPORTED: i32 = -2;
/// Columns or values do not fit the file.
pub const TLB_SCHEMA: i32 = -3;
/// The operating system refused.
pub const TLB_IO: i32 = -4;
/// A row or column number outside the file.
pub const TLB_RANGE: i32 = -5;
/// The writer was used after its end.
pub const TLB_CLOSED: i32 = -6;
/// The call itself is wrong: a null pointer, a foreign handle, a size that cannot be.
pub const TLB_MISUSE: i32 = -7;
/// A bug of this library; the handle must only be freed.
pub const TLB_INTERNAL: i32 = -8;

/// What is known about an error besides its text; UINT64_MAX where it is not known.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ErrorPlace {
    /// sizeof(tlb_error_place), set by the caller.
    pub struct_size: usize,
    /// Byte in the file.
    pub offset: u64,
    /// Packet number.
    pub packet: u64,
    /// Good rows before the fault; of a failed flush: rows that the file has.
    pub rows_before: u64,
    /// errno of the operating system, or 0.
    pub os_error: i32,
    /// Zero.
    pub reserved: i32,
}

/// Why a call fails.
pub(crate) struct Fail {
    pub status: i32,
    pub text: String,
    pub place: ErrorPlace,
}

const NOWHERE: ErrorPlace = ErrorPlace {
    struct_size: size_of::<ErrorPlace>(),
    offset: u64::MAX,
    packet: u64::MAX,
    rows_before: u64::MAX,
    os_error: 0,
    reserved: 0,
};

impl Fail {
    pub(crate) fn new(status: i32, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            place: NOWHERE,
        }
    }

    pub(crate) fn misuse(text: impl Into<String>) -> Self {
        Self::new(TLB_MISUSE, text)
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        let status = match error.class() {
            ErrorClass::Corrupt => TLB_CORRUPT,
            ErrorClass::Unsupported => TLB_UNSUPPORTED,
            ErrorClass::Schema => TLB_SCHEMA,
            ErrorClass::Io => TLB_IO,
            ErrorClass::OutOfRange => TLB_RANGE,
            ErrorClass::Closed => TLB_CLOSED,
            _ => TLB_INTERNAL,
        };
        Self {
            status,
            text: error.to_string(),
            place: ErrorPlace {
                offset: error.offset().unwrap_or(u64::MAX),
                packet: error.packet().unwrap_or(u64::MAX),
                rows_before: error.rows_before().unwrap_or(u64::MAX),
                os_error: error
                    .io_error()
                    .and_then(std::io::Error::raw_os_error)
                    .unwrap_or(0),
                ..NOWHERE
            },
        }
    }
}

thread_local! {
    static LAST: RefCell<(Option<CString>, ErrorPlace)> = const { RefCell::new((None, NOWHERE)) };
}

/// Run a call: its status, the error noted, panics caught.
pub(crate) fn guard(call: impl FnOnce() -> Result<i32, Fail>) -> i32 {
    // A handle that a panic left half changed may only be freed, as the header says of TLB_INTERNAL.
    let outcome = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err(Fail::new(
            TLB_INTERNAL,
            "a bug of this library: please report it; only free the handle",
        ))
    });
    outcome.unwrap_or_else(|fail| {
        let text = CString::new(fail.text.replace('\0', "?")).ok();
        LAST.with_borrow_mut(|last| *last = (text, fail.place));
        fail.status
    })
}

/// Text of the last error of this thread, UTF-8, in one line; empty if there was none. Valid until the next error of this
/// thread. Calls that succeed leave it.
#[unsafe(no_mangle)]
pub extern "C" fn tlb_last_error() -> *const c_char {
    LAST.with_borrow(|last| last.0.as_ref().map_or(c"".as_ptr(), |text| text.as_ptr()))
}

/// Place of the last error of this thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_last_error_place(place: *mut ErrorPlace) -> i32 {
    guard(|| {
        let found = LAST.with_borrow(|last| last.1);
        // SAFETY: `place` is null or a structure whose first word is its size (contract in lib.rs).
        unsafe { check::fill_struct(place, found) }
    })
}

/// Version of this library, as "1.2.3".
#[unsafe(no_mangle)]
pub extern "C" fn tlb_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
