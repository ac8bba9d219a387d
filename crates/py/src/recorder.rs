//! Bindings of `tapeline.recorder`: JSON in, JSON out, the lock released while anything waits.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::exceptions::{PyKeyError, PyRuntimeError};
use pyo3::prelude::*;
use tapeline_capture::config::RecorderConfig;
use tapeline_capture::{Recorder as Core, recover_directory as recover};

use crate::errors::{capture_error, make};

/// The compiled recorder.
#[pyclass(frozen, module = "tapeline._native")]
struct Recorder {
    config: RecorderConfig,
    /// Set by `start`; no lock, so that one thread may wait while another asks.
    core: OnceLock<Core>,
}

impl Recorder {
    fn with<R>(&self, py: Python<'_>, run: impl FnOnce(&Core) -> R + Send) -> PyResult<R>
    where
        R: Send,
    {
        py.detach(|| self.core.get().map(run))
            .ok_or_else(|| make(py, "RecorderError", "the recorder was not started", &[]))
    }
}

#[pymethods]
impl Recorder {
    #[new]
    fn new(py: Python<'_>, config_json: &str) -> PyResult<Self> {
        let config = RecorderConfig::from_json(config_json).map_err(|e| capture_error(py, &e))?;
        Ok(Self {
            config,
            core: OnceLock::new(),
        })
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let config = self.config.clone();
        let core = py
            .detach(|| Core::start(config))
            .map_err(|e| capture_error(py, &e))?;
        self.core
            .set(core)
            .map_err(|_| PyRuntimeError::new_err("the recorder was started before"))
    }

    fn wait(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
        let timeout = Duration::try_from_secs_f64(timeout_s.max(0.0)).unwrap_or(Duration::MAX);
        let (done, failure) = self.with(py, |core| {
            let done = core.wait(timeout);
            (done, if done { core.take_failure() } else { None })
        })?;
        failure.map_or(Ok(done), |e| Err(capture_error(py, &e)))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Core::stop)
    }

    fn rotate(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Core::rotate)
    }

    /// How far the log of a register stream is written.
    #[allow(clippy::type_complexity)] // the tuple that `tapeline.sinks` unpacks
    #[pyo3(signature = (stream, after, timeout_s))]
    fn log_position(
        &self,
        py: Python<'_>,
        stream: &str,
        after: Option<(u64, u64)>,
        timeout_s: f64,
    ) -> PyResult<(u64, String, u64, u64, bool, bool)> {
        let timeout = Duration::try_from_secs_f64(timeout_s.max(0.0)).unwrap_or(Duration::MAX);
        let p = self
            .with(py, |core| core.log_position(stream, after, timeout))?
            .ok_or_else(|| PyKeyError::new_err(stream.to_owned()))?;
        Ok((
            p.segment,
            p.path,
            p.bytes_valid,
            p.keyframe_bytes,
            p.finished,
            p.ended,
        ))
    }

    fn sink_progress(
        &self,
        py: Python<'_>,
        stream: &str,
        sink: &str,
        segment: u64,
    ) -> PyResult<()> {
        self.with(py, |core| core.sink_progress(stream, sink, segment))
    }

    /// Applies `keep_*` to an ended recording whose sinks have ended too.
    fn retain(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Core::retain)?
            .map_err(|e| capture_error(py, &e))
    }

    fn status(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |core| core.status().to_string())
    }

    fn summary(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |core| core.summary().to_string())
    }
}

#[pyfunction]
fn recover_directory(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    let report = py
        .detach(|| recover(&path))
        .map_err(|e| capture_error(py, &e))?;
    serde_json::to_string(&report).map_err(|e| PyRuntimeError::new_err(e.to_string()))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Recorder>()?;
    m.add_function(wrap_pyfunction!(recover_directory, m)?)
}
