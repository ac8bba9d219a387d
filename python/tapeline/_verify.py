"""`Recording.verify`: compare everything with everything, list every difference, raise nothing.

Files, manifest, index and ledger tell the same story four times. Each segment is read once: digest, CRCs and
columns come from the same pass; the index is compared column by column; what the segments add up to is
compared with the ledger, and the ledger with itself (spec/frame-stream.md 4).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tapeline import _manifest, _native
from tapeline._manifest import NAME, Manifest, SegmentEntry, StreamEntry
from tapeline._segments import COMPLETE, INCOMPLETE, LATE, Index, Scan, Segment, read_index

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Rows of one index that are listed one by one; the rest is one problem with a count.
_LISTED_ROWS = 100


@dataclass(frozen=True)
class Problem:
    """One difference.

    Attributes:
        file: Path below the recording.
        offset: Byte in it, or None.
        what: What was compared.
        expected: What one side says.
        found: What is there.
    """

    file: str
    offset: int | None
    what: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        """One line."""
        place = self.file if self.offset is None else f"{self.file} at byte {self.offset}"
        return f"{place}: {self.what}: expected {self.expected}, found {self.found}"


@dataclass
class Report:
    """What `verify` found.

    Attributes:
        problems: Every difference.
        frames: Valid frames in all segments.
        bytes: Bytes of those frames, headers included.
        segments: Segments read.
    """

    problems: list[Problem] = field(default_factory=list)
    frames: int = 0
    bytes: int = 0
    segments: int = 0

    def add(self, file: str, offset: int | None, what: str, expected: Any, found: Any) -> None:
        """List a difference; `file` is the path below the recording."""
        self.problems.append(Problem(file, offset, what, _plain(expected), _plain(found)))

    @property
    def ok(self) -> bool:
        """True when there is no difference."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ok, frames, bytes, segments, problems."""
        problems = [asdict(problem) for problem in self.problems]
        return {
            "ok": self.ok,
            "frames": self.frames,
            "bytes": self.bytes,
            "segments": self.segments,
            "problems": problems,
        }

    def __str__(self) -> str:
        """A line for each problem, and one for the whole."""
        total = f"{self.frames:,} frames, {self.bytes:,} bytes in {self.segments} segments"
        if self.ok:
            return f"ok: {total}"
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) != 1)}"
        return "\n".join([*map(str, self.problems), f"not ok: {count}; {total}"])


@dataclass
class _Total:
    """What the segments of a stream add up to."""

    frames: int = 0
    bytes: int = 0
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    late_frames: int = 0
    indexed: bool = True
    is_open: bool = False
    evicted: list[dict[str, Any]] = field(default_factory=list)
    recovered: bool = False

    def __add__(self, other: _Total) -> _Total:
        return _Total(
            self.frames + other.frames,
            self.bytes + other.bytes,
            self.rows + other.rows,
            self.late_frames + other.late_frames,
            self.indexed and other.indexed,
            self.is_open or other.is_open,
            self.evicted + other.evicted,
            self.recovered or other.recovered,
        )


def verify(path: Path) -> Report:
    """Check a recording, or a single `.dat`; see `Recording.verify`.

    Raises:
        OSError: The directory cannot be read.
    """
    if path.is_file():
        check = _Check(path.parent)
        check.frames_of(Segment(path), None, _Total())
        return check.report
    check = _Check(path)
    manifest = _manifest.load(path)
    found = _manifest.find_segments(path)
    for fault in manifest.faults:
        check.add(path / NAME, None, "manifest", "what this release can read", fault)
    if not manifest.present and not manifest.faults:
        check.add(path / NAME, None, "manifest", "present", "missing")
    if manifest.present and not manifest.stopped:
        check.add(path / NAME, None, "stopped", "the time of the end", manifest.raw.get("stopped"))
    totals = {}
    for name in sorted({*found, *manifest.streams}):
        files = found.get(name)
        entry = manifest.streams.get(name)
        if entry is None and manifest.present:
            check.add(path / NAME, None, f"streams.{name}", "present", "missing")
        totals[name] = check.stream(manifest, entry, files.paths if files else [])
    for name, entry in manifest.streams.items():
        # what `split_by_stream_id` parts is stored in {name}.{id}, and received in {name}
        parts = [n for n in totals if n.rpartition(".")[0] == name and n.rpartition(".")[2].isdecimal()]
        total = sum((totals[part] for part in parts if _is_part(manifest, part, name)), totals[name])
        if manifest.stopped and not total.is_open:
            check.ledger(entry, total)
    return check.report


def _is_part(manifest: Manifest, part: str, whole: str) -> bool:
    entry = manifest.streams.get(part)
    return entry is not None and entry.directory == whole


class _Check:
    """The comparison, and what it found so far."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.report = Report()

    def add(self, file: Path, offset: int | None, what: str, expected: Any, found: Any) -> None:
        self.report.add(file.relative_to(self.root).as_posix(), offset, what, expected, found)

    def compare(self, file: Path, what: str, expected: Any, found: Any) -> None:
        """Add a problem where the manifest says something, and something else."""
        if expected is not None and expected != found:
            self.add(file, None, what, expected, found)

    def stream(self, manifest: Manifest, entry: StreamEntry | None, paths: list[Path]) -> _Total:
        """Everything about the files of one stream; what they add up to."""
        listed = entry.segments if entry else {}
        total = _Total()
        if entry:
            total.evicted, total.recovered = entry.evicted, bool(entry.recovered)
        for path in paths:
            try:
                segment = Segment(path, entry.layout if entry else None, entry.assembly if entry else None)
                item = listed.get(path.name.removesuffix(_manifest.PART))
                if segment.is_open:
                    total.is_open = True
                    self.add(path, None, "segment", "closed under its final name", "still open")
                elif item is None and manifest.present:
                    self.add(path, None, "segment in the manifest", "listed", "not listed")
                if segment.listed_layout not in {None, segment.layout}:
                    self.add(path, None, "layout in the manifest", segment.layout, segment.listed_layout)
                scan = self.frames_of(segment, None if segment.is_open else item, total)
                if not segment.is_open:
                    self.index(segment, item, scan, total)
            except OSError as error:
                self.add(path, None, "read", "readable", error.strerror or str(error))
        here = {path.name for path in paths}
        place = self.root / (entry.directory if entry else "")
        for name in listed:
            if name not in here:
                self.add(_below(self.root, place / name), None, "segment", "present", "missing")
        return total

    def frames_of(self, segment: Segment, item: SegmentEntry | None, total: _Total) -> Scan:
        """CRCs, and what the manifest says about the file."""
        path = segment.path
        scan = segment.scan(digest=True)
        frames, size = len(scan), int(scan.frame_bytes.sum(dtype=np.uint64))
        total.frames += frames
        total.bytes += size
        self.report.segments += 1
        self.report.frames += frames
        self.report.bytes += size
        for damage in scan.damage:
            what = f"{damage.stop - damage.start} bytes that are no valid frame"
            self.add(path, damage.start, what, "a valid frame", damage.reason or "damage")
        if item is None:
            return scan
        self.compare(path, "bytes", item.bytes, scan.bytes_read)
        self.compare(path, "frames", item.frames, frames)
        self.compare(path, "xxh3_128", item.xxh3_128, scan.digest)
        if frames:
            self.compare(path, "first_sequence", item.first_sequence, int(scan.sequence.min()))
            self.compare(path, "last_sequence", item.last_sequence, int(scan.sequence.max()))
            self.compare(path, "first_timestamp_ns", item.first_timestamp_ns, int(scan.timestamp_ns.min()))
            self.compare(path, "last_timestamp_ns", item.last_timestamp_ns, int(scan.timestamp_ns.max()))
        return scan

    def index(self, segment: Segment, item: SegmentEntry | None, scan: Scan, total: _Total) -> None:
        """The index file against the manifest and the frames."""
        path = segment.index_path
        if not path.exists():
            total.indexed = False
            self.add(path, None, "index", "present", "missing")
            return
        index = read_index(path)
        if item is not None and item.index is not None:
            self.compare(path, "name", item.index.get("name"), path.name)
            self.compare(path, "bytes", item.index.get("bytes"), path.stat().st_size)
            self.compare(path, "xxh3_128", item.index.get("xxh3_128"), _native.file_digest(str(path)))
            if index is not None:
                self.compare(path, "rows", item.index.get("rows"), len(index["offset"]))
        if index is None:
            total.indexed = False
            self.add(path, None, "index", "a readable BCSV file with the columns of an index", "not readable")
            return
        total.rows += np.bincount(index["status"], minlength=3)[:3]
        total.late_frames += int(index["frames_present"][index["status"] == LATE].sum(dtype=np.uint64))
        listed = 0
        for offset, what, expected, found in compare_index(index, scan, segment.size(), segment.rule):
            listed += 1
            if listed <= _LISTED_ROWS:
                self.add(path, None, f"{what} of the row of byte {offset} of the segment", expected, found)
        if listed > _LISTED_ROWS:
            self.add(path, None, "further differences in rows", 0, listed - _LISTED_ROWS)

    def ledger(self, entry: StreamEntry, total: _Total) -> None:
        """What the segments add up to against the ledger, and the ledger against itself."""
        path = self.root / NAME
        name = entry.name
        ledger = entry.ledger
        if ledger is None:
            return
        gone_frames = sum(_number(item.get("frames")) for item in total.evicted)
        gone_bytes = sum(_number(item.get("bytes")) for item in total.evicted)
        self.compare(path, f"{name}: frames_stored", ledger.frames_stored, total.frames + gone_frames)
        self.compare(path, f"{name}: bytes_stored", ledger.bytes_stored, total.bytes + gone_bytes)
        dropped = 0 if entry.keep_duplicates else ledger.frames_duplicate
        what = f"{name}: frames_received = frames_stored + dropped duplicates"
        self.compare(path, what, ledger.frames_received, ledger.frames_stored + dropped)
        valid = ledger.bytes_received - ledger.bytes_discarded
        # of a dropped duplicate no more is known than that it had a header and at least a byte of payload
        least = ledger.bytes_stored + dropped * ((entry.layout.header_bytes if entry.layout else 0) + 1)
        if valid < least or (dropped == 0 and valid != least):
            what = f"{name}: bytes_received - bytes_discarded = bytes of valid frames"
            self.add(path, None, what, least if dropped == 0 else f"at least {least}", valid)
        if total.indexed and not total.evicted and not total.recovered:
            rows = total.rows.tolist()
            self.compare(path, f"{name}: periodics_complete", ledger.periodics_complete, rows[COMPLETE])
            self.compare(path, f"{name}: periodics_incomplete", ledger.periodics_incomplete, rows[INCOMPLETE])
            self.compare(path, f"{name}: frames_late", ledger.frames_late, total.late_frames)


def compare_index(index: Index, scan: Scan, size: int, rule: str | None) -> Iterable[tuple[int, str, object, object]]:
    """Compare index rows with the frames they should describe.

    Args:
        index: Rows as they stand in the file.
        scan: All frames of the segment.
        size: Bytes in the segment.
        rule: The rule of assembly, where it is known.

    Yields:
        Byte offset of the row, what differs, what the frames say, what the row says.
    """
    offset, length, present = index["offset"], index["length"], index["frames_present"]
    status, expected = index["status"], index["frames_expected"]
    stop = offset + length  # wraps for a hostile row, which then does not fit either
    follows = np.concatenate([[np.uint64(0)], stop[:-1]])
    yield from _differences(offset, "offset", follows, offset)
    last = int(stop[-1]) if len(stop) else 0
    if last != size:
        yield last, "end", size, last
    first, end = np.searchsorted(scan.offset, offset), np.searchsorted(scan.offset, stop)
    end = np.maximum(first, end)
    yield from _differences(offset, "frames_present", end - first, present)
    yield from _differences(offset, "length", _sums(scan.frame_bytes, first, end), length)
    filled = np.flatnonzero(end > first)
    pairs = np.stack([first[filled], end[filled]], axis=1).reshape(-1)

    def reduced(function: np.ufunc, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # the last `end` is one past the last frame, which `reduceat` wants to exist
        padded = np.append(values, values[-1:])
        return np.asarray(function.reduceat(padded, pairs)[::2]) if len(pairs) else values[:0]

    for name, function, values in (
        ("first_sequence", np.minimum, scan.sequence),
        ("last_sequence", np.maximum, scan.sequence),
        ("first_timestamp_ns", np.minimum, scan.timestamp_ns),
        ("last_timestamp_ns", np.maximum, scan.timestamp_ns),
    ):
        yield from _differences(offset[filled], name, reduced(function, values), index[name][filled])

    # order of sequence within a periodic: a step down is allowed where a row begins
    down = np.flatnonzero(scan.sequence[1:] <= scan.sequence[:-1]) + 1
    rows = np.searchsorted(first, down, side="right") - 1
    inside = (rows >= 0) & (down > first[rows]) & (down < end[rows]) & (status[rows] != LATE) if len(first) else rows
    for at, row in zip(down[inside].tolist(), rows[inside].tolist(), strict=True) if len(first) else ():
        yield int(offset[row]), "order of sequence", f"above {int(scan.sequence[at - 1])}", int(scan.sequence[at])

    known = status <= LATE
    yield from _differences(offset[~known], "status", np.full(int((~known).sum()), LATE), status[~known])
    on_time = np.flatnonzero(status != LATE)
    whole = expected[on_time] == present[on_time]
    complete = status[on_time] == COMPLETE
    # rule "markers": incomplete also where a marker is missing and no frame is
    wrong = on_time[(complete & ~whole) | (~complete & whole & (rule not in {None, "markers"}))]
    yield from _differences(offset[wrong], "status", 1 - status[wrong].astype(np.int64), status[wrong])
    if rule is not None and rule.startswith("count:"):
        n = int(rule.removeprefix("count:"))
        number = index["first_sequence"] // np.uint64(n)
        yield from _differences(offset, "periodic", number, index["periodic"])
        told = np.full(len(on_time), min(n, 0xFFFF_FFFF), np.int64)
        yield from _differences(offset[on_time], "frames_expected", told, expected[on_time])


def _differences(
    offset: npt.NDArray[Any], what: str, expected: npt.NDArray[Any], found: npt.NDArray[Any]
) -> Iterable[tuple[int, str, object, object]]:
    for row in np.flatnonzero(expected.astype(np.uint64) != found.astype(np.uint64)).tolist():
        yield int(offset[row]), what, int(expected[row]), int(found[row])


def _sums(values: npt.NDArray[Any], first: npt.NDArray[np.intp], end: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
    total: npt.NDArray[np.uint64] = np.concatenate([[np.uint64(0)], np.cumsum(values, dtype=np.uint64)])
    sums: npt.NDArray[np.uint64] = total[end] - total[first]
    return sums


def _below(root: Path, path: Path) -> Path:
    """The path if it is below the root, else the file name alone: a manifest may name any directory."""
    return path if path.is_relative_to(root) and ".." not in path.parts else root / path.name


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _plain(value: Any) -> Any:
    """A value that JSON can carry."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
