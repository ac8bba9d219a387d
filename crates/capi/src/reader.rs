//! Reading.

use std::ffi::{CString, c_char};

use tapeline_bcsv::{
    Batch as Rows, Batches, Limits, OnCorrupt, ReadOptions as Options, Reader as File,
    Result as BcsvResult, Selection,
};

use crate::batch::Batch;
use crate::check::{self, Handle};
use crate::error::{Fail, TLB_END, TLB_OK, TLB_RANGE, guard};

/// How to read a file. Zero is the default of every field but struct_size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ReadOptions {
    /// sizeof(tlb_read_options), set by the caller.
    pub struct_size: usize,
    /// 1: give every row whose checksum holds, tlb_reader_gaps lists the others. 0: an error after the rows before.
    pub skip_corrupt: u32,
    /// 1: the file may still be written; see tlb_reader_poll.
    pub follow: u32,
}

/// A file open for reading; may be used by several threads at once: `tlb_reader`.
#[repr(C)]
pub struct Reader {
    tag: u64,
    file: File,
    names: Vec<CString>,
}

/// Rows being read, batch by batch; of one thread at a time: `tlb_scan`.
#[repr(C)]
pub struct Scan {
    tag: u64,
    rows: Source,
}

enum Source {
    Lazy(Box<Batches>),
    Ready(std::vec::IntoIter<Rows>),
}

impl Source {
    fn next(&mut self) -> Option<BcsvResult<Rows>> {
        match self {
            Self::Lazy(batches) => batches.next(),
            Self::Ready(batches) => batches.next().map(Ok),
        }
    }
}

impl Handle for Reader {
    const TAG: u64 = 0x746c_625f_7265_6164;
    const NAME: &'static str = "reader";
}

impl Handle for Scan {
    const TAG: u64 = 0x746c_625f_7363_616e;
    const NAME: &'static str = "scan";
}

/// Open a file; `options` may be null. Free the reader with tlb_reader_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_open(
    path: *const c_char,
    options: *const ReadOptions,
    reader: *mut *mut Reader,
) -> i32 {
    let make = || {
        // SAFETY: the contract of lib.rs.
        let (path, given) = unsafe { (check::text(path, "path")?, check::read_struct(options)?) };
        let file = File::open(
            path,
            Options {
                on_corrupt: match given {
                    Some(given) if given.skip_corrupt != 0 => OnCorrupt::Skip,
                    _ => OnCorrupt::Raise,
                },
                follow: given.is_some_and(|given| given.follow != 0),
                limits: Limits::default(),
                any_flags: false,
            },
        )?;
        let names = file.schema().unique_names().into_iter();
        let names = names.map(|name| CString::new(name.replace('\0', "?")).unwrap_or_default());
        Ok(Reader {
            tag: Reader::TAG,
            names: names.collect(),
            file,
        })
    };
    // SAFETY: the contract of lib.rs.
    guard(|| unsafe { check::give(reader, make) })
}

/// Row after the last one that can be read; rows that are lost count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_rows(reader: *const Reader, rows: *mut u64) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe { check::put(rows, check::shared(reader)?.file.num_rows()?) }
    })
}

/// Number of columns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_columns(reader: *const Reader, columns: *mut usize) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe { check::put(columns, check::shared(reader)?.names.len()) }
    })
}

/// Name and type of a column; the name (UTF-8, made unique) lives as long as the reader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_column(
    reader: *const Reader,
    column: usize,
    name: *mut *const c_char,
    type_code: *mut i32,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let reader = unsafe { check::shared(reader) }?;
        let (Some(text), Some(spec)) = (
            reader.names.get(column),
            reader.file.schema().columns().get(column),
        ) else {
            return Err(no_column(reader, column));
        };
        // SAFETY: the contract of lib.rs.
        unsafe {
            check::put(name, text.as_ptr())?;
            check::put(type_code, i32::from(spec.kind.code()))
        }
    })
}

/// Number of the column of this name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_find(
    reader: *const Reader,
    name: *const c_char,
    column: *mut usize,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe {
            let name = check::text(name, "name")?;
            check::put(column, check::shared(reader)?.file.schema().index_of(name)?)
        }
    })
}

/// 1: closed and whole as far as was read, 0: cut, unclosed or damaged, -1: the format cannot tell (streams).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_complete(reader: *const Reader, complete: *mut i32) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe {
            let found = check::shared(reader)?.file.complete()?;
            check::put(complete, found.map_or(-1, i32::from))
        }
    })
}

/// Rows known to be unreadable, as ranges [start, stop): at most `capacity` are stored, `gaps` is how many there are.
/// Damage inside packets is known once they were read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_gaps(
    reader: *const Reader,
    starts: *mut u64,
    stops: *mut u64,
    capacity: usize,
    gaps: *mut usize,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let found = unsafe { check::shared(reader) }?.file.gaps()?;
        if capacity > 0 && (starts.is_null() || stops.is_null()) {
            return Err(Fail::misuse("starts or stops is null"));
        }
        for (i, (start, stop)) in found.iter().take(capacity).enumerate() {
            // SAFETY: both are valid for `capacity` values, and i is below it.
            unsafe {
                check::put(starts.add(i), *start)?;
                check::put(stops.add(i), *stop)?;
            }
        }
        // SAFETY: the contract of lib.rs.
        unsafe { check::put(gaps, found.len()) }
    })
}

/// Look for rows written since (files opened with `follow`); `closed` is 1 when the writer has finished the file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_poll(
    reader: *const Reader,
    new_rows: *mut u64,
    closed: *mut i32,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe {
            let found = check::shared(reader)?.file.poll()?;
            check::put(new_rows, found.new_rows)?;
            check::put(closed, i32::from(found.closed))
        }
    })
}

/// One row, as a batch of one. TLB_RANGE beyond the end, TLB_CORRUPT in a gap. Free the batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_row(
    reader: *const Reader,
    row: u64,
    batch: *mut *mut Batch,
) -> i32 {
    // SAFETY: the contract of lib.rs.
    let make = || Ok(Batch::new(unsafe { check::shared(reader) }?.file.row(row)?));
    // SAFETY: the contract of lib.rs.
    guard(|| unsafe { check::give(batch, make) })
}

/// Rows [start, stop) of the columns listed (null and 0: all), in batches of at most `batch_rows`; one packet is in memory
/// at a time. `stop` beyond the end is the end. Free the scan; it may outlive the reader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_scan(
    reader: *const Reader,
    columns: *const usize,
    column_count: usize,
    start: u64,
    stop: u64,
    batch_rows: usize,
    scan: *mut *mut Scan,
) -> i32 {
    let make = || {
        // SAFETY: the contract of lib.rs.
        let (reader, wanted) = unsafe { selected(reader, columns, column_count, (start, stop)) }?;
        if batch_rows == 0 {
            return Err(Fail::misuse("batch_rows is 0"));
        }
        let batches = reader.file.batches(&wanted, batch_rows)?;
        Ok(Scan {
            tag: Scan::TAG,
            rows: Source::Lazy(Box::new(batches)),
        })
    };
    // SAFETY: the contract of lib.rs.
    guard(|| unsafe { check::give(scan, make) })
}

/// As tlb_reader_scan, but everything is decoded now, packets in parallel by `threads` (0: one per core).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_read(
    reader: *const Reader,
    columns: *const usize,
    column_count: usize,
    start: u64,
    stop: u64,
    threads: usize,
    scan: *mut *mut Scan,
) -> i32 {
    let make = || {
        // SAFETY: the contract of lib.rs.
        let (reader, mut wanted) =
            unsafe { selected(reader, columns, column_count, (start, stop)) }?;
        wanted.threads = threads;
        Ok(Scan {
            tag: Scan::TAG,
            rows: Source::Ready(reader.file.read(&wanted)?.into_iter()),
        })
    };
    // SAFETY: the contract of lib.rs.
    guard(|| unsafe { check::give(scan, make) })
}

/// # Safety
///
/// The contract of lib.rs: `columns` is valid for `count` numbers.
unsafe fn selected<'a>(
    reader: *const Reader,
    columns: *const usize,
    count: usize,
    (start, stop): (u64, u64),
) -> Result<(&'a Reader, Selection), Fail> {
    // SAFETY: the caller's contract.
    let (reader, listed) = unsafe {
        (
            check::shared(reader)?,
            check::slice(columns, count, "columns")?,
        )
    };
    if let Some(column) = listed.iter().find(|column| **column >= reader.names.len()) {
        return Err(no_column(reader, *column));
    }
    let wanted = Selection {
        columns: (!columns.is_null()).then(|| listed.to_vec()),
        start,
        stop: Some(stop),
        threads: 0,
    };
    Ok((reader, wanted))
}

fn no_column(reader: &Reader, column: usize) -> Fail {
    let text = format!("column {column} of a file of {}", reader.names.len());
    Fail::new(TLB_RANGE, text)
}

/// The next batch: TLB_OK, TLB_END (and a null batch) after the last one, or an error, after which comes TLB_END.
/// Free each batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_scan_next(scan: *mut Scan, batch: *mut *mut Batch) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe {
            check::put(batch, std::ptr::null_mut())?;
            match check::unique(scan)?.rows.next() {
                None => Ok(TLB_END),
                Some(rows) => check::give(batch, || Ok(Batch::new(rows?))),
            }
        }
    })
}

/// Free a scan; null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_scan_free(scan: *mut Scan) -> i32 {
    // SAFETY: the contract of lib.rs.
    guard(|| unsafe { check::free(scan) })
}

/// Free a reader; null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_reader_free(reader: *mut Reader) -> i32 {
    // SAFETY: the contract of lib.rs.
    guard(|| unsafe { check::free(reader) })
}

/// Check every checksum, index and length: `ok` is 1 if nothing is wrong, `rows` how many rows can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_validate(path: *const c_char, ok: *mut i32, rows: *mut u64) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe {
            let report = tapeline_bcsv::validate(check::text(path, "path")?, Limits::default())?;
            check::put(ok, i32::from(report.ok))?;
            check::put(rows, report.rows_readable)
        }
    })
}

/// Write every row of `path` whose checksum holds into the new file `out`; `rows` is how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_repair(
    path: *const c_char,
    out: *const c_char,
    rows: *mut u64,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let (from, to) = unsafe { (check::text(path, "path")?, check::text(out, "out")?) };
        let report = tapeline_bcsv::repair(from, to, Limits::default())?;
        // SAFETY: the contract of lib.rs.
        unsafe { check::put(rows, report.rows_readable) }?;
        Ok(TLB_OK)
    })
}
