"""Whole files in one call: tables and columns in and out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tapeline import _native, _numbers
from tapeline.bcsv._reader import OnCorrupt, Reader
from tapeline.bcsv._schema import TableLike, stream_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tapeline.bcsv._reader import Path
    from tapeline.bcsv._writer import FileCodec, FormatVersion, RowCodec


def write_table(
    table: TableLike,
    path: Path,
    *,
    row_codec: RowCodec = "delta",
    file_codec: FileCodec = "packet-lz4-batch",
    compression_level: int = 1,
    packet_bytes: int = 8 << 20,
    index: bool = True,
    overwrite: bool = False,
    threads: int | None = None,
    format_version: FormatVersion = "1.5",
) -> None:
    """Write a table to a BCSV file.

    The file appears under its name when it is whole. Packets are encoded on several threads; the table is
    taken batch by batch, so a stream larger than memory works too.

    Args:
        table: Anything with `__arrow_c_stream__` (tables of pyarrow, polars, pandas, duckdb, a `Reader` ...), or a
            dict of name to NumPy array or list of str.
        path: File to write; anything `os.fspath` accepts.
        row_codec: `flat`, `zoh` (only what changed) or `delta` (differences).
        file_codec: `stream`, `stream-lz4`, `packet`, `packet-lz4` or `packet-lz4-batch`.
        compression_level: 1 (fast) to 9 (small); ignored where nothing is compressed.
        packet_bytes: Bytes after which a packet is closed: the unit of checksums, compression and random access.
        index: Whether the footer lists the packets.
        overwrite: Replace a file of that name; the old one stays until the new one is whole.
        threads: Encoding threads; one per core if None.
        format_version: Stamp for older readers; see `Writer`.

    Raises:
        FileExistsError: The file is there and `overwrite` is False.
        SchemaError: A type or name that the format cannot hold, or a null; the text names column and row.
        OSError: As the operating system gave it.

    Example:
        >>> write_table({"t": np.arange(3.0), "name": ["a", "b", "c"]}, "log.bcsv")
    """
    level, size = _numbers.index("compression_level", compression_level), _numbers.index("packet_bytes", packet_bytes)
    workers = _numbers.threads(threads)
    options = (row_codec, file_codec, level, size, index, format_version, workers)
    stream, columns = stream_of(table)
    _native.bcsv_write_stream(stream, os.fsdecode(path), columns, overwrite, options)


def read_table(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    start: int = 0,
    stop: int | None = None,
    on_corrupt: OnCorrupt = "raise",
    threads: int | None = None,
) -> pa.Table:
    """Read a BCSV file into a table.

    Only packets that overlap the rows asked for are read; columns that were not asked for are not made.

    Args:
        path: File to read; anything `os.fspath` accepts.
        columns: Names, in the order wanted. All columns if None.
        start: First row, from 0; negative counts from the end.
        stop: Row after the last one; the end if None.
        on_corrupt: `skip` returns every row of every packet whose checksum holds instead of raising; `Reader.gaps`
            tells which rows are missing.
        threads: Decoding threads; one per core if None.

    Returns:
        A `pyarrow.Table`, bit for bit what was written.

    Raises:
        CorruptError: A checksum or bound failed; `.offset` is the byte in the file, `.rows_before` the rows before it.
            A file that was cut or never closed is no error: it gives the rows of its whole packets, and
            `Reader.complete` is False.
        UnsupportedError: A version or flag that this release does not know.
        SchemaError: A name is not a column of the file.
        OSError: As the operating system gave it.
    """
    with Reader(path, on_corrupt=on_corrupt, threads=threads) as reader:
        return reader.read_table(columns, start=start, stop=stop)


def read_numpy(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    start: int = 0,
    stop: int | None = None,
    on_corrupt: OnCorrupt = "raise",
    threads: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Read columns of a BCSV file into NumPy arrays.

    Args:
        path: File to read; anything `os.fspath` accepts.
        columns: Names, in the order wanted. All columns if None.
        start: First row, from 0; negative counts from the end.
        stop: Row after the last one; the end if None.
        on_corrupt: `skip` leaves out what cannot be read instead of raising.
        threads: Decoding threads; one per core if None.

    Returns:
        dict of name to array, shape (rows,). Numeric dtypes equal the column types, bit for bit; `string` columns
        give object arrays of str. Times are as stored; no unit is implied.

    Raises:
        CorruptError: As `read_table`.
        SchemaError: A name is not a column of the file.
        OSError: As the operating system gave it.
    """
    table = read_table(path, columns=columns, start=start, stop=stop, on_corrupt=on_corrupt, threads=threads)
    return {name: _to_numpy(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    if column.num_chunks == 0:
        return np.empty(0, dtype=object if column.type == pa.string() else column.type.to_pandas_dtype())
    parts = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def read_pandas(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    start: int = 0,
    stop: int | None = None,
    on_corrupt: OnCorrupt = "raise",
    threads: int | None = None,
) -> Any:
    """Read a BCSV file into a `pandas.DataFrame`; arguments and errors as `read_table`. Needs the extra `pandas`."""
    from tapeline.bcsv._interop import require

    require("pandas")
    table = read_table(path, columns=columns, start=start, stop=stop, on_corrupt=on_corrupt, threads=threads)
    return table.to_pandas()
