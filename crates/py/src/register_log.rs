//! Bindings of `tapeline.registers` and the table sinks: logs of register streams as Arrow batches, images and
//! histories.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int8Array, Int32Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, TimeUnit};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use tapeline_capture::registers::log_reader::{self, Block};
use tapeline_capture::registers::rows::{self, DataRows, PacketRows, Route, SimpleRows, Taken};
use tapeline_capture::registers::time_machine::{self, SegmentFiles, beside};
use tapeline_capture::registers::touch;
use tapeline_wire::register::Kind;

use crate::arrow;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<RegisterRows>()?;
    m.add_function(wrap_pyfunction!(register_rows, m)?)?;
    m.add_function(wrap_pyfunction!(register_packets, m)?)?;
    m.add_function(wrap_pyfunction!(register_filter, m)?)?;
    m.add_function(wrap_pyfunction!(register_blocks, m)?)?;
    m.add_function(wrap_pyfunction!(register_touch, m)?)?;
    m.add_function(wrap_pyfunction!(register_image_at, m)?)?;
    m.add_function(wrap_pyfunction!(register_history, m)?)?;
    m.add_function(wrap_pyfunction!(bytes_digest, m)?)
}

/// Names of the source types, by number (spec/register-packets.md 2).
const TYPES: [&str; 4] = ["UNKNOWN", "SBMU", "RACK", "RTOS"];

type RouteLists = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<i32>>);

fn route_of((cmds, types, src_ids): RouteLists) -> Route {
    Route::new(cmds.as_deref(), types.as_deref(), src_ids)
}

fn kind_of(kind: &str) -> PyResult<Kind> {
    Kind::from_name(kind).ok_or_else(|| {
        PyValueError::new_err(format!("wire is {kind:?}; it must be packet or simple"))
    })
}

/// A batch of rows and how far the log was read for it.
#[pyclass(frozen, module = "tapeline._native")]
pub(crate) struct RegisterRows {
    batch: RecordBatch,
    /// Where reading goes on.
    #[pyo3(get)]
    next_offset: u64,
    /// Packets of the route.
    #[pyo3(get)]
    packets: u64,
    /// Their bytes.
    #[pyo3(get)]
    packet_bytes: u64,
    /// What ended it, when that was damage.
    #[pyo3(get)]
    broken: Option<&'static str>,
}

#[pymethods]
impl RegisterRows {
    #[getter]
    fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        // the interface lets a producer ignore the wish
        let _ = requested_schema;
        arrow::export_batch(py, self.batch.clone())
    }
}

impl RegisterRows {
    fn new(start: u64, taken: Taken, batch: Result<RecordBatch, ArrowError>) -> io::Result<Self> {
        Ok(Self {
            batch: batch.map_err(io::Error::other)?,
            next_offset: start + taken.bytes as u64,
            packets: taken.packets,
            packet_bytes: taken.packet_bytes,
            broken: taken.broken,
        })
    }
}

/// Rows of the packets in bytes `start` to `stop` of a log, of about `read_bytes` of them.
#[pyfunction]
fn register_rows(
    py: Python<'_>,
    path: PathBuf,
    kind: &str,
    start: u64,
    stop: u64,
    read_bytes: u64,
    route: RouteLists,
) -> PyResult<RegisterRows> {
    let (kind, route) = (kind_of(kind)?, route_of(route));
    Ok(py.detach(|| {
        let mut data = Vec::new();
        log_reader::read_packets(&path, kind, start, stop, read_bytes, &mut data)?;
        match kind {
            Kind::Packet => {
                let (rows, taken) = rows::data_rows(&data, &route);
                RegisterRows::new(start, taken, data_batch(rows))
            }
            Kind::Simple => {
                let (rows, taken) = rows::simple_rows(&data, &route);
                RegisterRows::new(start, taken, simple_batch(rows))
            }
        }
    })?)
}

/// The same packets, one row each.
#[pyfunction]
fn register_packets(
    py: Python<'_>,
    path: PathBuf,
    kind: &str,
    start: u64,
    stop: u64,
    read_bytes: u64,
    route: RouteLists,
) -> PyResult<RegisterRows> {
    let (kind, route) = (kind_of(kind)?, route_of(route));
    Ok(py.detach(|| {
        let mut data = Vec::new();
        log_reader::read_packets(&path, kind, start, stop, read_bytes, &mut data)?;
        let (rows, taken) = rows::packet_rows(kind, &data, start, &route);
        RegisterRows::new(start, taken, packet_batch(rows))
    })?)
}

type Filtered<'py> = (Bound<'py, PyBytes>, u64, u64, Option<&'static str>);

/// The same packets verbatim; where reading goes on, how many they are, and what ended it.
#[pyfunction]
fn register_filter<'py>(
    py: Python<'py>,
    path: PathBuf,
    kind: &str,
    start: u64,
    stop: u64,
    read_bytes: u64,
    route: RouteLists,
) -> PyResult<Filtered<'py>> {
    let (kind, route) = (kind_of(kind)?, route_of(route));
    let (out, taken) = py.detach(|| -> io::Result<_> {
        let mut data = Vec::new();
        log_reader::read_packets(&path, kind, start, stop, read_bytes, &mut data)?;
        Ok(rows::filtered(kind, &data, &route))
    })?;
    let next = start + taken.bytes as u64;
    Ok((PyBytes::new(py, &out), next, taken.packets, taken.broken))
}

type BlockRow = (u64, u64, u32, u64, u64, u64, u64, bool);
type BlockRows = (Vec<BlockRow>, usize, Option<(u64, &'static str)>);

/// The blocks of a log: those of its index and, where that ends, what the packets give; how many are from the
/// index; where and why the packets end early. With `read`, all are from the packets, in the bounds of the index.
#[pyfunction]
fn register_blocks(
    py: Python<'_>,
    log: PathBuf,
    index: PathBuf,
    kind: &str,
    read: bool,
) -> PyResult<BlockRows> {
    let kind = kind_of(kind)?;
    let found = py.detach(|| {
        let mut found = log_reader::blocks(&log, &index, kind)?;
        if read {
            log_reader::read_again(&log, kind, &mut found)?;
        }
        Ok::<_, io::Error>(found)
    })?;
    let rows = found.blocks.iter().map(block_row).collect();
    Ok((rows, found.indexed, found.broken))
}

fn block_row(block: &Block) -> BlockRow {
    (
        block.offset,
        block.length,
        block.packets,
        block.first_us,
        block.last_us,
        block.received_ns,
        block.xxh64,
        block.keyframe,
    )
}

/// Writes the touch index of a finished log beside it, and what is in doubt at its end, given the log before it.
#[pyfunction]
#[pyo3(signature = (log, kind, before))]
fn register_touch(
    py: Python<'_>,
    log: PathBuf,
    kind: &str,
    before: Option<PathBuf>,
) -> PyResult<()> {
    let kind = kind_of(kind)?;
    Ok(py.detach(|| {
        let blocks = log_reader::blocks(&log, &beside(&log, "idx.bcsv"), kind)?.blocks;
        let before = before.map(|log| beside(&log, "doubts.bcsv"));
        let files = files_of(vec![(log, None)]);
        for files in &files {
            let built = touch::build(&files.log, &blocks, kind, &files.touch)?;
            time_machine::write_doubts(kind, files, before.as_deref(), built.gaps)?;
            // the last, for it says that the segment is done with
            built.publish()?;
        }
        Ok::<_, io::Error>(())
    })?)
}

type Span = Option<(u64, u64)>;
/// Type, id, offsets and values of the known registers (u16), offsets (u16) and times (u64) of the doubtful ones, newest
/// timestamp; all little-endian.
type SourceRow<'py> = (
    u8,
    i32,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    u64,
);

/// XXH3-128 of some bytes, 32 hex digits.
#[pyfunction]
fn bytes_digest(data: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(data))
}

/// The image after all packets up to a moment; the bytes of logs that were read for it.
#[pyfunction]
fn register_image_at<'py>(
    py: Python<'py>,
    kind: &str,
    segments: Vec<(PathBuf, Span)>,
    time_us: u64,
) -> PyResult<(Vec<SourceRow<'py>>, u64)> {
    let kind = kind_of(kind)?;
    let segments = files_of(segments);
    let image = py.detach(|| time_machine::image_at(kind, &segments, time_us))?;
    let mut sources = Vec::new();
    for ((source_type, src_id), source) in &image.sources {
        let (offsets, values): (Vec<_>, Vec<_>) = source.registers().unzip();
        let (doubtful, since): (Vec<_>, Vec<_>) = source.unknown_since().unzip();
        let narrow = |list: &[u16]| {
            let bytes: Vec<u8> = list.iter().flat_map(|n| n.to_le_bytes()).collect();
            PyBytes::new(py, &bytes)
        };
        let since: Vec<u8> = since.iter().flat_map(|n: &u64| n.to_le_bytes()).collect();
        sources.push((
            *source_type,
            *src_id,
            narrow(&offsets),
            narrow(&values),
            narrow(&doubtful),
            PyBytes::new(py, &since),
            source.timestamp_us(),
        ));
    }
    Ok((sources, image.bytes_read))
}

/// The changes of one register; `packet_bytes` are the bytes of logs that were read for it.
#[pyfunction]
#[pyo3(signature = (kind, segments, source_type, src_id, offset, repeats))]
fn register_history(
    py: Python<'_>,
    kind: &str,
    segments: Vec<(PathBuf, Span)>,
    source_type: u8,
    src_id: i32,
    offset: u16,
    repeats: bool,
) -> PyResult<RegisterRows> {
    let kind = kind_of(kind)?;
    let segments = files_of(segments);
    Ok(py.detach(|| {
        let source = (source_type, src_id);
        let found = time_machine::history(kind, &segments, source, offset, repeats)?;
        let taken = Taken {
            packet_bytes: found.bytes_read,
            ..Taken::default()
        };
        let times = found.timestamp_us.iter().map(|us| us.cast_signed());
        let columns: [(Field, ArrayRef); 2] = [
            (timestamp_field(), timestamps(times.collect())),
            (
                Field::new("value", DataType::UInt16, true),
                Arc::new(UInt16Array::from(found.value)),
            ),
        ];
        RegisterRows::new(0, taken, batch_of(columns))
    })?)
}

fn files_of(segments: Vec<(PathBuf, Span)>) -> Vec<SegmentFiles> {
    let files = |(log, span_us): (PathBuf, Span)| SegmentFiles {
        index: index_of(&log),
        touch: beside(&log, "touch.bcsv"),
        doubts: beside(&log, "doubts.bcsv"),
        log,
        span_us,
    };
    segments.into_iter().map(files).collect()
}

/// The index of an open log is open itself.
fn index_of(log: &Path) -> PathBuf {
    let finished = beside(log, "idx.bcsv");
    let open = beside(log, "idx.bcsv.part");
    if !finished.exists() && open.exists() {
        return open;
    }
    finished
}

fn data_batch(rows: DataRows) -> Result<RecordBatch, ArrowError> {
    batch_of([
        (timestamp_field(), timestamps(rows.timestamp_us)),
        type_column(rows.source_type)?,
        (
            field("src_id", DataType::UInt8),
            Arc::new(UInt8Array::from(rows.src_id)),
        ),
        (
            field("cmd", DataType::UInt8),
            Arc::new(UInt8Array::from(rows.cmd)),
        ),
        (
            field("seq", DataType::UInt8),
            Arc::new(UInt8Array::from(rows.seq)),
        ),
        (
            field("offset", DataType::UInt16),
            Arc::new(UInt16Array::from(rows.offset)),
        ),
        (
            field("value", DataType::UInt16),
            Arc::new(UInt16Array::from(rows.value)),
        ),
    ])
}

fn simple_batch(rows: SimpleRows) -> Result<RecordBatch, ArrowError> {
    let numbers = |values: Vec<i32>| -> ArrayRef { Arc::new(Int32Array::from(values)) };
    batch_of([
        (
            field("time", DataType::Float64),
            Arc::new(Float64Array::from(rows.time)) as ArrayRef,
        ),
        (field("rack", DataType::Int32), numbers(rows.rack)),
        (field("offset", DataType::Int32), numbers(rows.offset)),
        (field("value", DataType::Int32), numbers(rows.value)),
    ])
}

fn packet_batch(rows: PacketRows) -> Result<RecordBatch, ArrowError> {
    batch_of([
        (
            field("byte_offset", DataType::UInt64),
            Arc::new(UInt64Array::from(rows.offset)) as ArrayRef,
        ),
        (timestamp_field(), timestamps(rows.timestamp_us)),
        type_column(rows.source_type)?,
        (
            field("src_id", DataType::Int32),
            Arc::new(Int32Array::from(rows.src_id)),
        ),
        (
            field("cmd", DataType::UInt8),
            Arc::new(UInt8Array::from(rows.cmd)),
        ),
        (
            field("seq", DataType::UInt8),
            Arc::new(UInt8Array::from(rows.seq)),
        ),
        (
            field("count", DataType::UInt32),
            Arc::new(UInt32Array::from(rows.count)),
        ),
    ])
}

fn field(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

fn timestamp_field() -> Field {
    let zone = Some(Arc::from("UTC"));
    field(
        "timestamp_us",
        DataType::Timestamp(TimeUnit::Microsecond, zone),
    )
}

fn timestamps(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}

fn type_column(keys: Vec<i8>) -> Result<(Field, ArrayRef), ArrowError> {
    let names: ArrayRef = Arc::new(StringArray::from(TYPES.to_vec()));
    let column = DictionaryArray::<Int8Type>::try_new(Int8Array::from(keys), names)?;
    let kind = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    Ok((field("type", kind), Arc::new(column)))
}

fn batch_of<const N: usize>(columns: [(Field, ArrayRef); N]) -> Result<RecordBatch, ArrowError> {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}
