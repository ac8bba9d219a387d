"""One thread for each sink: it follows the log and hands what is new to a consumer.

The log is asked for its position (`log_position` of the compiled recorder, or a function of the same form) and read
back from its files. An archive sink reads everything. A live sink that lies more than `max_lag_bytes` behind skips to
the newest packet, and what it skipped is counted as shed. A failed table is begun again from its segment's start.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tapeline import _native
from tapeline.sinks._consumers import Consumer, Stopped, Work, make_consumer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeline._sink_settings import SinkConfig

_LOG = re.compile(r".*_(?P<number>\d{6,18})_\d{8}T\d{6}\.\d{6}Z\.s?pkt(?P<part>\.part)?")
_POLL_S = 0.2  # longest time in a compiled wait
_READ_BYTES = 4 << 20  # read and built at once; at 16 bytes a row and 4 bytes a register 16 MB of rows
_RETRY_S = 1.0  # pause after a failed table
_LAG_S = 0.2  # how often a live sink's lag is looked at
_NAME_S = 0.01  # between looks whether a log has its final name
_NICE = 10  # of 19
_LIVE_DRAIN_S = 5.0  # a live sink has so long at the end


class LogPosition(NamedTuple):
    """How far a log is written.

    Attributes:
        segment: Number of the segment asked for, or of the first one of this recorder.
        path: Its log.
        bytes_valid: Bytes passed to the kernel; whole packets.
        keyframe_bytes: How many of them are the recorder's own FULL packets, at the start.
        finished: The segment is closed.
        ended: There will be no further segment.
    """

    segment: int
    path: str
    bytes_valid: int
    keyframe_bytes: int
    finished: bool
    ended: bool


@dataclass
class SinkStatus:
    """What a sink has done so far.

    Attributes:
        name: Extension of its files, kind, label or URL.
        kind: As configured.
        priority: "archive" or "live".
        packets: Packets taken.
        rows: Rows written or handed over; of `forward` 0.
        bytes: Bytes of those packets.
        files: Table files finished.
        lag_bytes: Bytes of the log that it has not read.
        shed_packets: Packets of its route that a live sink skipped.
        shed_bytes: Their bytes.
        segments_missed: Segments that retention took away before it had read them.
        connects: Connections made, the first included.
        resent_packets: Packets sent again after a connection broke; the other side may have them twice.
        error: What failed last; None while all is well.
    """

    name: str
    kind: str
    priority: str
    packets: int = 0
    rows: int = 0
    bytes: int = 0
    files: int = 0
    lag_bytes: int = 0
    shed_packets: int = 0
    shed_bytes: int = 0
    segments_missed: int = 0
    connects: int = 0
    resent_packets: int = 0
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return asdict(self)

    @property
    def lost_anything(self) -> bool:
        """Whether something did not arrive where it should."""
        return bool(self.shed_packets or self.segments_missed or self.error)


class Follower:
    """A sink at work.

    Args:
        sink: What to do; None builds the touch indexes that `history` uses.
        wire: "packet" or "simple".
        directory: Where the stream's segments are.
        position: Called with `(segment, offset)` or None and a time in seconds; see `LogPosition`.
        progress: Told the number of the segment below which all is done (archive sinks).
    """

    def __init__(
        self,
        sink: SinkConfig | None,
        wire: str,
        directory: Path,
        position: Callable[[tuple[int, int] | None, float], Any],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Prepare; `start` begins."""
        self._wire = wire
        self._directory = directory
        self._position = position
        self._progress = progress or (lambda _number: None)
        self._quit = threading.Event()
        self._over = threading.Event()  # the recorder has ended: every log has the name it will keep
        self._consumer: Consumer = make_consumer(sink, wire, self._quit)
        self._live = sink is not None and sink.priority == "live"
        self._max_lag_bytes = sink.max_lag_bytes if sink else 0
        self._at: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name if sink else 'touch'}", daemon=True)
        self._deadline_s: float | None = None
        self._on_time_until_s = 0.0  # a live sink that was on time is not asked again before this
        self.status_now = SinkStatus(
            sink.name if sink else "touch", sink.kind if sink else "touch", sink.priority if sink else "archive"
        )

    def start(self) -> Follower:
        """Begin following."""
        self._thread.start()
        return self

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until all of the ended log is done; True when it is."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Give up at once; unfinished tables are removed and made again at the next start."""
        self._quit.set()

    def status(self) -> SinkStatus:
        """A snapshot."""
        status = SinkStatus(**asdict(self.status_now))
        status.connects, status.resent_packets = self._consumer.connects, self._consumer.resent_packets
        status.error = status.error or self._consumer.trouble
        at = self._at
        status.lag_bytes = 0 if at is None or not self._thread.is_alive() else self._behind(*at)
        return status

    def _run(self) -> None:
        # the log can wait for nobody, a table can: where cores are few, receiver and writer go first
        with contextlib.suppress(AttributeError, OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        done = not self._consumer.repeatable
        try:
            self._follow()
            self._consumer.close()
            done = True
        except Stopped:
            self._consumer.abandon()
        except Exception as error:  # noqa: BLE001 - a thread's end: the recorder raises what is kept here
            self.status_now.error = _text(error)
            self._consumer.abandon()
        finally:
            # a table that could not be made is made at the next start, of a log that is still there
            if done:
                self._progress(1 << 62)

    def _follow(self) -> None:
        # the number of the first segment is known before there is a packet to put into it
        first = LogPosition(*self._position(None, 0.0)).segment
        self._catch_up(first)
        self._progress(first)
        self._at = (first, 0)
        while self._segment():
            self._pause(0.0)

    def _catch_up(self, before: int) -> None:
        """Do what an earlier recorder left undone in finished segments."""
        for number, path in sorted(self._logs().items()):
            if number >= before or path.suffix == ".part" or not self._consumer.lacks(path):
                continue
            blocks, _, _ = _native.register_blocks(str(path), str(_index(path)), self._wire, False)
            size = path.stat().st_size
            position = LogPosition(number, str(path), size, _keyframe_bytes(blocks), finished=True, ended=False)
            self._at = (number, 0)
            self._retrying(position, lambda: None)

    def _segment(self) -> bool:
        """Follow one segment to its end; False after the last one."""
        number = self._at[0] if self._at else 0
        ended = False

        def ask() -> LogPosition:
            nonlocal ended
            position = LogPosition(*self._position(self._at, _POLL_S))
            ended = position.ended
            return position

        position = ask()
        if not position.path:
            return not position.ended
        self._retrying(position, ask)
        if self._at is not None and self._at[0] == number:
            self._at = (number + 1, 0)
        self._progress(self._at[0] if self._at else number + 1)
        return not ended or bool(self._logs_from(number + 1))

    def _retrying(self, position: LogPosition, ask: Callable[[], LogPosition | None]) -> None:
        """Run one segment; a failed table is begun again, until it fails after the recorder has ended."""
        while True:
            last = self._over.is_set()
            try:
                self._one(position, lambda: ask() or position)
            except FileNotFoundError:
                self.status_now.segments_missed += 1
                self._consumer.abandon()
            except OSError as error:
                self._consumer.abandon()
                self.status_now.error = _text(error)
                if not self._consumer.repeatable:
                    raise
                if last or (self._at is not None and LogPosition(*self._position(self._at, 0.0)).ended):
                    raise
                self._pause(_RETRY_S)
                continue
            else:
                if self._consumer.repeatable:
                    self.status_now.error = None
            return

    def _one(self, position: LogPosition, ask: Callable[[], LogPosition]) -> None:
        """All of one segment."""
        number = position.segment
        offset = 0
        before = SinkStatus(**asdict(self.status_now))
        try:
            self._consumer.begin(_existing(position.path))
            lingered_s = 0.0
            while True:
                # while only keyframes are written their end is not known yet
                offset = max(offset, position.keyframe_bytes)
                self._at = (number, offset)
                new = position.bytes_valid - offset
                if new > 0 and (position.finished or new >= self._consumer.least_bytes or lingered_s > 0):
                    if self._live and self._late() and self._behind(number, offset) > 0:
                        offset = self._shed(position, offset)
                        position = ask()
                        continue
                    try:
                        offset = self._read(position, offset)
                    except ConnectionAbortedError:
                        # out of time: the rest is shed
                        offset = self._shed(position, offset)
                    lingered_s = 0.0
                    continue
                if position.finished and new <= 0:
                    break
                if new > 0:
                    lingered_s = self._consumer.linger_s
                    self._pause(lingered_s)
                position = ask()
                self._pause(0.0)
            if self._consumer.makes_files:
                self._await_name(position.path)
            self._consumer.end(_existing(position.path))
        except BaseException:
            if self._consumer.repeatable:
                error = self.status_now.error
                self.status_now = before
                self.status_now.error = error
            raise
        self.status_now.files += self._consumer.makes_files

    def _await_name(self, path: str) -> None:
        """A table has its final name only after the log that it is made of, which recovery may have to cut."""
        final = Path(path.removesuffix(".part"))
        while not final.exists():
            gone = not Path(f"{final}.part").exists() and not final.exists()
            if gone:
                raise FileNotFoundError(None, "the log was removed", str(final))
            if self._over.is_set() and not final.exists():
                raise OSError(None, "the log was not finished; its table is made at the next start", str(final))
            self._pause(_NAME_S)

    def _read(self, position: LogPosition, offset: int) -> int:
        path = str(_existing(position.path))
        stop = min(position.bytes_valid, offset + _READ_BYTES)
        try:
            work = self._consumer.take(path, offset, position.bytes_valid, stop - offset)
        except FileNotFoundError:
            # it may have got its final name in between
            path = str(_existing(position.path))
            work = self._consumer.take(path, offset, position.bytes_valid, stop - offset)
        if work.next_offset <= offset:
            raise OSError(None, f"not a packet at byte {offset}: {work.broken or 'cut'}", path)
        self._count(work)
        return work.next_offset

    def _count(self, work: Work) -> None:
        self.status_now.packets += work.packets
        self.status_now.rows += work.rows
        self.status_now.bytes += work.bytes

    def _late(self) -> bool:
        """Whether a live sink has to skip: too far behind, or out of time at the end."""
        now = time.monotonic()
        if self._deadline_s is not None:
            return now > self._deadline_s
        # looking at every file of a long recording costs more than sending a little
        if self._at is None or now < self._on_time_until_s:
            return False
        if self._behind(*self._at) > self._max_lag_bytes:
            return True
        self._on_time_until_s = now + _LAG_S
        return False

    def drain(self, seconds: float = _LIVE_DRAIN_S) -> None:
        """The recorder has ended: a live sink has a few seconds for the rest, which is then shed."""
        self._over.set()
        if not self._live:
            return
        self._deadline_s = time.monotonic() + seconds
        self._consumer.deadline_s = self._deadline_s

    def _shed(self, position: LogPosition, offset: int) -> int:
        """Count what is left of a segment instead of handing it over."""
        route = self._consumer.route
        while offset < position.bytes_valid:
            found = _native.register_packets(
                str(_existing(position.path)), self._wire, offset, position.bytes_valid, _READ_BYTES, route
            )
            if found.next_offset <= offset:
                return position.bytes_valid
            self.status_now.shed_packets += found.packets
            self.status_now.shed_bytes += found.packet_bytes
            offset = found.next_offset
        return offset

    def _behind(self, number: int, offset: int) -> int:
        """Bytes of the log from a position on."""
        total = 0
        for path in self._logs_from(number).values():
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        return max(0, total - offset)

    def _logs(self) -> dict[int, Path]:
        found: dict[int, Path] = {}
        for path in self._directory.iterdir() if self._directory.is_dir() else ():
            match = _LOG.fullmatch(path.name)
            if match:
                found[int(match["number"])] = path
        return found

    def _logs_from(self, number: int) -> dict[int, Path]:
        return {n: path for n, path in self._logs().items() if n >= number}

    def _pause(self, seconds: float) -> None:
        if self._quit.wait(seconds) if seconds else self._quit.is_set():
            raise Stopped


def _existing(path: str) -> Path:
    """The log under the name it has now: an open one loses its `.part` when it is finished."""
    final = Path(path.removesuffix(".part"))
    part = Path(f"{final}.part")
    return part if not final.exists() and part.exists() else final


def _index(log: Path) -> Path:
    stem = log.name.removesuffix(".part").rpartition(".")[0]
    finished = log.with_name(f"{stem}.idx.bcsv")
    part = log.with_name(f"{stem}.idx.bcsv.part")
    return part if not finished.exists() and part.exists() else finished


def _keyframe_bytes(blocks: list[tuple[int, int, int, int, int, int, int, bool]]) -> int:
    end = 0
    for offset, length, *_, keyframe in blocks:
        if not keyframe:
            break
        end = offset + length
    return end


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
