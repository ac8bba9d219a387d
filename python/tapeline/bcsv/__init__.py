"""BCSV files: binary tables, written row by row or at once, safe against crashes, read fast.

The file format is described in docs/format/bcsv.md; files are the same as those of the BCSV tools.
"""

from tapeline.bcsv._files import read_numpy, read_pandas, read_table, repair, validate, write_table
from tapeline.bcsv._interop import scan
from tapeline.bcsv._reader import Header, PacketInfo, Reader, Version
from tapeline.bcsv._report import Problem, Report
from tapeline.bcsv._schema import TYPE_NAMES
from tapeline.bcsv._writer import Writer
from tapeline.errors import BcsvError, CorruptError, SchemaError, UnsupportedError

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
