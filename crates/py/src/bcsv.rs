//! Bindings of `tapeline.bcsv`: registration, and what works on whole files.

use pyo3::prelude::*;

use crate::bcsv_reader::{BcsvBatch, BcsvReader, BcsvRows, BcsvStream};
use crate::bcsv_writer::{self, BcsvWriter};

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<BcsvReader>()?;
    m.add_class::<BcsvStream>()?;
    m.add_class::<BcsvBatch>()?;
    m.add_class::<BcsvRows>()?;
    m.add_class::<BcsvWriter>()?;
    m.add_function(wrap_pyfunction!(bcsv_writer::bcsv_write_stream, m)?)
}
