"""What a follower feeds: tables, Python functions, touch indexes. `forward` has a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from tapeline import _native

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from tapeline._sink_settings import SinkConfig
    from tapeline.sinks._tables import TableWriter

_BESIDE = ("touch", "doubts")
RouteLists = tuple[list[int] | None, list[int] | None, list[int] | None]


class Stopped(Exception):  # noqa: N818 - no error: the end of the thread
    """The follower was told to give up."""


class Work(NamedTuple):
    """What was made of some bytes."""

    next_offset: int
    packets: int
    rows: int
    bytes: int
    broken: str | None


class Consumer(Protocol):
    """What takes packets.

    Attributes:
        route: Which.
        repeatable: A segment may be begun again after a failure.
        makes_files: Files finished with each segment.
        least_bytes: Wait for so much ...
        linger_s: ... but at most so long.
        deadline_s: On the monotonic clock, when everything must be over; None while the stream runs.
    """

    route: RouteLists
    repeatable: bool
    makes_files: int
    least_bytes: int
    linger_s: float
    connects: int
    resent_packets: int
    trouble: str | None
    deadline_s: float | None

    def lacks(self, log: Path) -> bool:
        """Whether a finished log has to be done again."""

    def begin(self, log: Path) -> None:
        """A segment begins."""

    def take(self, log: str, start: int, stop: int, read_bytes: int) -> Work:
        """Take about `read_bytes` from `start` on."""

    def end(self, log: Path) -> None:
        """The segment is over and all of it was taken."""

    def abandon(self) -> None:
        """Forget the segment."""

    def close(self) -> None:
        """The stream is over."""


def make_consumer(sink: SinkConfig | None, wire: str, quit_event: threading.Event) -> Consumer:
    """The consumer of a sink; of None the builder of touch indexes."""
    if sink is None:
        return _Touch(wire)
    if sink.kind == "forward":
        from tapeline.sinks._forward import Forward

        return Forward(sink, wire, quit_event)
    return _Python(sink, wire) if sink.kind == "python" else _Table(sink, wire)


class _Plain:
    """What most consumers have in common."""

    route: RouteLists = (None, None, None)
    repeatable = True
    makes_files = 1
    least_bytes = 1 << 20
    linger_s = 0.25
    connects = 0
    resent_packets = 0
    trouble: str | None = None
    deadline_s: float | None = None

    def lacks(self, log: Path) -> bool:  # noqa: ARG002 - the protocol's form
        return False

    def begin(self, log: Path) -> None:
        pass

    def end(self, log: Path) -> None:
        pass

    def abandon(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Table(_Plain):
    """A table file for each segment."""

    def __init__(self, sink: SinkConfig, wire: str) -> None:
        # here, so that a recorder without tables does not load pyarrow, and one with tables not late
        import pyarrow as pa

        from tapeline.sinks._tables import table_writer

        self._batch, self._open = pa.record_batch, table_writer
        self._sink = sink
        self._wire = wire
        self._writer: TableWriter | None = None
        self.route = sink.route.lists

    def _path(self, log: Path) -> Path:
        return log.with_name(f"{_stem(log)}.{self._sink.extension}")

    def lacks(self, log: Path) -> bool:
        return not self._path(log).exists()

    def begin(self, log: Path) -> None:
        self._writer = self._open(self._sink, self._path(log), self._wire)

    def take(self, log: str, start: int, stop: int, read_bytes: int) -> Work:
        found = _native.register_rows(log, self._wire, start, stop, read_bytes, self.route)
        if found.rows and self._writer is not None:
            self._writer.write(self._batch(found))
        return Work(found.next_offset, found.packets, found.rows, found.packet_bytes, found.broken)

    def end(self, log: Path) -> None:  # noqa: ARG002 - the protocol's form
        if self._writer is not None:
            self._writer.finish()
            self._writer = None

    def abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.abandon()
            except OSError:
                # the disk may be full or gone: the part file is replaced at the next attempt
                self.trouble = None


class _Python(_Plain):
    """Batches of rows for a function."""

    repeatable = False
    makes_files = 0
    linger_s = 0.05

    def __init__(self, sink: SinkConfig, wire: str) -> None:
        self._wire = wire
        self.route = sink.route.lists
        if sink.call is None:
            raise TypeError("a python sink has a function")
        import pyarrow as pa

        self._batch = pa.record_batch
        self._call = sink.call

    def take(self, log: str, start: int, stop: int, read_bytes: int) -> Work:
        found = _native.register_rows(log, self._wire, start, stop, read_bytes, self.route)
        if found.rows:
            self._call(self._batch(found))
        return Work(found.next_offset, found.packets, found.rows, found.packet_bytes, found.broken)


class _Touch(_Plain):
    """The files that `history` and `image_at` use, of each finished segment that the recorder left without."""

    makes_files = 1
    linger_s = 1.0

    def __init__(self, wire: str) -> None:
        self._wire = wire

    def lacks(self, log: Path) -> bool:
        return not all(log.with_name(f"{_stem(log)}.{kind}.bcsv").exists() for kind in _BESIDE)

    def take(self, log: str, start: int, stop: int, read_bytes: int) -> Work:  # noqa: ARG002 - the protocol's form
        return Work(stop, 0, 0, 0, None)

    def end(self, log: Path) -> None:
        if self.lacks(log):
            # the segment before it is the one whose name sorts before
            logs = sorted(log.parent.glob(f"*{log.suffix}"))
            before = logs[logs.index(log) - 1] if log in logs[1:] else None
            _native.register_touch(str(log), self._wire, None if before is None else str(before))
        drop_orphans(log.parent, log.suffix)


def drop_orphans(directory: Path, extension: str) -> None:
    """Remove the touch indexes of logs that retention took away."""
    stems = {_stem(path) for path in directory.glob(f"*{extension}")}
    for kind in _BESIDE:
        for path in directory.glob(f"*.{kind}.bcsv"):
            if path.name.removesuffix(f".{kind}.bcsv") not in stems:
                path.unlink(missing_ok=True)


def _stem(log: Path) -> str:
    return log.name.removesuffix(".part").rpartition(".")[0]
