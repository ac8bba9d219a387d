//! Bindings of `tapeline.wire`: layout, frame encoder and frame decoder.

use std::fmt::Display;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tapeline_wire::frame;
use tapeline_wire::ledger::Ledger;
use tapeline_wire::sequence::{DEFAULT_MAX_IDS, MAX_WINDOW, SequenceTable, Verdict};

mod error {
    pyo3::import_exception!(tapeline.errors, WireError);
}
pub(crate) use error::WireError;

/// Chunks shorter than this are decoded without releasing the lock: that would cost more.
const DETACH_BYTES: usize = 16 << 10;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<FrameLayout>()?;
    m.add_class::<Frame>()?;
    m.add_class::<FrameDecoder>()?;
    m.add_function(wrap_pyfunction!(encode_frame, m)?)
}

/// Where the fields of a frame's header are and what bounds it.
///
/// Args:
///     magic: The sync marker, 8 bytes.
///     version_flags: 4, or 2 for a header without `stream_id`.
///     length_bytes: Size of the payload length, 4 or 8 bytes.
///     header_crc: Whether the header carries a CRC32C of itself.
///     max_payload: The largest payload in bytes.
///
/// Raises:
///     WireError: A value is not one of these.
#[pyclass(frozen, eq, module = "tapeline.wire")]
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct FrameLayout(frame::FrameLayout);

#[pymethods]
impl FrameLayout {
    #[new]
    #[pyo3(signature = (magic=None, version_flags=4, length_bytes=4, header_crc=true, max_payload=1 << 20))]
    fn new(
        magic: Option<&Bound<'_, PyAny>>,
        version_flags: i128,
        length_bytes: i128,
        header_crc: bool,
        max_payload: i128,
    ) -> PyResult<Self> {
        let magic = match magic {
            None => frame::DEFAULT_MAGIC,
            Some(given) => Bytes::of(given)?.with(|b| {
                b.try_into().map_err(|_| {
                    WireError::new_err(format!("magic has {} bytes; it must have 8", b.len()))
                })
            })?,
        };
        let version_flags = u8::try_from(version_flags).map_err(|_| {
            refused(frame::LayoutError::VersionFlags {
                found: version_flags,
            })
        })?;
        let length_bytes = u8::try_from(length_bytes).map_err(|_| {
            refused(frame::LayoutError::LengthBytes {
                found: length_bytes,
            })
        })?;
        let max_payload = u64::try_from(max_payload)
            .map_err(|_| refused(frame::LayoutError::MaxPayload { found: max_payload }))?;
        frame::FrameLayout::new(magic, version_flags, length_bytes, header_crc, max_payload)
            .map(Self)
            .map_err(refused)
    }

    /// The sync marker.
    #[getter]
    fn magic<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.magic())
    }

    /// Bytes of version, flags and stream id: 4, or 2 without stream id.
    #[getter]
    fn version_flags(&self) -> u8 {
        self.0.version_flags()
    }

    /// Bytes of the payload length.
    #[getter]
    fn length_bytes(&self) -> u8 {
        self.0.length_bytes()
    }

    /// Whether the header carries a CRC32C of itself.
    #[getter]
    fn header_crc(&self) -> bool {
        self.0.header_crc()
    }

    /// The largest payload in bytes.
    #[getter]
    fn max_payload(&self) -> u64 {
        self.0.max_payload()
    }

    /// Bytes of the header, 34 to 44.
    #[getter]
    fn header_bytes(&self) -> usize {
        self.0.header_bytes()
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.__reduce__(py)?.1.into_pyobject(py)?.hash()
    }

    fn __repr__(&self) -> String {
        let magic: String = self
            .0
            .magic()
            .iter()
            .map(|b| format!("\\x{b:02x}"))
            .collect();
        format!(
            "FrameLayout(magic=b'{magic}', version_flags={}, length_bytes={}, header_crc={}, max_payload={})",
            self.0.version_flags(),
            self.0.length_bytes(),
            if self.0.header_crc() { "True" } else { "False" },
            self.0.max_payload()
        )
    }

    #[allow(clippy::type_complexity)] // the shape pickle asks for
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>, u8, u8, bool, u64))> {
        let class = py.get_type::<Self>().into_any();
        let l = &self.0;
        Ok((
            class,
            (
                self.magic(py),
                l.version_flags(),
                l.length_bytes(),
                l.header_crc(),
                l.max_payload(),
            ),
        ))
    }
}

/// One valid frame.
#[pyclass(frozen, get_all, eq, module = "tapeline.wire")]
pub(crate) struct Frame {
    /// Number of the frame in its stream.
    sequence: u64,
    /// Nanoseconds since the UNIX epoch, on the producer's clock.
    timestamp_ns: u64,
    /// Which stream; 0 in a layout without the field.
    stream_id: u16,
    /// All eight bits as received: bit 0 PERIOD_START, bit 1 PERIOD_END.
    flags: u8,
    /// The payload, 1 to `max_payload` bytes.
    payload: Py<PyBytes>,
    /// Where the frame's magic starts, in bytes from the start of the stream.
    offset: u64,
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        let key = |f: &Self| (f.sequence, f.timestamp_ns, f.stream_id, f.flags, f.offset);
        key(self) == key(other)
            && Python::attach(|py| {
                self.payload.bind(py).as_bytes() == other.payload.bind(py).as_bytes()
            })
    }
}

#[pymethods]
impl Frame {
    fn __repr__(&self, py: Python<'_>) -> String {
        let Self {
            sequence,
            timestamp_ns,
            stream_id,
            flags,
            offset,
            ..
        } = self;
        let n = self.payload.bind(py).as_bytes().len();
        format!(
            "Frame(sequence={sequence}, timestamp_ns={timestamp_ns}, stream_id={stream_id}, flags={flags}, \
             payload=<{n} bytes>, offset={offset})"
        )
    }
}

/// The decoder behind `tapeline.wire.FrameDecoder`.
#[pyclass(module = "tapeline._native")]
pub(crate) struct FrameDecoder {
    decoder: frame::FrameDecoder,
    sequence: SequenceTable,
    keep_duplicates: bool,
    ledger: Ledger,
}

#[pymethods]
impl FrameDecoder {
    #[new]
    fn new(layout: &FrameLayout, keep_duplicates: bool, reorder_window: i128) -> PyResult<Self> {
        let window = u64::try_from(reorder_window)
            .ok()
            .filter(|w| (1..=MAX_WINDOW).contains(w))
            .ok_or_else(|| {
                WireError::new_err(format!(
                    "reorder_window is {reorder_window}; it must be 1 to {MAX_WINDOW} frames"
                ))
            })?;
        Ok(Self {
            decoder: frame::FrameDecoder::new(layout.0),
            sequence: SequenceTable::new(window, DEFAULT_MAX_IDS),
            keep_duplicates,
            ledger: Ledger::default(),
        })
    }

    fn feed(&mut self, py: Python<'_>, chunk: &Bound<'_, PyAny>) -> PyResult<Vec<Py<Frame>>> {
        let chunk = Bytes::of(chunk)?;
        let mut frames = Vec::new();
        chunk.with(|bytes| {
            let mut rest = bytes;
            while !rest.is_empty() {
                let decoder = &mut self.decoder;
                let taken = if rest.len() >= DETACH_BYTES && chunk.constant() {
                    py.detach(|| decoder.advance(rest))
                } else {
                    decoder.advance(rest)
                };
                self.ledger.bytes_received += taken as u64;
                self.collect(py, rest, &mut frames)?;
                rest = rest.get(taken..).unwrap_or_default();
            }
            Ok(frames)
        })
    }

    fn finish(&mut self, py: Python<'_>) -> PyResult<Vec<Py<Frame>>> {
        let mut frames = Vec::new();
        self.decoder.end();
        self.collect(py, &[], &mut frames)?;
        Ok(frames)
    }

    #[getter]
    fn pending_bytes(&self) -> usize {
        self.decoder.pending_bytes()
    }

    /// The ledger's fields; those of `frames_corrupt` in a dict of their own.
    fn ledger<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut ledger = self.ledger;
        ledger.set_frames(self.decoder.counters());
        ledger.set_sequence(&self.sequence.totals());
        ledger_dict(py, &ledger)
    }
}

impl FrameDecoder {
    /// Makes objects of the frames of the decoder's last step.
    fn collect(
        &mut self,
        py: Python<'_>,
        chunk: &[u8],
        frames: &mut Vec<Py<Frame>>,
    ) -> PyResult<()> {
        let found = self.decoder.frames(chunk);
        frames.reserve(found.len());
        for f in found {
            let fields = f.fields;
            let verdict = self.sequence.observe(fields.stream_id, fields.sequence);
            if verdict == Some(Verdict::Duplicate) && !self.keep_duplicates {
                continue;
            }
            self.ledger.frames_stored += 1;
            self.ledger.bytes_stored += u64::from(fields.frame_bytes);
            frames.push(Py::new(
                py,
                Frame {
                    sequence: fields.sequence,
                    timestamp_ns: fields.timestamp_ns,
                    stream_id: fields.stream_id,
                    flags: fields.flags,
                    payload: PyBytes::new(py, f.payload).unbind(),
                    offset: f.offset,
                },
            )?);
        }
        Ok(())
    }
}

/// Encodes one frame; see `tapeline.wire.encode_frame`.
#[pyfunction]
fn encode_frame<'py>(
    payload: &Bound<'py, PyAny>,
    sequence: &Bound<'py, PyAny>,
    timestamp_ns: &Bound<'py, PyAny>,
    stream_id: &Bound<'py, PyAny>,
    flags: &Bound<'py, PyAny>,
    layout: &FrameLayout,
) -> PyResult<Bound<'py, PyBytes>> {
    let py = payload.py();
    let fields = frame::FrameFields {
        flags: in_range("flags", flags, u8::MAX)?,
        stream_id: in_range("stream_id", stream_id, u16::MAX)?,
        sequence: in_range("sequence", sequence, u64::MAX)?,
        timestamp_ns: in_range("timestamp_ns", timestamp_ns, u64::MAX)?,
    };
    let layout = &layout.0;
    Bytes::of(payload)?.with(|payload| {
        let mut header = Vec::with_capacity(frame::MAX_HEADER_BYTES);
        layout
            .encode_header(&fields, payload, &mut header)
            .map_err(refused)?;
        PyBytes::new_with(py, header.len() + payload.len(), |out| {
            let (head, body) = out.split_at_mut(header.len());
            head.copy_from_slice(&header);
            body.copy_from_slice(payload);
            Ok(())
        })
    })
}

/// The ledger as Python shows it everywhere: names of the specification, `frames_corrupt` nested.
pub(crate) fn ledger_dict<'py>(py: Python<'py>, ledger: &Ledger) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    let corrupt = PyDict::new(py);
    for (name, value) in ledger.fields() {
        match name.split_once('.') {
            None => all.set_item(name, value)?,
            Some((outer, inner)) => {
                if corrupt.is_empty() {
                    all.set_item(outer, &corrupt)?;
                }
                corrupt.set_item(inner, value)?;
            }
        }
    }
    Ok(all)
}

fn refused(error: impl Display) -> PyErr {
    WireError::new_err(error.to_string())
}

pub(crate) fn in_range<'a, 'py, T>(name: &str, value: &'a Bound<'py, PyAny>, max: T) -> PyResult<T>
where
    T: FromPyObject<'a, 'py, Error = PyErr> + Display,
{
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            WireError::new_err(format!("{name} is {value}; it must be 0 to {max}"))
        } else {
            error
        }
    })
}

/// Bytes of a Python object, lent without a copy.
pub(crate) enum Bytes<'py> {
    Immutable(Bound<'py, PyBytes>),
    Buffer(PyUntypedBuffer),
}

impl<'py> Bytes<'py> {
    pub(crate) fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Immutable(bytes.clone()));
        }
        let buffer = PyUntypedBuffer::get(object).map_err(|error| {
            // A scalar of NumPy lends a buffer without a shape.
            if error.is_instance_of::<PyBufferError>(object.py()) {
                PyTypeError::new_err(format!("a bytes-like object is required: {error}"))
            } else {
                error
            }
        })?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err(
                "the buffer is not contiguous; pass a contiguous copy",
            ));
        }
        Ok(Self::Buffer(buffer))
    }

    /// Whether no other thread can change the bytes once the lock is released.
    pub(crate) fn constant(&self) -> bool {
        matches!(self, Self::Immutable(_))
    }

    pub(crate) fn with<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Immutable(bytes) => read(bytes.as_bytes()),
            Self::Buffer(buffer) if buffer.len_bytes() == 0 => read(&[]),
            Self::Buffer(buffer) => {
                // SAFETY: the export is C-contiguous (checked in `of`), not empty, and held for the
                // whole call, so its memory stays. Callers release the lock only for immutable
                // objects, so no Python code writes to it meanwhile.
                let bytes = unsafe {
                    std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes())
                };
                read(bytes)
            }
        }
    }
}
