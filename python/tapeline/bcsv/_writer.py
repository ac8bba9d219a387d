"""`Writer`: rows and tables into a new, a replaced or an existing file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, Self

from tapeline import _native, _numbers
from tapeline.bcsv._schema import Schema, TableLike, columns_of, stream_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from tapeline.bcsv._reader import Path

RowCodec = Literal["flat", "zoh", "delta"]
FileCodec = Literal["stream", "stream-lz4", "packet", "packet-lz4", "packet-lz4-batch"]
Mode = Literal["x", "w", "a"]
FormatVersion = Literal["1.5", "1.4", "1.3"]


class Writer:
    """Write a BCSV file row by row, table by table, or both.

    No row pays for a packet: `packet-lz4-batch` compresses on another thread, with at most two packets in memory.
    A row or table that is refused leaves the file as if it had never been offered.

    Example:
        >>> with Writer("log.bcsv", [("t", "double"), ("name", "string")]) as w:
        ...     w.write_row((0.5, "start"))
        ...     w.flush()
    """

    def __init__(
        self,
        path: Path,
        schema: Schema | None = None,
        *,
        mode: Mode = "x",
        row_codec: RowCodec = "delta",
        file_codec: FileCodec = "packet-lz4-batch",
        compression_level: int = 1,
        packet_bytes: int = 8 << 20,
        index: bool = True,
        max_loss_s: float | None = None,
        format_version: FormatVersion = "1.5",
        threads: int | None = None,
    ) -> None:
        """Open a file for writing.

        Args:
            path: File to write; anything `os.fspath` accepts.
            schema: Columns: `[(name, type), ...]` or a `pyarrow.Schema`. With mode `a` it may be None, else it must
                equal the file's.
            mode: `x` makes a new file and refuses to replace one. `w` replaces a file: the new one has a temporary name
                beside `path` until its first flush or its end, and the old one stays till then. `a` goes on behind the
                last good row of a finished file or of one left by a crash, in the codecs of that file.
            row_codec: How a row becomes bytes: `flat` as is, `zoh` only what changed, `delta` differences.
            file_codec: How rows are framed and compressed.
            compression_level: 1 (fast) to 9 (small); ignored where nothing is compressed.
            packet_bytes: Bytes after which a packet is closed: the unit of checksums, compression and random access.
                64 KiB to 1 GiB, in steps of 1 KiB.
            index: Whether the footer lists the packets; without it a reader searches for them.
            max_loss_s: Flush by itself after this many seconds with unflushed rows; None: only when asked.
            format_version: Stamp for older readers. `1.3` writes the short header, and refuses `delta` and
                `packet-lz4-batch`, which that version does not have.
            threads: Threads that encode tables; one per core if None.

        Raises:
            FileExistsError: Mode `x`, and the file is there.
            SchemaError: A column's name or type cannot be stored, or differs from the file's (mode `a`).
            UnsupportedError: The codecs do not exist in `format_version`.
            CorruptError: Mode `a`, and the file's header is damaged.
            OSError: As the operating system gave it.
        """
        if schema is None and mode != "a":
            raise TypeError("a schema is needed unless the mode is 'a'")
        self._path = os.fsdecode(path)
        columns = None if schema is None else columns_of(schema)
        level, size = (
            _numbers.index("compression_level", compression_level),
            _numbers.index("packet_bytes", packet_bytes),
        )
        workers = _numbers.threads(threads)
        options = (row_codec, file_codec, level, size, index, format_version, workers)
        self._native = _native.BcsvWriter(self._path, columns, mode, options, max_loss_s)

    @property
    def rows_written(self) -> int:
        """Rows in the file so far; with mode `a` those that were there already are counted."""
        return self._native.rows_written()

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Names and types of the columns."""
        return self._native.columns()

    def write_row(self, row: Sequence[Any]) -> None:
        """Append one row; constant time.

        Args:
            row: One value per column, in order; a tuple is fastest.

        Raises:
            SchemaError: Too few or too many values, or a value that the column cannot hold exactly; None too.
            OSError: Writing failed; the text says how many rows are safe.
        """
        self._native.write_row(row)

    def write_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Append many rows; on an error the rows before the refused one are in the file.

        Args:
            rows: As for `write_row`, any iterable.

        Raises:
            SchemaError: As for `write_row`; the text names the row.
            OSError: Writing failed.
        """
        self._native.write_rows(rows)

    def write_table(self, table: TableLike) -> None:
        """Append a table, all of it or, if a value is refused, none of its offending batch.

        Args:
            table: Anything with `__arrow_c_stream__` or `__arrow_c_array__` (pyarrow, polars, pandas ...), or a dict of
                name to NumPy array or list. Columns in the file's order, with its names.

        Raises:
            SchemaError: Columns differ from the file's, or there is a null; the text names column and row.
            OSError: Writing failed.
        """
        stream, columns = stream_of(table)
        self._native.write_stream(stream, columns)

    def write_packed(self, buffer: Any) -> None:
        """Append rows that lie packed in memory; the fastest way in for rows from C or NumPy.

        Args:
            buffer: A C-contiguous buffer (bytes, NumPy structured array ...) of whole rows: the columns in order, in
                native width, little-endian, without padding; bool is one byte. No string columns.
                `Writer.packed_dtype` is the NumPy dtype.

        Raises:
            SchemaError: The file has string columns, or the buffer is no whole number of rows.
            OSError: Writing failed.
        """
        self._native.write_packed(buffer)

    @property
    def packed_dtype(self) -> Any:
        """The NumPy dtype of one row for `write_packed`.

        Raises:
            SchemaError: The file has string columns.
        """
        import numpy as np

        from tapeline.errors import SchemaError

        codes = {"bool": "?", "float": "<f4", "double": "<f8"}
        fields = []
        for name, kind in self.columns:
            if kind == "string":
                raise SchemaError(f"column {name!r} is a string; packed rows hold only numbers and bools")
            sign, _, bits = kind.partition("int")
            fields.append((name, codes.get(kind) or f"<{'u' if sign else 'i'}{int(bits) // 8}"))
        return np.dtype(fields)

    def flush(self, sync: bool = False) -> None:  # noqa: FBT001, FBT002  the signature is a contract
        """Make every row so far readable after this process is killed.

        Closes the open packet, so flushing very often costs space.

        Args:
            sync: Also wait until the device has them, so that they survive a power cut.

        Raises:
            OSError: They are not safe; the text says how many are.
        """
        self._native.flush(sync)

    def close(self) -> None:
        """Write what is left and the footer, and give the file its name (mode `w`). A second call does nothing.

        Raises:
            OSError: Writing failed; flushed rows stay readable.
        """
        self._native.close()

    def abort(self) -> None:
        """Stop without a footer: mode `w` keeps the old file, otherwise flushed rows stay readable."""
        self._native.abort()

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception, mode `w` leaves the old file as it was."""
        if kind is not None and self._native.replaces():
            self.abort()
        else:
            self.close()

    def __repr__(self) -> str:
        """The path."""
        return f"<Writer {self._path!r}>"
