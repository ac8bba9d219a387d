//! Rows read, as columns.

use tapeline_bcsv::{Batch as Rows, Column};

use crate::check::{self, Handle};
use crate::error::{Fail, TLB_RANGE, guard};

/// Rows of a file, as columns: `tlb_batch`.
#[repr(C)]
pub struct Batch {
    tag: u64,
    rows: Rows,
    /// Bools as bytes; empty for other columns.
    bools: Vec<Vec<u8>>,
}

impl Handle for Batch {
    const TAG: u64 = 0x746c_625f_6261_7463;
    const NAME: &'static str = "batch";
}

/// Values of one column that was read; they live as long as their batch.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ColumnData {
    /// sizeof(tlb_column_data), set by the caller.
    pub struct_size: usize,
    /// TLB_BOOL to TLB_STRING.
    pub type_code: i32,
    /// Zero.
    pub reserved: i32,
    /// Number of values.
    pub rows: usize,
    /// One value per row, aligned; of bools a byte each (0 or 1); of strings the bytes that the offsets point into.
    pub values: *const u8,
    /// Of strings: rows + 1 offsets. Null otherwise.
    pub offsets: *const i32,
}

impl Batch {
    pub(crate) fn new(rows: Rows) -> Self {
        let bools = |column: &Column| match column {
            Column::Bool(bits) => (0..bits.len).map(|row| u8::from(bits.get(row))).collect(),
            _ => Vec::new(),
        };
        Self {
            tag: Self::TAG,
            bools: rows.columns.iter().map(bools).collect(),
            rows,
        }
    }
}

/// Number of rows, and the number of the first one in the file (rows that are lost leave a gap). Either may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_batch_rows(
    batch: *const Batch,
    rows: *mut usize,
    first_row: *mut u64,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let batch = unsafe { check::shared(batch) }?;
        if !rows.is_null() {
            // SAFETY: not null, valid by the contract.
            unsafe { check::put(rows, batch.rows.rows) }?;
        }
        if !first_row.is_null() {
            // SAFETY: as above.
            unsafe { check::put(first_row, batch.rows.first_row) }?;
        }
        Ok(0)
    })
}

/// The values of a column, by its place in the selection that was read. No copy is made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_batch_column(
    batch: *const Batch,
    column: usize,
    data: *mut ColumnData,
) -> i32 {
    guard(|| {
        // SAFETY: the contract of lib.rs.
        let batch = unsafe { check::shared(batch) }?;
        let (Some(values), Some(bools)) = (batch.rows.columns.get(column), batch.bools.get(column))
        else {
            let text = format!("column {column} of a batch of {}", batch.rows.columns.len());
            return Err(Fail::new(TLB_RANGE, text));
        };
        let mut offsets = std::ptr::null();
        let start: *const u8 = match values {
            Column::Bool(_) => bools.as_ptr(),
            Column::UInt8(values) => values.as_ptr(),
            Column::UInt16(values) => values.as_ptr().cast(),
            Column::UInt32(values) => values.as_ptr().cast(),
            Column::UInt64(values) => values.as_ptr().cast(),
            Column::Int8(values) => values.as_ptr().cast(),
            Column::Int16(values) => values.as_ptr().cast(),
            Column::Int32(values) => values.as_ptr().cast(),
            Column::Int64(values) => values.as_ptr().cast(),
            Column::Float(values) => values.as_ptr().cast(),
            Column::Double(values) => values.as_ptr().cast(),
            Column::String(strings) => {
                offsets = strings.offsets.as_ptr();
                strings.bytes.as_ptr()
            }
        };
        let found = ColumnData {
            struct_size: size_of::<ColumnData>(),
            type_code: i32::from(values.kind().code()),
            reserved: 0,
            rows: values.len(),
            values: start,
            offsets,
        };
        // SAFETY: the contract of lib.rs.
        unsafe { check::fill_struct(data, found) }
    })
}

/// Free a batch; null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlb_batch_free(batch: *mut Batch) -> i32 {
    // SAFETY: the contract of lib.rs.
    guard(|| unsafe { check::free(batch) })
}
