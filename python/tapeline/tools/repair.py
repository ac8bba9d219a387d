"""`repair --in-place`: the new file takes the name of the old one only after it has been verified."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tapeline import bcsv

if TYPE_CHECKING:
    from tapeline.bcsv import Report


def in_place(path: str, *, backup: bool = False) -> tuple[Report, str | None]:
    """Repair a file under its own name; whatever happens, a file of that name is there, the old or the new one.

    A file with nothing wrong is left alone.

    Args:
        path: File to repair.
        backup: Keep the old file as `path.bak`.

    Returns:
        What was found, and the name of the backup (None if there is none).

    Raises:
        FileExistsError: The backup or the temporary file `path.repaired` is there already.
        CorruptError: Not even the header can be read.
        OSError: As the operating system gave it.
    """
    report = bcsv.validate(path)
    if report.ok:
        return report, None
    part, old = path + ".repaired", path + ".bak"
    if backup and os.path.lexists(old):
        raise FileExistsError(17, "exists already", old)
    report = bcsv.repair(path, part)
    try:
        if backup:
            os.link(path, old)
        Path(part).replace(path)
    except OSError:
        Path(part).unlink(missing_ok=True)
        raise
    _sync_folder(Path(path).absolute().parent)
    return report, old if backup else None


def _sync_folder(folder: Path) -> None:
    """Make the new name last over a power cut, where folders can be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
