//! Rows as Python tuples.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tapeline_bcsv::{Batch, Value};

use crate::errors;

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
