//! Pointers from C: every dereference of one is here or argued where it is.

use std::ffi::{CStr, c_char};

use crate::error::{Fail, TLB_OK, TLB_UNSUPPORTED};

/// A type that C holds a pointer to; its first field is the tag.
pub(crate) trait Handle {
    const TAG: u64;
    const NAME: &'static str;
}

/// # Safety
///
/// `handle` is null or points to a live handle of this library, of any kind, that nobody changes meanwhile.
pub(crate) unsafe fn shared<'a, T: Handle>(handle: *const T) -> Result<&'a T, Fail> {
    // SAFETY: every handle starts with its tag (`repr(C)`), so eight bytes can be read whatever its kind.
    if handle.is_null() || !handle.is_aligned() || unsafe { handle.cast::<u64>().read() } != T::TAG
    {
        return Err(Fail::misuse(format!("this is no {}", T::NAME)));
    }
    // SAFETY: the tag says that it is a T, and the caller that it is alive.
    Ok(unsafe { &*handle })
}

/// # Safety
///
/// As [`shared`], and nobody else uses it meanwhile.
pub(crate) unsafe fn unique<'a, T: Handle>(handle: *mut T) -> Result<&'a mut T, Fail> {
    // SAFETY: the caller's promise is the same.
    unsafe { shared(handle.cast_const()) }?;
    // SAFETY: checked above, and the caller promises that it is the only one.
    Ok(unsafe { &mut *handle })
}

/// # Safety
///
/// `handle` is null or was returned by [`give`] and not freed; nobody uses it again.
pub(crate) unsafe fn free<T: Handle>(handle: *mut T) -> Result<i32, Fail> {
    if !handle.is_null() {
        // SAFETY: as promised by the caller.
        unsafe {
            unique(handle)?;
            // A stale pointer is then refused as long as its memory is not used again.
            handle.cast::<u64>().write(0);
            drop(Box::from_raw(handle));
        }
    }
    Ok(TLB_OK)
}

/// # Safety
///
/// `out` is null or valid for a pointer.
pub(crate) unsafe fn give<T>(
    out: *mut *mut T,
    make: impl FnOnce() -> Result<T, Fail>,
) -> Result<i32, Fail> {
    // SAFETY: as promised by the caller; the slot is nulled so that a failed call leaves nothing to free.
    unsafe { put(out, std::ptr::null_mut()) }?;
    let made = Box::into_raw(Box::new(make()?));
    // SAFETY: as above.
    unsafe { put(out, made) }
}

/// # Safety
///
/// `out` is null or valid for a value.
pub(crate) unsafe fn put<T>(out: *mut T, value: T) -> Result<i32, Fail> {
    if out.is_null() || !out.is_aligned() {
        return Err(Fail::misuse("where the answer goes is null or not aligned"));
    }
    // SAFETY: as promised by the caller.
    unsafe { out.write(value) };
    Ok(TLB_OK)
}

/// # Safety
///
/// `text` is null or ends with NUL.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Fail> {
    if text.is_null() {
        return Err(Fail::misuse(format!("{what} is null")));
    }
    // SAFETY: not null, and NUL-terminated as promised by the caller.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map_err(|_| Fail::misuse(format!("{what} is not UTF-8")))
}

/// # Safety
///
/// `values` is null (with no items) or valid for `items` of them.
pub(crate) unsafe fn slice<'a, T>(
    values: *const T,
    items: usize,
    what: &str,
) -> Result<&'a [T], Fail> {
    if items == 0 {
        return Ok(&[]);
    }
    let bytes = items.checked_mul(size_of::<T>());
    if values.is_null()
        || !values.is_aligned()
        || bytes.is_none_or(|bytes| bytes > isize::MAX.cast_unsigned())
    {
        return Err(Fail::misuse(format!(
            "{what}: null, not aligned or impossibly long"
        )));
    }
    // SAFETY: not null, aligned, of possible size; valid as promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts(values, items) })
}

/// Read a structure that starts with its size; `None` for null.
///
/// # Safety
///
/// `from` is null or valid for the number of bytes that its first word states. `T` is plain numbers and pointers, for
/// which any bytes are a value.
pub(crate) unsafe fn read_struct<T: Copy>(from: *const T) -> Result<Option<T>, Fail> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: the first word is the size.
    let bytes = unsafe { from.cast::<usize>().read_unaligned() };
    check_size::<T>(bytes)?;
    // SAFETY: valid for `bytes`, as promised by the caller.
    let rest = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) };
    if rest
        .get(size_of::<T>()..)
        .is_some_and(|rest| rest.iter().any(|byte| *byte != 0))
    {
        return Err(Fail::new(
            TLB_UNSUPPORTED,
            "an option of a newer version of the library is set",
        ));
    }
    // SAFETY: at least as long as T (checked), any bytes are a T.
    Ok(Some(unsafe { from.read_unaligned() }))
}

/// Fill a structure of the caller's whose first word is its size, which stays.
///
/// # Safety
///
/// As [`read_struct`], valid for writing.
pub(crate) unsafe fn fill_struct<T: Copy>(to: *mut T, value: T) -> Result<i32, Fail> {
    if to.is_null() {
        return Err(Fail::misuse("where the answer goes is null"));
    }
    // SAFETY: the first word is the size, and the structure is at least as long as T once that is checked.
    unsafe {
        let bytes = to.cast::<usize>().read_unaligned();
        check_size::<T>(bytes)?;
        to.write_unaligned(value);
        to.cast::<usize>().write_unaligned(bytes);
    }
    Ok(TLB_OK)
}

fn check_size<T>(bytes: usize) -> Result<(), Fail> {
    if (size_of::<T>()..=4096).contains(&bytes) {
        return Ok(());
    }
    Err(Fail::misuse(format!(
        "struct_size is {bytes}, at least {} is needed: use the structure's init function or sizeof",
        size_of::<T>()
    )))
}
