"""Write a recording as the recorder would, from a plan, without the recorder.

Frames come from `tapeline.wire`, index files from the slow BCSV twin; the manifest is written here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from _twins import bcsv as twin
from tapeline import _native, wire

if TYPE_CHECKING:
    from pathlib import Path

T0 = 1_790_000_000_000_000_000
"""Producer's time of sequence 0, ns; one frame per 1,000 ns."""

INDEX = [
    (b"periodic", "uint64"),
    (b"first_sequence", "uint64"),
    (b"last_sequence", "uint64"),
    (b"first_timestamp_ns", "uint64"),
    (b"last_timestamp_ns", "uint64"),
    (b"first_received_ns", "uint64"),
    (b"offset", "uint64"),
    (b"length", "uint64"),
    (b"frames_expected", "uint32"),
    (b"frames_present", "uint32"),
    (b"status", "uint8"),
]
RECEIVED = 5


@dataclass(frozen=True)
class Row:
    """One periodic of a plan: its frames by sequence."""

    periodic: int
    sequences: list[int]
    expected: int
    status: int = 0
    stream_id: int = 0


@dataclass
class Plan:
    """One stream: its segments, each a list of rows."""

    segments: list[list[Row]]
    assembly: str = "count:4"
    payload: int = 32
    sizes: dict[int, int] = field(default_factory=dict)
    layout: wire.FrameLayout = field(default_factory=wire.FrameLayout)
    ledger: dict[str, int] = field(default_factory=dict)
    evicted: list[dict] = field(default_factory=list)

    def frame(self, sequence: int, stream_id: int = 0) -> bytes:
        """The frame of a sequence."""
        return wire.encode_frame(
            self.payload_of(sequence),
            sequence=sequence,
            timestamp_ns=T0 + 1_000 * sequence,
            stream_id=stream_id,
            layout=self.layout,
        )

    def payload_of(self, sequence: int) -> bytes:
        """Bytes that tell their sequence."""
        size = self.sizes.get(sequence, self.payload)
        return (sequence.to_bytes(4, "little") * (size // 4 + 1))[:size]


def counted(first: int, stop: int, n: int = 4) -> list[Row]:
    """Complete periodics `first` to `stop` of rule count:n."""
    return [Row(k, list(range(k * n, (k + 1) * n)), n) for k in range(first, stop)]


def segment_name(stream: str, number: int) -> str:
    return f"{stream}_{number:06d}_20261121T03{number:02d}00.000000Z.dat"


def write_recording(root: Path, plans: dict[str, Plan], *, stopped: bool = True) -> Path:
    """A whole recording in the directory `root`, which is returned."""
    root.mkdir()
    streams = {name: write_stream(root / name, name, plan) for name, plan in plans.items()}
    manifest = {
        "format": 1,
        "tool": "tapeline test",
        "host": "here",
        "started": "2026-11-21T03:00:00.000000Z",
        "stopped": "2026-11-21T03:10:00.000000Z" if stopped else None,
        "config": {},
        "streams": streams,
        "events": [],
    }
    (root / "recording.json").write_text(json.dumps(manifest))
    return root


def write_stream(directory: Path, name: str, plan: Plan) -> dict:
    """The segments of a stream; its entry in the manifest."""
    directory.mkdir()
    segments = [write_segment(directory, segment_name(name, i), i, plan, rows) for i, rows in enumerate(plan.segments)]
    rows = [row for segment in plan.segments for row in segment]
    frames, size = sum(s["frames"] for s in segments), sum(s["bytes"] for s in segments)
    ledger = {
        "bytes_received": size,
        "frames_received": frames,
        "frames_stored": frames,
        "bytes_stored": size,
        "periodics_complete": sum(row.status == 0 for row in rows),
        "periodics_incomplete": sum(row.status == 1 for row in rows),
        "frames_late": sum(len(row.sequences) for row in rows if row.status == 2),
    }
    layout = plan.layout
    return {
        "wire": "frame",
        "layout": {
            "magic": layout.magic.hex(),
            "version_flags": layout.version_flags,
            "length_bytes": layout.length_bytes,
            "header_crc": layout.header_crc,
            "max_payload": layout.max_payload,
        },
        "assembly": plan.assembly,
        "sources": ["udp://127.0.0.1:9001"],
        "segments": segments,
        "evicted": plan.evicted,
        "recovered": [],
        "ledger": ledger | plan.ledger,
    }


def write_segment(directory: Path, name: str, number: int, plan: Plan, rows: list[Row]) -> dict:
    """One `.dat` with its index; its entry in the manifest."""
    data = bytearray()
    index = []
    for row in rows:
        offset = len(data)
        for sequence in row.sequences:
            data += plan.frame(sequence, row.stream_id)
        first, last = min(row.sequences), max(row.sequences)
        times = (T0 + 1_000 * first, T0 + 1_000 * last, T0 + 1_000 * first + RECEIVED)
        length = len(data) - offset
        index.append((row.periodic, first, last, *times, offset, length, row.expected, len(row.sequences), row.status))
    path = directory / name
    path.write_bytes(data)
    index_path = directory / f"{name.removesuffix('.dat')}.idx.bcsv"
    index_path.write_bytes(twin.write(INDEX, index, row_codec="flat", file_codec="packet"))
    sequences = [sequence for row in rows for sequence in row.sequences]
    return {
        "name": name,
        "number": number,
        "bytes": len(data),
        "frames": len(sequences),
        "first_sequence": min(sequences),
        "last_sequence": max(sequences),
        "first_timestamp_ns": T0 + 1_000 * min(sequences),
        "last_timestamp_ns": T0 + 1_000 * max(sequences),
        "xxh3_128": _native.file_digest(str(path)),
        "index": {
            "name": index_path.name,
            "bytes": index_path.stat().st_size,
            "rows": len(index),
            "xxh3_128": _native.file_digest(str(index_path)),
        },
    }


def edit_manifest(root: Path, change) -> None:
    """Apply a function to the manifest's object and write it back."""
    path = root / "recording.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def dat_files(root: Path, stream: str = "ch0") -> list[Path]:
    return sorted((root / stream).glob("*.dat"))
