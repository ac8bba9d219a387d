//! Large anonymous memory, present before it is used.

use std::{io, ptr::NonNull};

/// A huge page on x86-64, and on aarch64 with 4 KiB base pages.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Zeroed memory of fixed size, touched when it is made and given back when dropped.
///
/// On Linux it is one anonymous mapping aligned to huge pages, which are asked for (`MADV_HUGEPAGE`); whether they
/// are granted is the system's choice and changes speed only. Elsewhere, and under Miri, it comes from the allocator.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the region owns its memory and hands out nothing but a pointer; whoever reads or writes through that
// answers for it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a region of `bytes` bytes.
    ///
    /// # Errors
    /// `InvalidInput` for 0 bytes or more than can be addressed; `OutOfMemory` or what the system said.
    pub fn new(bytes: usize) -> io::Result<Self> {
        if bytes == 0 || bytes > isize::MAX.unsigned_abs() - 2 * HUGE_PAGE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cannot make a region of {bytes} bytes"),
            ));
        }
        Ok(Self {
            start: imp::map(bytes)?,
            bytes,
        })
    }

    /// The first byte. Valid for reads and writes of [`bytes`](Self::bytes) bytes while the region lives.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The size asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Bytes of memory that can be had without taking them from others; `None` where the system does not tell.
pub fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `start` and `bytes` are those of `map`, and nobody uses them after the drop.
        unsafe { imp::unmap(self.start, self.bytes) }
    }
}

#[cfg(all(target_os = "linux", not(any(miri, tapeline_portable))))]
mod imp {
    use std::{io, ptr, ptr::NonNull};

    use super::HUGE_PAGE_BYTES;

    fn rounded(bytes: usize) -> usize {
        if bytes >= HUGE_PAGE_BYTES {
            bytes.next_multiple_of(HUGE_PAGE_BYTES)
        } else {
            bytes.next_multiple_of(4096)
        }
    }

    pub(super) fn map(bytes: usize) -> io::Result<NonNull<u8>> {
        let bytes = rounded(bytes);
        // Mapped with room to align by hand: kernels before 6.7 do not align anonymous mappings to huge pages.
        let slack = if bytes >= HUGE_PAGE_BYTES {
            HUGE_PAGE_BYTES
        } else {
            0
        };
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes + slack,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = base.cast::<u8>();
        let lead = if slack == 0 {
            0
        } else {
            base.align_offset(HUGE_PAGE_BYTES)
        };
        // SAFETY: both cuts lie inside the mapping just made: `lead < slack`, and what is left has `bytes` bytes.
        let start = unsafe {
            let start = base.add(lead);
            if lead > 0 {
                libc::munmap(base.cast(), lead);
            }
            if slack > lead {
                libc::munmap(start.add(bytes).cast(), slack - lead);
            }
            // Advice; refused where the kernel has no huge pages.
            libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
            start
        };
        // SAFETY: the range is mapped, writable, ours alone and zero; writing zeros keeps it so.
        unsafe { populate(start, bytes) }?;
        NonNull::new(start).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Makes every page present.
    ///
    /// # Safety
    /// `start..start + bytes` is mapped, writable and unshared.
    unsafe fn populate(start: *mut u8, bytes: usize) -> io::Result<()> {
        // SAFETY: passed on from the caller.
        if unsafe { libc::madvise(start.cast(), bytes, libc::MADV_POPULATE_WRITE) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if matches!(
            error.raw_os_error(),
            Some(libc::ENOMEM | libc::EFAULT | libc::EHWPOISON)
        ) {
            return Err(error);
        }
        // Kernels before 5.14 lack the advice: touch a byte of each page.
        for offset in (0..bytes).step_by(4096) {
            // SAFETY: inside the range of the caller.
            unsafe { start.add(offset).write_volatile(0) };
        }
        Ok(())
    }

    pub(super) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
        // SAFETY: passed on from the caller; the size is rounded as `map` did.
        unsafe { libc::munmap(start.as_ptr().cast(), rounded(bytes)) };
    }
}

#[cfg(any(not(target_os = "linux"), miri, tapeline_portable))]
mod imp {
    use std::{
        alloc::{Layout, alloc_zeroed, dealloc},
        io,
        ptr::NonNull,
    };

    fn layout(bytes: usize) -> io::Result<Layout> {
        Layout::from_size_align(bytes, 4096).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    pub(super) fn map(bytes: usize) -> io::Result<NonNull<u8>> {
        // SAFETY: the layout is not empty: `Region::new` refuses 0 bytes.
        let start = unsafe { alloc_zeroed(layout(bytes)?) };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        if !cfg!(miri) {
            for offset in (0..bytes).step_by(4096) {
                // SAFETY: inside the allocation just made, which is zero.
                unsafe { start.as_ptr().add(offset).write_volatile(0) };
            }
        }
        Ok(start)
    }

    pub(super) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
        if let Ok(layout) = layout(bytes) {
            // SAFETY: passed on from the caller; the layout is the one of `map`.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn region_is_zeroed_writable_and_of_the_size_asked_for() {
        for bytes in [1, 4096, 5000, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 1] {
            let region = Region::new(bytes).unwrap();
            // SAFETY: the region is ours and has `bytes` bytes.
            let all =
                unsafe { std::slice::from_raw_parts_mut(region.start().as_ptr(), region.bytes()) };
            assert_eq!(all.len(), bytes);
            assert!(all.iter().all(|&byte| byte == 0));
            all.fill(0xA5);
            assert_eq!(all.last(), Some(&0xA5));
        }
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(Region::new(0).is_err());
        assert!(Region::new(usize::MAX).is_err());
    }
}
