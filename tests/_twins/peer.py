"""The reference implementation, used as a peer: writes and reads files through its own Python binding.

Its bulk readers hang on files without a footer and see nothing in stream files (spec/bcsv-format.md 14), so
`read` goes row by row where they cannot be trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pybcsv

from _twins.tables import ARROW, types_of

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = {
    "stream": pybcsv.FileFlags.STREAM_MODE,
    "stream-lz4": pybcsv.FileFlags.STREAM_MODE,
    "packet": pybcsv.FileFlags.NONE,
    "packet-lz4": pybcsv.FileFlags.NONE,
    "packet-lz4-batch": pybcsv.FileFlags.BATCH_COMPRESS,
}
COLUMN = {kind: getattr(pybcsv.ColumnType, kind.upper()) for kind in ARROW}


def write(
    table: pa.Table,
    path: Path,
    *,
    row_codec: str,
    file_codec: str,
    level: int = 1,
    packet_kib: int = 64,
    flush_after: tuple[int, ...] = (),
) -> None:
    """Write a table; flush after these row counts."""
    layout = pybcsv.Layout()
    for name, kind in zip(table.column_names, types_of(table), strict=True):
        layout.add_column(name, COLUMN[kind])
    writer = pybcsv.Writer(layout, row_codec)
    level = level if "lz4" in file_codec else 0
    if not writer.open(str(path), True, level, packet_kib, FLAGS[file_codec]):
        raise OSError(path)
    start = 0
    for stop in (*flush_after, table.num_rows):
        for batch in table.slice(start, stop - start).combine_chunks().to_batches():
            writer.write_batch(batch)
        if stop in flush_after:
            writer.flush()
        start = stop
    writer.close()


def read(path: Path, file_codec: str) -> pa.Table:
    """Read a closed, sound file; through Arrow where that works."""
    if not file_codec.startswith("stream"):
        return pybcsv.read_to_arrow(str(path))
    reader = pybcsv.Reader()
    if not reader.open(str(path)):
        raise OSError(path)
    layout = reader.layout()
    names = [layout.column_name(k) for k in range(layout.column_count())]
    kinds = [pybcsv.type_to_string(layout.column_type(k)) for k in range(layout.column_count())]
    rows = reader.read_all()
    reader.close()
    arrays = [pa.array([row[k] for row in rows], ARROW[kind]) for k, kind in enumerate(kinds)]
    return pa.table(arrays, names=names)
