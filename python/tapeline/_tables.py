"""Tables of every format as streams of Arrow batches, for conversions that the compiled core does not do alone.

A source is a `pyarrow.RecordBatchReader`; rows and columns are chosen, values that the output cannot hold are put into
words that it can (or refused), and a sink writes batch by batch. Nothing here holds more than some batches.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tapeline import _jsonl, _native, bcsv
from tapeline._job import ColumnReport, Job, csv_options, import_facts, text_options
from tapeline.bcsv._schema import arrow_schema, columns_of, stream_of
from tapeline.errors import ConfigError, ConvertError, TapelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BATCH_ROWS = 65_536
# A row group of Parquet: large enough to compress and to be read fast, small in memory.
GROUP_BYTES = 64 << 20
GROUP_ROWS = 1 << 20
_EPOCH_UNITS = {"s": "s", "ms": "ms", "us": "us", "ns": "ns"}


def convert_batches(job: Job, part: str | None) -> None:
    """Any source to any output."""
    with contextlib.ExitStack() as stack:
        stream = _SOURCES[job.source_format](job, stack)
        known = {column.name: column for column in job.facts.get("columns", ())}
        if job.source_format not in ("csv", "jsonl"):
            stream = _choose(job, stream)
            stream = _typed(job, stream)
        if job.destination_format not in ("parquet", "arrow"):
            stream = _plain(job, stream)
        names = _type_names(stream.schema)
        counted = _Counter(job, stream, job.tick if job.source_format not in ("csv", "bcsv") else None)
        try:
            _SINKS[job.destination_format](job, part, counted.reader())
        except BaseException:
            # Arrow turns what a batch raised into text; the error itself says more
            if job.failure is not None:
                raise job.failure from None
            raise
        job.facts["rows"] = counted.rows
        job.facts["columns"] = tuple(
            ColumnReport(
                name,
                kind,
                known[name].widened_from if name in known else None,
                job.empties.get(name, known[name].empty_cells if name in known else 0),
                known[name].rounded_cells if name in known else 0,
            )
            for name, kind in names
        )


def _reader(job: Job, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.RecordBatchReader:
    """A stream of batches; what goes wrong with one is kept in the job."""

    def kept() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            job.fail(error)
            raise

    return pa.RecordBatchReader.from_batches(schema, kept())


class _Counter:
    """Counts the rows that go through."""

    def __init__(self, job: Job, stream: pa.RecordBatchReader, tick: Callable[[int], object] | None) -> None:
        self._job = job
        self._stream = stream
        self._tick = tick
        self.rows = 0

    def reader(self) -> pa.RecordBatchReader:
        return _reader(self._job, self._stream.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._stream:
            self.rows += batch.num_rows
            yield batch
            if self._tick is not None:
                self._tick(self.rows)


# ---------------------------------------------------------------- sources


def _from_csv(job: Job, _stack: contextlib.ExitStack) -> pa.RecordBatchReader:
    options = csv_options(job)
    wanted = options["decimal"]
    if job.destination_format == "csv" and not options["types"]:
        # Only the frame of the text changes; the cells stay as they are.
        options.update(all_text=True, delimiter=None)
        if wanted is not None:
            options.update(all_text=False, decimal=None)
    return csv_stream(job, options)


def csv_stream(job: Job, options: dict[str, Any]) -> pa.RecordBatchReader:
    """The CSV file at `job.path`: read once for its types, and once more as the batches are taken."""
    table = _native.CsvTable(job.path, json.dumps(options), job.tick)
    job.facts.update(import_facts(json.loads(table.report())))
    return pa.RecordBatchReader.from_stream(table)


def _from_jsonl(job: Job, stack: contextlib.ExitStack) -> pa.RecordBatchReader:
    path, types, report = _jsonl.spool(job, stack)
    job.path = path
    options = csv_options(job)
    options.update(delimiter=",", decimal=".", names=None, header=True, nulls=[], types=types)
    stream = csv_stream(job, options)
    job.facts.update(report, delimiter=None, decimal=None)
    return stream


def _from_bcsv(job: Job, stack: contextlib.ExitStack) -> pa.RecordBatchReader:
    reader = stack.enter_context(bcsv.Reader(job.path, on_corrupt=job.options["on_corrupt"]))
    total = reader.num_rows
    start, stop, _ = slice(job.options["start"], job.options["stop"]).indices(total)
    if (start, stop) != (0, total):
        columns = reader.columns
        schema = arrow_schema(columns)
        batches = (
            batch
            for first in range(start, stop, GROUP_ROWS)
            for batch in reader.read_table(start=first, stop=min(first + GROUP_ROWS, stop)).to_batches()
        )
        stream = _reader(job, schema, batches)
    else:
        stream = _reader(job, reader.schema, iter(reader.iter_batches(batch_rows=BATCH_ROWS)))
    job.options["start"], job.options["stop"] = 0, None
    stack.callback(lambda: job.facts.update(gaps=tuple(reader.gaps)))
    return stream


def _from_parquet(job: Job, stack: contextlib.ExitStack) -> pa.RecordBatchReader:
    import pyarrow.parquet as pq

    try:
        file = stack.enter_context(pq.ParquetFile(job.path))
    except pa.ArrowInvalid as error:
        raise ConvertError(f"{job.source}: {error}", path=job.source) from error
    _from_end(job, file.metadata.num_rows)
    return _reader(job, file.schema_arrow, file.iter_batches(BATCH_ROWS))


def _from_arrow(job: Job, stack: contextlib.ExitStack) -> pa.RecordBatchReader:
    source = stack.enter_context(pa.memory_map(job.path))
    try:
        if source.read(6) == b"ARROW1":
            file = stack.enter_context(pa.ipc.open_file(source))
            if job.options["start"] < 0 or (job.options["stop"] or 0) < 0:
                _from_end(job, sum(file.get_batch(i).num_rows for i in range(file.num_record_batches)))
            batches = (file.get_batch(i) for i in range(file.num_record_batches))
            return _reader(job, file.schema, batches)
        source.seek(0)
        return stack.enter_context(pa.ipc.open_stream(source))
    except pa.ArrowInvalid as error:
        raise ConvertError(f"{job.source}: {error}", path=job.source) from error


def _from_recording(job: Job, stack: contextlib.ExitStack) -> pa.RecordBatchReader:
    from tapeline import registers
    from tapeline._register_stream import Damage, RegisterStream, checked_rows
    from tapeline.recording import one_stream

    stream = one_stream(job.path, job.options["stream"])
    if not isinstance(stream, RegisterStream):
        frames = stream.to_arrow()
        skipped = 0
        for segment in stream.segments:
            bad = segment.damage()
            if bad and job.options["on_corrupt"] != "skip":
                start, stop, why = bad[0]
                where = f"{segment.path}: {stop - start} bytes from byte {start} on are no valid frame"
                raise TapelineError(f"{where} ({why}); --skip-damage leaves them out")
            skipped += sum(one.stop - one.start for one in bad)
        job.facts.update(bytes_skipped=skipped)
        return _reader(job, frames.schema, frames)
    damage: list[Damage] | None = [] if job.options["on_corrupt"] == "skip" else None
    stack.callback(lambda: job.facts.update(bytes_skipped=sum(one.length for one in damage or ())))
    return _reader(job, registers.scan_schema(stream.wire), checked_rows(stream, damage))


_SOURCES: dict[str, Callable[[Job, contextlib.ExitStack], pa.RecordBatchReader]] = {
    "csv": _from_csv,
    "jsonl": _from_jsonl,
    "bcsv": _from_bcsv,
    "parquet": _from_parquet,
    "arrow": _from_arrow,
    "dat": _from_recording,
    "pkt": _from_recording,
}


# ---------------------------------------------------------------- on the way


def _from_end(job: Job, total: int) -> None:
    """Make row numbers that count from the end count from the start."""
    start, stop, _ = slice(job.options["start"], job.options["stop"]).indices(total)
    job.options["start"], job.options["stop"] = start, max(start, stop)


def _choose(job: Job, stream: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The rows and columns asked for."""
    names, start, stop = job.options["columns"], job.options["start"], job.options["stop"]
    if start < 0 or (stop or 0) < 0:
        raise ConfigError(f"rows {start}:{stop}: {job.source_format} has no end to count from")
    if names is None and start == 0 and stop is None:
        return stream
    for name in names or ():
        if name not in stream.schema.names:
            raise ConfigError(f"{job.source}: there is no column {name!r}")
    wanted = stream.schema.names if names is None else names
    schema = pa.schema([stream.schema.field(name) for name in wanted])

    def batches() -> Iterator[pa.RecordBatch]:
        at = 0
        for batch in stream:
            first, last = max(start - at, 0), batch.num_rows if stop is None else min(stop - at, batch.num_rows)
            at += batch.num_rows
            if first < last:
                yield batch.slice(first, last - first).select(wanted)
            if stop is not None and at >= stop:
                return

    return _reader(job, schema, batches())


def _typed(job: Job, stream: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Columns cast to the types that were given, if every value fits."""
    types = job.options["types"]
    if not types:
        return stream
    if not isinstance(types, dict):
        if len(types) != len(stream.schema.names):
            raise ConfigError(f"{len(types)} types are given for {len(stream.schema.names)} columns")
        types = {name: kind for name, kind in zip(stream.schema.names, types, strict=True) if kind is not None}
    for name in types:
        if name not in stream.schema.names:
            raise ConfigError(f"{job.source}: there is no column {name!r}")
    try:
        given = arrow_schema(columns_of(list(types.items())))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    kinds = {field.name: field.type for field in given}
    schema = pa.schema([pa.field(f.name, kinds.get(f.name, f.type)) for f in stream.schema])

    def batches() -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in stream:
            arrays = []
            for column, wanted in zip(batch.columns, schema, strict=True):
                try:
                    arrays.append(column.cast(wanted.type))
                except pa.ArrowInvalid as error:
                    text = f"{job.source}, rows from {row}, column {wanted.name!r}: {error}"
                    raise ConvertError(text, path=job.source, column=wanted.name) from error
            row += batch.num_rows
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return _reader(job, schema, batches())


def _plain(job: Job, stream: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Columns in the twelve types: times as numbers (text in texts), bytes as hexadecimal, no nulls."""
    text = job.destination_format in ("csv", "jsonl")
    changes: list[Callable[[pa.Array], pa.Array] | None] = []
    fields, renamed = [], list(job.facts.get("renamed", ()))
    for old in stream.schema:
        name, kind, change = _plain_field(old, text=text)
        changes.append(change)
        fields.append(pa.field(name, kind))
        if name != old.name:
            renamed.append((old.name, name))
    job.facts["renamed"] = tuple(renamed)
    schema = pa.schema(fields)

    def batches() -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in stream:
            arrays = [
                column if change is None else change(column)
                for column, change in zip(batch.columns, changes, strict=True)
            ]
            arrays = [
                _filled(job, array, field.name, row) if array.null_count else array
                for array, field in zip(arrays, schema, strict=True)
            ]
            row += batch.num_rows
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    plain, _ = stream_of(_reader(job, schema, batches()))
    return plain


def _plain_field(old: pa.Field, *, text: bool) -> tuple[str, pa.DataType, Callable[[pa.Array], pa.Array] | None]:
    """Name and type of a column in the output, and how its values change."""
    kind = old.type
    if pa.types.is_temporal(kind):
        if text and not pa.types.is_duration(kind):
            return old.name, pa.string(), lambda column: column.cast(pa.string())
        unit = _EPOCH_UNITS.get(getattr(kind, "unit", ""), "days" if kind == pa.date32() else "ms")
        whole = pa.int32() if kind.bit_width == 32 else pa.int64()
        name = old.name if old.name.endswith(f"_{unit}") else f"{old.name}_{unit}"
        return name, pa.int64(), lambda column: column.view(whole).cast(pa.int64())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return old.name, pa.string(), _hexadecimal
    if pa.types.is_decimal(kind):
        return old.name, pa.string(), lambda column: column.cast(pa.string())
    if pa.types.is_null(kind):
        return old.name, pa.string(), lambda column: column.cast(pa.string())
    if pa.types.is_dictionary(kind):
        return old.name, kind.value_type, lambda column: column.dictionary_decode()
    return old.name, kind, None


def _hexadecimal(column: pa.Array) -> pa.Array:
    return pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.string())


def _filled(job: Job, array: pa.Array, name: str, row: int) -> pa.Array:
    """Without nulls: NaN in floats, nothing in strings; other columns cannot hold them."""
    if pa.types.is_floating(array.type):
        fill: Any = float("nan")
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        fill = ""
    else:
        row += pc.index(array.is_null(), True).as_py()
        text = f"{job.source}: row {row}, column {name!r} is null, which {array.type} cannot hold; give the column"
        raise ConvertError(f"{text} the type double, float or string", path=job.source, column=name)
    job.empties[name] = job.empties.get(name, 0) + array.null_count
    return pc.fill_null(array, pa.scalar(fill, array.type))


def _type_names(schema: pa.Schema) -> list[tuple[str, str]]:
    """Types by their name in BCSV, or in Arrow."""
    names: list[tuple[str, str]] = []
    for field in schema:
        try:
            names.extend(columns_of(pa.schema([field])))
        except ValueError:
            names.append((field.name, str(field.type)))
    return names


# ---------------------------------------------------------------- outputs


def _to_bcsv(job: Job, part: str | None, stream: pa.RecordBatchReader) -> None:
    with bcsv.Writer(str(part), stream.schema, threads=job.options["threads"], **job.options["write"]) as writer:
        writer.write_table(stream)


def _to_text(job: Job, part: str | None, stream: pa.RecordBatchReader) -> None:
    _, job.facts["bytes_written"] = _native.text_write_stream(stream, part, json.dumps(text_options(job)), None)


def _to_parquet(_job: Job, part: str | None, stream: pa.RecordBatchReader) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(str(part), stream.schema, compression="zstd") as writer:
        for table in _groups(stream):
            writer.write_table(table, row_group_size=GROUP_ROWS)


def _groups(stream: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches put together to what a row group should be."""
    held: list[pa.RecordBatch] = []
    for batch in stream:
        held.append(batch)
        if sum(b.nbytes for b in held) >= GROUP_BYTES or sum(b.num_rows for b in held) >= GROUP_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _to_arrow(job: Job, part: str | None, stream: pa.RecordBatchReader) -> None:
    suffix = Path(job.destination).suffix.lower()
    options = pa.ipc.IpcWriteOptions(compression="lz4" if suffix == ".feather" else None)
    make = pa.ipc.new_stream if suffix == ".arrows" else pa.ipc.new_file
    with pa.OSFile(str(part), "wb") as file, make(file, stream.schema, options=options) as writer:
        for batch in stream:
            writer.write_batch(batch)


_SINKS: dict[str, Callable[[Job, str | None, pa.RecordBatchReader], None]] = {
    "bcsv": _to_bcsv,
    "csv": _to_text,
    "jsonl": _to_text,
    "parquet": _to_parquet,
    "arrow": _to_arrow,
}
