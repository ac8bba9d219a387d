//! Bindings of `tapeline doctor`: measurements of the machine, the lock released meanwhile.

use std::path::PathBuf;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use serde_json::to_string;
use tapeline_capture::doctor;

use crate::errors::os_error;

/// Socket buffers and offloads, as JSON.
#[pyfunction]
fn doctor_sockets(py: Python<'_>, buffer_bytes: usize) -> PyResult<String> {
    let found = py
        .detach(|| doctor::sockets(buffer_bytes))
        .map_err(|e| os_error(&e, &e.to_string(), None))?;
    to_string(&found).map_err(|e| PyRuntimeError::new_err(e.to_string()))
}

/// Speeds of checksums and compression, as JSON.
#[pyfunction]
fn doctor_speeds(py: Python<'_>) -> PyResult<String> {
    let found = py.detach(doctor::speeds);
    to_string(&found).map_err(|e| PyRuntimeError::new_err(e.to_string()))
}

/// Free space and the speed of writing in a directory, as JSON.
#[pyfunction]
fn doctor_disk(py: Python<'_>, directory: PathBuf, size_bytes: u64) -> PyResult<String> {
    let found = py
        .detach(|| doctor::disk(&directory, size_bytes))
        .map_err(|e| os_error(&e, &e.to_string(), Some(&directory)))?;
    to_string(&found).map_err(|e| PyRuntimeError::new_err(e.to_string()))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(doctor_sockets, m)?)?;
    m.add_function(wrap_pyfunction!(doctor_speeds, m)?)?;
    m.add_function(wrap_pyfunction!(doctor_disk, m)?)
}
