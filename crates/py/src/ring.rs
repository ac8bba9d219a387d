//! Bindings of `tapeline.ring`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tapeline_ring::shared_memory::{Backoff, Error, Progress, Reader, Start, Writer, path_of};

use crate::errors::{make, os_error};

/// Longest time between two looks at whether the interpreter wants to interrupt.
const SLICE: Duration = Duration::from_millis(50);
/// `errno` of a ring that has a producer.
const EBUSY: i32 = 16;

fn ring_error(py: Python<'_>, error: &Error, path: &Path) -> PyErr {
    match error {
        Error::Io(io) => os_error(io, &io.to_string(), Some(path)),
        Error::Busy => PyOSError::new_err((EBUSY, error.to_string(), path.display().to_string())),
        _ => make(
            py,
            "RingError",
            &format!("{}: {error}", path.display()),
            &[],
        ),
    }
}

fn closed() -> PyErr {
    PyValueError::new_err("the ring is closed")
}

/// Position, timestamp in microseconds, payload.
type Record<'py> = (u64, u64, Bound<'py, PyBytes>);

/// A producer.
#[pyclass(frozen, module = "tapeline._native")]
struct RingWriter {
    path: PathBuf,
    core: Mutex<Option<Writer>>,
}

impl RingWriter {
    fn with<R>(&self, run: impl FnOnce(&mut Writer) -> R) -> PyResult<R> {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        core.as_mut().map(run).ok_or_else(closed)
    }
}

#[pymethods]
impl RingWriter {
    #[new]
    fn new(py: Python<'_>, name: &str, capacity: u64) -> PyResult<Self> {
        let path = path_of(name);
        let core = py
            .detach(|| Writer::open(&path, capacity))
            .map_err(|e| ring_error(py, &e, &path))?;
        Ok(Self {
            path,
            core: Mutex::new(Some(core)),
        })
    }

    fn write(
        &self,
        py: Python<'_>,
        timestamp_us: u64,
        payload: &Bound<'_, PyBytes>,
    ) -> PyResult<u64> {
        self.with(|core| core.write(timestamp_us, payload.as_bytes()))?
            .map_err(|e| ring_error(py, &e, &self.path))
    }

    fn capacity(&self) -> PyResult<u64> {
        self.with(|core| core.capacity())
    }

    fn write_position(&self) -> PyResult<u64> {
        self.with(|core| core.write_position())
    }

    fn max_payload_bytes(&self) -> PyResult<u64> {
        self.with(|core| core.max_payload_bytes())
    }

    fn close(&self) {
        self.core
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

/// A reader.
#[pyclass(frozen, module = "tapeline._native")]
struct RingReader {
    path: PathBuf,
    core: Mutex<Option<Reader>>,
}

impl RingReader {
    fn with<R>(&self, run: impl FnOnce(&mut Reader) -> R) -> PyResult<R> {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        core.as_mut().map(run).ok_or_else(closed)
    }
}

type Taken = Vec<(u64, u64, Vec<u8>)>;

/// Reads up to `limit` records; waits for the first until `deadline`.
fn take(reader: &mut Reader, limit: usize, wait: Duration) -> Result<(Taken, Progress), Error> {
    let deadline = Instant::now().checked_add(wait);
    let mut taken = Taken::new();
    let mut backoff = Backoff::default();
    // A producer that goes on must not keep this going: what is there now is enough.
    let end = reader.header()?.write_position;
    loop {
        let progress = reader.read(|record| {
            taken.push((
                record.position,
                record.timestamp_us,
                record.payload.to_vec(),
            ));
            taken.len() < limit
        })?;
        if taken.len() >= limit || (!taken.is_empty() && reader.position() >= end) {
            return Ok((taken, progress));
        }
        if progress == Progress::More {
            continue;
        }
        let left = deadline.map_or(SLICE, |end| end.saturating_duration_since(Instant::now()));
        if !taken.is_empty() || progress == Progress::Closed || left.is_zero() {
            return Ok((taken, progress));
        }
        backoff.pause(left);
    }
}

#[pymethods]
impl RingReader {
    #[new]
    fn new(py: Python<'_>, name: &str, newest: bool) -> PyResult<Self> {
        let path = path_of(name);
        let start = if newest { Start::Newest } else { Start::Oldest };
        let core = Reader::open(&path, start).map_err(|e| ring_error(py, &e, &path))?;
        Ok(Self {
            path,
            core: Mutex::new(Some(core)),
        })
    }

    /// Up to `limit` records as (position, time, payload), and how the reading ended.
    fn read<'py>(
        &self,
        py: Python<'py>,
        limit: usize,
        timeout_s: f64,
    ) -> PyResult<(Vec<Record<'py>>, &'static str)> {
        let deadline = Duration::try_from_secs_f64(timeout_s.max(0.0))
            .ok()
            .and_then(|timeout| Instant::now().checked_add(timeout));
        let (taken, progress) = loop {
            let left = deadline.map_or(SLICE, |end| end.saturating_duration_since(Instant::now()));
            let (taken, progress) = py
                .detach(|| self.with(|core| take(core, limit.max(1), left.min(SLICE))))?
                .map_err(|e| ring_error(py, &e, &self.path))?;
            if !taken.is_empty() || progress == Progress::Closed || left.is_zero() {
                break (taken, progress);
            }
            py.check_signals()?;
        };
        let records = taken
            .into_iter()
            .map(|(position, time, payload)| (position, time, PyBytes::new(py, &payload)))
            .collect();
        let ended = match progress {
            Progress::More => "more",
            Progress::Idle => "idle",
            Progress::Closed => "closed",
            Progress::Abandoned => "abandoned",
        };
        Ok((records, ended))
    }

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.with(|core| *core.counters())?;
        let dict = PyDict::new(py);
        for (name, value) in [
            ("records", counters.records),
            ("payload_bytes", counters.payload_bytes),
            ("overtakes", counters.overtakes),
            ("overtaken_bytes", counters.overtaken_bytes),
            ("corrupt_records", counters.corrupt_records),
            ("corrupt_bytes", counters.corrupt_bytes),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    fn header<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (header, has_producer) = self.with(|core| (core.header(), core.has_producer()))?;
        let header = header.map_err(|e| ring_error(py, &e, &self.path))?;
        let dict = PyDict::new(py);
        for (name, value) in [
            ("capacity", header.capacity),
            ("producer_pid", u64::from(header.producer_pid)),
            ("has_producer", u64::from(has_producer)),
            ("closed", u64::from(header.closed)),
            ("write_position", header.write_position),
            ("reserve_position", header.reserve_position),
            ("oldest_position", header.oldest_position),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    fn position(&self) -> PyResult<u64> {
        self.with(|core| core.position())
    }

    fn close(&self) {
        self.core
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<RingWriter>()?;
    m.add_class::<RingReader>()
}
