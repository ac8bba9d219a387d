//! Writing.

use std::ffi::c_char;
use std::time::Duration;

use tapeline_bcsv::{
    BatchView, ColumnSpec, ColumnType, ColumnView, FileCodec, FileOptions, FileWriter,
    FormatVersion, RowBuffer, RowCodec, Schema, WriteMode, WriteOptions as Format,
};

use crate::check::{self, Handle};
use crate::error::{Fail, TLB_OK, TLB_UNSUPPORTED, guard};

/// Create a file; one that exists is an error.
pub const TLB_NEW: i32 = 0;
/// Create a file, in the place of one that exists (atomically).
pub const TLB_REPLACE: i32 = 1;
/// Go on behind the rows of a file that exists, with its codecs; create it otherwise.
pub const TLB_APPEND: i32 = 2;

/// How to write a file. Zero, or null, is the default of every field but struct_size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WriteOptions {
    /// sizeof(tlb_write_options), set by the caller.
    pub struct_size: usize,
    /// "flat", "zoh" or "delta" (default).
    pub row_codec: *const c_char,
    /// "stream", "stream-lz4", "packet", "packet-lz4" or "packet-lz4-batch" (default).
    pub file_codec: *const c_char,
    /// 1 to 9; 1 is the default.
    pub compression_level: u32,
    /// Payload of a packet, uncompressed; default 8 MiB.
    pub packet_bytes: u32,
    /// 1: no footer index.
    pub without_index: u32,
    /// Threads for columns; 0 is one per core.
    pub threads: u32,
    /// Flush by itself after this many milliseconds; 0 is never.
    pub max_loss_ms: u64,
}

/// Values of one column to be written.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ColumnValues {
    /// TLB_BOOL to TLB_STRING.
    pub type_code: i32,
    /// Zero.
    pub reserved: i32,
    /// One value per row; of bools a byte each; of strings the bytes that the offsets point into.
    pub values: *const u8,
    /// Of strings: rows + 1 offsets, the first one 0. Null otherwise.
    pub offsets: *const i64,
}

/// A file open for writing: `tlb_writer`.
#[repr(C)]
pub struct Writer {
    tag: u64,
    writer: FileWriter,
    row: RowBuffer,
    set_bytes: usize,
}

impl Handle for Writer {
    const TAG: u64 = 0x746c_625f_7772_6974;
    const NAME: &'static str = "writer";
}

fn named<T>(name: Result<&str, Fail>, from: fn(&str) -> Option<T>, what: &str) -> Result<T, Fail> {
    let name = name?;
    from(name).ok_or_else(|| Fail::new(TLB_UNSUPPORTED, format!("there is no {what} {name:?}")))
}

/// # Safety
///
/// The contract of lib.rs.
unsafe fn options_of(options: *const WriteOptions) -> Result<(Format, FileOptions), Fail> {
    let (mut format, mut file) = (Format::default(), FileOptions::default());
    // SAFETY: the caller's contract.
    let Some(given) = (unsafe { check::read_struct(options) })? else {
        return Ok((format, file));
    };
    if !given.row_codec.is_null() {
        // SAFETY: not null, so NUL-terminated by the contract.
        let name = unsafe { check::text(given.row_codec, "row_codec") };
        format.row_codec = named(name, RowCodec::from_name, "row codec")?;
    }
    if !given.file_codec.is_null() {
        // SAFETY: as above.
        let name = unsafe { check::text(given.file_codec, "file_codec") };
        format.file_codec = named(name, FileCodec::from_name, "file codec")?;
    }
    if given.compression_level != 0 {
        format.compression_level = u8::try_from(given.compression_level)
            .map_err(|_| Fail::new(TLB_UNSUPPORTED, "compression_level is 1 to 9"))?;
    }
    if given.packet_bytes != 0 {
        format.packet_bytes = given.packet_bytes;
    }
    format.index = given.without_index == 0;
    format.version = FormatVersion::default();
    file.threads = given.threads as usize;
    file.max_loss = (given.max_loss_ms != 0).then(|| Duration::from_millis(given.max_loss_ms));
    Ok((format, file))
}

/// # Safety
///
/// The contract of lib.rs: both arrays have `columns` items.
unsafe fn schema_of(
    names: *const *const c_char,
    types: *const i32,
    columns: usize,
) -> Result<Schema, Fail> {
    // SAFETY: the caller's contract.
    let (names, types) = unsafe {
        (
            check::slice(names, columns, "names")?,
            check::slice(types, columns, "types")?,
        )
    };
    let column = |(name, code): (&*const c_char, &i32)| {
        // SAFETY: each name is null or NUL-terminated.
        let name = unsafe { check::text(*name, "a column's name") }?;
        Ok(ColumnSpec::new(name, column_type(*code)?))
    };
    let columns = names
        .iter()
        .zip(types)
        .map(column)
        .collect::<Result<Vec<_>, Fail>>()?;
    Ok(Schema::new(columns)?)
}

pub(crate) fn column_type(code: i32) -> Result<ColumnType, Fail> {
    let kind = u8::try_from(code).ok().and_then(ColumnType::from_code);
    kind.ok_or_else(|| Fail::misuse(format!("{code} is no column type")))
}

/// Create or open a file. Paths and names are UTF-8. `options` may be null. Free the writer with tlb_writer_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_open(
    path: *const c_char,
    mode: i32,
    names: *const *const c_char,
    types: *const i32,
    columns: usize,
    options: *const WriteOptions,
    writer: *mut *mut Writer,
) -> i32 {
    let make = || {
        // SAFETY: the contract of lib.rs.
        let (path, schema, (format, file)) = unsafe {
            (
                check::text(path, "path")?,
                schema_of(names, types, columns)?,
                options_of(options)?,
            )
        };
        let mode = match mode {
            TLB_NEW => WriteMode::New,
            TLB_REPLACE => WriteMode::Replace,
            TLB_APPEND => WriteMode::Append,
            _ => return Err(Fail::misuse(format!("{mode} is no mode"))),
        };
        let writer = FileWriter::open(path, &schema, mode, &format, &file)?;
        Ok(Writer {
            tag: Writer::TAG,
            row: writer.row_buffer(),
            writer,
            set_bytes: 0,
        })
    };
    // SAFETY: the contract of lib.rs.
    guard(|| unsafe { check::give(writer, make) })
}

macro_rules! setter {
    ($name:ident, $type:ty, $set:ident) => {
        #[allow(missing_docs)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(writer: *mut Writer, column: usize, value: $type) -> i32 {
            guard(|| {
                // SAFETY: the contract of lib.rs.
                unsafe { check::unique(writer) }?.row.$set(column, value)?;
                Ok(TLB_OK)
            })
        }
    };
}

setter!(tlb_writer_set_uint8, u8, set_u8);
setter!(tlb_writer_set_uint16, u16, set_u16);
setter!(tlb_writer_set_uint32, u32, set_u32);
setter!(tlb_writer_set_uint64, u64, set_u64);
setter!(tlb_writer_set_int8, i8, set_i8);
setter!(tlb_writer_set_int16, i16, set_i16);
setter!(tlb_writer_set_int32, i32, set_i32);
setter!(tlb_writer_set_int64, i64, set_i64);
setter!(tlb_writer_set_float, f32, set_f32);
setter!(tlb_writer_set_double, f64, set_f64);

/// Set a bool column of the row being put together; anything but 0 is true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_set_bool(
    writer: *mut Writer,
    column: usize,
    value: i32,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe { check::unique(writer) }?
            .row
            .set_bool(column, value != 0)?;
        Ok(TLB_OK)
    })
}

/// Set a string column of the row being put together; `bytes` bytes, NUL is not special.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_set_string(
    writer: *mut Writer,
    column: usize,
    value: *const c_char,
    bytes: usize,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let (writer, value) = unsafe {
            (
                check::unique(writer)?,
                check::slice(value.cast::<u8>(), bytes, "the string")?,
            )
        };
        // Strings set again and again without a row being written would pile up: 16 full rows are enough.
        if writer.set_bytes.saturating_add(bytes) > 16 * tapeline_bcsv::MAX_ROW_BYTES {
            return Err(Fail::misuse(
                "strings are set over and over: write the row, or tlb_writer_clear_row",
            ));
        }
        writer.row.set_string(column, value)?;
        writer.set_bytes += bytes;
        Ok(TLB_OK)
    })
}

/// Start the row being put together again: zeros, false, empty strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_clear_row(writer: *mut Writer) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let writer = unsafe { check::unique(writer) }?;
        writer.row = writer.writer.row_buffer();
        writer.set_bytes = 0;
        Ok(TLB_OK)
    })
}

/// Write the row put together. Numbers then keep their values for the next row, strings are empty again. A row that is
/// refused is not in the file, stays put together, and may be tried again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_write_row(writer: *mut Writer) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let writer = unsafe { check::unique(writer) }?;
        writer.writer.write_row(&writer.row)?;
        writer.row.clear_strings();
        writer.set_bytes = 0;
        Ok(TLB_OK)
    })
}

/// Write packed rows: columns in order at their native width, little-endian, without padding, a bool as one byte;
/// schemas without strings. Rows before one that fails are written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_write_packed(
    writer: *mut Writer,
    rows: *const u8,
    bytes: usize,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let (writer, rows) = unsafe {
            (
                check::unique(writer)?,
                check::slice(rows, bytes, "the rows")?,
            )
        };
        writer.writer.write_packed(rows)?;
        Ok(TLB_OK)
    })
}

/// # Safety
///
/// The contract of lib.rs: `values` (and `offsets`) are valid for `rows` values (one more offset).
unsafe fn view_of<'a>(column: &ColumnValues, rows: usize) -> Result<ColumnView<'a>, Fail> {
    let what = "the values of a column";
    macro_rules! numbers {
        ($variant:ident) => {
            // SAFETY: the caller's contract; `slice` checks null, alignment and size.
            ColumnView::$variant(unsafe { check::slice(column.values.cast(), rows, what) }?)
        };
    }
    Ok(match column_type(column.type_code)? {
        ColumnType::Bool => numbers!(BoolBytes),
        ColumnType::UInt8 => numbers!(UInt8),
        ColumnType::UInt16 => numbers!(UInt16),
        ColumnType::UInt32 => numbers!(UInt32),
        ColumnType::UInt64 => numbers!(UInt64),
        ColumnType::Int8 => numbers!(Int8),
        ColumnType::Int16 => numbers!(Int16),
        ColumnType::Int32 => numbers!(Int32),
        ColumnType::Int64 => numbers!(Int64),
        ColumnType::Float => numbers!(Float),
        ColumnType::Double => numbers!(Double),
        ColumnType::String => {
            let count = rows
                .checked_add(1)
                .ok_or_else(|| Fail::misuse("too many rows"))?;
            // SAFETY: the caller's contract.
            let offsets =
                unsafe { check::slice(column.offsets, count, "the offsets of a string column") }?;
            let rising = offsets.first() == Some(&0) && offsets.is_sorted();
            let end = offsets.last().and_then(|end| usize::try_from(*end).ok());
            let (true, Some(end)) = (rising, end) else {
                return Err(Fail::misuse(
                    "the offsets of a string column start at 0 and do not fall",
                ));
            };
            // SAFETY: the caller's contract: the bytes are as many as the last offset says.
            let bytes = unsafe { check::slice(column.values, end, what) }?;
            ColumnView::LargeString { offsets, bytes }
        }
    })
}

/// Write rows from columns, all columns of the file in order; large batches are encoded in parallel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_write_columns(
    writer: *mut Writer,
    values: *const ColumnValues,
    columns: usize,
    rows: usize,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let (writer, values) = unsafe {
            (
                check::unique(writer)?,
                check::slice(values, columns, "the columns")?,
            )
        };
        // SAFETY: as above, for each column.
        let views = values.iter().map(|column| unsafe { view_of(column, rows) });
        let columns = views.collect::<Result<Vec<_>, Fail>>()?;
        writer.writer.write_batch(&BatchView { rows, columns })?;
        Ok(TLB_OK)
    })
}

/// Everything so far survives a kill of the process; with `sync`, a power cut too. After TLB_IO nothing is lost: the
/// next call tries again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_flush(writer: *mut Writer, sync: i32) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe { check::unique(writer) }?.writer.flush(sync != 0)?;
        Ok(TLB_OK)
    })
}

/// Rows accepted, those of the file appended to included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_rows(writer: *const Writer, rows: *mut u64) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe { check::put(rows, check::shared(writer)?.writer.rows_written()) }
    })
}

/// Store everything, write the footer and take the final name. May be tried again after TLB_IO; a second call is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_finish(writer: *mut Writer, sync: i32) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe { check::unique(writer) }?.writer.finish(sync != 0)?;
        Ok(TLB_OK)
    })
}

/// Give up: a file that was to be replaced stays, a new one is removed. One that was appended to, or flushed under its
/// name, stays with its rows, without a footer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_discard(writer: *mut Writer) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        unsafe { check::unique(writer) }?.writer.discard()?;
        Ok(TLB_OK)
    })
}

/// Free a writer; null is fine. One that was not finished leaves an unfinished file with all its rows, errors unsaid: call
/// tlb_writer_finish first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_writer_free(writer: *mut Writer) -> i32 {
    // SAFETY: the contract of lib.rs.
    guard(|| unsafe { check::free(writer) })
}
