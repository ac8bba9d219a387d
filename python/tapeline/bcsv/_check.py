"""Checking and repairing files. Imports neither NumPy nor pyarrow, so that a command that checks starts at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from tapeline import _native
from tapeline.bcsv._report import Problem, Report
from tapeline.errors import BcsvError

if TYPE_CHECKING:
    from tapeline.bcsv._reader import Path


def validate(path: Path, *, depth: Literal["headers", "checksums", "rows"] = "rows") -> Report:
    """Read a file to its end and say everything that is wrong with it.

    Every packet is decompressed, checked against its checksum and decoded, and the footer compared with what was found.

    Args:
        path: File to check.
        depth: `checksums` verifies every checksum and the length of every row, but decodes none; `headers` reads only
            header, footer, index and packet headers, and takes what lies behind them for readable.

    Returns:
        A report: `.ok`, `.problems`, `.rows_readable`, and text for people from `str`.

    Raises:
        OSError: The file cannot be read.
    """
    name = os.fsdecode(path)
    try:
        return _report(_native.bcsv_validate(name, depth), name)
    except BcsvError as error:  # not even the header can be read
        text = str(error).removeprefix(f"{name}: ")
        return Report(ok=False, problems=[Problem(text, getattr(error, "offset", None))], path=name)


def repair(path: Path, out_path: Path) -> Report:
    """Write every row whose checksum holds into a new file, with a new index; the source is not touched.

    The output is opened and verified again before this returns.

    Args:
        path: File to repair.
        out_path: File to write; it must not exist.

    Returns:
        A report: `.ok` if nothing was lost, `.problems` and `.gaps` say what was.

    Raises:
        FileExistsError: `out_path` is there already.
        CorruptError: Not even the header can be read, so there is nothing to repair.
        OSError: As the operating system gave it.
    """
    return _report(_native.bcsv_repair(os.fsdecode(path), os.fsdecode(out_path)), os.fsdecode(out_path))


def _report(native: _native._BcsvReport, path: str) -> Report:
    ok, complete, problems, readable, expected, unverified = native
    return Report(ok, complete, [Problem(*problem) for problem in problems], readable, expected, unverified, path)
