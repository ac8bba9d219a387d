//! Arrow tables across the language border: `PyCapsule`s of the Arrow C data interface, in and out, and the
//! crate's batches as Arrow batches and back. No value is copied here.

use std::ffi::CStr;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch,
    RecordBatchOptions, RecordBatchReader, StringArray, StructArray, ffi, types as t,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema as ArrowSchema, SchemaRef};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use tapeline_bcsv::{Batch, BatchView, Column, ColumnType, ColumnView, StringColumn};

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";

/// Take over the stream that an object with `__arrow_c_stream__` gives out.
pub(crate) fn import_stream(object: &Bound<'_, PyAny>) -> PyResult<RecordBatchStreamReader> {
    let capsule = object
        .call_method0("__arrow_c_stream__")?
        .cast_into::<PyCapsule>()?;
    let pointer = capsule
        .pointer_checked(Some(STREAM))?
        .cast::<FFI_ArrowArrayStream>();
    // SAFETY: a capsule of this name holds a pointer to an initialised, aligned `ArrowArrayStream` that
    // stays valid while the capsule lives (Arrow PyCapsule interface). The stream is moved out; what is left
    // is marked as released, so the capsule's destructor does nothing more.
    let reader = unsafe { RecordBatchStreamReader::from_raw(pointer.as_ptr()) };
    reader.map_err(|error| PyTypeError::new_err(error.to_string()))
}

/// What went wrong in a stream of somebody else, without what the interface and pyarrow wrap around it: where it passed
/// through, and the whole traceback behind the text.
pub(crate) fn stream_error(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let inner = text
        .split_once("Producer error: ")
        .map_or(&*text, |(_, said)| said);
    let inner = inner
        .split(". Detail: Python exception")
        .next()
        .unwrap_or(inner);
    let inner = inner.trim_start_matches("Invalid: ");
    inner
        .strip_prefix("Unknown error: ")
        .unwrap_or(inner)
        .to_owned()
}

/// Give a stream of batches away.
pub(crate) fn export_stream<'py>(
    py: Python<'py>,
    batches: Box<dyn RecordBatchReader + Send>,
) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(batches), STREAM)
}

/// Give one batch away: capsules of its schema and its data, what `__arrow_c_array__` returns.
pub(crate) fn export_batch<'py>(
    py: Python<'py>,
    batch: RecordBatch,
) -> PyResult<Bound<'py, PyTuple>> {
    let data = StructArray::from(batch).into_data();
    let (array, schema) =
        ffi::to_ffi(&data).map_err(|error| PyTypeError::new_err(error.to_string()))?;
    let schema = PyCapsule::new_with_value(py, schema, SCHEMA)?;
    let array = PyCapsule::new_with_value(py, array, ARRAY)?;
    PyTuple::new(py, [schema, array])
}

/// The Arrow schema of columns. The format has no missing values, yet fields are nullable, as those of nearly all
/// tables are: what is read then equals what was written, schema included.
pub(crate) fn schema_of<'a>(columns: impl IntoIterator<Item = (&'a str, ColumnType)>) -> SchemaRef {
    let fields: Vec<Field> = columns
        .into_iter()
        .map(|(name, kind)| Field::new(c_name(name), data_type(kind), true))
        .collect();
    Arc::new(ArrowSchema::new(fields))
}

/// A name as the C interface can carry it: names end at a NUL there, so the picture of a NUL stands for it.
fn c_name(name: &str) -> String {
    name.replace('\0', "\u{2400}")
}

fn data_type(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Bool => DataType::Boolean,
        ColumnType::UInt8 => DataType::UInt8,
        ColumnType::UInt16 => DataType::UInt16,
        ColumnType::UInt32 => DataType::UInt32,
        ColumnType::UInt64 => DataType::UInt64,
        ColumnType::Int8 => DataType::Int8,
        ColumnType::Int16 => DataType::Int16,
        ColumnType::Int32 => DataType::Int32,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Float => DataType::Float32,
        ColumnType::Double => DataType::Float64,
        ColumnType::String => DataType::Utf8,
    }
}

/// A decoded batch as an Arrow batch; its buffers change owner.
///
/// # Errors
///
/// A string column holds bytes that are no UTF-8.
pub(crate) fn to_arrow(schema: &SchemaRef, batch: Batch) -> Result<RecordBatch, ArrowError> {
    let rows = batch.rows;
    let arrays = batch
        .columns
        .into_iter()
        .map(to_array)
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
}

fn to_array(column: Column) -> Result<ArrayRef, ArrowError> {
    Ok(match column {
        Column::Bool(bits) => Arc::new(BooleanArray::new(
            BooleanBuffer::new(Buffer::from_vec(bits.bytes), 0, bits.len),
            None,
        )),
        Column::UInt8(values) => numbers::<t::UInt8Type>(values),
        Column::UInt16(values) => numbers::<t::UInt16Type>(values),
        Column::UInt32(values) => numbers::<t::UInt32Type>(values),
        Column::UInt64(values) => numbers::<t::UInt64Type>(values),
        Column::Int8(values) => numbers::<t::Int8Type>(values),
        Column::Int16(values) => numbers::<t::Int16Type>(values),
        Column::Int32(values) => numbers::<t::Int32Type>(values),
        Column::Int64(values) => numbers::<t::Int64Type>(values),
        Column::Float(values) => numbers::<t::Float32Type>(values),
        Column::Double(values) => numbers::<t::Float64Type>(values),
        Column::String(text) => Arc::new(strings(text)?),
    })
}

fn strings(text: StringColumn) -> Result<StringArray, ArrowError> {
    let StringColumn { offsets, bytes } = text;
    // Without a branch for each, so that vectors do it.
    let ordered = offsets
        .windows(2)
        .fold(true, |ordered, pair| ordered & (pair[0] <= pair[1]));
    let first_is_zero = offsets.first() == Some(&0);
    let last = offsets.last().and_then(|last| usize::try_from(*last).ok());
    let within = last.is_some_and(|last| last <= bytes.len());
    if ordered && first_is_zero && within && bytes.is_ascii() {
        // SAFETY: there is an offset, none is negative for the first is 0 and each is at least the one before it, as has
        // just been looked at.
        let offsets = unsafe { OffsetBuffer::new_unchecked(ScalarBuffer::from(offsets)) };
        // SAFETY: the offsets are in order and end within the bytes; these are ASCII, so each slice of them is UTF-8.
        return Ok(unsafe { StringArray::new_unchecked(offsets, Buffer::from_vec(bytes), None) });
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    StringArray::try_new(offsets, Buffer::from_vec(bytes), None)
}

fn numbers<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> ArrayRef
where
    T::Native: ArrowNativeType,
{
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), None))
}

/// What makes a batch unfit: the column and, for a null, its row in the batch.
pub(crate) enum Unfit {
    /// A missing value.
    Null { column: usize, row: usize },
    /// Not the Arrow type that the file's column has.
    Type { column: usize },
}

/// Borrow an Arrow batch as the crate wants it.
pub(crate) fn view(batch: &RecordBatch) -> Result<BatchView<'_>, Unfit> {
    let columns = batch.columns().iter().enumerate().map(|(column, array)| {
        if array.null_count() > 0 {
            let row = (0..array.len())
                .find(|&row| array.is_null(row))
                .unwrap_or(0);
            return Err(Unfit::Null { column, row });
        }
        view_of(array).ok_or(Unfit::Type { column })
    });
    Ok(BatchView {
        rows: batch.num_rows(),
        columns: columns.collect::<Result<_, _>>()?,
    })
}

fn view_of(array: &ArrayRef) -> Option<ColumnView<'_>> {
    Some(match array.data_type() {
        DataType::Boolean => {
            let bits = array.as_boolean().values();
            ColumnView::Bool {
                bits: bits.values(),
                offset: bits.offset(),
            }
        }
        DataType::UInt8 => ColumnView::UInt8(array.as_primitive::<t::UInt8Type>().values()),
        DataType::UInt16 => ColumnView::UInt16(array.as_primitive::<t::UInt16Type>().values()),
        DataType::UInt32 => ColumnView::UInt32(array.as_primitive::<t::UInt32Type>().values()),
        DataType::UInt64 => ColumnView::UInt64(array.as_primitive::<t::UInt64Type>().values()),
        DataType::Int8 => ColumnView::Int8(array.as_primitive::<t::Int8Type>().values()),
        DataType::Int16 => ColumnView::Int16(array.as_primitive::<t::Int16Type>().values()),
        DataType::Int32 => ColumnView::Int32(array.as_primitive::<t::Int32Type>().values()),
        DataType::Int64 => ColumnView::Int64(array.as_primitive::<t::Int64Type>().values()),
        DataType::Float32 => ColumnView::Float(array.as_primitive::<t::Float32Type>().values()),
        DataType::Float64 => ColumnView::Double(array.as_primitive::<t::Float64Type>().values()),
        DataType::Utf8 => {
            let text = array.as_string::<i32>();
            ColumnView::String {
                offsets: text.value_offsets(),
                bytes: text.value_data(),
            }
        }
        DataType::LargeUtf8 => {
            let text = array.as_string::<i64>();
            ColumnView::LargeString {
                offsets: text.value_offsets(),
                bytes: text.value_data(),
            }
        }
        _ => return None,
    })
}
