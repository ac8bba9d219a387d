"""A register stream of a recording: its segments, packets and rows, and checking all of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tapeline import _native, registers
from tapeline._register_files import PART, RegisterFiles, find, index_of
from tapeline.errors import TapelineError
from tapeline.ledger import RegisterLedger
from tapeline.recording import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from tapeline._register_files import Wire
    from tapeline._sink_settings import Route
    from tapeline._verify import Report
    from tapeline.registers import Image, Moment

_TABLES = ("parquet", "bcsv")
# The command that lists all registers of a source; DIFF is the one below it
_FULL = 1
_TYPES = ("UNKNOWN", "SBMU", "RACK", "RTOS")


class RegisterSegment:
    """One log.

    Attributes:
        path: The file.
        entry: What the manifest says of it; {} when it says nothing.
    """

    def __init__(self, path: Path, files: RegisterFiles) -> None:
        """Use `RegisterStream.segments`."""
        self.path = path
        self.entry = files.segment_entry(path)
        self._files = files

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @property
    def is_open(self) -> bool:
        """Whether it is still being written, or was when the recorder ended."""
        return self.path.suffix == PART

    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @property
    def keyframe_bytes(self) -> int:
        """Bytes at its start that are the recorder's own FULL packets."""
        return registers.keyframe_bytes(self.path, self._files)

    def count_into(self, total: LogContents) -> None:
        """Add what was received: as the manifest, the index and the touch index tell where they fit, else read.

        Raises:
            TapelineError: It had to be read, and something in it is no packet; what comes before that is added.
            OSError: As the operating system gave it.
        """
        told = self._told()
        for part in self._counted() if told is None else [told]:
            total.add(part)

    def _told(self) -> LogContents | None:
        import pyarrow.compute as pc

        from tapeline import bcsv

        entry = self.entry
        touch = self.path.with_name(f"{self.path.name.rpartition('.')[0]}.touch.bcsv")
        index = index_of(self.path)
        if self.is_open or entry.get("bytes") != self.size() or not index.exists() or not touch.exists():
            return None
        try:
            blocks = bcsv.read_table(index)
            touched = bcsv.read_table(touch, columns=["offset", "type", "src_id"])
        except TapelineError:
            return None
        if not {"offset", "length", "packets", "first_timestamp_us", "last_timestamp_us", "keyframe"} <= set(
            blocks.column_names
        ):
            return None
        told = set(zip(touched["type"].to_pylist(), touched["src_id"].to_pylist(), strict=True))
        received = blocks.filter(pc.invert(blocks["keyframe"]))
        indexed = pc.sum(blocks["length"]).as_py()
        known = set(touched["offset"].to_pylist()) >= set(blocks["offset"].to_pylist())
        packets = pc.sum(received["packets"]).as_py() or 0
        counted = entry.get("registers")
        if indexed != self.size() or not known or entry.get("packets") != packets or not isinstance(counted, int):
            return None
        return LogContents(
            packets,
            counted,
            {(_TYPES[kind], src_id) for kind, src_id in told if kind < len(_TYPES)},
            pc.min(received["first_timestamp_us"]).as_py(),
            pc.max(received["last_timestamp_us"]).as_py(),
        )

    def _counted(self) -> Iterator[LogContents]:
        import pyarrow as pa
        import pyarrow.compute as pc

        for batch in registers.scan_files(self._files, self.path, rows=False):
            ends = pc.min_max(batch["timestamp_us"].cast(pa.int64())).as_py()
            sets = batch.filter(pc.less_equal(batch["cmd"], _FULL))
            pairs = pa.table({"type": sets["type"].dictionary_decode(), "src_id": sets["src_id"]})
            found = pairs.group_by(["type", "src_id"]).aggregate([]).to_pylist()
            sources = {(row["type"], row["src_id"]) for row in found}
            yield LogContents(batch.num_rows, registers_in(batch), sources, ends["min"], ends["max"])

    def blocks(self) -> pa.Table:
        """Its index (spec/register-packets.md 3), made up for from the packets where it ends; times in µs and ns."""
        import pyarrow as pa

        rows, _, _ = _native.register_blocks(str(self.path), str(index_of(self.path)), self._files.wire, False)
        names = ("offset", "length", "packets", "first_timestamp_us", "last_timestamp_us", "first_received_ns", "xxh64")
        kinds = (pa.uint64(), pa.uint64(), pa.uint32(), *[pa.uint64()] * 4, pa.bool_())
        columns = list(zip(*rows, strict=True)) if rows else [()] * 8
        return pa.table({n: pa.array(c, k) for n, c, k in zip((*names, "keyframe"), columns, kinds, strict=True)})


@dataclass
class LogContents:
    """What logs hold, without the recorder's own packets.

    Attributes:
        packets: Of every command.
        registers: Listed in DIFF and FULL packets.
        sources: Type and number of those that sent such packets.
        first_timestamp_us: Least timestamp; None without packets.
        last_timestamp_us: Greatest one.
    """

    packets: int = 0
    registers: int = 0
    sources: set[tuple[str, int]] = field(default_factory=set)
    first_timestamp_us: int | None = None
    last_timestamp_us: int | None = None

    def add(self, other: LogContents) -> None:
        """Add what another log holds."""
        self.packets += other.packets
        self.registers += other.registers
        self.sources |= other.sources
        firsts = [us for us in (self.first_timestamp_us, other.first_timestamp_us) if us is not None]
        lasts = [us for us in (self.last_timestamp_us, other.last_timestamp_us) if us is not None]
        self.first_timestamp_us = min(firsts, default=None)
        self.last_timestamp_us = max(lasts, default=None)


class RegisterStream(Stream):
    """One register stream of a recording.

    Attributes:
        name: Its name.
        wire: "packet" or "simple".
        logs: Its segments, in order.
    """

    def __init__(self, files: RegisterFiles) -> None:
        """Use `open_recording`."""
        super().__init__(files.name, [], None, None)
        self.wire: Wire = files.wire
        self.files = files
        self.logs = [RegisterSegment(path, files) for path in files.paths]

    @property
    def ledger(self) -> RegisterLedger:  # type: ignore[override]
        """The account at the manifest's last change; all zeros where there is no manifest."""
        found = self.files.entry.get("ledger")
        return RegisterLedger.from_dict(found if isinstance(found, dict) else {})

    @property
    def sinks(self) -> list[dict[str, Any]]:
        """What each sink of the last recorder did, once that ended: the fields of `tapeline.sinks.SinkStatus`."""
        found = self.files.entry.get("sinks")
        return [dict(sink) for sink in found if isinstance(sink, dict)] if isinstance(found, list) else []

    @property
    def first_timestamp_us(self) -> int:
        """Least timestamp in the first block of received packets; 0 when there is none."""
        for log in self.logs:
            blocks = log.blocks().to_pylist()
            received = [block["first_timestamp_us"] for block in blocks if not block["keyframe"]]
            if received:
                return int(received[0])
        return 0

    @property
    def whole(self) -> bool:
        """Every log that the manifest lists, and no other, is there with its size, and all are closed."""
        listed = self.files.entry.get("segments")
        items = {i.get("name"): i.get("bytes") for i in listed if isinstance(i, dict)} if listed else {}
        return items == {segment.name: segment.size() for segment in self.logs}

    def rows(self, route: Route | Mapping[str, Any] | None = None) -> pa.RecordBatchReader:
        """A row per register, as `registers.scan_log`, read as it is asked for."""
        return self._reader(route, rows=True)

    def packets(self, route: Route | Mapping[str, Any] | None = None) -> pa.RecordBatchReader:
        """A row per packet: `byte_offset` in its log, `timestamp_us`, `type`, `src_id`, `cmd`, `seq`, `count`."""
        return self._reader(route, rows=False)

    def last_rows(self, rows: int) -> pa.Table:
        """The last so many of `rows()`; only the logs that hold them are read."""
        import pyarrow as pa

        kept: list[pa.RecordBatch] = []
        missing = rows
        for log in reversed(self.logs):
            here: deque[pa.RecordBatch] = deque()
            held = 0
            for batch in registers.scan_files(self.files, log.path):
                here.append(batch)
                held += batch.num_rows
                while held - here[0].num_rows >= missing:
                    held -= here.popleft().num_rows
            kept[:0] = here
            missing -= held
            if missing <= 0:
                break
        table = pa.Table.from_batches(kept, registers.scan_schema(self.wire))
        return table.slice(max(table.num_rows - rows, 0))

    def _reader(self, route: Route | Mapping[str, Any] | None, *, rows: bool) -> pa.RecordBatchReader:
        import pyarrow as pa

        batches = (b for log in self.logs for b in registers.scan_files(self.files, log.path, rows=rows, route=route))
        return pa.RecordBatchReader.from_batches(registers.scan_schema(self.wire, rows=rows), batches)

    def to_arrow(self) -> pa.RecordBatchReader:
        """The same as `rows`."""
        return self.rows()

    def image_at(self, time: Moment | None = None) -> Image:
        """See `tapeline.image_at`."""
        return registers.image_of([self.files], time)

    def history(self, type: int | str, src_id: int, offset: int) -> pa.Table:
        """See `tapeline.history`."""
        return registers.history_of([self.files], type, src_id, offset)

    def _none(self, *_args: object, **_options: object) -> NoReturn:
        raise TypeError(f"{self.name} is a stream of register packets: it has rows(), packets() and image_at()")

    frames = read_periodic = payloads = periodics = _none

    def __repr__(self) -> str:
        """Name, wire and number of segments."""
        return f"RegisterStream({self.name!r}, wire={self.wire!r}, segments={len(self.logs)})"


def register_streams(path: Path) -> dict[str, RegisterStream]:
    """The register streams of a recording or of a single log."""
    return {name: RegisterStream(files) for name, files in find(path).items()}


class Damage(NamedTuple):
    """Bytes of a log that are no packets, or not those that were written."""

    path: Path
    offset: int
    length: int
    what: str


def checked_rows(stream: RegisterStream, left_out: list[Damage] | None = None) -> Iterator[pa.RecordBatch]:
    """A row per register, no block before its XXH64 in the index has been compared.

    Args:
        stream: Of which all logs are read.
        left_out: Where to put what is damaged; the rest of the rows is given then.

    Raises:
        TapelineError: There is damage, and no list for it.
        OSError: As the operating system gave it.
    """
    for log in stream.logs:
        start = log.keyframe_bytes
        damage = _damage(log, stream.wire)
        if damage and left_out is None:
            raise TapelineError(
                f"{log.path}: {damage[0].what} at byte {damage[0].offset}; --skip-damage leaves such blocks out"
            )
        for bad in damage:
            if bad.offset > start:
                yield from registers.scan_files(stream.files, log.path, start=start, stop=bad.offset)
            start = max(start, bad.offset + bad.length)
        if left_out is not None:
            left_out += damage
        yield from registers.scan_files(stream.files, log.path, start=start)


def _damage(log: RegisterSegment, wire: Wire) -> list[Damage]:
    """The blocks of a log that differ from its index, and what stands behind its last whole packet."""
    index = str(index_of(log.path))
    told, indexed, broken = _native.register_blocks(str(log.path), index, wire, False)
    found, _, _ = _native.register_blocks(str(log.path), index, wire, True)
    pairs = zip(told[:indexed], found, strict=False)
    damage = [
        Damage(log.path, row[0], row[1], "other bytes than were written") for row, now in pairs if row[6] != now[6]
    ]
    end, size = (told[-1][0] + told[-1][1] if told else 0), log.size()
    if broken is not None:
        damage.append(Damage(log.path, broken[0], size - broken[0], f"no packet ({broken[1]})"))
    elif end < size and not log.is_open:
        damage.append(Damage(log.path, end, size - end, "a packet that is not whole"))
    return damage


def registers_in(packets: pa.RecordBatch) -> int:
    """Registers listed in DIFF and FULL packets: those of a QUERY are asked for, not sent."""
    import pyarrow.compute as pc

    sets = pc.less_equal(packets["cmd"], _FULL)
    return int(pc.sum(packets["count"].filter(sets)).as_py() or 0)


def verify_streams(root: Path, report: Report) -> None:
    """Check logs, indexes, tables and ledger of every register stream; add what differs to a report."""
    for stream in register_streams(root).values():
        _Check(root if root.is_dir() else root.parent, report, stream).run()


class _Check:
    def __init__(self, root: Path, report: Report, stream: RegisterStream) -> None:
        self.root = root
        self.report = report
        self.stream = stream
        self.packets = 0
        self.registers = 0

    def differ(self, path: Path, what: str, expected: Any, found: Any, offset: int | None = None) -> None:
        if expected != found:
            self.report.add(path.relative_to(self.root).as_posix(), offset, what, expected, found)

    def run(self) -> None:
        manifest = bool(self.stream.files.entry)
        for segment in self.stream.logs:
            try:
                if segment.is_open:
                    self.differ(segment.path, "segment", "closed under its final name", "still open")
                elif manifest and not segment.entry:
                    self.differ(segment.path, "segment in the manifest", "listed", "not listed")
                self.segment(segment)
            except OSError as error:
                self.differ(segment.path, "read", "readable", error.strerror or str(error))
        here = {segment.name for segment in self.stream.logs}
        listed = self.stream.files.entry.get("segments")
        for item in listed if isinstance(listed, list) else ():
            name = item.get("name") if isinstance(item, dict) else None
            if isinstance(name, str) and "/" not in name and name not in here:
                self.differ(self.stream.files.directory / name, "segment", "present", "missing")
        self.ledger()

    def segment(self, segment: RegisterSegment) -> None:
        path, entry = segment.path, segment.entry
        index = index_of(path)
        told, indexed, broken = _native.register_blocks(str(path), str(index), self.stream.wire, False)
        found, _, _ = _native.register_blocks(str(path), str(index), self.stream.wire, True)
        size = segment.size()
        end = told[-1][0] + told[-1][1] if told else 0
        if broken is not None:
            self.differ(path, "packet", "a valid packet", broken[1], broken[0])
        elif end != size:
            self.differ(path, "bytes that are no whole packet", 0, size - end, end)
        if not segment.is_open:
            if not index.exists():
                if not self.stream.files.alone:
                    self.differ(index, "index", "present", "missing")
            elif told[indexed:]:
                self.differ(index, "bytes of the log in the index", size, told[indexed][0])
        names = ("packets", "first_timestamp_us", "last_timestamp_us", "", "xxh64")
        for row, actual in zip(told[:indexed], found, strict=False):
            for name, expected, value in zip(names, row[2:7], actual[2:7], strict=True):
                # the stamps of keyframes are those of their sources and need not be told
                if name and not (row[7] and name.endswith("_us")):
                    self.differ(path, f"{name} of the block", expected, value, row[0])
        counts, rows = self.counts(segment)
        self.report.segments += 1
        self.report.frames += counts["packets"]
        self.report.bytes += size
        self.packets += counts["packets"]
        self.registers += counts["registers"]
        facts = {"bytes": size, "keyframe_bytes": sum(row[1] for row in told[:indexed] if row[7]), **counts}
        for name, value in facts.items():
            if name in entry and not segment.is_open and (name != "keyframe_bytes" or index.exists()):
                self.differ(path, name, entry[name], value)
        if isinstance(entry.get("xxh3_128"), str) and not segment.is_open:
            self.differ(path, "xxh3_128", entry["xxh3_128"], _native.file_digest(str(path)))
        noted = entry.get("index")
        digest = noted.get("xxh3_128") if isinstance(noted, dict) and noted.get("name") == index.name else None
        if isinstance(digest, str) and index.exists() and not segment.is_open:
            # a BCSV header has no checksum of its own
            self.differ(index, "xxh3_128", digest, _native.file_digest(str(index)))
        self.tables(segment, rows)

    def counts(self, segment: RegisterSegment) -> tuple[dict[str, int], int]:
        """Packets and registers as the ledger counts them, and rows of a table."""
        import pyarrow.compute as pc

        packets = registers_set = rows = 0
        try:
            for batch in registers.scan_files(self.stream.files, segment.path, rows=False):
                packets += batch.num_rows
                registers_set += registers_in(batch)
                rows += pc.sum(batch["count"]).as_py() or 0
        except TapelineError:
            # told as a problem of its own
            pass
        return {"packets": packets, "registers": registers_set}, rows

    def tables(self, segment: RegisterSegment, rows: int) -> None:
        """Tables without a label hold everything, unless the configuration routes."""
        stem = segment.name.rpartition(".")[0]
        for kind in _TABLES:
            path = segment.path.with_name(f"{stem}.{kind}")
            if segment.is_open or not path.exists() or self.routed(kind):
                continue
            try:
                self.differ(path, "rows", rows, _table_rows(path, kind))
            except (OSError, ValueError) as error:
                self.differ(path, "table", "readable", str(error).splitlines()[0])

    def routed(self, kind: str) -> bool:
        config = registers.stream_config(self.root, self.stream.name)
        sinks = config.get("sinks")
        return any(
            isinstance(s, dict) and s.get("kind") == kind and s.get("route") for s in sinks or () if sinks is not None
        )

    def ledger(self) -> None:
        entry = self.stream.files.entry
        told = entry.get("ledger")
        if not isinstance(told, dict):
            return
        path = self.root / "recording.json"
        ledger = self.stream.ledger
        for sentence in ledger.broken_laws():
            self.report.add(path.name, None, f"{self.stream.name}: ledger", "laws that hold", sentence)
        if entry.get("evicted") or entry.get("recovered") or any(segment.is_open for segment in self.stream.logs):
            return
        # the law of the registers only holds where every packet was stored
        stored = [("packets_stored", self.packets)]
        if ledger.packets_refused == 0:
            stored.append(("registers_received", self.registers))
        for name, count in stored:
            if name in told:
                self.differ(path, f"{self.stream.name}: {name} = those in the logs", told[name], count)


def _table_rows(path: Path, kind: str) -> int:
    if kind == "parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    from tapeline import bcsv

    with bcsv.Reader(path) as reader:
        return reader.num_rows
