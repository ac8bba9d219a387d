//! `tapeline.convert`: CSV and JSON lines from and to BCSV files and Arrow streams.
//!
//! Options come and reports go as JSON, as in the other modules that carry many settings. Long work runs on a thread of
//! its own; the calling thread wakes ten times a second for signals and progress.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::{RecordBatch, RecordBatchIterator};
use arrow_schema::{ArrowError, SchemaRef};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule};
use serde_json::{Value, json};
use tapeline_bcsv::ColumnType;
use tapeline_csv::{
    Cancel, Dialect, DialectOptions, EmptyCells, Error, ErrorKind, ExportOptions, Header,
    ImportOptions, ImportReport, Ragged, RowRange, Rows, Scan, TextFormat, TextWriter, Types,
};

use crate::errors::{SchemaError, bcsv_error, make, os_error};
use crate::{arrow, bcsv_writer};

/// Convert a CSV file to a new BCSV file; nothing is left behind on an error.
#[pyfunction]
fn csv_import(
    py: Python<'_>,
    source: PathBuf,
    destination: PathBuf,
    options_json: &str,
    write: bcsv_writer::PyOptions,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = import_options(py, options_json)?;
    let write = bcsv_writer::write_options(&write)?;
    let cancel = Cancel::default();
    let done = run(py, &cancel, progress, || {
        tapeline_csv::import(&source, &destination, &options, &write, &cancel)
    })?;
    match done {
        Ok(report) => Ok(report_json(&report).to_string()),
        Err(error) => {
            let path = if matches!(error.kind(), ErrorKind::Bcsv(_)) {
                &destination
            } else {
                &source
            };
            Err(convert_error(py, &error, path))
        }
    }
}

/// A CSV file whose types are known: all of it has been read once.
#[pyclass(frozen, module = "tapeline._native")]
struct CsvTable {
    path: PathBuf,
    scan: Scan,
    schema: SchemaRef,
}

#[pymethods]
impl CsvTable {
    #[new]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        options_json: &str,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let options = import_options(py, options_json)?;
        let cancel = Cancel::default();
        let done = run(py, &cancel, progress, || {
            tapeline_csv::scan(&path, &options, &cancel)
        })?;
        let scan = done.map_err(|error| convert_error(py, &error, &path))?;
        let columns = scan.report.columns.iter();
        let schema = arrow::schema_of(columns.map(|column| (column.name.as_str(), column.kind)));
        Ok(Self { path, scan, schema })
    }

    fn report(&self) -> String {
        report_json(&self.scan.report).to_string()
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema; // a wish; the types are what the text needs
        let batches = self
            .scan
            .batches(&self.path)
            .map_err(|error| convert_error(py, &error, &self.path))?;
        let schema = self.schema.clone();
        let of = schema.clone();
        let converted = batches.map(move |batch| {
            let batch = batch.map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
            arrow::to_arrow(&of, batch)
        });
        arrow::export_stream(py, Box::new(RecordBatchIterator::new(converted, schema)))
    }
}

/// Write a BCSV file as text to a new file, or to stdout if there is no destination.
#[pyfunction]
fn text_export(
    py: Python<'_>,
    source: PathBuf,
    destination: Option<PathBuf>,
    options_json: &str,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = export_options(options_json)?;
    let cancel = Cancel::default();
    let done = run(py, &cancel, progress, || {
        let mut out = Out::open(destination.as_deref())?;
        tapeline_csv::export(&source, &mut out, &options, &cancel)
    })?;
    let report = done.map_err(|error| {
        let path = if matches!(error.kind(), ErrorKind::Io(_)) {
            destination.as_deref()
        } else {
            None
        };
        convert_error(py, &error, path.unwrap_or(&source))
    })?;
    let gaps: Vec<Value> = report
        .gaps
        .iter()
        .map(|gap| json!([gap.0, gap.1]))
        .collect();
    let columns: Vec<Value> = report
        .columns
        .iter()
        .map(|(name, kind)| json!([name, kind.name()]))
        .collect();
    Ok(
        json!({"rows": report.rows, "bytes": report.bytes, "gaps": gaps, "columns": columns})
            .to_string(),
    )
}

/// Rows of a BCSV file as text, in memory: for the few rows that people look at.
#[pyfunction]
fn text_rows<'py>(
    py: Python<'py>,
    source: PathBuf,
    options_json: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let options = export_options(options_json)?;
    let cancel = Cancel::default();
    let mut text = Vec::new();
    let done = py.detach(|| tapeline_csv::export(&source, &mut text, &options, &cancel));
    done.map_err(|error| convert_error(py, &error, &source))?;
    Ok(PyBytes::new(py, &text))
}

fn export_options(text: &str) -> PyResult<ExportOptions> {
    let options: Value = parse_json(text)?;
    Ok(ExportOptions {
        format: text_format(&options),
        columns: strings(&options["columns"]),
        rows: RowRange {
            start: options["start"].as_i64().unwrap_or(0),
            stop: options["stop"].as_i64(),
        },
        skip_damage: options["skip_damage"].as_bool().unwrap_or(false),
        threads: usize::try_from(options["threads"].as_u64().unwrap_or(0)).unwrap_or(0),
    })
}

/// Write an Arrow stream in the format's own types as text; returns rows and bytes.
#[pyfunction]
fn text_write_stream(
    py: Python<'_>,
    stream: &Bound<'_, PyAny>,
    destination: Option<PathBuf>,
    options_json: &str,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<(u64, u64)> {
    let options: Value = parse_json(options_json)?;
    let format = text_format(&options);
    let mut batches = arrow::import_stream(stream)?;
    let names: Vec<String> = arrow_array::RecordBatchReader::schema(&batches)
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let cancel = Cancel::default();
    let cancel_ref = &cancel;
    let destination_ref = destination.as_deref();
    let done = run(py, &cancel, progress, || {
        let mut out = Out::open(destination_ref).map_err(Failed::Text)?;
        let text = TextWriter::new(format, &names).map_err(Failed::Text)?;
        let mut buffer = Vec::new();
        text.header(&mut buffer);
        let (mut rows, mut bytes) = (0_u64, 0_u64);
        loop {
            out.write_all(&buffer)
                .map_err(|error| Failed::Text(error.into()))?;
            bytes += buffer.len() as u64;
            buffer.clear();
            cancel_ref.step(rows).map_err(Failed::Text)?;
            let Some(batch) = batches.next() else { break };
            let batch: RecordBatch =
                batch.map_err(|error| Failed::Stream(arrow::stream_error(&error)))?;
            let view = arrow::view(&batch)
                .map_err(|_| Failed::Stream("a column has nulls or a foreign type".to_owned()))?;
            text.rows(&view, 0, batch.num_rows(), &mut buffer)
                .map_err(Failed::Text)?;
            rows += batch.num_rows() as u64;
        }
        out.flush().map_err(|error| Failed::Text(error.into()))?;
        Ok((rows, bytes))
    })?;
    done.map_err(|failed| match failed {
        Failed::Text(error) => {
            convert_error(py, &error, destination.as_deref().unwrap_or(Path::new("-")))
        }
        Failed::Stream(text) => SchemaError::new_err(text),
    })
}

enum Failed {
    Text(Error),
    Stream(String),
}

/// A new file, a device or pipe, or stdout.
enum Out {
    File(File),
    Stdout(BufWriter<std::io::Stdout>),
}

impl Out {
    fn open(path: Option<&Path>) -> tapeline_csv::Result<Self> {
        Ok(match path {
            Some(path) => {
                // A device or a pipe is there before.
                let special = path.metadata().is_ok_and(|found| !found.is_file());
                Self::File(
                    OpenOptions::new()
                        .write(true)
                        .create_new(!special)
                        .open(path)?,
                )
            }
            None => Self::Stdout(BufWriter::new(std::io::stdout())),
        })
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}

/// Do something on another thread; meanwhile handle signals and call `progress` with what is done.
fn run<R: Send>(
    py: Python<'_>,
    cancel: &Cancel,
    progress: Option<Bound<'_, PyAny>>,
    work: impl FnOnce() -> R + Send,
) -> PyResult<R> {
    let (finished, waiting) = mpsc::channel::<R>();
    let waiting = Arc::new(Mutex::new(waiting));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Nobody receives only if the caller has been interrupted.
            let _ = finished.send(work());
        });
        let mut interrupted: PyResult<()> = Ok(());
        loop {
            let received = py.detach(|| {
                let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.recv_timeout(Duration::from_millis(100))
            });
            match received {
                Ok(result) => {
                    interrupted?;
                    if let Some(progress) = &progress {
                        progress.call1((cancel.done(),))?;
                    }
                    return Ok(result);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(PyValueError::new_err(
                        "the conversion ended without a result",
                    ));
                }
            }
            if interrupted.is_ok() {
                interrupted = py.check_signals().and_then(|()| match &progress {
                    Some(progress) => progress.call1((cancel.done(),)).map(drop),
                    None => Ok(()),
                });
                if interrupted.is_err() {
                    cancel.cancel();
                }
            }
        }
    })
}

fn parse_json(text: &str) -> PyResult<Value> {
    serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn rows_of(options: &Value) -> Rows {
    Rows {
        start: options["start"].as_u64().unwrap_or(0),
        stop: options["stop"].as_u64(),
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    let list = value.as_array()?;
    Some(
        list.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    )
}

fn byte(value: &Value) -> Option<u8> {
    value.as_str().and_then(|text| text.bytes().next())
}

fn text_format(options: &Value) -> TextFormat {
    if options["json"].as_bool() == Some(true) {
        return TextFormat::JsonLines;
    }
    TextFormat::Csv {
        dialect: Dialect {
            delimiter: byte(&options["delimiter"]).unwrap_or(b','),
            point: byte(&options["decimal"]).unwrap_or(b'.'),
        },
        header: options["header"].as_bool().unwrap_or(true),
        nan: options["nan"].as_str().unwrap_or("nan").to_owned(),
    }
}

fn import_options(py: Python<'_>, text: &str) -> PyResult<ImportOptions> {
    let options = parse_json(text)?;
    let config = |text: String| make(py, "ConfigError", &text, &[]);
    let kind_of = |column: &dyn std::fmt::Display, value: &Value| {
        let name = value.as_str().unwrap_or_default();
        ColumnType::from_name(name)
            .ok_or_else(|| config(format!("column {column}: there is no type {name:?}")))
    };
    let mut given = Vec::new();
    for (name, kind) in options["types"].as_object().into_iter().flatten() {
        given.push((name.clone(), kind_of(name, kind)?));
    }
    let given_in_order = match options["types"].as_array() {
        None => None,
        Some(kinds) => {
            let kinds = kinds.iter().enumerate().map(|(number, kind)| {
                (!kind.is_null())
                    .then(|| kind_of(&number, kind))
                    .transpose()
            });
            Some(kinds.collect::<PyResult<Vec<_>>>()?)
        }
    };
    Ok(ImportOptions {
        dialect: DialectOptions {
            delimiter: byte(&options["delimiter"]),
            point: byte(&options["decimal"]),
            header: if options["header"].as_bool() == Some(false) {
                Header::None
            } else {
                Header::Names
            },
            names: strings(&options["names"]),
        },
        types: Types {
            empty: match options["empty"].as_str() {
                Some("string") => EmptyCells::String,
                Some("stop") => EmptyCells::Stop,
                _ => EmptyCells::Nan,
            },
            nulls: strings(&options["nulls"])
                .unwrap_or_default()
                .into_iter()
                .map(String::into_bytes)
                .collect(),
            point: b'.',
        },
        given,
        given_in_order,
        all_text: options["all_text"].as_bool().unwrap_or(false),
        columns: strings(&options["columns"]),
        rows: rows_of(&options),
        ragged: match options["ragged"].as_str() {
            Some("skip") => Ragged::Skip,
            Some("pad") => Ragged::Pad,
            _ => Ragged::Stop,
        },
        threads: usize::try_from(options["threads"].as_u64().unwrap_or(0)).unwrap_or(0),
    })
}

fn report_json(report: &ImportReport) -> Value {
    let columns: Vec<Value> = report
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind.name(),
                "widened_from": column.widened_from.map(ColumnType::name),
                "empty_cells": column.empty_cells,
                "rounded_cells": column.rounded_cells,
            })
        })
        .collect();
    let renamed: Vec<Value> = report
        .renamed
        .iter()
        .map(|(old, new)| json!([old, new]))
        .collect();
    json!({
        "rows": report.rows,
        "rows_skipped": report.rows_skipped,
        "rows_padded": report.rows_padded,
        "blank_lines": report.blank_lines,
        "delimiter": char::from(report.dialect.delimiter).to_string(),
        "decimal": char::from(report.dialect.point).to_string(),
        "columns": columns,
        "renamed": renamed,
        "passes": report.passes,
    })
}

fn convert_error(py: Python<'_>, error: &Error, path: &Path) -> PyErr {
    let name = path.display().to_string();
    match error.kind() {
        ErrorKind::Io(io) => os_error(io, &io.to_string(), Some(path)),
        ErrorKind::Bcsv(error) => bcsv_error(py, error, path),
        ErrorKind::Option { .. } | ErrorKind::UnknownColumn { .. } => {
            make(py, "ConfigError", &format!("{name}: {error}"), &[])
        }
        _ => {
            let place = error.place();
            let comma = if place.is_some() { "," } else { ":" };
            let column = place.and_then(|place| place.column.as_ref());
            let attributes = [
                ("path", name.as_str().into_py_any(py).ok()),
                (
                    "line",
                    place.and_then(|place| place.line.into_py_any(py).ok()),
                ),
                (
                    "column",
                    column.and_then(|(_, name)| name.as_str().into_py_any(py).ok()),
                ),
            ];
            make(
                py,
                "ConvertError",
                &format!("{name}{comma} {error}"),
                &attributes,
            )
        }
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<CsvTable>()?;
    m.add_function(wrap_pyfunction!(csv_import, m)?)?;
    m.add_function(wrap_pyfunction!(text_export, m)?)?;
    m.add_function(wrap_pyfunction!(text_rows, m)?)?;
    m.add_function(wrap_pyfunction!(text_write_stream, m)?)
}
