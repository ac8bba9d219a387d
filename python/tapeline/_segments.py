"""One `.dat` file: its frames as columns, its index, its payloads.

The compiled module reads the file and checks every CRC; what comes back are columns, one entry per frame,
and the ranges in which there was none. A finished file is mapped for its payloads. An open one (`.part`)
is read into memory: recovery may cut its tail off, and reading past the end of a mapped file ends the
process.
"""

from __future__ import annotations

import itertools
import mmap
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tapeline import _native
from tapeline._manifest import PART
from tapeline.errors import TapelineError
from tapeline.wire import FrameLayout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

COMPLETE, INCOMPLETE, LATE = 0, 1, 2
"""Status of an index row (spec/frame-stream.md 7)."""

U64 = np.dtype("<u8")
U32 = np.dtype("<u4")
INDEX_COLUMNS: dict[str, np.dtype[Any]] = {
    "periodic": U64,
    "first_sequence": U64,
    "last_sequence": U64,
    "first_timestamp_ns": U64,
    "last_timestamp_ns": U64,
    "first_received_ns": U64,
    "offset": U64,
    "length": U64,
    "frames_expected": U32,
    "frames_present": U32,
    "status": np.dtype("u1"),
}
"""Columns of an index (spec/frame-stream.md 7)."""

Index = dict[str, npt.NDArray[Any]]
"""`INDEX_COLUMNS`, and `stop`: the byte after the last frame of a row. That is offset + length unless damage
lies between the frames."""

# What is scanned at once while frames are iterated over, in bytes; a row that is larger is taken whole.
_STEP_BYTES = 8 << 20
# Indexes kept in memory: at 1,400-byte frames and 8 of them in a periodic, 2 MB each.
_REMEMBERED_INDEXES = 32
# Bytes in which a layout that is right finds a frame, unless frames are large or damaged: then the next one decides.
_GLANCE_BYTES = 64 << 10
# Bytes looked at to recognise the layout of a file that no manifest describes.
_PROBE_BYTES = 4 << 20


class Frame(NamedTuple):
    """One frame of a recording.

    Attributes:
        sequence: Number in its stream.
        timestamp_ns: Producer's time, ns since the UNIX epoch.
        stream_id: Which stream of the source; 0 in a layout without the field.
        flags: Bit 0 PERIOD_START, bit 1 PERIOD_END.
        payload: Its bytes.
        offset: Where its header begins in the segment.
        late: It came after its periodic had been closed.
    """

    sequence: int
    timestamp_ns: int
    stream_id: int
    flags: int
    payload: bytes
    offset: int
    late: bool


class Damage(NamedTuple):
    """A range of a file in which there is no valid frame."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True)
class Scan:
    """The frames of a range of a file, as columns of shape (frames,)."""

    offset: npt.NDArray[np.uint64]
    frame_bytes: npt.NDArray[np.uint32]
    sequence: npt.NDArray[np.uint64]
    timestamp_ns: npt.NDArray[np.uint64]
    flags: npt.NDArray[np.uint8]
    stream_id: npt.NDArray[np.uint16]
    damage: list[Damage]
    bytes_read: int
    digest: str | None
    raw: list[bytes]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.offset)


def sample_type(dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    """The type of the samples in payloads; bytes if None.

    Raises:
        ValueError: It has no size, or holds Python objects, which bytes off a wire must never be taken for.
    """
    kind = np.dtype(np.uint8 if dtype is None else dtype)
    if kind.hasobject or kind.itemsize == 0:
        raise ValueError(f"{kind!r} is not a type of samples")
    return kind


class Segment:
    """One `.dat` file of a stream, finished or open.

    Attributes:
        listed_layout: The manifest's layout, or None.
        rule: The rule of assembly: "none", "markers" or "count:N"; None where no manifest says.
    """

    def __init__(self, path: Path, layout: FrameLayout | None = None, rule: str | None = None) -> None:
        """Nothing is read."""
        self._path = path
        self.listed_layout = layout
        self.rule = rule

    def __repr__(self) -> str:
        """File name."""
        return f"Segment({self.name!r})"

    @property
    def path(self) -> Path:
        """The file; a recorder may have given it its final name since the recording was opened."""
        if self._path.name.endswith(PART) and not self._path.exists():
            closed = self._path.with_name(self._path.name.removesuffix(PART))
            if closed.exists():
                self._path = closed
        return self._path

    @property
    def is_open(self) -> bool:
        """Its name ends in `.part`: not closed yet, or the recorder was killed."""
        return self.path.name.endswith(PART)

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @cached_property
    def layout(self) -> FrameLayout:
        """Layout of its frames: that of the manifest where it finds frames, else recognised from the bytes.

        Raises:
            OSError: As the operating system gave it.
        """
        listed = self.listed_layout
        if listed is not None and len(scan_file(self.path, listed, 0, min(self.size(), _GLANCE_BYTES))):
            return listed
        return detect_layout(self.path, listed)

    @property
    def index_path(self) -> Path:
        """Where its index is, if it has one."""
        stem = self.path.name.removesuffix(PART).removesuffix(".dat")
        return self.path.with_name(f"{stem}.idx.bcsv")

    def size(self) -> int:
        """Bytes in the file now.

        Raises:
            OSError: As the operating system gave it.
        """
        return self.path.stat().st_size

    def scan(self, start: int = 0, stop: int | None = None, *, digest: bool = False) -> Scan:
        """Find and check the frames in a range of the file; the interpreter lock is released meanwhile.

        Args:
            start: First byte.
            stop: Byte after the last one; what the file holds now if None.
            digest: Compute the XXH3-128 of the range as well.

        Raises:
            OSError: As the operating system gave it.
        """
        return scan_file(self.path, self.layout, start, self.size() if stop is None else stop, digest=digest)

    def index(self) -> Index:
        """The index: from its file where that fits the segment, else rebuilt from the frames.

        Returns:
            Name to array of shape (rows,), with the columns and types of `INDEX_COLUMNS`.

        Raises:
            OSError: The segment cannot be read.
        """
        if not self.is_open:
            index = _known_index(self.index_path)
            if index is not None and int(index["length"].sum()) == self.size() and _is_contiguous(index):
                return index
        return self.rebuild(self.scan())

    def rebuild(self, scan: Scan) -> Index:
        """The index that the frames of a whole file make; receive times are 0."""
        rule = self.rule
        if rule is None:
            # not told anywhere: flags can be seen, a count cannot
            rule = "markers" if bool((scan.flags & 3).any()) else "none"
        columns = _native.rebuild_index(scan.raw, rule)
        index: Index = {
            name: np.frombuffer(column, dtype)
            for (name, dtype), column in zip(INDEX_COLUMNS.items(), columns, strict=True)
        }
        last = np.cumsum(index["frames_present"], dtype=np.int64) - 1
        index["stop"] = scan.offset[last] + scan.frame_bytes[last]
        return index

    def frames(self, index: Index, rows: npt.NDArray[np.intp] | None = None) -> Iterator[Frame]:
        """Iterate over the frames of some index rows, in file order; all rows if None.

        Raises:
            OSError: As the operating system gave it.
        """
        for start, stop, late in _runs(index, rows):
            yield from self.frames_between(start, stop, late=late)

    def frames_between(self, start: int, stop: int, *, late: bool = False) -> Iterator[Frame]:
        """Iterate over the frames in a range of the file."""
        scan = self.scan(start, stop)
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            data = memoryview(_read_exactly(file, stop - start))
        header = self.layout.header_bytes
        for offset, size, sequence, timestamp_ns, flags, stream_id in zip(
            scan.offset.tolist(),
            scan.frame_bytes.tolist(),
            scan.sequence.tolist(),
            scan.timestamp_ns.tolist(),
            scan.flags.tolist(),
            scan.stream_id.tolist(),
            strict=True,
        ):
            payload = bytes(data[offset - start + header : offset - start + size])
            yield Frame(sequence, timestamp_ns, stream_id, flags, payload, offset, late)

    def payloads(
        self, dtype: npt.DTypeLike | None = None, *, verify: bool = True
    ) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        """The payloads of all frames, in file order.

        Where all have one size and nothing is damaged, the result is one view of the mapped file with
        strides, and nothing is copied. It is read-only, and its elements may be unaligned.

        Args:
            dtype: Type of a sample, big-endian or not as the producer sends it; bytes (`uint8`) if None.
            verify: Check the CRCs, which reads the file once. False looks at magics and lengths only, and
                trusts the rest, where that is enough to find the frames.

        Returns:
            Array of shape (frames, samples); where the sizes differ, a list of arrays of shape (samples,).

        Raises:
            ValueError: A payload is not a whole number of samples, or a sample of that type is not plain bytes.
            OSError: As the operating system gave it.
        """
        kind = sample_type(dtype)
        header = self.layout.header_bytes
        if not self.size():
            return np.empty((0, 0), kind)
        data = self._bytes()
        if not verify and (frame_bytes := self._only_frame_bytes(data)):
            return self._view(data, kind, frame_bytes, len(data) // frame_bytes)
        scan = self.scan(stop=len(data))
        if not len(scan):
            return np.empty((0, 0), kind)
        sizes = scan.frame_bytes.astype(np.int64) - header
        for size in np.unique(sizes).tolist():
            self._check_samples(kind, size)
        one_size = bool((sizes == sizes[0]).all())
        if one_size and not scan.damage:
            return self._view(data, kind, int(scan.frame_bytes[0]), len(scan))
        parts = [
            np.frombuffer(data, kind, size // kind.itemsize, offset + header)
            for offset, size in zip(scan.offset.tolist(), sizes.tolist(), strict=True)
        ]
        return np.stack(parts) if one_size else parts

    def _view(self, data: mmap.mmap | bytes, kind: np.dtype[Any], frame_bytes: int, frames: int) -> npt.NDArray[Any]:
        """The payloads of frames of one size that lie one behind the other."""
        header = self.layout.header_bytes
        self._check_samples(kind, frame_bytes - header)
        shape = (frames, (frame_bytes - header) // kind.itemsize)
        view: npt.NDArray[Any] = np.ndarray(shape, kind, data, header, (frame_bytes, kind.itemsize))
        view.flags.writeable = False
        return view

    def _check_samples(self, kind: np.dtype[Any], payload_bytes: int) -> None:
        if payload_bytes % kind.itemsize:
            raise ValueError(f"{self.path}: a payload of {payload_bytes} bytes is not a whole number of {kind} samples")

    def _only_frame_bytes(self, data: mmap.mmap | bytes) -> int | None:
        """The size of the frames, if magics and lengths say that all have one and lie side by side."""
        layout = self.layout
        # magic, version and flags, sequence, timestamp, then the length (spec/frame-stream.md 1)
        at, width = 24 + layout.version_flags, layout.length_bytes
        frame_bytes = layout.header_bytes + int.from_bytes(data[at : at + width], "big")
        frames, rest = divmod(len(data), frame_bytes)
        if rest or frames == 0 or frame_bytes == layout.header_bytes:
            return None
        for begin, stop in ((0, 8), (at, at + width)):
            fields = np.ndarray((frames, stop - begin), np.uint8, data, begin, (frame_bytes, 1))
            first = layout.magic if begin == 0 else data[begin:stop]
            if not bool((fields == np.frombuffer(first, np.uint8)).all()):
                return None
        return frame_bytes

    def damage(self) -> list[Damage]:
        """Ranges of the file without a valid frame; the frame that a recorder is writing is none.

        Raises:
            OSError: As the operating system gave it.
        """
        found = self.scan().damage
        if found and self.is_open and found[-1].stop >= self.size():
            found.pop()
        return found

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The frames as Arrow batches of about 8 MB; see `Stream.to_arrow`."""
        import pyarrow as pa

        header = self.layout.header_bytes
        for start, stop, _ in _runs(self.index(), None):
            scan = self.scan(start, stop)
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                data = np.frombuffer(_read_exactly(file, stop - start), np.uint8)
            sizes = scan.frame_bytes.astype(np.int64) - header
            first = scan.offset.astype(np.int64) - start + header
            if len(scan) and not scan.damage and bool((sizes == sizes[0]).all()):
                payload = np.ascontiguousarray(data.reshape(len(scan), -1)[:, header:]).reshape(-1)
            else:
                parts = [data[at : at + n] for at, n in zip(first.tolist(), sizes.tolist(), strict=True)]
                payload = np.concatenate(parts) if parts else data[:0]
            # 64-bit sums: a batch may hold one row of more than 2 GiB, which `binary` cannot
            ends = np.concatenate([[0], np.cumsum(sizes)])
            if ends[-1] > np.iinfo(np.int32).max:
                raise TapelineError(f"{self.path}: an index row of more than 2 GiB cannot be one Arrow batch")
            offsets = pa.py_buffer(ends.astype(np.int32))
            binary = pa.Array.from_buffers(pa.binary(), len(scan), [None, offsets, pa.py_buffer(payload)])
            columns = [scan.sequence, scan.timestamp_ns, scan.stream_id, scan.flags]
            yield pa.record_batch([*(pa.array(column) for column in columns), binary], schema=schema)

    def _bytes(self) -> mmap.mmap | bytes:
        if self.is_open:
            return self.path.read_bytes()
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def scan_file(path: Path, layout: FrameLayout, start: int, stop: int, *, digest: bool = False) -> Scan:
    """See `Segment.scan`."""
    raw, damage, size, text = _native.scan_frames(
        str(path),
        start,
        stop,
        layout.magic,
        layout.version_flags,
        layout.length_bytes,
        layout.header_crc,
        layout.max_payload,
        digest,
    )
    return Scan(
        np.frombuffer(raw[0], U64),
        np.frombuffer(raw[1], U32),
        np.frombuffer(raw[2], U64),
        np.frombuffer(raw[3], U64),
        np.frombuffer(raw[4], np.uint8),
        np.frombuffer(raw[5], "<u2"),
        [Damage(*item) for item in damage],
        size,
        text,
        raw,
    )


def detect_layout(path: Path, listed: FrameLayout | None = None) -> FrameLayout:
    """Recognise the layout of a `.dat` from its bytes: the variant in which most of the beginning is valid.

    Args:
        path: The file.
        listed: What a manifest says: tried first, and the answer where no variant finds a frame.

    Raises:
        OSError: As the operating system gave it.
    """
    with path.open("rb") as file:
        magic = file.read(8)
    default = FrameLayout()
    size = path.stat().st_size
    # 4 GiB less the largest header is what a frame can have (crates/wire, MAX_PAYLOAD_LIMIT)
    max_payload = max(default.max_payload, min(size, (1 << 32) - 64))
    magics = [default.magic] if len(magic) < 8 else list(dict.fromkeys([default.magic, magic]))
    variants = itertools.product(magics, (4, 2), (4, 8), (True, False))
    best, most = listed or default, 0
    for layout in [*([listed] if listed else []), *(FrameLayout(*variant, max_payload) for variant in variants)]:
        probe = scan_file(path, layout, 0, min(size, _PROBE_BYTES))
        valid = int(probe.frame_bytes.sum(dtype=np.uint64))
        if valid > most:
            best, most = layout, valid
        if valid * 2 > probe.bytes_read:
            break
    return best


def read_index(path: Path) -> Index | None:
    """Read an index file; None when it is missing or not an index."""
    from tapeline import bcsv

    try:
        table = bcsv.read_table(path)
        index: Index = {name: table[name].to_numpy().astype(dtype) for name, dtype in INDEX_COLUMNS.items()}
    except (OSError, KeyError, ValueError):  # a BcsvError is a ValueError
        return None
    index["stop"] = index["offset"] + index["length"]
    return index


def _known_index(path: Path) -> Index | None:
    """`read_index`, remembered for the files asked for last: reading periodics one by one asks for each often."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _read_index_once(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=_REMEMBERED_INDEXES)
def _read_index_once(path: Path, _identity: tuple[int, int, int]) -> Index | None:
    index = read_index(path)
    for column in (index or {}).values():
        column.flags.writeable = False
    return index


def _is_contiguous(index: Index) -> bool:
    """Whether the rows lie one behind the other from the start of the file."""
    ends = np.cumsum(index["length"])
    return bool((index["offset"] == ends - index["length"]).all())


def _runs(index: Index, rows: npt.NDArray[np.intp] | None) -> Iterator[tuple[int, int, bool]]:
    """Neighbouring rows joined to ranges worth a read; late rows apart, because they are marked."""
    columns = [index["offset"], index["stop"], index["status"] == LATE]
    if rows is not None:
        columns = [column[rows] for column in columns]
    start = stop = 0
    was_late = False
    for offset, end, late in zip(*(column.tolist() for column in columns), strict=True):
        if offset != stop or late != was_late or end - start > _STEP_BYTES:
            if stop > start:
                yield start, stop, was_late
            start, was_late = offset, late
        stop = end
    if stop > start:
        yield start, stop, was_late


def _read_exactly(file: Any, size: int) -> bytes:
    """Read what is there, at most `size` bytes."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
