//! Bindings of `tapeline.recording`: the loops over a `.dat` that Python is too slow for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use tapeline_wire::assemble::{Arrival, IndexRow, Rule, rebuild};
use tapeline_wire::frame::{FrameCounters, FrameLayout, FrameRef, FrameScanner};
use xxhash_rust::xxh3::Xxh3;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(scan_frames, m)?)?;
    m.add_function(wrap_pyfunction!(rebuild_index, m)?)?;
    m.add_function(wrap_pyfunction!(file_digest, m)?)
}

/// What is read at once; a frame that is larger makes the buffer grow to its size.
const READ_BYTES: usize = 1 << 20;
/// Damaged ranges whose reason is looked up: each costs a read, and nobody reads more of them.
const EXPLAINED: usize = 1_000;
/// How much of a damaged range is looked at for its reason.
const EXPLAIN_BYTES: u64 = 8 << 20;

/// Columns as little-endian bytes, one entry per frame: offset u64, frame_bytes u32, sequence u64,
/// timestamp_ns u64, flags u8, stream_id u16.
#[derive(Default)]
struct Columns {
    offset: Vec<u8>,
    frame_bytes: Vec<u8>,
    sequence: Vec<u8>,
    timestamp_ns: Vec<u8>,
    flags: Vec<u8>,
    stream_id: Vec<u8>,
}

/// Start, stop and reason of bytes in which there is no valid frame.
type Damage = (u64, u64, &'static str);

#[derive(Default)]
struct Scan {
    columns: Columns,
    damage: Vec<Damage>,
    bytes: u64,
    digest: Option<String>,
}

type ScanResult<'py> = ([Bound<'py, PyBytes>; 6], Vec<Damage>, u64, Option<String>);

/// The valid frames in bytes `start` to `stop` of a file, the ranges without any, the bytes read and, if
/// asked for, their XXH3-128.
#[pyfunction]
#[pyo3(signature = (path, start, stop, magic, version_flags, length_bytes, header_crc, max_payload, digest))]
#[expect(clippy::too_many_arguments)]
fn scan_frames<'py>(
    py: Python<'py>,
    path: PathBuf,
    start: u64,
    stop: u64,
    magic: [u8; 8],
    version_flags: u8,
    length_bytes: u8,
    header_crc: bool,
    max_payload: u64,
    digest: bool,
) -> PyResult<ScanResult<'py>> {
    let layout = FrameLayout::new(magic, version_flags, length_bytes, header_crc, max_payload)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let scan = py.detach(|| scan_file(&path, start, stop, layout, digest))?;
    let Columns {
        offset,
        frame_bytes,
        sequence,
        timestamp_ns,
        flags,
        stream_id,
    } = &scan.columns;
    let columns = [
        offset,
        frame_bytes,
        sequence,
        timestamp_ns,
        flags,
        stream_id,
    ];
    Ok((
        columns.map(|column| PyBytes::new(py, column)),
        scan.damage,
        scan.bytes,
        scan.digest,
    ))
}

/// Index rows of frames in file order, as columns of little-endian bytes: eight of u64 from `periodic` to
/// `length` (offset included), two of u32 and the status.
#[pyfunction]
fn rebuild_index<'py>(
    py: Python<'py>,
    columns: [PyBackedBytes; 6],
    rule: &str,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let rule = parse_rule(rule)
        .ok_or_else(|| PyValueError::new_err(format!("no assembly rule: {rule:?}")))?;
    let rows = py.detach(|| rebuild_columns(&columns, rule));
    Ok(rows.iter().map(|column| PyBytes::new(py, column)).collect())
}

/// XXH3-128 of a whole file, 32 hex digits.
#[pyfunction]
fn file_digest(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    Ok(py.detach(|| -> io::Result<String> {
        let mut file = File::open(path)?;
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = read_some(&mut file, &mut buffer)?;
            if read == 0 {
                return Ok(format!("{:032x}", hash.digest128()));
            }
            hash.update(buffer.get(..read).unwrap_or_default());
        }
    })?)
}

fn scan_file(
    path: &Path,
    start: u64,
    stop: u64,
    layout: FrameLayout,
    digest: bool,
) -> io::Result<Scan> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut scanner = FrameScanner::new(layout);
    let mut scan = Scan::default();
    let mut hash = digest.then(Xxh3::new);
    let mut found: Vec<FrameRef> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let (mut filled, mut base, mut covered) = (0, start, start);
    loop {
        // A frame that is not whole yet: make room, but only for what is really in the file.
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let left = stop.saturating_sub(base).saturating_sub(filled as u64);
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let room_bytes = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = read_some(&mut file, room.get_mut(..room_bytes).unwrap_or_default())?;
        let end = read == 0;
        if let (Some(hash), Some(new)) = (&mut hash, buffer.get(filled..filled + read)) {
            hash.update(new);
        }
        filled += read;
        scan.bytes += read as u64;
        let bytes = buffer.get(..filled).unwrap_or_default();
        let consumed = scanner.scan(bytes, end, usize::MAX, &mut found);
        for frame in found.drain(..) {
            let offset = base + frame.offset as u64;
            if offset > covered {
                scan.damage.push((covered, offset, ""));
            }
            covered = offset + u64::from(frame.frame_bytes);
            scan.columns.push(offset, &frame);
        }
        buffer.copy_within(consumed..filled, 0);
        filled -= consumed;
        base += consumed as u64;
        if end {
            break;
        }
    }
    let last = start + scan.bytes;
    if last > covered {
        scan.damage.push((covered, last, ""));
    }
    for (from, to, reason) in scan.damage.iter_mut().take(EXPLAINED) {
        *reason = explain(&mut file, *from, *to, layout)?;
    }
    scan.digest = hash.map(|hash| format!("{:032x}", hash.digest128()));
    Ok(scan)
}

/// Why there is no frame at the start of a damaged range.
fn explain(file: &mut File, from: u64, to: u64, layout: FrameLayout) -> io::Result<&'static str> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.by_ref()
        .take((to - from).min(EXPLAIN_BYTES))
        .read_to_end(&mut bytes)?;
    let mut scanner = FrameScanner::new(layout);
    scanner.scan(&bytes, true, usize::MAX, &mut Vec::new());
    let FrameCounters { corrupt, .. } = scanner.counters();
    let reasons = [
        (corrupt.header_crc, "header_crc"),
        (corrupt.bad_version, "bad_version"),
        (corrupt.bad_length, "bad_length"),
        (corrupt.payload_crc, "payload_crc"),
        (corrupt.truncated, "truncated"),
    ];
    let reason = reasons.iter().find(|(count, _)| *count > 0);
    Ok(reason.map_or("no magic", |(_, name)| name))
}

impl Columns {
    fn push(&mut self, offset: u64, frame: &FrameRef) {
        self.offset.extend_from_slice(&offset.to_le_bytes());
        self.frame_bytes
            .extend_from_slice(&frame.frame_bytes.to_le_bytes());
        self.sequence
            .extend_from_slice(&frame.sequence.to_le_bytes());
        self.timestamp_ns
            .extend_from_slice(&frame.timestamp_ns.to_le_bytes());
        self.flags.push(frame.flags);
        self.stream_id
            .extend_from_slice(&frame.stream_id.to_le_bytes());
    }
}

fn rebuild_columns(columns: &[PyBackedBytes; 6], rule: Rule) -> [Vec<u8>; 11] {
    let [
        offset,
        frame_bytes,
        sequence,
        timestamp_ns,
        flags,
        stream_id,
    ] = columns;
    let offsets = offset.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b));
    let frames = sequence
        .as_chunks()
        .0
        .iter()
        .zip(timestamp_ns.as_chunks().0)
        .zip(frame_bytes.as_chunks().0)
        .zip(stream_id.as_chunks().0)
        .zip(flags.iter())
        .map(
            |((((sequence, timestamp_ns), frame_bytes), stream_id), flags)| Arrival {
                stream_id: u16::from_le_bytes(*stream_id),
                flags: *flags,
                frame_bytes: u32::from_le_bytes(*frame_bytes),
                sequence: u64::from_le_bytes(*sequence),
                timestamp_ns: u64::from_le_bytes(*timestamp_ns),
                received_ns: 0,
                restart: false,
            },
        );
    let mut out: [Vec<u8>; 11] = Default::default();
    // Damaged bytes lie between frames, so the offset is that of a row's first frame.
    let mut offsets = offsets;
    for row in rebuild(frames, rule) {
        let first = offsets.next().unwrap_or_default();
        for _ in 1..row.frames_present {
            offsets.next();
        }
        push_row(&mut out, &row, first);
    }
    out
}

fn push_row(out: &mut [Vec<u8>; 11], row: &IndexRow, offset: u64) {
    let wide = [
        row.periodic,
        row.first_sequence,
        row.last_sequence,
        row.first_timestamp_ns,
        row.last_timestamp_ns,
        row.first_received_ns,
        offset,
        row.length,
    ];
    let columns = out.iter_mut();
    let values = wide.map(|value| value.to_le_bytes().to_vec()).into_iter();
    let narrow = [row.frames_expected, row.frames_present].map(|v| v.to_le_bytes().to_vec());
    let values = values.chain(narrow).chain([vec![row.status]]);
    for (column, value) in columns.zip(values) {
        column.extend(value);
    }
}

/// `none`, `markers` or `count:N` (`spec/frame-stream.md` 6).
fn parse_rule(text: &str) -> Option<Rule> {
    match text.split_once(':') {
        None if text == "none" => Some(Rule::default()),
        None if text == "markers" => Some(Rule::Markers),
        Some(("count", n)) => n.parse().ok().filter(|&n| n > 0).map(Rule::Count),
        _ => None,
    }
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
