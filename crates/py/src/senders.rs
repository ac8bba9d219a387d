//! Bindings of `tapeline.simulate` and `tapeline.replay`: JSON in, JSON out, the lock released while anything waits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tapeline_capture::replay::{Replay as Recorded, ReplayOptions};
use tapeline_capture::simulate::{
    BatteryOptions, BatterySimulation as Battery, RadarOptions, RadarSimulation as Radar,
};

use crate::errors::make;

/// A sender as a class: each kind has options, a start, and an account, and is watched in the same way.
macro_rules! sender {
    ($(#[$doc:meta])* $name:ident, $core:ty, $options:ty, $ended:literal) => {
        $(#[$doc])*
        #[pyclass(frozen, module = "tapeline._native")]
        struct $name {
            core: Mutex<Option<$core>>,
        }

        impl $name {
            fn with<R: Send>(
                &self,
                py: Python<'_>,
                run: impl FnOnce(&mut Option<$core>) -> Option<R> + Send,
            ) -> PyResult<R> {
                py.detach(|| run(&mut self.core.lock().unwrap_or_else(PoisonError::into_inner)))
                    .ok_or_else(|| PyRuntimeError::new_err($ended))
            }
        }

        #[pymethods]
        impl $name {
            #[new]
            fn new(py: Python<'_>, options_json: &str) -> PyResult<Self> {
                let config_error = |text: &str| make(py, "ConfigError", text, &[]);
                let options: $options =
                    serde_json::from_str(options_json).map_err(|e| config_error(&e.to_string()))?;
                let core = py
                    .detach(|| <$core>::start(&options))
                    .map_err(|e| config_error(&e))?;
                Ok(Self {
                    core: Mutex::new(Some(core)),
                })
            }

            /// Wait for the end; true when everything is sent.
            fn wait(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
                let timeout =
                    Duration::try_from_secs_f64(timeout_s.max(0.0)).unwrap_or(Duration::MAX);
                self.with(py, |core| core.as_mut().map(|core| core.wait(timeout)))
            }

            /// Ask the threads to end.
            fn stop(&self, py: Python<'_>) -> PyResult<()> {
                self.with(py, |core| core.as_ref().map(<$core>::stop))
            }

            /// Bytes sent so far.
            fn bytes_sent(&self, py: Python<'_>) -> PyResult<u64> {
                self.with(py, |core| core.as_ref().map(<$core>::bytes_sent))
            }

            /// URLs of named pipes for which it has begun to wait for a reader, each told once.
            fn take_unread(&self, py: Python<'_>) -> PyResult<Vec<String>> {
                self.with(py, |core| core.as_ref().map(<$core>::take_unread))
            }

            /// Wait for the end and give the account as JSON.
            fn finish(&self, py: Python<'_>) -> PyResult<String> {
                let summary = self.with(py, |core| core.take().map(<$core>::finish))?;
                serde_json::to_string(&summary).map_err(|e| PyRuntimeError::new_err(e.to_string()))
            }
        }
    };
}

sender!(
    /// A radar simulation; it sends from the moment it is made.
    RadarSimulation,
    Radar,
    RadarOptions,
    "the simulation has ended"
);
sender!(
    /// A battery simulation; it sends from the moment it is made.
    BatterySimulation,
    Battery,
    BatteryOptions,
    "the simulation has ended"
);
sender!(
    /// A replay; it sends from the moment it is made.
    Replay,
    Recorded,
    ReplayOptions,
    "the replay has ended"
);

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<RadarSimulation>()?;
    m.add_class::<BatterySimulation>()?;
    m.add_class::<Replay>()
}
