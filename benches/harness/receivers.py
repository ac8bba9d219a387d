"""The programs under test, all driven alike: start on sources, stop, say what was recorded."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .processes import BenchError, Child

BENCHES = Path(__file__).resolve().parent.parent
RIVALS = BENCHES / "target" / "release"
TAPELINE = Path(sys.executable).with_name("tapeline")
SEGMENT_BYTES = 256 << 20
KEEP_SEGMENTS = 2
RECEIVE_BUFFER_BYTES = 32 << 20


@dataclass(frozen=True)
class Recorded:
    """What a receiver says it has."""

    frames: int
    bytes: int
    kernel_drops: int = 0
    started_ns: int = 0
    ledger: dict[str, Any] = field(default_factory=dict)


class Receiver:
    """One program; subclasses know its arguments and its summary."""

    name = ""
    stops_by_itself = True

    def start(self, out: Path, sources: list[str], *, gro: bool = False, receive_buffer: int | None = None) -> Child:
        """Start it on sources (`tcp://`, `udp://`, `file://`)."""
        raise NotImplementedError

    def recorded(self, summary: dict[str, Any], out: Path) -> Recorded:
        """Read its summary."""
        raise NotImplementedError


class Tapeline(Receiver):
    """`tapeline record`, the whole of it: interpreter, command line, manifest, index, ledger."""

    name = "tapeline"
    stops_by_itself = False

    def __init__(self, **settings: object) -> None:
        self._settings = settings

    def start(self, out: Path, sources: list[str], *, gro: bool = False, receive_buffer: int | None = None) -> Child:
        """Write a configuration and record with it."""
        defaults = {"rotate_bytes": SEGMENT_BYTES, "gro": gro, **self._settings}
        if receive_buffer is not None:
            defaults["receive_buffer_bytes"] = receive_buffer
        lines = ["min_free_bytes = 0", "[defaults]", f"keep_segments = {KEEP_SEGMENTS}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in defaults.items()]
        lines += ["[streams]", *(f"ch{number} = {json.dumps(source)}" for number, source in enumerate(sources))]
        config = out / "config.toml"
        config.write_text("\n".join(lines) + "\n")
        return Child([TAPELINE, "record", config, "--out", out / "recording", "--json"])

    def recorded(self, summary: dict[str, Any], out: Path) -> Recorded:
        """Add up the ledgers of all streams; check what one ledger owes."""
        ledgers = [stream["ledger"] for stream in summary["streams"].values()]
        total: dict[str, Any] = {}
        for ledger in ledgers:
            for key, value in flat(ledger).items():
                total[key] = total.get(key, 0) + value
        if total["frames_received"] != total["frames_stored"] + total["frames_duplicate"]:
            raise BenchError(f"tapeline: frames received, stored and duplicate do not add up: {total}")
        manifest = json.loads((out / "recording" / "recording.json").read_text())
        started = datetime.fromisoformat(manifest["started"])
        _check_files(manifest, out / "recording")
        return Recorded(
            total["frames_stored"],
            total["bytes_stored"],
            total["datagrams_dropped_by_kernel"],
            int(started.timestamp() * 1e9),
            total,
        )


class MinimalTcp(Receiver):
    """recv, parse, CRC32C, 1 MB writes."""

    name = "minimal-tcp"

    def start(self, out: Path, sources: list[str], *, gro: bool = False, receive_buffer: int | None = None) -> Child:  # noqa: ARG002
        """One listener for all connections, or a file."""
        return Child([RIVALS / self.name, *_source_arguments(sources), "--out", out, "--keep", str(KEEP_SEGMENTS)])

    def recorded(self, summary: dict[str, Any], out: Path) -> Recorded:  # noqa: ARG002
        """Take its counts."""
        return Recorded(summary["frames"], summary["bytes"], started_ns=summary["started_ns"])


class OldDesign(MinimalTcp):
    """A mutex around the shared buffer, one write per frame."""

    name = "old-design"


class MinimalUdp(Receiver):
    """recvmmsg and nothing else."""

    name = "minimal-udp"

    def start(self, out: Path, sources: list[str], *, gro: bool = False, receive_buffer: int | None = None) -> Child:  # noqa: ARG002
        """One socket."""
        listen = sources[0].removeprefix("udp://")
        buffer = str(receive_buffer or RECEIVE_BUFFER_BYTES)
        return Child([RIVALS / self.name, "--listen", listen, "--receive-buffer", buffer, *(["--gro"] if gro else [])])

    def recorded(self, summary: dict[str, Any], out: Path) -> Recorded:  # noqa: ARG002
        """Take its counts."""
        return Recorded(summary["datagrams"], summary["bytes"], summary["kernel_drops"])


def build_rivals() -> None:
    """Build the rivals and the sender, if they are not up to date.

    Raises:
        BenchError: They do not build.
    """
    child = Child(["cargo", "build", "--release", "--quiet", "--manifest-path", BENCHES / "Cargo.toml"])
    try:
        child.wait(timeout_s=600)
    except BenchError as error:
        if child.status != 0:
            raise BenchError(f"the rivals do not build: {error}") from error


def _source_arguments(sources: list[str]) -> list[str]:
    if sources[0].startswith("file://"):
        return ["--file", sources[0].removeprefix("file://")]
    many = ["--connections", str(len(sources))] if len(sources) > 1 else []
    return ["--listen", sources[0].removeprefix("tcp://"), *many]


def flat(ledger: dict[str, Any]) -> dict[str, int]:
    """The numbers of a ledger, nested ones as `outer.inner`."""
    result = {}
    for key, value in ledger.items():
        if isinstance(value, dict):
            result.update({f"{key}.{name}": number for name, number in value.items()})
        elif isinstance(value, int):
            result[key] = value
    return result


def _check_files(manifest: dict[str, Any], directory: Path) -> None:
    """Every segment that the manifest names is there in the size it says; all frames are in some segment."""
    for name, stream in manifest["streams"].items():
        for segment in stream["segments"]:
            path = directory / name / segment["name"]
            if path.stat().st_size != segment["bytes"]:
                raise BenchError(f"{path}: {path.stat().st_size} bytes, the manifest says {segment['bytes']}")
        frames = sum(part["frames"] for part in [*stream["segments"], *stream.get("evicted", [])])
        if frames != stream["ledger"]["frames_stored"]:
            raise BenchError(f"{name}: {frames} frames in segments, {stream['ledger']['frames_stored']} in the ledger")
