"""Which logs of register packets there are, by stream; names only, nothing is opened but the manifest."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tapeline.errors import TapelineError

if TYPE_CHECKING:
    import os

Wire = Literal["packet", "simple"]

MANIFEST = "recording.json"
PART = ".part"
EXTENSIONS: dict[str, Wire] = {".pkt": "packet", ".spkt": "simple"}
# {stream}_{number:06d}_{start UTC, microseconds}.pkt; the number grows past six digits rather than wrap
_SEGMENT = re.compile(
    r"(?P<stream>[A-Za-z0-9_-][A-Za-z0-9._-]*)_(?P<number>\d{6,18})_\d{8}T\d{6}\.\d{6}Z(?P<extension>\.s?pkt)"
    r"(?P<part>\.part)?"
)


@dataclass
class RegisterFiles:
    """The logs of one stream, in order.

    Attributes:
        name: Of the stream.
        wire: Which wire they hold.
        directory: Where they are.
        paths: The logs.
        entry: The stream in the manifest; {} without.
        alone: It is a single log, opened as such: it need have neither a manifest nor an index.
    """

    name: str
    wire: Wire
    directory: Path
    paths: list[Path] = field(default_factory=list)
    entry: dict[str, Any] = field(default_factory=dict)
    alone: bool = False

    def segment_entry(self, path: Path) -> dict[str, Any]:
        """What the manifest says of a segment; {} when it says nothing."""
        listed = self.entry.get("segments")
        for item in listed if isinstance(listed, list) else ():
            if isinstance(item, dict) and item.get("name") == path.name:
                return item
        return {}

    def spans(self) -> list[tuple[str, tuple[int, int] | None]]:
        """Each log and the least and greatest timestamp in it, where the manifest tells."""
        listed = self.entry.get("segments")
        items = {i.get("name"): i for i in listed if isinstance(i, dict)} if isinstance(listed, list) else {}
        spans: list[tuple[str, tuple[int, int] | None]] = []
        first: Any
        last: Any
        for path in self.paths:
            item = items.get(path.name, {})
            first, last = item.get("first_timestamp_us"), item.get("last_timestamp_us")
            spans.append((str(path), (int(first), int(last)) if _is_time(first) and _is_time(last) else None))
        return spans


def wire_of(path: Path) -> Wire | None:
    """The wire that a log's name stands for; None when it is no log."""
    return EXTENSIONS.get(Path(path.name.removesuffix(PART)).suffix)


def index_of(log: Path) -> Path:
    """The index beside a log: the open one while only that is there."""
    stem = log.name.removesuffix(PART).rpartition(".")[0]
    finished = log.with_name(f"{stem}.idx.bcsv")
    part = log.with_name(f"{stem}.idx.bcsv.part")
    return part if not finished.exists() and part.exists() else finished


def find(path: str | os.PathLike[str]) -> dict[str, RegisterFiles]:
    """The register streams of a recording, of a directory of segments, or of a single log.

    Raises:
        TapelineError: A file is no log.
        OSError: As the operating system gave it.
    """
    place = Path(path)
    if not place.is_dir():
        place.stat()
        wire = wire_of(place)
        if wire is None:
            raise TapelineError(f"{place}: not a log of register packets; those end in .pkt or .spkt")
        name = place.name.removesuffix(PART).rpartition(".")[0]
        return {name: RegisterFiles(name, wire, place.parent, [place], alone=True)}
    found: dict[str, RegisterFiles] = {}
    for directory in [place, *sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))]:
        numbered = []
        for file in directory.iterdir():
            match = _SEGMENT.fullmatch(file.name)
            if match and file.is_file():
                numbered.append((match["stream"], int(match["number"]), file.name, match["extension"], file))
        for stream, _, _, extension, file in sorted(numbered):
            files = found.setdefault(stream, RegisterFiles(stream, EXTENSIONS[extension], directory))
            if files.wire == EXTENSIONS[extension] and files.directory == directory:
                files.paths.append(file)
    for name, entry in _entries(place).items():
        wire = entry.get("wire")
        if name not in found and wire in {"packet", "simple"}:
            below = entry.get("directory")
            below = below if isinstance(below, str) and ".." not in below else name
            found[name] = RegisterFiles(name, wire, place / below)
        if name in found:
            found[name].entry = entry
    return dict(sorted(found.items()))


def _entries(place: Path) -> dict[str, dict[str, Any]]:
    """The streams of the manifest, as far as it can be read; `verify` tells what cannot."""
    for directory in (place, place.parent):
        try:
            streams = json.loads((directory / MANIFEST).read_bytes()).get("streams")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        if isinstance(streams, dict):
            # of the directory above only the stream whose directory this is
            wanted = {place.name} if directory != place else set(streams)
            return {n: e for n, e in streams.items() if isinstance(e, dict) and n in wanted}
    return {}


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64
