"""Devices and pipes: what a finished file must not take the place of."""

from __future__ import annotations

from pathlib import Path


def is_special(path: str | Path) -> bool:
    """Whether something is there that is neither a file nor a folder, links followed."""
    place = Path(path)
    return place.exists() and not place.is_file() and not place.is_dir()


def refuse_special(path: str | Path) -> None:
    """Raise where a rename would replace a device or a pipe.

    Raises:
        OSError: It would.
    """
    if is_special(path):
        raise OSError(22, "is a device or a pipe, not a file that can be replaced", str(path))
