"""BCSV files: binary tables, written row by row or at once, safe against crashes, read fast.

The file format is described in docs/format/bcsv.md; files are the same as those of the BCSV tools. NumPy and pyarrow
are imported with the first name that needs them.
"""

from typing import TYPE_CHECKING, Any

from tapeline.bcsv._check import repair, validate
from tapeline.bcsv._report import Problem, Report
from tapeline.errors import BcsvError, CorruptError, SchemaError, UnsupportedError

if TYPE_CHECKING:
    from tapeline.bcsv._files import read_numpy, read_pandas, read_table, write_table
    from tapeline.bcsv._interop import scan
    from tapeline.bcsv._reader import Header, PacketInfo, Reader, Version
    from tapeline.bcsv._schema import TYPE_NAMES
    from tapeline.bcsv._writer import Writer

__all__ = [
    "TYPE_NAMES",
    "BcsvError",
    "CorruptError",
    "Header",
    "PacketInfo",
    "Problem",
    "Reader",
    "Report",
    "SchemaError",
    "UnsupportedError",
    "Version",
    "Writer",
    "read_numpy",
    "read_pandas",
    "read_table",
    "repair",
    "scan",
    "validate",
    "write_table",
]

_LAZY = {
    "TYPE_NAMES": "_schema",
    "Header": "_reader",
    "PacketInfo": "_reader",
    "Reader": "_reader",
    "Version": "_reader",
    "Writer": "_writer",
    "read_numpy": "_files",
    "read_pandas": "_files",
    "read_table": "_files",
    "scan": "_interop",
    "write_table": "_files",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    import importlib

    if name not in _LAZY:
        raise AttributeError(f"module 'tapeline.bcsv' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tapeline.bcsv.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted(__all__)
