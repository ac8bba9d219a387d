"""The programs that take register packets, driven like those in `receivers`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .processes import BenchError, Child
from .receivers import RIVALS, SEGMENT_BYTES, TAPELINE, Recorded, flat

if TYPE_CHECKING:
    from pathlib import Path


# All: see `register_cases.run`.
_KEEP = 1_000_000


class RegisterServer:
    """`tapeline record` with one register stream: log, index, image, ledger, and the sinks asked for."""

    name = "tapeline"
    stops_by_itself = False
    pattern = "*.pkt*"

    def __init__(self, **settings: object) -> None:
        self._settings = settings

    def start(self, out: Path, port: int, clients: int) -> Child:  # noqa: ARG002  it takes any number
        """Record what comes to a port."""
        url = f"tcp://127.0.0.1:{port}?wire=packet"
        stream = {"url": url, "rotate_bytes": SEGMENT_BYTES, **self._settings}
        settings = [f"{key} = {_toml(value)}" for key, value in stream.items()]
        lines = ["min_free_bytes = 0", "[streams.rack]", *settings]
        config = out / "config.toml"
        config.write_text("\n".join(lines) + "\n")
        return Child([TAPELINE, "record", config, "--out", out / "recording", "--json"])

    def recorded(self, summary: dict[str, Any], out: Path) -> Recorded:
        """Read the ledger; check it against the segments."""
        ledger = flat(summary["streams"]["rack"]["ledger"])
        manifest = json.loads((out / "recording" / "recording.json").read_text())
        stream = manifest["streams"]["rack"]
        for segment in stream["segments"]:
            path = out / "recording" / "rack" / segment["name"]
            if path.stat().st_size != segment["bytes"]:
                raise BenchError(f"{path}: {path.stat().st_size} bytes, the manifest says {segment['bytes']}")
        packets = sum(part["frames"] for part in [*stream["segments"], *stream.get("evicted", [])])
        if not packets == ledger["packets_stored"] == ledger["packets_received"]:
            raise BenchError(f"rack: {packets} packets in segments, the ledger says {ledger}")
        return Recorded(ledger["packets_stored"], ledger["bytes_stored"], ledger=ledger)


class RegisterThreads:
    """A thread per client, two receives per packet, a mutex for the file and one for the image."""

    name = "register-threads"
    stops_by_itself = True
    pattern = "*.dat"

    def start(self, out: Path, port: int, clients: int) -> Child:
        """Take so many connections and end with the last."""
        words = ["--listen", f"127.0.0.1:{port}", "--out", out, "--keep", _KEEP, "--connections", clients]
        return Child([RIVALS / self.name, *map(str, words)])

    def recorded(self, summary: dict[str, Any], out: Path) -> Recorded:  # noqa: ARG002
        """Take its counts."""
        return Recorded(summary["packets"], summary["bytes"])


class RegisterBytes(RegisterThreads):
    """Receive and write."""

    name = "register-bytes"

    def recorded(self, summary: dict[str, Any], out: Path) -> Recorded:  # noqa: ARG002
        """It knows bytes only."""
        return Recorded(-1, summary["bytes"])


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)
