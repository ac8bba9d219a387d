//! Bindings of `tapeline.wire` for register packets: packet, encoder, decoder, image.

use std::path::PathBuf;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tapeline_wire::register::{
    self as core, Command, ImageLimits, ImagePosition, Kind, PacketFields, PacketRef,
    PacketScanner, RegisterLedger, SeqTable, Source, SourceType,
};

use crate::errors::os_error;
use crate::wire::{Bytes, WireError, in_range};

/// Sources whose sequence a decoder follows: every one of the packet wire.
const MAX_SOURCES: usize = 1024;
/// Chunks shorter than this are applied without releasing the lock: that would cost more.
const DETACH_BYTES: usize = 16 << 10;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Packet>()?;
    m.add_class::<PacketDecoder>()?;
    m.add_class::<RegisterImage>()?;
    m.add_function(wrap_pyfunction!(encode_packet, m)?)
}

/// One valid register packet, of either wire.
#[pyclass(frozen, module = "tapeline.wire")]
pub(crate) struct Packet {
    kind: Kind,
    bytes: Py<PyBytes>,
    /// Where the packet starts, in bytes from the start of the stream.
    #[pyo3(get)]
    offset: u64,
}

impl Packet {
    pub(crate) fn make(py: Python<'_>, packet: &PacketRef<'_>) -> PyResult<Py<Self>> {
        Py::new(
            py,
            Self {
                kind: packet.kind,
                bytes: PyBytes::new(py, packet.bytes).unbind(),
                offset: packet.offset,
            },
        )
    }

    fn with<R>(&self, py: Python<'_>, read: impl FnOnce(&PacketRef<'_>) -> R) -> PyResult<R> {
        PacketRef::parse(self.kind, self.bytes.bind(py).as_bytes())
            .map(|mut packet| {
                packet.offset = self.offset;
                read(&packet)
            })
            .ok_or_else(|| WireError::new_err("not a packet"))
    }
}

#[pymethods]
impl Packet {
    /// The wire: "packet" or "simple".
    #[getter]
    fn kind(&self) -> &'static str {
        self.kind.name()
    }

    /// Microseconds since the UNIX epoch; of a simple packet `time`, rounded.
    #[getter]
    fn timestamp_us(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |p| p.timestamp_us)
    }

    /// Seconds since the UNIX epoch; of a simple packet as received.
    #[getter]
    fn time(&self, py: Python<'_>) -> PyResult<f64> {
        self.with(py, |p| p.time_s)
    }

    /// Number of the SBMU or rack.
    #[getter]
    fn src_id(&self, py: Python<'_>) -> PyResult<i32> {
        self.with(py, |p| p.source.id)
    }

    /// The same as `src_id`, by its name on the simple wire.
    #[getter]
    fn rack(&self, py: Python<'_>) -> PyResult<i32> {
        self.src_id(py)
    }

    /// 0 DIFF, 1 FULL, 2 QUERY, 3 REPLY, 4 SYNC, 5 SYNCED; a simple packet is a DIFF.
    #[getter]
    fn cmd(&self, py: Python<'_>) -> PyResult<u8> {
        self.with(py, |p| p.command as u8)
    }

    /// 0 UNKNOWN, 1 SBMU, 2 RACK, 3 RTOS; a simple packet is of a RACK.
    #[getter]
    fn r#type(&self, py: Python<'_>) -> PyResult<u8> {
        self.with(py, |p| p.source.kind as u8)
    }

    /// Number of the packet, modulo 256; 0 on the simple wire.
    #[getter]
    fn seq(&self, py: Python<'_>) -> PyResult<u8> {
        self.with(py, |p| p.seq)
    }

    /// The reserved byte as received; 0 on the simple wire.
    #[getter]
    fn reserved(&self, py: Python<'_>) -> PyResult<u8> {
        self.with(py, |p| p.reserved)
    }

    /// Number of registers, 0 to 65,536.
    #[getter]
    fn count(&self, py: Python<'_>) -> PyResult<u32> {
        self.with(py, |p| p.count)
    }

    /// Register offsets, a list of `count` ints.
    #[getter]
    fn control(&self, py: Python<'_>) -> PyResult<Vec<u16>> {
        self.with(py, |p| p.offsets().collect())
    }

    /// Values, a list of `count` ints.
    #[getter]
    fn data(&self, py: Python<'_>) -> PyResult<Vec<u16>> {
        self.with(py, |p| p.values().collect())
    }

    /// Register offsets with their values, a list of pairs.
    #[getter]
    fn registers(&self, py: Python<'_>) -> PyResult<Vec<(u16, u16)>> {
        self.with(py, |p| p.registers().collect())
    }

    /// The packet as received, a length prefix included.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.bytes.bind(py).clone()
    }

    /// Bytes of the packet, a length prefix included.
    #[getter]
    fn packet_bytes(&self, py: Python<'_>) -> usize {
        self.bytes.bind(py).as_bytes().len()
    }

    /// One line for people.
    fn summary(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |p| p.to_string())
    }

    fn __str__(&self, py: Python<'_>) -> PyResult<String> {
        self.summary(py)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.raw(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let offset = self.offset;
        self.with(py, |p| match p.kind {
            Kind::Packet => format!(
                "Packet(timestamp_us={}, src_id={}, cmd={}, type={}, seq={}, count={}, offset={offset})",
                p.timestamp_us, p.source.id, p.command as u8, p.source.kind as u8, p.seq, p.count
            ),
            Kind::Simple => format!(
                "Packet(time={:?}, rack={}, count={}, offset={offset})",
                p.time_s, p.source.id, p.count
            ),
        })
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let py = other.py();
        other.cast::<Self>().is_ok_and(|other| {
            let other = other.get();
            self.kind == other.kind
                && self.offset == other.offset
                && self.bytes.bind(py).as_bytes() == other.bytes.bind(py).as_bytes()
        })
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (self.offset, self.bytes.bind(py)).into_pyobject(py)?.hash()
    }
}

/// The decoder behind `tapeline.wire.PacketDecoder`.
#[pyclass(module = "tapeline._native")]
pub(crate) struct PacketDecoder {
    decoder: core::PacketDecoder,
    sequence: SeqTable,
}

#[pymethods]
impl PacketDecoder {
    #[new]
    fn new(kind: &str) -> PyResult<Self> {
        Ok(Self {
            decoder: core::PacketDecoder::new(kind_of(kind)?),
            sequence: SeqTable::new(MAX_SOURCES),
        })
    }

    fn feed(&mut self, py: Python<'_>, chunk: &Bound<'_, PyAny>) -> PyResult<Vec<Py<Packet>>> {
        let mut packets = Vec::new();
        let mut failed = None;
        let sequence = &mut self.sequence;
        let mut take = |packet: PacketRef<'_>| {
            if packet.kind == Kind::Packet && packet.command.sets_registers() {
                sequence.observe(packet.source, packet.seq);
            }
            match Packet::make(py, &packet) {
                Ok(made) => packets.push(made),
                Err(error) => failed = Some(error),
            }
        };
        // Lost framing is counted, and `framing_lost` tells of it.
        Bytes::of(chunk)?.with(|bytes| self.decoder.feed(bytes, &mut take).ok());
        failed.map_or(Ok(packets), Err)
    }

    fn finish(&mut self) {
        self.decoder.finish();
    }

    #[getter]
    fn pending_bytes(&self) -> usize {
        self.decoder.pending_bytes()
    }

    #[getter]
    fn framing_lost(&self) -> Option<String> {
        self.decoder.lost().map(|lost| lost.to_string())
    }

    fn ledger<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut ledger = RegisterLedger::default();
        ledger.set_packets(self.decoder.counters());
        ledger.set_sequence(self.sequence.counters());
        ledger.bytes_received = self.decoder.bytes_received();
        ledger.packets_stored = ledger.packets_received;
        ledger.bytes_stored = ledger.bytes_valid;
        nested(py, ledger.fields())
    }
}

/// The image behind `tapeline.wire.RegisterImage`.
#[pyclass(module = "tapeline._native")]
pub(crate) struct RegisterImage(core::RegisterImage);

#[pymethods]
impl RegisterImage {
    #[new]
    fn new(max_sources: usize, max_pages: usize) -> Self {
        Self(core::RegisterImage::new(ImageLimits {
            max_sources,
            max_pages,
        }))
    }

    fn apply(&mut self, py: Python<'_>, packet: &Packet) -> PyResult<u32> {
        packet.with(py, |p| self.0.apply(p).changed)
    }

    /// Applies the packets of `data`; returns packets applied and bytes consumed.
    fn apply_bytes(
        &mut self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        kind: &str,
    ) -> PyResult<(u64, usize)> {
        let mut scanner = PacketScanner::new(kind_of(kind)?);
        let data = Bytes::of(data)?;
        let image = &mut self.0;
        let done = data.with(|bytes| {
            let mut run = || {
                scanner.scan(bytes, false, &mut |packet| {
                    image.apply(&packet);
                })
            };
            if bytes.len() >= DETACH_BYTES && data.constant() {
                py.detach(run)
            } else {
                run()
            }
        });
        let consumed = done.map_err(|lost| WireError::new_err(lost.to_string()))?;
        Ok((scanner.counters().packets, consumed))
    }

    fn sources(&self) -> Vec<(u8, i32)> {
        let sources = self.0.sources();
        sources
            .iter()
            .map(|s| (s.source().kind as u8, s.source().id))
            .collect()
    }

    /// Value, change time and unknown-since of one register.
    fn get(
        &self,
        r#type: u8,
        src_id: i32,
        offset: u16,
    ) -> PyResult<Option<(u16, u64, Option<u64>)>> {
        let state = self.0.get(source_of(r#type, src_id)?, offset);
        Ok(state.map(|s| (s.value, s.changed_us, s.unknown_since_us)))
    }

    /// The known registers of a source as three little-endian columns: offset u16, value u16, changed_us u64.
    fn columns<'py>(
        &self,
        py: Python<'py>,
        r#type: u8,
        src_id: i32,
    ) -> PyResult<[Bound<'py, PyBytes>; 3]> {
        let states = self.0.source(source_of(r#type, src_id)?);
        let states = states.map(core::SourceImage::states).unwrap_or_default();
        let offsets: Vec<u8> = states.iter().flat_map(|s| s.0.to_le_bytes()).collect();
        let values: Vec<u8> = states
            .iter()
            .flat_map(|s| s.1.value.to_le_bytes())
            .collect();
        let times = states.iter().flat_map(|s| s.1.changed_us.to_le_bytes());
        let times: Vec<u8> = times.collect();
        Ok([&offsets, &values, &times].map(|column| PyBytes::new(py, column)))
    }

    fn digest(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.digest())
    }

    fn to_bytes<'py>(
        &self,
        py: Python<'py>,
        segment: u64,
        offset: u64,
        written_ns: u64,
    ) -> Bound<'py, PyBytes> {
        let position = ImagePosition {
            segment,
            offset,
            written_ns,
        };
        let reader = self.0.reader();
        PyBytes::new(py, &py.detach(|| core::encode_image(&reader, position)))
    }

    #[staticmethod]
    fn from_file(
        py: Python<'_>,
        path: PathBuf,
        max_sources: usize,
        max_pages: usize,
    ) -> PyResult<(Self, (u64, u64, u64))> {
        let limits = ImageLimits {
            max_sources,
            max_pages,
        };
        let read = py
            .detach(|| read_image(&path).map(|bytes| core::decode_image(&bytes, limits)))
            .map_err(|e| os_error(&e, &e.to_string(), Some(&path)))?;
        let (image, p) = read.map_err(|error| WireError::new_err(error.to_string()))?;
        Ok((Self(image), (p.segment, p.offset, p.written_ns)))
    }
}

/// The bytes of a file; none of a pipe or device, which may have no end.
fn read_image(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_file() || kind.is_dir() {
        std::fs::read(path)
    } else {
        Ok(Vec::new())
    }
}

/// Encodes one packet; see `tapeline.wire.encode_packet`.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // the fields of the wire
fn encode_packet<'py>(
    control: &Bound<'py, PyAny>,
    data: Option<&Bound<'py, PyAny>>,
    kind: &str,
    timestamp_us: &Bound<'py, PyAny>,
    time: Option<f64>,
    src_id: &Bound<'py, PyAny>,
    cmd: &Bound<'py, PyAny>,
    r#type: &Bound<'py, PyAny>,
    seq: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let py = control.py();
    let offsets = words("control", control)?;
    let values = match data {
        Some(data) => words("data", data)?,
        None => vec![0; offsets.len()],
    };
    if offsets.len() != values.len() {
        let (offsets, values) = (offsets.len(), values.len());
        return Err(WireError::new_err(format!(
            "control has {offsets} offsets and data {values} values; there must be as many"
        )));
    }
    let registers: Vec<(u16, u16)> = offsets.into_iter().zip(values).collect();
    let timestamp_us: u64 = in_range("timestamp_us", timestamp_us, u64::MAX)?;
    let mut out = Vec::new();
    let encoded = match kind_of(kind)? {
        Kind::Packet => {
            let source = Source {
                kind: type_of(in_range("type", r#type, 3)?)?,
                id: i32::from(in_range("src_id", src_id, u8::MAX)?),
            };
            let command: u8 = in_range("cmd", cmd, 5)?;
            let fields = PacketFields {
                timestamp_us,
                source,
                command: Command::from_u8(command).ok_or_else(|| outside("cmd", command, 5))?,
                seq: in_range("seq", seq, u8::MAX)?,
            };
            core::encode_packet(&fields, &registers, &mut out)
        }
        Kind::Simple => {
            #[allow(clippy::cast_precision_loss)] // exact until the year 2255
            let time_s = time.unwrap_or(timestamp_us as f64 / 1e6);
            let rack: i32 = src_id.extract().map_err(|error: PyErr| {
                if error.is_instance_of::<PyOverflowError>(py) {
                    WireError::new_err(format!("rack is {src_id}; it must be -2**31 to 2**31 - 1"))
                } else {
                    error
                }
            })?;
            core::encode_simple(time_s, rack, &registers, &mut out)
        }
    };
    encoded.map_err(|error| WireError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &out))
}

/// A ledger with dotted names as nested dicts.
pub(crate) fn nested<'py>(
    py: Python<'py>,
    fields: Vec<(&'static str, u64)>,
) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for (name, value) in fields {
        match name.split_once('.') {
            None => all.set_item(name, value)?,
            Some((group, field)) => {
                let inner = match all.get_item(group)? {
                    Some(inner) => inner.cast_into::<PyDict>()?,
                    None => {
                        let inner = PyDict::new(py);
                        all.set_item(group, &inner)?;
                        inner
                    }
                };
                inner.set_item(field, value)?;
            }
        }
    }
    Ok(all)
}

/// 16-bit numbers of an array of them, or of any sequence of ints.
fn words(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<u16>> {
    if let Ok(buffer) = PyBuffer::<u16>::get(object) {
        return buffer.to_vec(object.py());
    }
    object.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(object.py()) {
            WireError::new_err(format!("{name} holds a number that is not 0 to 65535"))
        } else {
            error
        }
    })
}

fn kind_of(name: &str) -> PyResult<Kind> {
    Kind::from_name(name).ok_or_else(|| {
        WireError::new_err(format!(
            "kind is {name:?}; it must be \"packet\" or \"simple\""
        ))
    })
}

fn type_of(number: u8) -> PyResult<SourceType> {
    SourceType::from_u8(number).ok_or_else(|| outside("type", number, 3))
}

fn source_of(r#type: u8, id: i32) -> PyResult<Source> {
    Ok(Source {
        kind: type_of(r#type)?,
        id,
    })
}

fn outside(name: &str, value: u8, max: u8) -> PyErr {
    WireError::new_err(format!("{name} is {value}; it must be 0 to {max}"))
}
