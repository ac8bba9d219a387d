"""`cast`: other column types; which ones would lose nothing, and what a given one costs.

A scan goes through the file once and keeps a few facts per column. A cast goes through it once more and counts
every value that changed: clamped to the range of its type, or rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapeline.bcsv._schema import _ARROW, type_name
from tapeline.errors import ConfigError
from tapeline.tools.compare import exactly_equal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
_SIGNED = ("int8", "int16", "int32", "int64")
_RANGE = {name: (int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in (*_UNSIGNED, *_SIGNED)}


@dataclass(slots=True)
class Facts:
    """What a scan knows of a column.

    Attributes:
        name: The column.
        type: Its type.
        low: Smallest value, if all are whole numbers.
        high: Largest value, likewise.
        whole: All values are whole numbers in the range of 64 bits (within the tolerance).
        single: All values survive the way through binary32 (within the tolerance).
        numeric: A string column, all of whose texts are numbers in their usual spelling.
    """

    name: str
    type: str
    low: int | None = None
    high: int | None = None
    whole: bool = True
    single: bool = True
    numeric: bool = True

    @property
    def smallest(self) -> str:
        """The smallest type that holds every value."""
        if self.type == "bool" or (self.type == "string" and not self.numeric):
            return self.type
        if self.low is None or self.high is None:  # no rows
            return self.type
        if self.whole:
            names = _UNSIGNED if self.low >= 0 else _SIGNED
            fitting = next((n for n in names if _RANGE[n][0] <= self.low and self.high <= _RANGE[n][1]), None)
            if fitting is not None and _bytes(fitting) < _bytes(self.type):
                return fitting
            return fitting if fitting is not None and self.type == "string" else self.type
        if self.type in ("double", "string"):
            return "float" if self.single else "double"
        return self.type


def _bytes(name: str) -> int:
    return 1000 if name == "string" else _ARROW[name].bit_width // 8 or 1


def scan(
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    *,
    tolerance: float = 0.0,
    parse_strings: bool = False,
) -> list[Facts]:
    """Find the smallest type of each column that loses nothing.

    Args:
        schema: The columns.
        batches: The table.
        tolerance: Difference that still counts as nothing, for floats.
        parse_strings: Whether strings that hold numbers may become numbers.
    """
    facts = [Facts(field.name, type_name(field.name, field.type)) for field in schema]
    for batch in batches:
        for one, array in zip(facts, batch.columns, strict=True):
            if one.type == "string":
                _text_facts(one, array if parse_strings else None)
            elif one.type != "bool":
                _number_facts(one, array.to_numpy(zero_copy_only=False), tolerance)
    return facts


def _number_facts(one: Facts, values: NDArray[Any], tolerance: float) -> None:
    if not values.size:
        return
    if values.dtype.kind == "f":
        with np.errstate(all="ignore"):
            if one.single and values.dtype == np.float64:
                single = values.astype(np.float32).astype(np.float64)
                one.single = bool(
                    np.all((single == values) | np.isnan(values) | (np.abs(single - values) <= tolerance))
                )
            if not one.whole:
                one.low = one.high = 0
                return
            rounded = np.rint(values)
            # a negative zero is no integer: its sign would be lost
            whole = (np.abs(values - rounded) <= tolerance) & (np.abs(values) < 2.0**63)
            one.whole = bool(np.all(whole & ~((values == 0) & np.signbit(values))))
        if not one.whole:
            one.low = one.high = 0
            return
        values = rounded
    low, high = int(values.min()), int(values.max())
    one.low = low if one.low is None else min(one.low, low)
    one.high = high if one.high is None else max(one.high, high)


def _text_facts(one: Facts, array: pa.Array | None) -> None:
    if array is None or not one.numeric:
        one.numeric = False
        return
    for text in array.to_pylist():
        try:
            value: int | float = int(text) if one.whole else float(text)
            if one.whole and str(value) != text:
                raise ValueError(text)  # noqa: TRY301 - the way on is the same as of a text that is no number
        except ValueError:
            one.whole = False
            try:
                value = float(text)
            except ValueError:
                one.numeric = False
                return
        if not one.whole and repr(float(text)) != text and str(text) != f"{float(text):g}":
            one.numeric = False
            return
        if one.single and not np.isnan(value) and float(np.float32(value)) != value:
            one.single = False
        if one.whole:
            one.low = int(value) if one.low is None else min(one.low, int(value))
            one.high = int(value) if one.high is None else max(one.high, int(value))
        else:
            one.low = one.high = 0


class Caster:
    """Columns in other types; counts what did not fit.

    Attributes:
        schema: The columns of the result.
        clamped: Of each column, values moved to the end of the range of its type (NaN to 0 counts too).
        rounded: Of each column, values that changed by more than the tolerance without leaving the range.
        unreadable: Columns with strings that are no numbers; only of a trial.
    """

    def __init__(
        self, schema: pa.Schema, types: Mapping[str, str], *, tolerance: float = 0.0, trial: bool = False
    ) -> None:
        """Plan. A trial notes columns of strings that are no numbers, and leaves them as they are.

        Raises:
            ConfigError: A name is no column, or a type is unknown.
        """
        for name, kind in types.items():
            if name not in schema.names:
                raise ConfigError(f"there is no column {name!r}; there are {', '.join(schema.names)}")
            if kind not in _ARROW:
                raise ConfigError(f"{kind!r} is no type; types are {', '.join(_ARROW)}")
        self.schema = pa.schema(
            [(field.name, _ARROW[types[field.name]] if field.name in types else field.type) for field in schema]
        )
        self._tolerance = tolerance
        self._trial = trial
        self.unreadable: set[str] = set()
        self.clamped: dict[str, int] = {}
        self.rounded: dict[str, int] = {}

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches, cast.

        Raises:
            ConfigError: A string is no number.
        """
        for batch in batches:
            yield pa.RecordBatch.from_arrays(self._cast_all(batch), schema=self.schema)

    def try_out(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Count what casting would change; only of a trial."""
        for batch in batches:
            self._cast_all(batch)

    def _cast_all(self, batch: pa.RecordBatch) -> list[pa.Array]:
        return [
            array if array.type == field.type else self._cast(field.name, array, field.type)
            for field, array in zip(self.schema, batch.columns, strict=True)
        ]

    def _cast(self, name: str, array: pa.Array, kind: pa.DataType) -> pa.Array:
        if pa.types.is_string(kind):
            return array.cast(kind)
        if pa.types.is_string(array.type):
            try:
                wide = pa.int64() if pa.types.is_integer(kind) else pa.float64()
                if kind == pa.uint64():
                    wide = pa.uint64()
                array = array.cast(pa.bool_() if pa.types.is_boolean(kind) else wide)
            except pa.ArrowInvalid as error:
                if self._trial:
                    self.unreadable.add(name)
                    return array
                raise ConfigError(f"column {name!r}: {error}") from error
            if array.type == kind:
                return array
        values = array.to_numpy(zero_copy_only=False)
        result, clamped = _numbers(values, kind)
        with np.errstate(all="ignore"):
            changed = ~exactly_equal(_plain(values), _plain(result))
            if self._tolerance and "f" in (values.dtype.kind, result.dtype.kind):
                changed &= np.abs(values.astype(np.float64) - result.astype(np.float64)) > self._tolerance
        beyond, rounded = int(np.count_nonzero(clamped)), int(np.count_nonzero(changed & ~clamped))
        if beyond:
            self.clamped[name] = self.clamped.get(name, 0) + beyond
        if rounded:
            self.rounded[name] = self.rounded.get(name, 0) + rounded
        return pa.array(result, kind)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _numbers(values: NDArray[Any], kind: pa.DataType) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values in another type, and which of them were beyond its range."""
    values = _plain(values)
    none = np.zeros(len(values), dtype=np.bool_)
    if pa.types.is_boolean(kind):
        return values != 0, none
    target = np.dtype(kind.to_pandas_dtype())
    with np.errstate(all="ignore"):
        if target.kind == "f":
            result = values.astype(target)
            beyond = np.isinf(result) & (np.isfinite(values) if values.dtype.kind == "f" else ~none)
            return np.where(beyond, np.copysign(np.finfo(target).max, result), result), beyond
        low, high = _RANGE[target.name]
        if values.dtype.kind != "f":
            beyond = np.less(values, low) | np.greater(values, high)
            inside = np.where(beyond, 0, values).astype(target)
            return np.where(beyond, np.where(np.less(values, low), low, high).astype(target), inside), beyond
        rounded = np.rint(values)
        wide = rounded.astype(np.float64)
        under, over = wide < float(low), wide >= float(high + 1)
        beyond = under | over | np.isnan(wide)
        inside = np.where(beyond, 0, wide).astype(target)
        result = np.where(over, np.array(high, dtype=target), inside)
        return np.where(under, np.array(low, dtype=target), result), beyond


def parse_types(text: str, names: Sequence[str]) -> dict[str, str]:
    """`a=int32,b=float`, or one type per column: `int32,auto,string`.

    A number instead of a name is a position, and `2:5=float` a range of positions.

    Raises:
        ConfigError: The text is neither.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not any("=" in entry for entry in entries):
        if len(entries) != len(names):
            raise ConfigError(f"types: {len(entries)} types for {len(names)} columns; name them: NAME=TYPE")
        return {name: kind for name, kind in zip(names, entries, strict=True) if kind != "auto"}
    types = {}
    for entry in entries:
        name, equals, kind = entry.rpartition("=")
        if not equals:
            raise ConfigError(f"types: {entry!r}: expected NAME=TYPE")
        for one in pick(name.strip(), names):
            types[one] = kind.strip()
    return types


def pick(text: str, names: Sequence[str]) -> list[str]:
    """The columns that a name, a position or a range of positions `2:5` means.

    Raises:
        ConfigError: None.
    """
    if text in names:
        return [text]
    first, colon, last = text.partition(":")
    try:
        if colon:
            return list(names[int(first) if first else None : int(last) if last else None])
        return [names[int(text)]]
    except (ValueError, IndexError):
        raise ConfigError(f"there is no column {text!r}; there are {', '.join(names)}") from None


def total(counts: Mapping[str, int]) -> int:
    """All counts together."""
    return sum(counts.values())


def value_bounds(array: pa.Array) -> tuple[Any, Any]:
    """Smallest and largest value that is no NaN; None of an empty array."""
    if pa.types.is_floating(array.type):
        array = array.filter(pc.invert(pc.is_nan(array)))
    found = pc.min_max(array)
    return found["min"].as_py(), found["max"].as_py()
