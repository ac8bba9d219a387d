//! Bindings of `tapeline.bcsv`: registration, and what works on whole files.

use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tapeline_bcsv::{Depth, Limits, Report};

use crate::bcsv_reader::{BcsvBatch, BcsvReader, BcsvRows, BcsvStream};
use crate::bcsv_writer::{self, BcsvWriter};
use crate::errors;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<BcsvReader>()?;
    m.add_class::<BcsvStream>()?;
    m.add_class::<BcsvBatch>()?;
    m.add_class::<BcsvRows>()?;
    m.add_class::<BcsvWriter>()?;
    m.add_function(wrap_pyfunction!(bcsv_writer::bcsv_write_stream, m)?)?;
    m.add_function(wrap_pyfunction!(bcsv_validate, m)?)?;
    m.add_function(wrap_pyfunction!(bcsv_repair, m)?)
}

/// ok, complete, (text, offset, rows lost) of each problem, rows readable, rows expected, rows unverified
type PyReport = (bool, Option<bool>, Vec<PyProblem>, u64, u64, u64);
type PyProblem = (String, Option<u64>, Option<(u64, u64)>);

#[pyfunction]
fn bcsv_validate(py: Python<'_>, path: PathBuf, depth: &str) -> PyResult<PyReport> {
    let depth = match depth {
        "headers" => Depth::Headers,
        "checksums" => Depth::Checksums,
        "rows" => Depth::Rows,
        _ => {
            let text = format!("depth is {depth:?}; it is \"headers\", \"checksums\" or \"rows\"");
            return Err(PyValueError::new_err(text));
        }
    };
    let report = py.detach(|| tapeline_bcsv::validate_to(&path, Limits::default(), depth));
    report
        .map(to_python)
        .map_err(|error| errors::bcsv_error(py, &error, &path))
}

#[pyfunction]
fn bcsv_repair(py: Python<'_>, path: PathBuf, out_path: PathBuf) -> PyResult<PyReport> {
    let report = py.detach(|| tapeline_bcsv::repair(&path, &out_path, Limits::default()));
    report.map(to_python).map_err(|error| {
        let source = std::fs::File::open(&path).is_err();
        errors::bcsv_error(py, &error, if source { &path } else { &out_path })
    })
}

fn to_python(report: Report) -> PyReport {
    let problems = report
        .problems
        .into_iter()
        .map(|problem| (problem.text, problem.offset, problem.rows))
        .collect();
    (
        report.ok,
        report.complete,
        problems,
        report.rows_readable,
        report.rows_expected,
        report.rows_unverified,
    )
}
