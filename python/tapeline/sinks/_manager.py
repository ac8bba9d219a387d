"""All sinks of a recorder: started with it, drained with it, told of in its summary."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tapeline._register_files import wire_of
from tapeline._sink_settings import TABLE_KINDS
from tapeline.sinks._consumers import drop_orphans
from tapeline.sinks._follow import Follower, SinkStatus

if TYPE_CHECKING:
    from tapeline.config import RecorderConfig


class LogSource(Protocol):
    """What a compiled recorder tells of the logs of its register streams."""

    def log_position(
        self, stream: str, after: tuple[int, int] | None, timeout_s: float
    ) -> tuple[int, str, int, int, bool, bool]:
        """See `LogPosition`; waits, with the lock released, until there is something beyond `after`."""

    def sink_progress(self, stream: str, sink: str, segment: int) -> None:
        """Retention may remove segments below this number, as far as the sink is concerned."""


class SinkSet:
    """The followers of every register stream: its sinks, and the builder of touch indexes.

    Args:
        config: The recorder's configuration.
        source: The running recorder.
    """

    def __init__(self, config: RecorderConfig, source: LogSource) -> None:
        """Prepare; `start` begins."""
        self._followers: dict[str, list[Follower]] = {}
        self._touch: list[Follower] = []
        self._drained = False
        self._extensions: dict[str, list[str]] = {}
        self._logs: dict[str, str] = {}
        for stream in config.streams:
            if stream.wire == "frame":
                continue
            position = partial(source.log_position, stream.name)
            directory = config.out / stream.name
            make = partial(Follower, wire=stream.wire, directory=directory, position=position)
            self._followers[stream.name] = []
            self._logs[stream.name] = ".pkt" if stream.wire == "packet" else ".spkt"
            self._extensions[stream.name] = [sink.extension for sink in stream.sinks if sink.kind in TABLE_KINDS]
            for sink in stream.sinks:
                progress = partial(source.sink_progress, stream.name, sink.name) if sink.priority == "archive" else None
                if progress is not None:
                    # before retention can look at the first segment
                    progress(0)
                self._followers[stream.name].append(make(sink, progress=progress))
            self._touch.append(make(None))

    def start(self) -> SinkSet:
        """Begin following every log."""
        for follower in self._all():
            follower.start()
        return self

    def _all(self) -> list[Follower]:
        return [*(f for followers in self._followers.values() for f in followers), *self._touch]

    def finished(self, timeout_s: float) -> bool:
        """Wait for the end of all followers of an ended recorder; live ones have a few seconds for the rest."""
        if not self._drained:
            self._drained = True
            for follower in self._all():
                follower.drain()
        deadline = time.monotonic() + timeout_s
        return all(follower.join(max(0.0, deadline - time.monotonic())) for follower in self._all())

    def abandon(self) -> None:
        """Give up at once; what is left undone is made at the next start."""
        for follower in self._all():
            follower.abandon()

    def status(self) -> dict[str, list[SinkStatus]]:
        """Stream to the status of its sinks, in the order of the configuration."""
        return {name: [follower.status() for follower in followers] for name, followers in self._followers.items()}

    def add_to(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Put `sinks` into the streams of a summary, and their tables to its files.

        A sink that lost something makes `lost_anything` true.
        """
        for name, sinks in self.status().items():
            stream = summary["streams"].get(name)
            if stream is not None:
                stream["sinks"] = [sink.as_dict() for sink in sinks]
                stream["files"] += self._tables(name, stream["files"])
            summary["lost_anything"] = bool(summary.get("lost_anything")) or any(s.lost_anything for s in sinks)
        return summary

    def _tables(self, stream: str, files: list[str]) -> list[str]:
        """The finished tables beside the logs among some files."""
        stems = [path.with_suffix("") for path in map(Path, files) if wire_of(path) is not None]
        tables = [Path(f"{stem}.{extension}") for stem in stems for extension in self._extensions[stream]]
        return [str(table) for table in tables if table.exists()]

    def keep(self, manifest: Path) -> None:
        """Write the state of ended sinks into the manifest of an ended recorder: `sinks` of each stream that has some.

        Also removes what belongs to logs that are no more.

        Raises:
            OSError: As the operating system gave it; the manifest is then as it was.
        """
        for name, extension in self._logs.items():
            drop_orphans(manifest.parent / name, extension)
        states = {name: [sink.as_dict() for sink in sinks] for name, sinks in self.status().items() if sinks}
        if not states:
            return
        told = json.loads(manifest.read_bytes())
        for name, sinks in states.items():
            told["streams"][name]["sinks"] = sinks
        part = manifest.with_name(f"{manifest.name}.tmp")
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(json.dumps(told, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(manifest)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def failure(self) -> tuple[str, str] | None:
        """Stream and text of the first sink that failed; None when none did. Shedding is no failure."""
        for name, sinks in self.status().items():
            for sink in sinks:
                if sink.error is not None and sink.kind != "forward":
                    return name, f"stream {name}: sink {sink.name}: {sink.error}"
        return None
