//! The only place where errors of the crates become Python exceptions (`tapeline.errors`).

use std::path::Path;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyIndexError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tapeline_bcsv::{Error as BcsvCrateError, ErrorClass};
use tapeline_capture::error::{Error as CaptureError, ErrorKind as CaptureKind};

/// Make an exception of a class of `tapeline.errors`, with attributes.
pub(crate) fn make(
    py: Python<'_>,
    class: &str,
    text: &str,
    attributes: &[(&str, Option<Py<PyAny>>)],
) -> PyErr {
    let build = || -> PyResult<PyErr> {
        let kwargs = PyDict::new(py);
        for (name, value) in attributes {
            kwargs.set_item(name, value.as_ref())?;
        }
        let exception = py
            .import("tapeline.errors")?
            .getattr(class)?
            .call((text,), Some(&kwargs))?;
        Ok(PyErr::from_value(exception))
    };
    build().unwrap_or_else(|e| e)
}

/// A number of threads as Python gives it; 0 stands for one per core.
pub(crate) fn threads(given: Option<i64>) -> PyResult<usize> {
    usize::try_from(given.unwrap_or(0)).map_err(|_| {
        PyValueError::new_err(format!(
            "threads is {}; it is None or a positive number",
            given.unwrap_or(0)
        ))
    })
}

/// `OSError`, or its subclass for the number, with the file's name.
pub(crate) fn os_error(error: &std::io::Error, text: &str, path: Option<&Path>) -> PyErr {
    let Some(errno) = error.raw_os_error().or_else(|| errno_of(error.kind())) else {
        return PyOSError::new_err(text.to_owned());
    };
    // Python puts the number in front itself.
    let text = text.replace(&format!(" (os error {errno})"), "");
    match path {
        Some(path) => PyOSError::new_err((errno, text, path.as_os_str().to_owned())),
        None => PyOSError::new_err((errno, text)),
    }
}

/// The number of a kind whose number was lost when the text was made.
fn errno_of(kind: std::io::ErrorKind) -> Option<i32> {
    use std::io::ErrorKind;
    Some(match kind {
        ErrorKind::NotFound => 2,
        ErrorKind::PermissionDenied => 13,
        ErrorKind::AlreadyExists => 17,
        ErrorKind::NotADirectory => 20,
        ErrorKind::IsADirectory => 21,
        ErrorKind::StorageFull => 28,
        ErrorKind::AddrInUse => 98,
        ErrorKind::AddrNotAvailable => 99,
        _ => return None,
    })
}

/// Errors of `tapeline-capture`.
pub(crate) fn capture_error(py: Python<'_>, error: &CaptureError) -> PyErr {
    let stream = error
        .stream()
        .and_then(|s| s.into_pyobject(py).ok())
        .map(|s| s.into_any().unbind());
    let path = error
        .path()
        .map(|p| p.display().to_string())
        .and_then(|p| p.into_pyobject(py).ok())
        .map(|p| p.into_any().unbind());
    match error.kind() {
        CaptureKind::Config(text) => make(py, "ConfigError", text, &[]),
        CaptureKind::Io { doing, source } => {
            let of = error
                .stream()
                .map_or_else(String::new, |s| format!("stream {s}: "));
            os_error(source, &format!("{of}{doing}: {source}"), error.path())
        }
        _ => make(
            py,
            "RecorderError",
            &error.to_string(),
            &[("stream", stream), ("path", path)],
        ),
    }
}

pyo3::import_exception!(tapeline.errors, BcsvError);
pyo3::import_exception!(tapeline.errors, SchemaError);
pyo3::import_exception!(tapeline.errors, UnsupportedError);

/// Errors of `tapeline-bcsv`; `path` becomes the file name of an `OSError`, and stands before what is wrong with a file.
pub(crate) fn bcsv_error(py: Python<'_>, error: &BcsvCrateError, path: &Path) -> PyErr {
    let text = error.to_string();
    let located = if path.as_os_str().is_empty() {
        text.clone()
    } else {
        format!("{}: {text}", path.display())
    };
    match error.class() {
        ErrorClass::Corrupt => {
            let place = |number: Option<u64>| number.and_then(|number| number.into_py_any(py).ok());
            let places = [
                ("offset", place(error.offset())),
                ("packet", place(error.packet())),
                ("rows_before", place(error.rows_before())),
            ];
            make(py, "CorruptError", &located, &places)
        }
        ErrorClass::Unsupported => UnsupportedError::new_err(located),
        ErrorClass::Schema => SchemaError::new_err(text),
        ErrorClass::Io => match error.io_error() {
            Some(io) => os_error(io, &text, Some(path)),
            None => PyOSError::new_err(text),
        },
        ErrorClass::OutOfRange => PyIndexError::new_err(text),
        ErrorClass::Closed => PyValueError::new_err(text),
        _ => BcsvError::new_err(located),
    }
}

/// Bytes in a string column of a BCSV file that are no UTF-8.
pub(crate) fn not_text(text: &str) -> PyErr {
    BcsvError::new_err(format!(
        "a string column holds bytes that are no UTF-8 text: {text}"
    ))
}

pub(crate) fn register(_m: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
