//! The compiled module `tapeline._native`: one file per Python module, no logic here.

#![allow(unsafe_code)]

use pyo3::prelude::*;

mod arrow;
mod bcsv;
mod bcsv_reader;
mod bcsv_rows;
mod bcsv_writer;
mod convert;
mod doctor;
mod errors;
mod memory;
mod recorder;
mod recording;
mod register_log;
#[cfg(unix)]
mod ring;
mod senders;
mod wire;
mod wire_registers;

#[pymodule(gil_used = false)]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    memory::prepare();
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("debug_build", cfg!(debug_assertions))?;
    errors::register(m)?;
    wire::register(m)?;
    wire_registers::register(m)?;
    bcsv::register(m)?;
    convert::register(m)?;
    recorder::register(m)?;
    recording::register(m)?;
    register_log::register(m)?;
    senders::register(m)?;
    #[cfg(unix)]
    ring::register(m)?;
    doctor::register(m)
}
