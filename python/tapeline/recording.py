"""Read a recording back: its streams, frames, periodics and ledger, and check all of it.

    >>> import tapeline
    >>> rec = tapeline.open_recording("run-2026-11-21T03-00-00Z")  # doctest: +SKIP
    >>> stream = rec.streams["ch0"]  # doctest: +SKIP
    >>> stream.payloads("<i2").mean(axis=0)  # doctest: +SKIP
    >>> rec.verify().ok  # doctest: +SKIP
    True

Reading never needs recovery and changes nothing: open segments are read as far as they go, a missing or
old manifest is made up for from the files, a missing index is rebuilt in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from tapeline import _manifest
from tapeline._register_files import wire_of
from tapeline._segments import INDEX_COLUMNS, LATE, Frame, Segment, sample_type
from tapeline._times import Time, parse_time
from tapeline.errors import ConfigError, TapelineError
from tapeline.ledger import Ledger

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from tapeline._register_stream import RegisterStream
    from tapeline._verify import Report
    from tapeline.wire import FrameLayout

__all__ = ["Frame", "Frames", "Periodic", "Recording", "Segment", "Stream", "Time", "open_recording", "parse_time"]


def open_recording(path: str | os.PathLike[str]) -> Recording:
    """Open a recording, finished or still being written, or a single `.dat`, `.pkt` or `.spkt` file.

    Only names and the manifest are read.

    Args:
        path: The directory, or the file, which may end in `.part`.

    Raises:
        TapelineError: There is neither a manifest nor a segment.
        OSError: As the operating system gave it.
    """
    from tapeline._register_stream import register_streams

    place = Path(path)
    if wire_of(place) is not None and place.is_file():
        empty = _manifest.Manifest({}, present=False, faults=[], streams={})
        return Recording(place, empty, dict(register_streams(place)))
    if place.is_file():
        return Recording._of_file(place)  # noqa: SLF001 - a constructor of the same module
    manifest = _manifest.load(place)
    found = _manifest.find_segments(place)
    packets = register_streams(place)
    if not manifest.present and not found and not packets:
        raise TapelineError(f"{place}: neither {_manifest.NAME} nor a segment is here")
    streams: dict[str, Stream] = dict(packets)
    for name in sorted({*found, *manifest.streams} - set(packets)):
        entry = manifest.streams.get(name)
        files = found.get(name)
        layout = entry.layout if entry else None
        rule = entry.assembly if entry else None
        segments = [Segment(p, layout, rule) for p in files.paths] if files else []
        streams[name] = Stream(name, segments, entry, layout)
    return Recording(place, manifest, dict(sorted(streams.items())))


def one_stream(path: str, name: str | None = None) -> Stream:
    """The stream of a recording that is meant; without a name there must be only one.

    Raises:
        ConfigError: There is another number of them, or none of that name.
        TapelineError: There is neither a manifest nor a segment.
        OSError: As the operating system gave it.
    """
    streams = open_recording(path).streams
    if name is None and len(streams) != 1:
        raise ConfigError(f"{path} has {len(streams)} streams; say which: {', '.join(streams)}")
    if name is not None and name not in streams:
        raise ConfigError(f"{path} has no stream {name!r}; there are {', '.join(streams)}")
    return next(iter(streams.values())) if name is None else streams[name]


class Recording:
    """What a recorder wrote into one directory.

    Attributes:
        path: The directory, or the file that was opened.
        streams: The streams, by name; those of register packets are `RegisterStream`s.
    """

    def __init__(self, path: Path, manifest: _manifest.Manifest, streams: dict[str, Stream]) -> None:
        """Use `open_recording`."""
        self.path = path
        self.streams: Mapping[str, Stream] = streams
        self._manifest = manifest

    @classmethod
    def _of_file(cls, path: Path) -> Recording:
        segment = Segment(path)
        name = path.name.removesuffix(_manifest.PART).removesuffix(".dat")
        empty = _manifest.Manifest({}, present=False, faults=[], streams={})
        return cls(path, empty, {name: Stream(name, [segment], None, None)})

    @property
    def manifest(self) -> dict[str, Any]:
        """`recording.json` as it stands; {} where it is missing or unreadable."""
        return self._manifest.raw

    @property
    def complete(self) -> bool:
        """True when the recorder came to its end and every segment it lists, and no other, is there.

        Names and sizes are compared; `verify` looks inside.
        """
        from tapeline._register_stream import RegisterStream

        if not (self._manifest.present and self._manifest.stopped) or self._manifest.faults:
            return False
        for stream in self.streams.values():
            if isinstance(stream, RegisterStream):
                if not stream.whole:
                    return False
                continue
            listed = {} if stream.entry is None else stream.entry.segments
            sizes = {segment.name: segment.size() for segment in stream.segments}
            if sizes != {name: entry.bytes for name, entry in listed.items()}:
                return False
        return True

    def verify(self) -> Report:
        """Compare everything with everything; see `Report`.

        Digests, CRCs, the order of sequences, the indexes, the manifest and the ledger's conservation laws.
        All data is read once, at about the speed of the disk. Damage is reported, never raised.

        Raises:
            OSError: The directory itself cannot be read.
        """
        from tapeline._register_stream import RegisterStream, verify_streams
        from tapeline._verify import Report, verify

        packets = any(isinstance(stream, RegisterStream) for stream in self.streams.values())
        report = Report() if packets and self.path.is_file() else verify(self.path)
        if packets:
            verify_streams(self.path, report)
        return report

    @property
    def register_streams(self) -> Mapping[str, RegisterStream]:
        """The streams of register packets among `streams`."""
        from tapeline._register_stream import RegisterStream

        return {name: stream for name, stream in self.streams.items() if isinstance(stream, RegisterStream)}

    def __repr__(self) -> str:
        """Path and streams."""
        return f"Recording({str(self.path)!r}, streams={list(self.streams)})"


class Stream:
    """One stream of a recording.

    Attributes:
        name: Its name.
        segments: Its files, in order.
        entry: The stream in the manifest, parsed; None where it is not there.
    """

    def __init__(
        self, name: str, segments: list[Segment], entry: _manifest.StreamEntry | None, layout: FrameLayout | None
    ) -> None:
        """Use `open_recording`."""
        self.name = name
        self.segments = segments
        self.entry = entry
        self._layout = layout

    @property
    def ledger(self) -> Ledger:
        """The account at the manifest's last change; all zero where there is no manifest."""
        return (self.entry.ledger if self.entry else None) or Ledger()

    @property
    def layout(self) -> FrameLayout | None:
        """Layout of its frames; None for a stream of which there is nothing but the name."""
        return self.segments[0].layout if self.segments else self._layout

    @property
    def assembly(self) -> str | None:
        """The rule of assembly, "none", "markers" or "count:N"; None where no manifest says."""
        return self.entry.assembly if self.entry else None

    def periodics(self) -> pa.Table:
        """The index of all segments, open ones included.

        An index that is missing or does not fit its segment is rebuilt in memory, which reads the segment.

        Returns:
            One row per periodic (or run, or group of late frames) in file order: the columns of
            spec/frame-stream.md 7, and `segment`, the name of the file. Times in ns since the UNIX epoch.

        Raises:
            OSError: As the operating system gave it.
        """
        import pyarrow as pa

        indexes = [(segment.name, segment.index()) for segment in self.segments]
        columns = {
            name: pa.array(np.concatenate([np.empty(0, dtype), *(index[name] for _, index in indexes)]).astype(dtype))
            for name, dtype in INDEX_COLUMNS.items()
        }
        names = [name for name, index in indexes for _ in range(len(index["offset"]))]
        return pa.table({**columns, "segment": pa.array(names, pa.string())})

    def read_periodic(self, k: int) -> Periodic:
        """The frames of one periodic, late ones included.

        Where a number comes more than once (stream ids that share segments each count from 0, and with rule
        `count` so does a producer that restarted), the frames of all are given.

        Args:
            k: Its number, as in the `periodic` column.

        Raises:
            KeyError: No row has that number.
            OSError: As the operating system gave it.
        """
        frames: list[Frame] = []
        statuses: list[int] = []
        expected = 0
        for segment in self.segments:
            index = segment.index()
            rows = np.flatnonzero(index["periodic"] == k)
            statuses += index["status"][rows].tolist()
            on_time = rows[index["status"][rows] != LATE]
            expected += int(index["frames_expected"][on_time].sum(dtype=np.uint64))
            frames += segment.frames(index, rows)
        if not statuses:
            raise KeyError(k)
        frames.sort(key=lambda frame: (frame.stream_id, frame.sequence))
        on_time_statuses = [status for status in statuses if status != LATE]
        return Periodic(
            number=k,
            status=max(on_time_statuses, default=LATE),
            frames=frames,
            frames_expected=expected,
            missing=_missing(frames, k, self.assembly),
        )

    def frames(self, start: Time | None = None, stop: Time | None = None) -> Frames:
        """Iterate over frames by the producer's time, in file order.

        The index tells which parts of the files to read; about one index row is held in memory, or 8 MB.
        File order is the order of sequence, but for late frames, which come after the periodic that was
        open when they came.

        Args:
            start: First moment wanted; the beginning if None.
            stop: Moment after the last one wanted; the end if None.

        Returns:
            An iterator, whose `payloads(dtype)` gives what is in the frames as an array instead.

        Raises:
            ValueError: A time cannot be read.
            OSError: As the operating system gave it.
        """
        first = 0 if start is None else parse_time(start)
        last = 1 << 64 if stop is None else parse_time(stop)
        return Frames(self, first, last)

    def _frames(self, first: int, last: int) -> Iterator[Frame]:
        for segment in self.segments:
            index = segment.index()
            low, high = index["first_timestamp_ns"], index["last_timestamp_ns"]
            # Python numbers: a bound may lie outside what u64 holds
            wanted = np.ones(len(low), bool)
            if first > 0:
                wanted &= high >= np.uint64(min(first, (1 << 64) - 1))
            if last < 1 << 64:
                wanted &= low < np.uint64(max(last, 0))
            for frame in segment.frames(index, np.flatnonzero(wanted)):
                if first <= frame.timestamp_ns < last:
                    yield frame

    def payloads(
        self, dtype: npt.DTypeLike | None = None, *, verify: bool = True
    ) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        """The payloads of all frames, in file order.

        With one segment whose payloads have one size nothing is copied: the result is a read-only view of
        the mapped file (`Segment.payloads`). Several segments of one payload size are copied once, into one
        array; to avoid that take `segment.payloads(dtype)` of each of `segments`.

        Args:
            dtype: Type of a sample, such as ">i2"; bytes (`uint8`) if None.
            verify: Check the CRCs; see `Segment.payloads`.

        Returns:
            Array of shape (frames, samples); where payloads differ in size, a list of arrays of shape
            (samples,).

        Raises:
            ValueError: A payload is not a whole number of samples.
            OSError: As the operating system gave it.
        """
        parts = [segment.payloads(dtype, verify=verify) for segment in self.segments]
        filled = [part for part in parts if len(part)]
        if not filled:
            return np.empty((0, 0), sample_type(dtype))
        if len(filled) == 1:
            return filled[0]
        arrays = [part for part in filled if isinstance(part, np.ndarray)]
        if len(arrays) == len(filled) and len({part.shape[1] for part in arrays}) == 1:
            return np.concatenate(arrays)
        return [row for part in filled for row in part]

    def to_arrow(self) -> pa.RecordBatchReader:
        """All frames as Arrow batches, read as they are asked for, about 8 MB each.

        Returns:
            A reader with the columns sequence u64, timestamp_ns u64, stream_id u16, flags u8, payload binary.
        """
        import pyarrow as pa

        schema = pa.schema(
            [
                ("sequence", pa.uint64()),
                ("timestamp_ns", pa.uint64()),
                ("stream_id", pa.uint16()),
                ("flags", pa.uint8()),
                ("payload", pa.binary()),
            ]
        )
        batches = (batch for segment in self.segments for batch in segment.batches(schema))
        return pa.RecordBatchReader.from_batches(schema, batches)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The frames of `to_arrow`, for any Arrow library."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        """Name and number of segments."""
        return f"Stream({self.name!r}, segments={len(self.segments)})"


class Frames:
    """The frames of a stream within a span of time, as `Stream.frames` gives them: an iterator."""

    __slots__ = ("_first", "_frames", "_last", "_stream")

    def __init__(self, stream: Stream, first: int, last: int) -> None:
        """Use `Stream.frames`."""
        self._stream = stream
        self._first = first
        self._last = last
        self._frames = stream._frames(first, last)  # noqa: SLF001 - its iterator

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> Frame:
        """The next frame, in file order."""
        return next(self._frames)

    def payloads(self, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        """The payloads of all these frames, in file order, however far the iteration is.

        Without bounds it is `Stream.payloads`, which copies nothing where it can; between bounds the payloads are
        copied once.

        Args:
            dtype: Type of a sample, such as ">i2"; bytes (`uint8`) if None.

        Returns:
            Array of shape (frames, samples); where payloads differ in size, a list of arrays of shape (samples,).

        Raises:
            ValueError: A payload is not a whole number of samples.
            OSError: As the operating system gave it.
        """
        if self._first <= 0 and self._last >= 1 << 64:
            return self._stream.payloads(dtype)
        kind = sample_type(dtype)
        parts = []
        for frame in self._stream._frames(self._first, self._last):  # noqa: SLF001 - as above
            if len(frame.payload) % kind.itemsize:
                raise ValueError(f"a payload of {len(frame.payload)} bytes is not a whole number of {kind} samples")
            parts.append(np.frombuffer(frame.payload, kind))
        if len({len(part) for part in parts}) > 1:
            return parts
        return np.stack(parts) if parts else np.empty((0, 0), kind)


@dataclass(frozen=True)
class Periodic:
    """The frames of one periodic.

    Attributes:
        number: k.
        status: As in the index: 0 complete, 1 frames were missing when it was closed, 2 only late frames.
        frames: By stream id and sequence, late ones (`frame.late`) in their place.
        frames_expected: How many there should be; where markers are missing, how many are known of.
        missing: Ranges (first, stop) of sequences that are not in the recording, late frames taken into account.
    """

    number: int
    status: int
    frames: list[Frame]
    frames_expected: int
    missing: list[tuple[int, int]]

    @property
    def payloads(self) -> list[bytes]:
        """The payload of each frame."""
        return [frame.payload for frame in self.frames]


def _missing(frames: list[Frame], k: int, assembly: str | None) -> list[tuple[int, int]]:
    """Ranges of sequences that a periodic should have and does not, per stream id."""
    count = int(assembly.removeprefix("count:")) if assembly and assembly.startswith("count:") else None
    missing = []
    for stream_id in sorted({frame.stream_id for frame in frames}):
        present = sorted({frame.sequence for frame in frames if frame.stream_id == stream_id})
        at, stop = (present[0], present[-1] + 1) if count is None else (k * count, (k + 1) * count)
        for sequence in present:
            if sequence > at:
                missing.append((at, sequence))
            at = sequence + 1
        if at < stop:
            missing.append((at, stop))
    return missing
