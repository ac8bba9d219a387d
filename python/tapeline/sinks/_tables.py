"""Writers of one table file each: batches of rows in, a complete and durable file under its final name out.

The columns are those of spec/register-packets.md 3. Parquet and Arrow have `timestamp_us` as timestamp[us, UTC] and
`type` as a dictionary of names; the other formats have plain numbers in both, as the wire has.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeline._sink_settings import SinkConfig

_TYPES = ("UNKNOWN", "SBMU", "RACK", "RTOS")
_SCHEMAS = {
    "packet": pa.schema(
        [
            ("timestamp_us", pa.timestamp("us", "UTC")),
            ("type", pa.dictionary(pa.int8(), pa.string())),
            ("src_id", pa.uint8()),
            ("cmd", pa.uint8()),
            ("seq", pa.uint8()),
            ("offset", pa.uint16()),
            ("value", pa.uint16()),
        ]
    ),
    "simple": pa.schema([("time", pa.float64()), ("rack", pa.int32()), ("offset", pa.int32()), ("value", pa.int32())]),
}
_PLAIN = {"timestamp_us": pa.uint64(), "type": pa.uint8()}


def table_columns(wire: str, *, plain: bool = False) -> pa.Schema:
    """The columns of the rows of a wire, "packet" or "simple".

    Args:
        wire: Which wire.
        plain: With numbers in place of timestamps and names, as CSV, JSON lines and BCSV have them.
    """
    schema = _SCHEMAS[wire]
    return pa.schema([(f.name, _PLAIN.get(f.name, f.type)) for f in schema]) if plain else schema


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows with numbers in place of timestamps and names; no other column is copied."""
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_timestamp(field.type):
            columns.append(column.view(pa.uint64()))
        elif pa.types.is_dictionary(field.type):
            columns.append(column.indices.view(pa.uint8()))
        else:
            columns.append(column)
    names = batch.schema.names
    fields = [(name, column.type) for name, column in zip(names, columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


class TableWriter(Protocol):
    """One table file that is being written."""

    rows: int

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""

    def finish(self) -> None:
        """Write what is held back, make it durable and give the file its final name."""

    def abandon(self) -> None:
        """Close and remove what was written."""


def table_writer(sink: SinkConfig, path: Path, wire: str) -> TableWriter:
    """Begin a table file.

    Args:
        sink: What to write; its kind is one of parquet, bcsv, csv, jsonl.
        path: The final name. Until `finish` the file is called `{path}.part`; one that is there is replaced.
        wire: "packet" or "simple", which decides the columns.

    Raises:
        OSError: As the operating system gave it.
    """
    return _WRITERS[sink.kind](sink, path, wire)


class _Base:
    """The life of a file: `.part`, sync, rename, sync of the directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = Path(f"{path}.part")
        self.rows = 0
        self.part.unlink(missing_ok=True)

    def _close(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        self._close()
        self._publish()

    def abandon(self) -> None:
        self._close()
        self.part.unlink(missing_ok=True)

    def _publish(self) -> None:
        descriptor = os.open(self.part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.part.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class _Parquet(_Base):
    def __init__(self, sink: SinkConfig, path: Path, wire: str) -> None:
        import pyarrow.parquet as pq

        super().__init__(path)
        self._group_rows = sink.row_group_rows
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        # runs of equal stamps and runs of offsets shrink to almost nothing as differences, ids and commands as runs of
        # dictionary indexes; values are left to the compressor
        dictionary, deltas = {
            "packet": (["type", "src_id", "cmd", "seq"], ["timestamp_us", "offset"]),
            "simple": (["time", "rack"], ["offset", "value"]),
        }[wire]
        self._writer = pq.ParquetWriter(
            self.part,
            table_columns(wire),
            compression=sink.compression,
            use_dictionary=dictionary,
            column_encoding=dict.fromkeys(deltas, "DELTA_BINARY_PACKED"),
        )

    def write(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self.rows += batch.num_rows
        while self._waiting_rows >= self._group_rows:
            self._write_group()

    def _write_group(self) -> None:
        table = pa.Table.from_batches(self._waiting)
        self._writer.write_table(table.slice(0, self._group_rows), row_group_size=self._group_rows)
        rest = table.slice(self._group_rows)
        self._waiting, self._waiting_rows = rest.to_batches(), rest.num_rows

    def finish(self) -> None:
        if self._waiting_rows:
            self._write_group()
        super().finish()

    def _close(self) -> None:
        self._writer.close()


class _Bcsv(_Base):
    def __init__(self, sink: SinkConfig, path: Path, wire: str) -> None:
        from tapeline import bcsv

        super().__init__(path)
        columns = table_columns(wire, plain=True)
        codecs: Any = {"row_codec": sink.row_codec, "file_codec": sink.file_codec}
        self._writer = bcsv.Writer(self.part, columns, mode="x", threads=1, **codecs)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_table(plain_batch(batch))
        self.rows += batch.num_rows

    def _close(self) -> None:
        self._writer.close()


class _Csv(_Base):
    def __init__(self, sink: SinkConfig, path: Path, wire: str) -> None:  # noqa: ARG002 - one signature for all
        import pyarrow.csv as pc

        super().__init__(path)
        columns = table_columns(wire, plain=True)
        self._writer = pc.CSVWriter(self.part, columns, write_options=pc.WriteOptions(quoting_style="none"))

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(plain_batch(batch))
        self.rows += batch.num_rows

    def _close(self) -> None:
        self._writer.close()


class _JsonLines(_Base):
    # rows per text: bounds the memory that Python objects take
    _CHUNK = 1 << 16

    def __init__(self, sink: SinkConfig, path: Path, wire: str) -> None:  # noqa: ARG002 - one signature for all
        super().__init__(path)
        self._names = table_columns(wire).names
        self._file = self.part.open("wb")

    def write(self, batch: pa.RecordBatch) -> None:
        plain = plain_batch(batch)
        for start in range(0, plain.num_rows, self._CHUNK):
            self._file.write(json_lines(plain.slice(start, self._CHUNK)))
        self.rows += batch.num_rows

    def _close(self) -> None:
        self._file.close()


def json_lines(batch: pa.RecordBatch) -> bytes:
    """One JSON object per row of plain numbers; what is no number in JSON (NaN, infinities) is null."""
    import numpy as np
    import pyarrow.compute as pc

    # text is put together by Arrow's kernels: several times faster than an object per row
    pieces: list[Any] = []
    for number, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
        pieces.append(("{" if number == 0 else ", ") + json.dumps(name) + ": ")
        if pa.types.is_floating(column.type):
            values = column.to_numpy(zero_copy_only=False)
            text = [repr(v) if ok else "null" for v, ok in zip(values.tolist(), np.isfinite(values), strict=True)]
            pieces.append(pa.array(text, pa.string()))
        else:
            pieces.append(pc.fill_null(column.cast(pa.string()), "null"))
    lines = pc.binary_join_element_wise(*pieces, "}\n", "")
    if not isinstance(lines, pa.Array) or not len(lines):
        return b""
    # the lines lie one after the other in the array's buffer
    offsets = np.frombuffer(lines.buffers()[1], np.int32, len(lines) + 1, lines.offset * 4)
    data: bytes = lines.buffers()[2][int(offsets[0]) : int(offsets[-1])].to_pybytes()
    return data


_WRITERS: dict[str, Callable[[SinkConfig, Path, str], TableWriter]] = {
    "parquet": _Parquet,
    "bcsv": _Bcsv,
    "csv": _Csv,
    "jsonl": _JsonLines,
}
