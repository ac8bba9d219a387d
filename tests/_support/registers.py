"""Write the log of a register stream as spec/register-packets.md says, without the recorder; and a slow oracle.

Packets are packed with `struct`, index files come from the slow BCSV twin, XXH64 from the twin as well.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from _twins import bcsv as twin
from _twins.xxhash import xxh64

if TYPE_CHECKING:
    from pathlib import Path

T0 = 1_790_000_000_000_000
"""Producer's time of the first packet, us."""

INDEX = [
    (b"offset", "uint64"),
    (b"length", "uint64"),
    (b"packets", "uint32"),
    (b"first_timestamp_us", "uint64"),
    (b"last_timestamp_us", "uint64"),
    (b"first_received_ns", "uint64"),
    (b"xxh64", "uint64"),
    (b"keyframe", "bool"),
]
DIFF, FULL, QUERY, REPLY, SYNC = range(5)
SBMU, RACK, RTOS = 1, 2, 3


@dataclass(frozen=True)
class Packet:
    """A packet of either wire; `registers` are (offset, value) pairs."""

    timestamp_us: int
    src_id: int = 1
    type: int = RACK
    cmd: int = DIFF
    seq: int = 0
    registers: tuple[tuple[int, int], ...] = ()

    def data(self) -> bytes:
        """As a data packet (spec 2)."""
        count = len(self.registers)
        head = struct.pack("<IQBBBBBI", 17 + 4 * count, self.timestamp_us, self.src_id, self.cmd, self.type,
                           self.seq % 256, 0, count)  # fmt: skip
        return head + self._body()

    def simple(self) -> bytes:
        """As a simple packet (spec 1)."""
        return struct.pack("<diI", self.timestamp_us / 1e6, self.src_id, len(self.registers)) + self._body()

    def bytes(self, wire: str) -> bytes:
        return self.data() if wire == "packet" else self.simple()

    def _body(self) -> bytes:
        offsets, values = zip(*self.registers, strict=True) if self.registers else ((), ())
        return struct.pack(f"<{len(offsets)}H{len(values)}H", *offsets, *values)


class Oracle:
    """The image by brute force: a dict per source."""

    def __init__(self) -> None:
        self.sources: dict[tuple[int, int], dict[int, int]] = {}
        self.since: dict[tuple[int, int], dict[int, int]] = {}
        self.last: dict[tuple[int, int], tuple[int, int]] = {}

    def apply(self, packet: Packet, wire: str = "packet") -> None:
        if packet.cmd not in {DIFF, FULL}:
            return
        key = (packet.type, packet.src_id)
        registers = self.sources.setdefault(key, {})
        since = self.since.setdefault(key, {})
        last = self.last.get(key)
        ahead = 1 if last is None else (packet.seq - last[0]) % 256
        if wire == "packet" and 2 <= ahead <= 128:
            for offset in registers:
                since.setdefault(offset, packet.timestamp_us)
        if packet.cmd == FULL:
            registers.clear()
            since.clear()
        for offset, value in packet.registers:
            registers[offset] = value
            since.pop(offset, None)
        seq = packet.seq % 256 if last is None or 1 <= ahead <= 128 else last[0]
        self.last[key] = (seq, max(packet.timestamp_us, last[1] if last else 0))

    def keyframes(self) -> list[Packet]:
        """What a new segment begins with: a FULL per source, with the time and sequence of its last packet."""
        return [
            Packet(self.last[key][1], key[1], key[0], FULL, self.last[key][0], tuple(sorted(registers.items())))
            for key, registers in sorted(self.sources.items())
        ]

    def as_dict(self) -> dict:
        return {
            "sources": [
                {"type": kind, "src_id": src_id, "registers": [list(pair) for pair in sorted(registers.items())]}
                for (kind, src_id), registers in sorted(self.sources.items())
                if registers
            ]
        }


@dataclass
class Log:
    """Writes a stream's segments."""

    directory: Path
    name: str = "rack"
    wire: str = "packet"
    block_packets: int = 8
    oracle: Oracle = field(default_factory=Oracle)
    segments: list[dict] = field(default_factory=list)

    @property
    def extension(self) -> str:
        return "pkt" if self.wire == "packet" else "spkt"

    def path(self, number: int) -> Path:
        return self.directory / f"{self.name}_{number:06d}_20261121T03{number:02d}00.000000Z.{self.extension}"

    def write(self, packets: list[Packet], *, index: bool = True, part: bool = False) -> Path:
        """The next segment, keyframes first."""
        self.directory.mkdir(exist_ok=True)
        path = self.path(len(self.segments))
        data = bytearray()
        rows = []

        def block(members: list[Packet], *, keyframe: bool) -> None:
            chunk = b"".join(p.bytes(self.wire) for p in members)
            stamps = [p.timestamp_us for p in members]
            received = stamps[0] * 1000 + 5
            row = (len(data), len(chunk), len(members), min(stamps), max(stamps), received, xxh64(chunk), keyframe)
            rows.append(row)
            data.extend(chunk)

        keyframes = self.oracle.keyframes()
        if keyframes:
            block(keyframes, keyframe=True)
        keyframe_bytes = len(data)
        for start in range(0, len(packets), self.block_packets):
            block(packets[start : start + self.block_packets], keyframe=False)
        for packet in packets:
            self.oracle.apply(packet, self.wire)
        if index:
            stem = path.name.rpartition(".")[0]
            index_path = path.with_name(f"{stem}.idx.bcsv")
            index_path.write_bytes(twin.write(INDEX, rows, row_codec="flat", file_codec="packet"))
        if part:
            path = path.with_name(path.name + ".part")
        path.write_bytes(data)
        stamps = [p.timestamp_us for p in packets]
        entry = {
            "name": path.name,
            "number": len(self.segments),
            "bytes": len(data),
            "packets": len(packets),
            "registers": sum(len(p.registers) for p in packets),
            "keyframes": len(keyframes),
            "keyframe_bytes": keyframe_bytes,
        }
        if stamps:
            entry |= {"first_timestamp_us": min(stamps), "last_timestamp_us": max(stamps)}
        self.segments.append(entry)
        return path

    def manifest(self, root: Path, *, spans: bool = True) -> Path:
        """A manifest that lists what was written; the stream's directory lies in `root`."""
        drop = set() if spans else {"first_timestamp_us", "last_timestamp_us"}
        segments = [{k: v for k, v in entry.items() if k not in drop} for entry in self.segments]
        stream = {"wire": self.wire, "directory": self.name, "segments": segments, "ledger": {}}
        manifest = {"format": 1, "tool": "tapeline test", "started": "2026-11-21T03:00:00.000000Z",
                    "stopped": "2026-11-21T03:10:00.000000Z", "config": {}, "streams": {self.name: stream}}  # fmt: skip
        (root / "recording.json").write_text(json.dumps(manifest))
        return root


def rows_of(packets: list[Packet]) -> list[tuple[int, ...]]:
    """What a table of these data packets holds: timestamp_us, type, src_id, cmd, seq, offset, value."""
    return [
        (p.timestamp_us, p.type, p.src_id, p.cmd, p.seq % 256, offset, value)
        for p in packets
        for offset, value in p.registers
    ]
