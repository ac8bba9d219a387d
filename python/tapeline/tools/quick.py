"""What people ask of a file a hundred times a day: its kind, its facts, a few of its rows.

Nothing here imports NumPy or pyarrow, whose import takes longer than the answer.
"""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tapeline import _native
from tapeline.errors import ConfigError

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".ipc", ".feather", ".arrows")
TEXT = (".csv", ".tsv", ".txt")
RECORDED = (".dat", ".pkt", ".spkt")


def kind_of(path: str) -> str:
    """`bcsv`, `parquet`, `arrow`, `csv` or `recording`: the first bytes decide, then the extension.

    Raises:
        ConfigError: None of them.
        OSError: As the operating system gave it.
    """
    suffix = Path(path.removesuffix(".part")).suffix.lower()
    if suffix in RECORDED or Path(path).is_dir():
        return "recording"
    with open(path, "rb") as file:  # noqa: PTH123 - errors then carry the name as given
        magic = file.read(8)
    if magic[:4] == b"BCSV" or suffix == ".bcsv":
        return "bcsv"
    if magic[:4] == b"PAR1" or suffix in PARQUET:
        return "parquet"
    if magic[:6] == b"ARROW1" or suffix in ARROW:
        return "arrow"
    if suffix in TEXT:
        return "csv"
    raise ConfigError(f"{path} is no table: .bcsv, .csv, .parquet and .arrow files are, and recordings")


def facts(path: str) -> dict[str, Any]:
    """What header and footer of a BCSV file say; nothing else is read where there is a footer.

    Raises:
        BcsvError: The header is damaged.
        OSError: As the operating system gave it.
    """
    reader = _native.BcsvReader(path, "raise", False, None)
    version, created, row_codec, file_codec, level, packet_bytes, index, _flags, size = reader.header()
    return {
        "path": path,
        "kind": "bcsv",
        "version": ".".join(map(str, version)),
        "created": _instant(created),
        "row_codec": row_codec,
        "file_codec": file_codec,
        "compression_level": level,
        "packet_bytes": packet_bytes,
        "index": index,
        "file_bytes": Path(path).stat().st_size,
        "header_bytes": size,
        "packets": len(reader.packets()),
        "rows": reader.num_rows(),
        "complete": reader.complete(),
        "columns": [{"name": name, "type": kind} for name, kind in reader.columns()],
    }


def names_of(path: str) -> list[str]:
    """The columns of a BCSV file.

    Raises:
        BcsvError: The header is damaged.
        OSError: As the operating system gave it.
    """
    reader = _native.BcsvReader(path, "raise", False, None)
    return [name for name, _ in reader.columns()]


def print_text(path: str, **options: Any) -> list[tuple[int, int]]:
    """Write rows of a BCSV file to stdout; `options` as `conversion.text_options` and `start`, `stop`, `skip_damage`.

    Returns:
        Rows that were damaged and left out: first, and the one after the last.

    Raises:
        BcsvError: Damage; the rows before it have been written.
        OSError: The reader of stdout has gone away.
    """
    done = json.loads(_native.text_export(path, None, json.dumps(options), None))
    return [(first, stop) for first, stop in done["gaps"]]


def cells(path: str, **options: Any) -> list[list[str]]:
    """Rows of a BCSV file as text, the names first; `options` as those of `print_text`.

    Raises:
        BcsvError: Damage.
        OSError: As the operating system gave it.
    """
    text = _native.text_rows(path, json.dumps({**options, "json": False, "delimiter": ",", "header": True}))
    return list(csv.reader(_lines(text.decode("utf-8", "replace"))))


def _lines(text: str) -> list[str]:
    # Only \n ends a record; `str.splitlines` knows many more.
    return [line + "\n" for line in text.removesuffix("\n").split("\n")]


def _instant(seconds: int | None) -> str | None:
    if not seconds:  # 0: not known (format 2.1)
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, OSError, ValueError):  # an absurd clock is no reason to refuse a file
        return None
