//! Rows between Python tuples and the crate: values in with exact checks, values out of decoded columns.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString, PyTuple};
use tapeline_bcsv::{Batch, ColumnType, RowBuffer, Value};

use crate::errors::{self, SchemaError};

/// Put one Python row into the buffer. Every value must fit its column exactly, but `float` columns round.
pub(crate) fn fill(
    row: &mut RowBuffer,
    columns: &[(String, ColumnType)],
    values: &Bound<'_, PyAny>,
    number: impl Fn() -> u64,
) -> PyResult<()> {
    let py = values.py();
    let owned;
    let tuple = match values.cast::<PyTuple>() {
        Ok(tuple) => tuple,
        Err(_) => {
            owned = py
                .get_type::<PyTuple>()
                .call1((values,))?
                .cast_into::<PyTuple>()?;
            &owned
        }
    };
    if tuple.len() != columns.len() {
        let text = format!(
            "row {} has {} values, the file {} columns",
            number(),
            tuple.len(),
            columns.len()
        );
        return Err(SchemaError::new_err(text));
    }
    row.clear_strings();
    for (column, ((name, kind), value)) in columns.iter().zip(tuple.iter_borrowed()).enumerate() {
        if let Err(error) = put(row, column, *kind, &value) {
            let given = value
                .repr()
                .map_or_else(|_| "?".to_owned(), |text| shortened(&text.to_string()));
            let text = format!(
                "row {}, column {name:?}: {given} is no {}: {error}",
                number(),
                kind.name()
            );
            return Err(SchemaError::new_err(text));
        }
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[inline]
fn put(
    row: &mut RowBuffer,
    column: usize,
    kind: ColumnType,
    value: &Bound<'_, PyAny>,
) -> Result<(), String> {
    let stored = match kind {
        ColumnType::Float => row.set_f32(column, single(value)?),
        ColumnType::Double => row.set_f64(column, double(value)?),
        ColumnType::Bool => row.set_bool(column, boolean(value)?),
        ColumnType::UInt8 => row.set_u8(column, integer(value)?),
        ColumnType::UInt16 => row.set_u16(column, integer(value)?),
        ColumnType::UInt32 => row.set_u32(column, integer(value)?),
        ColumnType::UInt64 => row.set_u64(column, integer(value)?),
        ColumnType::Int8 => row.set_i8(column, integer(value)?),
        ColumnType::Int16 => row.set_i16(column, integer(value)?),
        ColumnType::Int32 => row.set_i32(column, integer(value)?),
        ColumnType::Int64 => row.set_i64(column, integer(value)?),
        ColumnType::String => {
            let text = value
                .cast::<PyString>()
                .map_err(|_| "str was expected".to_owned())?;
            let text = text
                .to_cow()
                .map_err(|_| "it cannot be encoded as UTF-8".to_owned())?;
            row.set_string(column, text.as_bytes())
        }
    };
    stored.map_err(|error| error.to_string())
}

/// A float, or an integer that is exactly one.
#[inline]
fn double(value: &Bound<'_, PyAny>) -> Result<f64, String> {
    if let Ok(value) = value.cast_exact::<PyFloat>() {
        return Ok(value.value());
    }
    let number = value
        .extract::<f64>()
        .map_err(|_| "a number was expected".to_owned())?;
    if value.is_instance_of::<PyInt>() && !value.eq(number).unwrap_or(false) {
        return Err("it is not exactly representable".to_owned());
    }
    Ok(number)
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // rounding to binary32 is what a `float` column does
fn single(value: &Bound<'_, PyAny>) -> Result<f32, String> {
    let number = double(value)?;
    let rounded = number as f32;
    if rounded.is_infinite() && number.is_finite() {
        return Err("it is out of range".to_owned());
    }
    Ok(rounded)
}

#[inline]
fn boolean(value: &Bound<'_, PyAny>) -> Result<bool, String> {
    if let Ok(value) = value.cast_exact::<PyBool>() {
        return Ok(value.is_true());
    }
    // numpy.bool_ is no bool, but extracts as one
    value
        .extract::<bool>()
        .map_err(|_| "a bool was expected".to_owned())
}

#[inline]
fn integer<'py, T>(value: &Bound<'py, PyAny>) -> Result<T, String>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    value.extract::<T>().map_err(|_| {
        let kind = if value.is_instance_of::<PyInt>() {
            "it is out of range"
        } else {
            "an integer was expected"
        };
        kind.to_owned()
    })
}

/// The rows of a batch as Python tuples, one by one.
pub(crate) struct BatchRows {
    batch: Batch,
    next: usize,
}

impl BatchRows {
    pub(crate) fn new(batch: Batch) -> Self {
        Self { batch, next: 0 }
    }

    /// The next row; None behind the last.
    pub(crate) fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        if self.next >= self.batch.rows {
            return Ok(None);
        }
        let row = self.next;
        self.next += 1;
        let values = (0..self.batch.columns.len())
            .map(|column| to_python(py, self.batch.value(column, row)));
        PyTuple::new(py, values.collect::<PyResult<Vec<_>>>()?).map(Some)
    }
}

fn to_python(py: Python<'_>, value: Option<Value<'_>>) -> PyResult<Py<PyAny>> {
    let Some(value) = value else {
        return Ok(py.None());
    };
    match value {
        Value::Bool(value) => value.into_py_any(py),
        Value::UInt8(value) => value.into_py_any(py),
        Value::UInt16(value) => value.into_py_any(py),
        Value::UInt32(value) => value.into_py_any(py),
        Value::UInt64(value) => value.into_py_any(py),
        Value::Int8(value) => value.into_py_any(py),
        Value::Int16(value) => value.into_py_any(py),
        Value::Int32(value) => value.into_py_any(py),
        Value::Int64(value) => value.into_py_any(py),
        Value::Float(value) => value.into_py_any(py),
        Value::Double(value) => value.into_py_any(py),
        Value::String(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into_py_any(py),
            Err(error) => Err(errors::not_text(&error.to_string())),
        },
    }
}
