//! Bindings of `tapeline.replay`: JSON in, JSON out, the lock released while anything waits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tapeline_capture::replay::{Replay as Core, ReplayOptions};

use crate::errors::make;

/// A replay; it sends from the moment it is made.
#[pyclass(frozen, module = "tapeline._native")]
struct Replay {
    core: Mutex<Option<Core>>,
}

impl Replay {
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        run: impl FnOnce(&mut Option<Core>) -> Option<R> + Send,
    ) -> PyResult<R> {
        py.detach(|| run(&mut self.core.lock().unwrap_or_else(PoisonError::into_inner)))
            .ok_or_else(|| PyRuntimeError::new_err("the replay has ended"))
    }
}

#[pymethods]
impl Replay {
    #[new]
    fn new(py: Python<'_>, options_json: &str) -> PyResult<Self> {
        let config_error = |text: &str| make(py, "ConfigError", text, &[]);
        let options: ReplayOptions =
            serde_json::from_str(options_json).map_err(|e| config_error(&e.to_string()))?;
        let core = py
            .detach(|| Core::start(&options))
            .map_err(|e| config_error(&e))?;
        Ok(Self {
            core: Mutex::new(Some(core)),
        })
    }

    /// Wait for the end; true when everything is sent.
    fn wait(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
        let timeout = Duration::try_from_secs_f64(timeout_s.max(0.0)).unwrap_or(Duration::MAX);
        self.with(py, |core| core.as_mut().map(|core| core.wait(timeout)))
    }

    /// Ask the threads to end.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |core| core.as_ref().map(Core::stop))
    }

    /// Bytes sent so far.
    fn bytes_sent(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |core| core.as_ref().map(Core::bytes_sent))
    }

    /// Wait for the end and say what was sent, as JSON.
    fn finish(&self, py: Python<'_>) -> PyResult<String> {
        let summary = self.with(py, |core| core.take().map(Core::finish))?;
        serde_json::to_string(&summary).map_err(|e| PyRuntimeError::new_err(e.to_string()))
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Replay>()
}
