"""The recorder as a Python object: configuration in, ledgers out; bytes never pass through Python.

The compiled recorder has a receive and a write thread for each stream. What happens here is starting,
watching and stopping them, and it costs nothing per frame.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

from tapeline import _native
from tapeline._register_files import MANIFEST
from tapeline.config import RecorderConfig
from tapeline.errors import RecorderError
from tapeline.ledger import Ledger, RegisterLedger

if TYPE_CHECKING:
    import os
    from pathlib import Path
    from types import TracebackType

    from tapeline.sinks import LogSource, SinkSet, SinkStatus

_POLL_S = 0.1  # how often a wait comes up for signals; the compiled wait sleeps in between


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream of a running recorder.

    Attributes:
        ledger: Its account so far: a `RegisterLedger` of a register stream.
        addresses: Where its sources listen or read, with the port in place of port 0.
        ring_bytes: Capacity of the rings between receivers and writer together.
        ring_used_bytes: Bytes that wait in it now.
        receive_buffer_bytes: Socket buffer the kernel granted; 0 where there is none.
        connections: Open connections.
        error: Why the stream failed; None while it has not.
        sinks: The state of its sinks: rows, lag, what was shed.
    """

    ledger: (
        Ledger | Any
    )  # `| RegisterLedger` would make every caller ask which; with Any the names of Ledger are checked
    addresses: tuple[str, ...]
    ring_bytes: int
    ring_used_bytes: int
    receive_buffer_bytes: int
    connections: int
    error: str | None
    sinks: tuple[SinkStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class RecorderStatus:
    """A snapshot of a recorder.

    Attributes:
        finished: True once every thread has ended and every file is closed.
        streams: Name to status.
        events: What happened besides frames (`time`, `kind`, `stream`, `text`), oldest first.
    """

    finished: bool
    streams: dict[str, StreamStatus]
    events: list[dict[str, Any]]


class Recorder:
    """Record streams into a directory.

    As a context manager it starts on entering and stops, drained and synced, on leaving:

        with tapeline.Recorder({"out": "run", "streams": {"ch0": "tcp://127.0.0.1:9001"}}) as recorder:
            recorder.wait(timeout=10)
        print(recorder.ledger()["ch0"].frames_stored)

    Args:
        config: A `RecorderConfig`, a dict as for `RecorderConfig.from_dict`, or the path of a TOML file
            (the environment then counts too).

    Raises:
        ConfigError: The configuration is wrong.
        OSError: The file cannot be read.
    """

    def __init__(self, config: RecorderConfig | Mapping[str, Any] | str | os.PathLike[str]) -> None:
        """Check the configuration; nothing is opened before `start`."""
        if isinstance(config, RecorderConfig):
            self.config = config
        elif isinstance(config, Mapping):
            self.config = RecorderConfig.from_dict(config)
        else:
            self.config = RecorderConfig.load(config)
        self._native = _native.Recorder(self.config.to_json())
        self._sinks: SinkSet | None = None
        self._started_s: float | None = None
        self._start_checked = False
        self._sinks_told = False
        self._sinks_kept = False
        self._failure: RecorderError | None = None

    @property
    def out(self) -> Path:
        """Directory of the recording."""
        return self.config.out

    def start(self) -> Self:
        """Open everything and start recording; returns once every source listens.

        Raises:
            OSError: An address is in use, a file or the directory cannot be opened.
            RecorderError: It was started before, or the directory holds a recording in use.
        """
        if self._started_s is not None:
            raise RecorderError("this recorder was started before; make a new one")
        self._native.start()
        if any(stream.wire != "frame" for stream in self.config.streams):
            from tapeline.sinks import SinkSet

            self._sinks = SinkSet(self.config, cast("LogSource", self._native)).start()
        self._started_s = time.monotonic()
        return self

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the recorder has finished by itself: its sources ended, its count or duration was reached.

        Args:
            timeout: Seconds; None waits for the end.

        Returns:
            True when finished, False when the timeout came first.

        Raises:
            RecorderError: A source or sink failed (the system's error is chained), a stream received nothing
                within `start_timeout_seconds`, or the recorder was not started.
            ValueError: The timeout is not a number.
        """
        if timeout is not None and math.isnan(timeout):
            raise ValueError("the timeout is not a number")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            pause = _POLL_S if deadline is None else min(_POLL_S, max(0.0, deadline - time.monotonic()))
            if self._ended(pause):
                return True
            self._watch_limits()
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _ended(self, timeout_s: float) -> bool:
        try:
            if not self._native.wait(timeout_s):
                return False
        except OSError as error:
            self._failure = self._stream_failed(error)
        # the sinks finish what reached the log, whatever failed before it
        if self._sinks is not None and not self._sinks.finished(timeout_s):
            return False
        self._keep_sinks()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        told = None if self._sinks is None or self._sinks_told else self._sinks.failure()
        self._sinks_told = True
        if told is not None:
            raise RecorderError(told[1], stream=told[0])
        return True

    def _keep_sinks(self) -> None:
        if self._sinks is None or self._sinks_kept:
            return
        self._sinks_kept = True
        try:
            self._native.retain()
            self._sinks.keep(self.out / MANIFEST)
        except OSError as error:
            self._failure = self._failure or self._stream_failed(error)

    def _stream_failed(self, error: OSError) -> RecorderError:
        text = error.strerror or str(error)
        stream = next((s.name for s in self.config.streams if f"stream {s.name}: " in text), None)
        where = f"{error.filename}: " if error.filename else ""
        failure = RecorderError(where + text, stream=stream, path=error.filename)
        failure.__cause__ = error
        return failure

    def _watch_limits(self) -> None:
        if self._started_s is None:
            return
        age_s = time.monotonic() - self._started_s
        if self.config.duration_seconds is not None and age_s >= self.config.duration_seconds:
            self._native.stop()
        limit_s = self.config.start_timeout_seconds
        if limit_s is None or self._start_checked or age_s < limit_s:
            return
        self._start_checked = True
        for name, ledger in self.ledger().items():
            if ledger.bytes_received == 0:
                self._native.stop()
                raise RecorderError(f"stream {name} received nothing within {limit_s:g} s", stream=name)

    def ledger(self) -> dict[str, Ledger | Any]:
        """Name to ledger of every stream, a `RegisterLedger` of a register stream: a snapshot, also after the end."""
        return {name: stream.ledger for name, stream in self.status().streams.items()}

    def status(self) -> RecorderStatus:
        """A snapshot of every stream, its ring and its addresses."""
        raw = json.loads(self._native.status())
        sinks = self.sinks()
        streams = {
            name: StreamStatus(
                ledger=_ledger(stream),
                addresses=tuple(stream["addresses"]),
                ring_bytes=stream["ring_bytes"],
                ring_used_bytes=stream["ring_used_bytes"],
                receive_buffer_bytes=stream["receive_buffer_bytes"],
                connections=stream["connections"],
                error=stream["error"],
                sinks=tuple(sinks.get(name, ())),
            )
            for name, stream in raw["streams"].items()
        }
        return RecorderStatus(raw["finished"], streams, raw["events"])

    def rotate(self) -> None:
        """End every open segment now and begin the next."""
        self._native.rotate()

    def request_stop(self) -> None:
        """Ask the recorder to drain and finish, without waiting for it."""
        self._native.stop()

    def stop(self) -> dict[str, Any]:
        """Stop receiving, drain the rings, finish and sync every file, and wait for it.

        Returns:
            The summary, as `summary` gives it.

        Raises:
            RecorderError: A source or sink failed; `.stream` and `.path` name it. Everything that could be saved
                is. A failure is raised once, by whichever of `wait` and `stop` sees it first.
        """
        self._native.stop()
        while not self._ended(_POLL_S):
            pass
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """What was recorded, JSON-ready: `streams` (name to `ledger`, `files`, `error`), `out`, `lost_anything`."""
        result: dict[str, Any] = json.loads(self._native.summary())
        return result if self._sinks is None else self._sinks.add_to(result)

    def sinks(self) -> dict[str, list[SinkStatus]]:
        """Name of each register stream to the state of its sinks: rows, lag, what was shed, errors."""
        return {} if self._sinks is None else self._sinks.status()

    def __enter__(self) -> Self:
        """Start, unless started."""
        return self if self._started_s is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; a failure of a stream is raised unless another error is on its way."""
        try:
            self.stop()
        except RecorderError:
            if error is None:
                raise


def _ledger(stream: Mapping[str, Any]) -> Ledger | RegisterLedger:
    """The ledger of a stream's status, by its wire."""
    if stream.get("wire", "frame") == "frame":
        return Ledger.from_dict(stream["ledger"])
    return RegisterLedger.from_dict(stream["ledger"])
