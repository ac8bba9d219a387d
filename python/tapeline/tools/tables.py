"""Tables that a tool reads, in any of the formats, and the ones that it writes.

A `Source` can be scanned again and again; a scan is a stream of record batches, so memory stays flat.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tapeline import _native, bcsv
from tapeline._register_stream import RegisterStream
from tapeline._special import refuse_special
from tapeline.bcsv._schema import columns_of
from tapeline.errors import ConfigError
from tapeline.recording import one_stream
from tapeline.tools.quick import ARROW, PARQUET, TEXT, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH_ROWS = 65536
_CSV_OPTIONS: dict[str, Any] = {
    "columns": None,
    "start": 0,
    "stop": None,
    "types": None,
    "names": None,
    "header": True,
    "delimiter": None,
    "decimal": None,
    "empty": "nan",
    "nulls": [],
    "ragged": "stop",
    "threads": None,
}


class Source:
    """A file with a table.

    Attributes:
        path: The file.
        kind: `bcsv`, `parquet`, `arrow`, `csv` or `recording`.
        schema: Its columns, as Arrow types.
    """

    def __init__(self, path: str, *, skip_damage: bool = False, stream: str | None = None) -> None:
        """Open a file; its first bytes decide, then its extension.

        Args:
            path: The file, or the directory of a recording.
            skip_damage: Leave damaged rows out; of BCSV.
            stream: Of a recording, which.

        Raises:
            BcsvError: A BCSV file whose header is damaged.
            ConfigError: Nobody knows what it is, which stream of a recording is meant, or the file does not hold what
                its extension says.
            OSError: As the operating system gave it.
        """
        self.path = path
        self.kind = kind_of(path)
        self._reader: bcsv.Reader | None = None
        self._recorded = one_stream(path, stream) if self.kind == "recording" else None
        self._skip_damage = skip_damage
        if self.kind == "bcsv":
            self._reader = bcsv.Reader(path, on_corrupt="skip" if skip_damage else "raise")
            self.schema = self._reader.schema
        else:
            with self._telling():
                self.schema = self._read_schema()

    @property
    def num_rows(self) -> int | None:
        """Rows, where the format tells without reading all."""
        if self._reader is not None:
            return self._reader.num_rows
        if self.kind == "parquet":
            import pyarrow.parquet as pq

            return int(pq.read_metadata(self.path).num_rows)
        return None

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Rows that were left out so far."""
        return [] if self._reader is None else self._reader.gaps

    def scan(
        self, columns: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of the rows `start` to `stop`; negative numbers count from the end.

        Raises:
            BcsvError: Damage.
            ConfigError: The file does not hold what its extension says.
        """
        if self._reader is not None:
            yield from self._reader.iter_batches(columns, BATCH_ROWS, start=start, stop=stop)
            return
        if start < 0 and stop is None and isinstance(self._recorded, RegisterStream):
            rows = self._recorded.last_rows(-start)
            yield from (rows if columns is None else rows.select(list(columns))).to_batches(BATCH_ROWS)
            return
        if start < 0 or (stop or 0) < 0:
            total = self.num_rows
            total = sum(batch.num_rows for batch in self._batches(None)) if total is None else total
            start, stop, _ = slice(start, stop).indices(total)
        yield from _sliced(self._batches(columns), start, stop)

    def close(self) -> None:
        """Let go of the file."""
        if self._reader is not None:
            self._reader.close()

    def _read_schema(self) -> pa.Schema:
        if self.kind == "parquet":
            import pyarrow.parquet as pq

            return pq.read_schema(self.path)
        return self._stream().schema

    def _stream(self) -> pa.RecordBatchReader:
        if self._recorded is not None:
            return self._recorded.to_arrow()
        if self.kind == "csv":
            return pa.RecordBatchReader.from_stream(_native.CsvTable(self.path, json.dumps(_CSV_OPTIONS), None))
        source = pa.memory_map(self.path)
        if source.read(6) == b"ARROW1":
            file = pa.ipc.open_file(source)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
            return pa.RecordBatchReader.from_batches(file.schema, batches)
        source.seek(0)
        return pa.ipc.open_stream(source)

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        with self._telling():
            if self.kind == "parquet":
                import pyarrow.parquet as pq

                with pq.ParquetFile(self.path) as file:
                    for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                        yield batch if columns is None else batch.select(list(columns))
                return
            for batch in self._stream():
                yield batch if columns is None else batch.select(list(columns))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Name the file in what pyarrow says of it."""
        try:
            yield
        except (pa.ArrowException, pa.ArrowInvalid) as error:
            raise ConfigError(f"{self.path}: {error}") from error


class TableSource(Source):
    """A table in memory, as a source."""

    def __init__(self, table: pa.Table) -> None:  # pylint: disable=W0231
        """Keep the table."""
        self.path = ""
        self.kind = "memory"
        self.schema = table.schema
        self._table = table
        self._reader = None
        self._recorded = None

    @property
    def num_rows(self) -> int:
        """Its rows."""
        return int(self._table.num_rows)

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        table = self._table if columns is None else self._table.select(list(columns))
        yield from table.to_batches(BATCH_ROWS)


def _sliced(batches: Iterator[pa.RecordBatch], start: int, stop: int | None) -> Iterator[pa.RecordBatch]:
    position = 0
    for batch in batches:
        first, last = max(start - position, 0), batch.num_rows
        if stop is not None:
            last = min(last, stop - position)
        if last > first:
            yield batch.slice(first, last - first)
        position += batch.num_rows
        if stop is not None and position >= stop:
            return


def stream_of(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
    """Batches as an Arrow stream."""
    return pa.RecordBatchReader.from_batches(schema, batches)


def write(stream: pa.RecordBatchReader, path: str, *, overwrite: bool = False, **options: Any) -> None:
    """Write a stream into a file, in the format of its extension; the file appears when it is whole.

    Args:
        stream: The table.
        path: .bcsv, .csv, .jsonl, .parquet or .arrow; anything else is BCSV.
        overwrite: Replace a file of that name.
        options: Of `bcsv.write_table`; for BCSV only.

    Raises:
        FileExistsError: The file is there.
        SchemaError: BCSV cannot hold a type.
        OSError: As the operating system gave it.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*PARQUET, *ARROW, *TEXT, ".jsonl", ".ndjson"):
        # a stream that fails half-way must not leave a part of a file, which write_table takes care of
        bcsv.write_table(stream, path, overwrite=overwrite, **options)
        return
    refuse_special(path)
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(17, "exists already", path)
    part = path + ".part"
    try:
        if suffix in PARQUET:
            import pyarrow.parquet as pq

            with pq.ParquetWriter(part, stream.schema, compression="zstd") as writer:
                for batch in stream:
                    writer.write_batch(batch)
        elif suffix in ARROW:
            make = pa.ipc.new_stream if suffix == ".arrows" else pa.ipc.new_file
            with pa.OSFile(part, "wb") as file, make(file, stream.schema) as ipc:
                for batch in stream:
                    ipc.write_batch(batch)
        else:
            delimiter = "\t" if suffix == ".tsv" else ","
            write_text(stream, part, {"json": suffix not in TEXT, "delimiter": delimiter, "decimal": "."})
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def write_text(stream: pa.RecordBatchReader, path: str | None, form: dict[str, Any]) -> int:
    """Write a stream as CSV or JSON lines to a file, or to stdout if None; returns the rows."""
    rows, _ = _native.text_write_stream(plain(stream), path, json.dumps(form), None)
    return int(rows)


def plain(stream: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same table in the types that text knows; anything else becomes a string."""
    fields = []
    for field in stream.schema:
        try:
            columns_of(pa.schema([field]))
            kind = pa.float32() if field.type == pa.float16() else field.type
            if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
                kind = pa.string()
        except ValueError:
            kind = pa.float64() if pa.types.is_decimal(field.type) else pa.string()
        fields.append(pa.field(field.name, kind))
    schema = pa.schema(fields)
    if schema.types == stream.schema.types and not any(field.nullable for field in stream.schema):
        return stream

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in stream:
            arrays = [
                _filled(_cast(array, kind), kind) for array, kind in zip(batch.columns, schema.types, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """As text, bytes are hexadecimal."""
    if (
        pa.types.is_binary(array.type)
        or pa.types.is_large_binary(array.type)
        or pa.types.is_fixed_size_binary(array.type)
    ):
        return pa.array([None if value is None else value.hex() for value in array.to_pylist()], kind)
    return array.cast(kind)


def _filled(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Without nulls, which the text writer does not know: NaN, or an empty string."""
    if not array.null_count:
        return array
    if pa.types.is_floating(kind):
        return array.fill_null(float("nan"))
    if pa.types.is_string(kind):
        return array.fill_null("")
    raise ConfigError(f"a column of {kind} has nulls; cast it to double or string first")
