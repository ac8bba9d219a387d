//! `BcsvWriter` and the one-call table writer.
//!
//! The writer's lock is never waited for with the interpreter's lock held, and never held while Python code runs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use tapeline_bcsv::{
    ColumnSpec, ColumnType, FileCodec, FileOptions, FileWriter, FormatVersion, ReadOptions, Reader,
    Result as BcsvResult, RowBuffer, RowCodec, Schema, WriteMode, WriteOptions,
};

use crate::arrow::Unfit;
use crate::errors::SchemaError;
use crate::{arrow, bcsv_rows, errors};

/// (name, type name) of each column, as Python gives them.
pub(crate) type PyColumns = Vec<(String, String)>;
/// row codec, file codec, level, packet bytes, index, format version, threads
pub(crate) type PyOptions = (String, String, i64, i64, bool, String, Option<i64>);

struct State {
    /// None once closed.
    writer: Option<FileWriter>,
    row: RowBuffer,
    /// Rows of the file when it was closed.
    rows: u64,
}

#[pyclass(frozen, module = "tapeline._native")]
pub(crate) struct BcsvWriter {
    path: PathBuf,
    replaces: bool,
    columns: Vec<(String, ColumnType)>,
    state: Mutex<State>,
}

#[pymethods]
impl BcsvWriter {
    #[new]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        columns: Option<PyColumns>,
        mode: &str,
        options: PyOptions,
        max_loss_s: Option<f64>,
    ) -> PyResult<Self> {
        let mode = match mode {
            "x" => WriteMode::New,
            "w" => WriteMode::Replace,
            "a" => WriteMode::Append,
            other => {
                return Err(PyValueError::new_err(format!(
                    "mode is {other:?}; it is 'x', 'w' or 'a'"
                )));
            }
        };
        let max_loss = match max_loss_s.map(Duration::try_from_secs_f64).transpose() {
            Ok(max_loss) => max_loss,
            Err(_) => return Err(PyValueError::new_err("max_loss_s is negative or no number")),
        };
        let schema = columns
            .as_deref()
            .map(|columns| schema_of(py, columns))
            .transpose()?;
        open(py, path, schema, mode, &options, max_loss, true)
    }

    fn columns(&self) -> Vec<(String, &'static str)> {
        self.columns
            .iter()
            .map(|(name, kind)| (name.clone(), kind.name()))
            .collect()
    }

    fn replaces(&self) -> bool {
        self.replaces
    }

    fn rows_written(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |state| {
            Ok(state
                .writer
                .as_ref()
                .map_or(state.rows, FileWriter::rows_written))
        })
    }

    fn write_row(&self, py: Python<'_>, row: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut state = self
            .state
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        self.put_row(py, &mut state, row, 0)
    }

    fn write_rows(&self, py: Python<'_>, rows: &Bound<'_, PyAny>) -> PyResult<()> {
        self.with_open(py, |_| Ok(()))?;
        for (number, row) in rows.try_iter()?.enumerate() {
            let row = row?; // runs Python code: not under the lock
            let mut state = self
                .state
                .lock_py_attached(py)
                .unwrap_or_else(PoisonError::into_inner);
            self.put_row(py, &mut state, &row, number as u64)?;
        }
        Ok(())
    }

    fn write_stream(
        &self,
        py: Python<'_>,
        stream: &Bound<'_, PyAny>,
        columns: PyColumns,
    ) -> PyResult<()> {
        self.check_columns(&columns)?;
        let mut batches = arrow::import_stream(stream)?;
        let mut first = 0;
        while let Some(batch) = py.detach(|| batches.next()) {
            let batch = batch.map_err(|error| SchemaError::new_err(arrow::stream_error(&error)))?;
            self.put_batch(py, &batch, first)?;
            first += batch.num_rows() as u64;
        }
        Ok(())
    }

    fn write_packed(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<()> {
        let buffer = PyUntypedBuffer::get(buffer)?;
        let rows = bytes_of(&buffer)?;
        let mut at = 0;
        // At least once: an empty buffer is no error, but a file with strings or a closed one is.
        loop {
            let mut state = self
                .state
                .lock_py_attached(py)
                .unwrap_or_else(PoisonError::into_inner);
            let row_bytes = state.row.packed_bytes().unwrap_or(0);
            let State {
                writer: Some(writer),
                ..
            } = &mut *state
            else {
                return Err(self.closed());
            };
            let step = if row_bytes == 0 || !rows.len().is_multiple_of(row_bytes) {
                rows.len()
            } else {
                (PACKED_PIECE / row_bytes).max(1) * row_bytes
            };
            let end = rows.len().min(at + step);
            writer
                .write_packed(rows.get(at..end).unwrap_or_default())
                .map_err(|error| errors::bcsv_error(py, &error, &self.path))?;
            at = end;
            if at >= rows.len() {
                return Ok(());
            }
            drop(state);
            // Others may run between pieces.
            py.detach(|| ());
            py.check_signals()?;
        }
    }

    fn flush(&self, py: Python<'_>, sync: bool) -> PyResult<()> {
        self.with_open(py, |writer| writer.flush(sync))
    }

    /// May be tried again after an error.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |state| {
            if let Some(writer) = &state.writer {
                writer.finish(false)?;
                state.rows = writer.rows_written();
                state.writer = None;
            }
            Ok(())
        })
    }

    /// Without a footer; a file that was to replace another is given up.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |state| match state.writer.take() {
            Some(writer) if self.replaces => writer.discard(),
            _ => Ok(()),
        })
    }
}

impl BcsvWriter {
    /// Do something with the writer, interpreter's lock released.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut State) -> BcsvResult<R> + Send,
    ) -> PyResult<R> {
        let done =
            py.detach(|| work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner)));
        done.map_err(|error| errors::bcsv_error(py, &error, &self.path))
    }

    fn with_open(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&FileWriter) -> BcsvResult<()> + Send,
    ) -> PyResult<()> {
        self.with(py, |state| state.writer.as_ref().map(work).transpose())?
            .ok_or_else(|| self.closed())
    }

    fn put_row(
        &self,
        py: Python<'_>,
        state: &mut State,
        row: &Bound<'_, PyAny>,
        number: u64,
    ) -> PyResult<()> {
        let State {
            writer: Some(writer),
            row: buffer,
            ..
        } = state
        else {
            return Err(self.closed());
        };
        let written = writer.rows_written();
        bcsv_rows::fill(buffer, &self.columns, row, || {
            if number > 0 { number } else { written }
        })?;
        writer
            .write_row(buffer)
            .map_err(|error| errors::bcsv_error(py, &error, &self.path))
    }

    fn put_batch(&self, py: Python<'_>, batch: &RecordBatch, first: u64) -> PyResult<()> {
        let view = arrow::view(batch).map_err(|unfit| self.unfit(&unfit, first))?;
        self.with_open(py, |writer| writer.write_batch(&view))
    }

    fn check_columns(&self, columns: &[(String, String)]) -> PyResult<()> {
        if columns.len() != self.columns.len() {
            let text = format!(
                "the table has {} columns, the file {}",
                columns.len(),
                self.columns.len()
            );
            return Err(SchemaError::new_err(text));
        }
        for ((name, kind), (want, want_kind)) in columns.iter().zip(&self.columns) {
            if name != want || kind != want_kind.name() {
                let want_kind = want_kind.name();
                let text = format!(
                    "the table has column {name:?} ({kind}) where the file has {want:?} ({want_kind})"
                );
                return Err(SchemaError::new_err(text));
            }
        }
        Ok(())
    }

    fn unfit(&self, unfit: &Unfit, first: u64) -> PyErr {
        let name = |column: usize| {
            self.columns
                .get(column)
                .map_or("", |(name, _)| name.as_str())
        };
        SchemaError::new_err(match *unfit {
            Unfit::Null { column, row } => {
                let row = first + row as u64;
                format!(
                    "column {:?} has a null in row {row}; the format has no missing values",
                    name(column)
                )
            }
            Unfit::Type { column } => {
                format!("column {:?} does not have the file's type", name(column))
            }
        })
    }

    fn closed(&self) -> PyErr {
        PyValueError::new_err(format!("the writer of {:?} is closed", self.path))
    }
}

/// Bytes of packed rows written without letting other Python threads run.
const PACKED_PIECE: usize = 1 << 20;

/// The bytes of a buffer.
fn bytes_of(buffer: &PyUntypedBuffer) -> PyResult<&[u8]> {
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err(
            "the buffer is not contiguous; pass a contiguous copy",
        ));
    }
    if buffer.len_bytes() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the export is C-contiguous and not empty, and held by `buffer`, which the slice borrows. It is only read
    // while the interpreter's lock is held, so no Python code writes to it meanwhile.
    Ok(unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) })
}

fn open(
    py: Python<'_>,
    path: PathBuf,
    schema: Option<Schema>,
    mode: WriteMode,
    options: &PyOptions,
    max_loss: Option<Duration>,
    ready: bool,
) -> PyResult<BcsvWriter> {
    let write = write_options(options)?;
    let file = FileOptions {
        max_loss,
        threads: errors::threads(options.6)?,
        ready,
        ..FileOptions::default()
    };
    let replaces = mode == WriteMode::Replace;
    let opened = py.detach(|| {
        let schema = match schema {
            Some(schema) => schema,
            None => Reader::open(&path, ReadOptions::default())?
                .schema()
                .clone(),
        };
        FileWriter::open(&path, &schema, mode, &write, &file)
    });
    let writer = opened.map_err(|error| errors::bcsv_error(py, &error, &path))?;
    let columns = writer
        .schema()
        .columns()
        .iter()
        .map(|spec| (spec.name_text(), spec.kind))
        .collect();
    let row = writer.row_buffer();
    Ok(BcsvWriter {
        path,
        replaces,
        columns,
        state: Mutex::new(State {
            writer: Some(writer),
            row,
            rows: 0,
        }),
    })
}

fn schema_of(py: Python<'_>, columns: &[(String, String)]) -> PyResult<Schema> {
    let specs = columns.iter().map(|(name, kind)| {
        let kind = ColumnType::from_name(kind)
            .ok_or_else(|| SchemaError::new_err(format!("no type {kind:?}")))?;
        Ok(ColumnSpec::new(name.as_bytes(), kind))
    });
    Schema::new(specs.collect::<PyResult<_>>()?)
        .map_err(|error| errors::bcsv_error(py, &error, Path::new("")))
}

pub(crate) fn write_options(options: &PyOptions) -> PyResult<WriteOptions> {
    let (row_codec, file_codec, level, packet_bytes, index, version, _) = options;
    let unknown = |what: &str, given: &str, names: Vec<&str>| {
        PyValueError::new_err(format!(
            "{what} is {given:?}; it is one of {}",
            names.join(", ")
        ))
    };
    let row_codec = RowCodec::from_name(row_codec).ok_or_else(|| {
        unknown(
            "row_codec",
            row_codec,
            RowCodec::ALL.iter().map(|codec| codec.name()).collect(),
        )
    })?;
    let file_codec = FileCodec::from_name(file_codec).ok_or_else(|| {
        unknown(
            "file_codec",
            file_codec,
            FileCodec::ALL.iter().map(|codec| codec.name()).collect(),
        )
    })?;
    let version = match version.as_str() {
        "1.5" => FormatVersion::V1_5,
        "1.4" => FormatVersion::V1_4,
        "1.3" => FormatVersion::V1_3,
        other => return Err(unknown("format_version", other, vec!["1.5", "1.4", "1.3"])),
    };
    let compression_level = u8::try_from(*level)
        .ok()
        .filter(|level| (1..=9).contains(level));
    let compression_level = match (compression_level, file_codec.is_compressed()) {
        (Some(level), _) => level,
        (None, false) => 1,
        (None, true) => {
            return Err(PyValueError::new_err(format!(
                "compression_level is {level}; it is 1 to 9"
            )));
        }
    };
    // Format 10; a multiple of 1,024 tells the two headers apart (2.4).
    let packet_bytes = u32::try_from(*packet_bytes)
        .ok()
        .filter(|bytes| (65_536..=1 << 30).contains(bytes))
        .ok_or_else(|| {
            PyValueError::new_err(format!(
                "packet_bytes is {packet_bytes}; it is 65536 to 1073741824"
            ))
        })?;
    Ok(WriteOptions {
        row_codec,
        file_codec,
        compression_level,
        packet_bytes,
        index: *index,
        version,
        ..WriteOptions::default()
    })
}

/// Write a whole table: mode `x`, or `w` with `overwrite`; nothing is left behind on an error.
#[pyfunction]
pub(crate) fn bcsv_write_stream(
    py: Python<'_>,
    stream: &Bound<'_, PyAny>,
    path: PathBuf,
    columns: PyColumns,
    overwrite: bool,
    options: PyOptions,
) -> PyResult<()> {
    let schema = schema_of(py, &columns)?;
    let mode = if overwrite {
        WriteMode::Replace
    } else {
        WriteMode::New
    };
    let writer = open(py, path, Some(schema), mode, &options, None, false)?;
    let result = writer
        .write_stream(py, stream, columns)
        .and_then(|()| writer.close(py));
    if result.is_err() {
        // The first error is the one to report; what giving up says comes of the same cause.
        let _ = writer.with_open(py, FileWriter::discard);
    }
    result
}
