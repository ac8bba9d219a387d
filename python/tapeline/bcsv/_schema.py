"""Columns: which Arrow, NumPy and Python types become which of the twelve types of the format.

Nothing is narrowed and nothing is guessed: a type that does not fit loses no bit or is refused with
an error that names the column and what to do. The format has no missing values, so nulls are refused too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import pyarrow as pa

from tapeline.errors import SchemaError

TypeName = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float", "double", "string"
]
TYPE_NAMES: tuple[TypeName, ...] = get_args(TypeName)

_ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
}
_NAMES: dict[pa.DataType, TypeName] = {
    **{_ARROW[name]: name for name in TYPE_NAMES},
    pa.large_string(): "string",
    pa.string_view(): "string",
    pa.float16(): "float",  # every binary16 is a binary32
}
_HINTS = (
    (pa.types.is_temporal, "cast it to int64 and note the unit in the column's name"),
    (pa.types.is_decimal, "cast it to double, or to a scaled int64"),
    (pa.types.is_null, "a column without values has no type"),
    (pa.types.is_binary, "strings are text here; encode bytes as text, for example with base64"),
    (pa.types.is_nested, "flatten it into columns first"),
)


@runtime_checkable
class ArrowStream(Protocol):
    """Anything that gives out an Arrow C stream: tables of pyarrow, polars, pandas, duckdb, and many more."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Give a capsule named `arrow_array_stream`."""


class ArrowSchema(Protocol):
    """Anything that gives out an Arrow C schema."""

    def __arrow_c_schema__(self) -> object:
        """Give a capsule named `arrow_schema`."""


Schema = Iterable[tuple[str, TypeName]] | ArrowSchema
"""What a writer accepts as columns: `[(name, type), ...]` or a `pyarrow.Schema`."""

TableLike = ArrowStream | Mapping[str, Any]
"""What a writer accepts as a table: an Arrow stream, or a dict of name to array or list."""


def type_name(column: str, arrow: pa.DataType) -> TypeName:
    """Name of the format's type that holds an Arrow type without loss.

    Raises:
        SchemaError: There is none.
    """
    if pa.types.is_dictionary(arrow):
        return type_name(column, arrow.value_type)
    try:
        return _NAMES[arrow]
    except KeyError:
        hint = next((f": {text}" for test, text in _HINTS if test(arrow)), "")
        raise SchemaError(f"column {column!r} has type {arrow}, which the format cannot hold{hint}") from None


def columns_of(schema: Schema) -> list[tuple[str, TypeName]]:
    """Name and type of each column.

    Raises:
        SchemaError: A type is unknown, or what was given is no schema.
    """
    if hasattr(schema, "__arrow_c_schema__"):
        return [(field.name, type_name(field.name, field.type)) for field in pa.schema(schema)]
    columns: list[tuple[str, TypeName]] = []
    for number, entry in enumerate(schema):
        try:
            name, kind = entry
        except (TypeError, ValueError):
            raise SchemaError(f"column {number} is {entry!r}; a (name, type) pair was expected") from None
        if not isinstance(name, str):
            raise SchemaError(f"the name of column {number} is {name!r}; a string was expected")
        if isinstance(kind, pa.DataType):
            columns.append((name, type_name(name, kind)))
        elif kind in TYPE_NAMES:
            columns.append((name, kind))
        else:
            raise SchemaError(f"column {name!r} has the unknown type {kind!r}; types are: {', '.join(TYPE_NAMES)}")
    return columns


def arrow_schema(columns: Iterable[tuple[str, str]]) -> pa.Schema:
    """The Arrow schema of columns; the picture of a NUL stands for a NUL in a name, which Arrow cannot carry."""
    return pa.schema([(name.replace("\0", "\u2400"), _ARROW[kind]) for name, kind in columns])


def stream_of(table: TableLike) -> tuple[pa.RecordBatchReader, list[tuple[str, TypeName]]]:
    """Make a stream of batches in the format's own Arrow types of whatever holds a table, and name its columns.

    Types that are another spelling of one of the twelve (large or view strings, dictionaries, binary16) are cast
    batch by batch; everything else passes without a copy.

    Raises:
        SchemaError: It is no table, its columns differ in length, or a type does not fit.
    """
    if isinstance(table, Mapping):
        table = _from_arrays(table)
    elif type(table).__module__.partition(".")[0] == "pandas":
        table = _from_pandas(table)
    elif not isinstance(table, ArrowStream):
        if not hasattr(table, "__arrow_c_array__"):
            raise SchemaError(f"{type(table).__name__} is no table: give a dict, or an object with __arrow_c_stream__")
        table = pa.Table.from_batches([pa.record_batch(table)])
    stream = pa.RecordBatchReader.from_stream(table)
    columns = [(field.name, type_name(field.name, field.type)) for field in stream.schema]
    plain = pa.schema([(name, _ARROW[kind]) for name, kind in columns])
    if plain.types != stream.schema.types:
        stream = pa.RecordBatchReader.from_batches(plain, (_cast(batch, plain) for batch in stream))
    return stream, columns


def _cast(batch: pa.RecordBatch, plain: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for array, wanted in zip(batch.columns, plain.types, strict=True):
        if pa.types.is_dictionary(array.type):  # view strings in a dictionary have no cast of their own
            arrays.append(array.dictionary.cast(wanted).take(array.indices))
        else:
            arrays.append(array.cast(wanted))
    return pa.RecordBatch.from_arrays(arrays, schema=plain)


def _from_arrays(columns: Mapping[str, Any]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        if not isinstance(name, str):
            raise SchemaError(f"the column name {name!r} is no string")
        if isinstance(values, str):
            raise SchemaError(f"column {name!r} is one string, not a list of them")
        try:
            arrays[name] = pa.chunked_array([], pa.string()) if _is_empty_list(values) else _array(values)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise SchemaError(f"column {name!r}: {error}") from error
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise SchemaError(f"columns differ in length: {lengths}")
    return pa.table(arrays)


def _is_empty_list(values: Any) -> bool:
    return isinstance(values, list) and not values


def _array(values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    dtype = getattr(values, "dtype", None)
    byteorder = getattr(dtype, "byteorder", "=")
    if dtype is not None and byteorder not in "=|":  # Arrow knows only the machine's byte order
        values = values.astype(dtype.newbyteorder("="))
    return pa.array(values)


def _from_pandas(frame: Any) -> pa.Table:
    # pandas' own Arrow export turns NaN into null, which the format cannot hold; NumPy columns keep it.
    arrays = {}
    for name, series in frame.items():
        kind = getattr(series.dtype, "kind", "O")
        plain = type(series.dtype).__module__.startswith("numpy")
        arrays[str(name)] = series.to_numpy() if plain and kind in "biuf" else pa.array(series, from_pandas=True)
    return _from_arrays(arrays)
