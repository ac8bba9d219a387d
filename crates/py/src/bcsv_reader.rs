//! `BcsvReader` and the iterators it gives out. All work is done with the interpreter's lock released.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arrow_array::{RecordBatch, RecordBatchIterator, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use tapeline_bcsv::{
    Batch, Batches, Error, ErrorKind, OnCorrupt, ReadOptions, Reader, Result as BcsvResult,
    Selection,
};

use crate::bcsv_rows::BatchRows;
use crate::{arrow, errors};

/// Rows decoded at a time when they are handed out one by one.
const ROWS_AT_A_TIME: usize = 1024;
/// How often a followed file is looked at; a flushed row is to be seen within 100 ms.
const POLL: Duration = Duration::from_millis(10);

#[pyclass(frozen, module = "tapeline._native")]
pub(crate) struct BcsvReader {
    path: PathBuf,
    threads: usize,
    columns: Vec<(String, &'static str)>,
    schema: SchemaRef,
    /// None once closed. The lock is only waited for while the interpreter's lock is released.
    reader: RwLock<Option<Reader>>,
}

type PyHeader = (
    (u8, u8, u8),
    Option<u64>,
    &'static str,
    &'static str,
    u8,
    u32,
    bool,
    u16,
    u64,
);

#[pymethods]
impl BcsvReader {
    #[new]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        on_corrupt: &str,
        follow: bool,
        threads: Option<i64>,
    ) -> PyResult<Self> {
        let on_corrupt = match on_corrupt {
            "raise" => OnCorrupt::Raise,
            "skip" => OnCorrupt::Skip,
            other => {
                return Err(PyValueError::new_err(format!(
                    "on_corrupt is {other:?}; it is 'raise' or 'skip'"
                )));
            }
        };
        let options = ReadOptions {
            on_corrupt,
            follow,
            ..ReadOptions::default()
        };
        let reader = py
            .detach(|| Reader::open(&path, options))
            .map_err(|error| errors::bcsv_error(py, &error, &path))?;
        let schema = reader.schema();
        let kinds: Vec<_> = schema.columns().iter().map(|spec| spec.kind).collect();
        let names = schema.unique_names();
        Ok(Self {
            schema: arrow::schema_of(names.iter().map(String::as_str).zip(kinds.iter().copied())),
            columns: names
                .iter()
                .cloned()
                .zip(kinds.iter().map(|kind| kind.name()))
                .collect(),
            path,
            threads: errors::threads(threads)?,
            reader: RwLock::new(Some(reader)),
        })
    }

    fn columns(&self) -> Vec<(String, &'static str)> {
        self.columns.clone()
    }

    fn header(&self, py: Python<'_>) -> PyResult<PyHeader> {
        self.with(py, |reader| {
            let header = reader.header();
            let [major, minor, patch] = header.version;
            Ok((
                (major, minor, patch),
                header.created_s,
                header.row_codec().name(),
                header.file_codec().name(),
                header.compression_level,
                header.packet_bytes,
                header.has_index(),
                header.flags,
                header.encode().len() as u64,
            ))
        })
    }

    fn num_rows(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, Reader::num_rows)
    }

    fn packets(&self, py: Python<'_>) -> PyResult<Vec<(u64, u64, u64, u64)>> {
        let packets = self.with(py, Reader::packets)?;
        Ok(packets
            .into_iter()
            .map(|packet| (packet.offset, packet.first_row, packet.rows, packet.bytes))
            .collect())
    }

    fn complete(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        self.with(py, Reader::complete)
    }

    fn gaps(&self, py: Python<'_>) -> PyResult<Vec<(u64, u64)>> {
        self.with(py, Reader::gaps)
    }

    /// Whole range, decoded in parallel: an Arrow stream over batches in memory.
    fn read(
        &self,
        py: Python<'_>,
        columns: Option<Vec<String>>,
        start: i64,
        stop: Option<i64>,
    ) -> PyResult<BcsvStream> {
        let (schema, selection) = self.selection(py, columns, start, stop)?;
        let convert = |batch| arrow::to_arrow(&schema, batch);
        let batches = self.with(py, |reader| reader.read_as(&selection, convert))?;
        let batches: Result<Vec<RecordBatch>, ArrowError> = batches.into_iter().collect();
        let batches = batches.map_err(|error| errors::not_text(&error.to_string()))?;
        Ok(self.stream_over(schema, Source::Ready(batches.into_iter())))
    }

    /// Range in batches, decoded as they are asked for.
    fn stream(
        &self,
        py: Python<'_>,
        columns: Option<Vec<String>>,
        start: i64,
        stop: Option<i64>,
        batch_rows: i64,
    ) -> PyResult<BcsvStream> {
        let Some(batch_rows) = usize::try_from(batch_rows).ok().filter(|&rows| rows > 0) else {
            let text = format!("batch_rows is {batch_rows}; it is at least 1");
            return Err(PyValueError::new_err(text));
        };
        let (schema, selection) = self.selection(py, columns, start, stop)?;
        let batches = self.with(py, |reader| reader.batches(&selection, batch_rows))?;
        Ok(self.stream_over(schema, Source::Lazy(Box::new(batches))))
    }

    /// Rows from `start` on as tuples.
    fn rows(&self, py: Python<'_>, start: i64, stop: Option<i64>) -> PyResult<BcsvRows> {
        let (_, mut selection) = self.selection(py, None, start, stop)?;
        selection.threads = 1;
        let batches = self.with(py, |reader| reader.batches(&selection, ROWS_AT_A_TIME))?;
        Ok(BcsvRows {
            path: self.path.clone(),
            state: Mutex::new(RowsState {
                batches,
                current: None,
            }),
        })
    }

    fn row<'py>(&self, py: Python<'py>, index: i64) -> PyResult<Bound<'py, PyTuple>> {
        let number = if index < 0 {
            let rows = self.with(py, Reader::num_rows)?;
            rows.checked_sub(index.unsigned_abs()).ok_or_else(|| {
                PyIndexError::new_err(format!("row {index} of a file of {rows} rows"))
            })?
        } else {
            index.unsigned_abs()
        };
        let batch = self.with(py, |reader| reader.row(number))?;
        let row = BatchRows::new(batch).next(py)?;
        row.ok_or_else(|| PyIndexError::new_err(format!("row {index} is not readable")))
    }

    fn refresh(&self, py: Python<'_>) -> PyResult<bool> {
        self.poll(py).map(|(new, _)| new)
    }

    /// Wait for rows that were not there yet; false when the file was closed or the time is over.
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let until = match timeout.map(Duration::try_from_secs_f64) {
            None => None,
            Some(Ok(timeout)) => Some(Instant::now() + timeout.min(Duration::from_secs(1 << 30))),
            Some(Err(_)) => return Err(PyValueError::new_err("timeout is negative or no number")),
        };
        loop {
            let (new, closed) = self.poll(py)?;
            let left = until.map_or(POLL, |until| {
                until.saturating_duration_since(Instant::now()).min(POLL)
            });
            if new || closed || left.is_zero() {
                return Ok(new);
            }
            py.detach(|| std::thread::sleep(left));
            py.check_signals()?;
        }
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| *self.reader.write().unwrap_or_else(PoisonError::into_inner) = None);
    }
}

impl BcsvReader {
    /// Do something with the open reader, lock released.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Reader) -> BcsvResult<R> + Send,
    ) -> PyResult<R> {
        let done = py.detach(|| {
            let guard = self.reader.read().unwrap_or_else(PoisonError::into_inner);
            guard.as_ref().map(work)
        });
        match done {
            Some(result) => result.map_err(|error| errors::bcsv_error(py, &error, &self.path)),
            None => Err(PyValueError::new_err(format!(
                "the reader of {:?} is closed",
                self.path
            ))),
        }
    }

    fn poll(&self, py: Python<'_>) -> PyResult<(bool, bool)> {
        let poll = self.with(py, Reader::poll)?;
        Ok((poll.new_rows > 0, poll.closed))
    }

    /// Names and Python range to what the crate reads, and the Arrow schema of that.
    fn selection(
        &self,
        py: Python<'_>,
        names: Option<Vec<String>>,
        start: i64,
        stop: Option<i64>,
    ) -> PyResult<(SchemaRef, Selection)> {
        let (schema, columns) = match names {
            None => (self.schema.clone(), None),
            Some(names) => {
                let find = |name: &String| {
                    self.columns
                        .iter()
                        .position(|(column, _)| column == name)
                        .ok_or_else(|| {
                            errors::bcsv_error(
                                py,
                                &Error::new(ErrorKind::NoSuchColumn { name: name.clone() }),
                                &self.path,
                            )
                        })
                };
                let columns = names.iter().map(find).collect::<PyResult<Vec<_>>>()?;
                let schema = self
                    .schema
                    .project(&columns)
                    .map_err(|error| PyValueError::new_err(error.to_string()))?;
                (schema.into(), Some(columns))
            }
        };
        let rows = if start < 0 || stop.is_some_and(|stop| stop < 0) {
            self.with(py, Reader::num_rows)?
        } else {
            0
        };
        let place = |at: i64| {
            if at < 0 {
                rows.saturating_sub(at.unsigned_abs())
            } else {
                at.unsigned_abs()
            }
        };
        let selection = Selection {
            columns,
            start: place(start),
            stop: stop.map(place),
            threads: self.threads,
        };
        Ok((schema, selection))
    }

    fn stream_over(&self, schema: SchemaRef, source: Source) -> BcsvStream {
        BcsvStream {
            path: self.path.clone(),
            schema,
            source: Mutex::new(Some(source)),
        }
    }
}

enum Source {
    Ready(std::vec::IntoIter<RecordBatch>),
    Lazy(Box<Batches>),
}

/// Batches, to be taken once: as a whole by `__arrow_c_stream__`, or one by one.
#[pyclass(frozen, module = "tapeline._native")]
pub(crate) struct BcsvStream {
    path: PathBuf,
    schema: SchemaRef,
    source: Mutex<Option<Source>>,
}

#[pymethods]
impl BcsvStream {
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema; // a wish; the types of the file are what there is
        let taken = self
            .source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let source = taken
            .ok_or_else(|| PyValueError::new_err("this stream has been given away already"))?;
        let schema = self.schema.clone();
        let reader: Box<dyn RecordBatchReader + Send> = match source {
            Source::Ready(batches) => Box::new(RecordBatchIterator::new(batches.map(Ok), schema)),
            Source::Lazy(batches) => {
                let of = schema.clone();
                let converted = batches.map(move |batch| {
                    let batch =
                        batch.map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
                    arrow::to_arrow(&of, batch)
                });
                Box::new(RecordBatchIterator::new(converted, schema))
            }
        };
        arrow::export_stream(py, reader)
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<BcsvBatch>> {
        let next = py.detach(|| {
            let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
            match source.as_mut()? {
                Source::Ready(batches) => batches.next().map(|batch| Ok(Ok(batch))),
                Source::Lazy(batches) => batches
                    .next()
                    .map(|batch| batch.map(|batch| arrow::to_arrow(&self.schema, batch))),
            }
        });
        match next {
            None => Ok(None),
            Some(Ok(Ok(batch))) => Ok(Some(BcsvBatch { batch })),
            Some(Ok(Err(error))) => Err(errors::not_text(&error.to_string())),
            Some(Err(error)) => Err(errors::bcsv_error(py, &error, &self.path)),
        }
    }
}

/// One batch for `pyarrow.record_batch`.
#[pyclass(frozen, module = "tapeline._native")]
pub(crate) struct BcsvBatch {
    batch: RecordBatch,
}

#[pymethods]
impl BcsvBatch {
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let _ = requested_schema;
        arrow::export_batch(py, self.batch.clone())
    }
}

struct RowsState {
    batches: Batches,
    current: Option<BatchRows>,
}

/// Rows as tuples.
#[pyclass(frozen, module = "tapeline._native")]
pub(crate) struct BcsvRows {
    path: PathBuf,
    state: Mutex<RowsState>,
}

#[pymethods]
impl BcsvRows {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        use pyo3::sync::MutexExt;
        let mut state = self
            .state
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(row) = state
                .current
                .as_mut()
                .map_or(Ok(None), |rows| rows.next(py))?
            {
                return Ok(Some(row));
            }
            let RowsState { batches, current } = &mut *state;
            let next: Option<BcsvResult<Batch>> = py.detach(|| batches.next());
            match next {
                None => {
                    *current = None;
                    return Ok(None);
                }
                Some(Ok(batch)) => *current = Some(BatchRows::new(batch)),
                Some(Err(error)) => return Err(errors::bcsv_error(py, &error, &self.path)),
            }
        }
    }
}
