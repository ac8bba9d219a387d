"""What a recording says of itself, and what is really there (spec/recording.md).

The directory is read first and the manifest second: files decide what exists, `recording.json` adds the
layout, the rule of assembly, the ledger and the digests. Nothing in either may raise, whatever it holds;
a wrong type in the manifest reads as absent and is told in `Manifest.faults`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tapeline.ledger import Ledger
from tapeline.wire import FrameLayout

if TYPE_CHECKING:
    from pathlib import Path

NAME = "recording.json"
PART = ".part"
# {stream}_{number:06d}_{start UTC, microseconds}.dat; the number grows past six digits rather than wrap
_SEGMENT = re.compile(
    r"(?P<stream>[A-Za-z0-9_-][A-Za-z0-9._-]*)_(?P<number>\d{6,18})_\d{8}T\d{6}\.\d{6}Z\.dat(?P<part>\.part)?"
)
_RULE = re.compile(r"none|markers|count:[1-9]\d{0,18}")


@dataclass(frozen=True)
class SegmentEntry:
    """A segment as the manifest describes it; None where it does not."""

    name: str
    bytes: int | None
    frames: int | None
    first_sequence: int | None
    last_sequence: int | None
    first_timestamp_ns: int | None
    last_timestamp_ns: int | None
    xxh3_128: str | None
    index: dict[str, Any] | None


@dataclass(frozen=True)
class StreamEntry:
    """A stream as the manifest describes it."""

    name: str
    layout: FrameLayout | None
    assembly: str | None
    ledger: Ledger | None
    segments: dict[str, SegmentEntry]
    evicted: list[dict[str, Any]]
    recovered: list[dict[str, Any]]
    keep_duplicates: bool
    directory: str


@dataclass(frozen=True)
class Manifest:
    """The parsed `recording.json`; empty when it is missing or unreadable.

    Attributes:
        raw: The JSON object as it stands; {} without one.
        present: A manifest was there and was an object.
        faults: One sentence for everything in it that could not be used.
        streams: The frame streams it names.
    """

    raw: dict[str, Any]
    present: bool
    faults: list[str]
    streams: dict[str, StreamEntry]

    @property
    def stopped(self) -> bool:
        """Whether the recorder says that it came to its end."""
        return isinstance(self.raw.get("stopped"), str)


@dataclass
class StreamFiles:
    """The `.dat` files of one stream, by number."""

    directory: Path
    paths: list[Path] = field(default_factory=list)


def load(directory: Path) -> Manifest:
    """Read `recording.json`.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        text = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return Manifest({}, present=False, faults=[], streams={})
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Manifest({}, present=False, faults=[f"not readable as JSON: {error}"], streams={})
    if not isinstance(raw, dict):
        return Manifest({}, present=False, faults=["not a JSON object"], streams={})
    faults: list[str] = []
    if raw.get("format") != 1:
        faults.append(f"format {raw.get('format')!r}; this release knows 1")
    streams = {}
    listed = raw.get("streams", {})
    if not isinstance(listed, dict):
        faults.append("streams is not an object")
        listed = {}
    for name, entry in listed.items():
        if not isinstance(entry, dict):
            faults.append(f"streams.{name} is not an object")
        elif entry.get("wire", "frame") == "frame":
            streams[name] = _stream(name, entry, raw, faults)
    return Manifest(raw, present=True, faults=faults, streams=streams)


def find_segments(directory: Path) -> dict[str, StreamFiles]:
    """The segments in the directories of a recording, by stream.

    Raises:
        OSError: The directory cannot be listed.
    """
    found: dict[str, StreamFiles] = {}
    places = [directory, *sorted(p for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))]
    for place in places:
        numbered = []
        for path in place.iterdir():
            match = _SEGMENT.fullmatch(path.name)
            if match and path.is_file():
                numbered.append((match["stream"], int(match["number"]), path.name, path))
        for stream, _, _, path in sorted(numbered):
            found.setdefault(stream, StreamFiles(place)).paths.append(path)
    return found


def _stream(name: str, entry: dict[str, Any], raw: dict[str, Any], faults: list[str]) -> StreamEntry:
    where = f"streams.{name}"
    assembly = entry.get("assembly")
    if not (isinstance(assembly, str) and _RULE.fullmatch(assembly)):
        faults.append(f"{where}.assembly: {assembly!r}")
        assembly = None
    segments = {}
    for item in _objects(entry, "segments", where, faults):
        segment = _segment(item)
        if segment is None:
            faults.append(f"{where}.segments: an entry without a usable name")
        else:
            segments[segment.name] = segment
    ledger = None
    try:
        ledger = Ledger.from_dict(entry["ledger"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        faults.append(f"{where}.ledger: {error!r}")
    directory = entry.get("directory")
    return StreamEntry(
        name=name,
        layout=_layout(entry.get("layout"), where, faults),
        assembly=assembly,
        ledger=ledger,
        segments=segments,
        evicted=_objects(entry, "evicted", where, faults),
        recovered=_objects(entry, "recovered", where, faults),
        keep_duplicates=_keeps_duplicates(name, raw),
        directory=directory if isinstance(directory, str) else name,
    )


def _layout(value: Any, where: str, faults: list[str]) -> FrameLayout | None:
    try:
        return FrameLayout(
            magic=bytes.fromhex(value["magic"]),
            version_flags=value["version_flags"],
            length_bytes=value["length_bytes"],
            header_crc=value["header_crc"],
            max_payload=value["max_payload"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        faults.append(f"{where}.layout: {error!r}")
        return None


def _segment(item: dict[str, Any]) -> SegmentEntry | None:
    name = item.get("name")
    if not isinstance(name, str) or "/" in name or "\0" in name or name in {"", ".", ".."}:
        return None
    index, digest = item.get("index"), item.get("xxh3_128")
    return SegmentEntry(
        name=name,
        bytes=_count(item, "bytes"),
        frames=_count(item, "frames"),
        first_sequence=_count(item, "first_sequence"),
        last_sequence=_count(item, "last_sequence"),
        first_timestamp_ns=_count(item, "first_timestamp_ns"),
        last_timestamp_ns=_count(item, "last_timestamp_ns"),
        xxh3_128=digest if isinstance(digest, str) else None,
        index=index if isinstance(index, dict) else None,
    )


def _objects(entry: dict[str, Any], key: str, where: str, faults: list[str]) -> list[dict[str, Any]]:
    items = entry.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        faults.append(f"{where}.{key} is not a list of objects")
        return []
    return items


def _count(item: dict[str, Any], key: str) -> int | None:
    value = item.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _keeps_duplicates(name: str, raw: dict[str, Any]) -> bool:
    config = raw.get("config")
    streams = config.get("streams") if isinstance(config, dict) else None
    for stream in streams if isinstance(streams, list) else []:
        # a stream of `split_by_stream_id` is named {stream}.{id}
        if isinstance(stream, dict) and stream.get("name") in {name, name.rpartition(".")[0]}:
            return stream.get("keep_duplicates") is True
    return False
