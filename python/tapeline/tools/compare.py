"""`compare`: are two tables the same, and where do they differ first? Streaming, in step.

Values are compared exactly, whatever their types: an int64 and a double are equal if they are the same
number, without a detour through rounding. NaN equals NaN, and -0.0 equals 0.0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from tapeline.tools.tables import Source

CHECKS = ("names", "types", "values")


@dataclass(frozen=True, slots=True)
class Difference:
    """One cell that differs; `row` counts from 0."""

    row: int
    column: str
    a: Any
    b: Any


@dataclass(slots=True)
class Comparison:
    """What `compare` found.

    Attributes:
        rows: Rows of both; None where it was not counted.
        rows_compared: Rows looked at.
        schema: Differences of names and types, in words.
        differences: Cells that differ.
        columns: Cells that differ, of each column that has any.
        first: The first of them, in row order.
    """

    rows: list[int] = field(default_factory=lambda: [0, 0])
    rows_compared: int = 0
    schema: list[str] = field(default_factory=list)
    differences: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    first: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """True when nothing differs."""
        return not self.schema and not self.differences and self.rows[0] == self.rows[1]


def compare(
    a: Source,
    b: Source,
    *,
    checks: Sequence[str] = CHECKS,
    tolerance: float = 0.0,
    columns: Sequence[str] | None = None,
    start: int = 0,
    stop: int | None = None,
    limit: int = 10,
    parse_strings: bool = False,
) -> Comparison:
    """Compare two tables; memory is a batch of each.

    Args:
        a: One table.
        b: The other one.
        checks: Any of `names`, `types`, `values`. Without `names`, columns are paired by position.
        tolerance: Largest difference that still counts as equal, if one of the two is a float.
        columns: Only these; all if None.
        start: First row, from 0; negative counts from the end.
        stop: Row after the last one.
        limit: Differences to list; all are counted.
        parse_strings: A string with a number in it equals that number.

    Raises:
        BcsvError: Damage.
    """
    result = Comparison()
    pairs = _pairs(a.schema, b.schema, checks, columns, result)
    if "values" not in checks:
        result.rows = [a.num_rows or 0, b.num_rows or 0]
        return result
    first = a.scan([name for name, _ in pairs], start, stop)
    second = b.scan([name for _, name in pairs], start, stop)
    if start < 0:
        start += a.num_rows or 0
    if not pairs:
        result.rows = [sum(batch.num_rows for batch in one) for one in (first, second)]
        return result
    for left, right in _in_step(first, second, result.rows):
        _batches(left, right, pairs, tolerance, parse_strings, result, max(start, 0), limit)
        result.rows_compared += left.num_rows
    result.first.sort(key=lambda one: one.row)
    return result


def _pairs(
    a: pa.Schema, b: pa.Schema, checks: Sequence[str], columns: Sequence[str] | None, result: Comparison
) -> list[tuple[str, str]]:
    names = [name for name in a.names if columns is None or name in columns]
    others = [name for name in b.names if columns is None or name in columns]
    if columns is not None:
        for name in columns:
            if name not in a.names and name not in b.names:
                result.schema.append(f"neither has a column {name!r}")
    if "names" in checks:
        result.schema += [f"column {name!r} is only in the first" for name in names if name not in others]
        result.schema += [f"column {name!r} is only in the second" for name in others if name not in names]
        common = [name for name in names if name in others]
        if not result.schema and names != others:
            result.schema.append("the columns are in another order")
        pairs = [(name, name) for name in common]
    else:
        if len(names) != len(others):
            result.schema.append(f"{len(names)} columns and {len(others)} columns")
        pairs = list(zip(names, others, strict=False))
    if "types" in checks:
        for left, right in pairs:
            one, two = a.field(left).type, b.field(right).type
            if one != two:
                result.schema.append(f"column {left!r} is {one} in the first and {two} in the second")
    return pairs


def _in_step(
    first: Iterator[pa.RecordBatch], second: Iterator[pa.RecordBatch], rows: list[int]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Pairs of batches of the same length; what one has more is only counted."""
    streams = (first, second)
    held: list[pa.RecordBatch | None] = [None, None]
    while True:
        for side in (0, 1):
            batch = held[side]
            while batch is None or batch.num_rows == 0:
                batch = next(streams[side], None)
                if batch is None:
                    break
                rows[side] += batch.num_rows
            held[side] = batch
        left, right = held
        if left is None or right is None:
            break
        count = min(left.num_rows, right.num_rows)
        yield left.slice(0, count), right.slice(0, count)
        held = [left.slice(count), right.slice(count)]
    for side in (0, 1):
        rows[side] += sum(batch.num_rows for batch in streams[side])


def _batches(  # noqa: PLR0917 - private, one call
    left: pa.RecordBatch,
    right: pa.RecordBatch,
    pairs: list[tuple[str, str]],
    tolerance: float,
    parse_strings: bool,  # noqa: FBT001 - one call
    result: Comparison,
    start: int,
    limit: int,
) -> None:
    for number, (name, _) in enumerate(pairs):
        a, b = left.column(number), right.column(number)
        if a.type == b.type and a.equals(b):  # the common case at the speed of memory; NaN is never equal here
            continue
        rows = np.flatnonzero(~_same(a, b, tolerance, parse_strings))
        if not rows.size:
            continue
        result.differences += int(rows.size)
        result.columns[name] = result.columns.get(name, 0) + int(rows.size)
        first = result.rows_compared + start
        for row in rows[:limit]:
            index = int(row)
            result.first.append(Difference(first + index, name, a[index].as_py(), b[index].as_py()))
    result.first.sort(key=lambda one: one.row)
    del result.first[limit:]


def _same(a: pa.Array, b: pa.Array, tolerance: float, parse_strings: bool) -> NDArray[np.bool_]:  # noqa: FBT001
    text = pa.types.is_string(a.type), pa.types.is_string(b.type)
    if all(text):
        return np.asarray(pc.equal(a, b).fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)
    if any(text):
        if not parse_strings:
            return np.zeros(len(a), dtype=np.bool_)
        a, b = (_numbers(array) if is_text else array for array, is_text in zip((a, b), text, strict=True))
    x, y = a.to_numpy(zero_copy_only=False), b.to_numpy(zero_copy_only=False)
    if x.dtype.kind == "b" or y.dtype.kind == "b":
        x, y = (v.astype(np.uint8) if v.dtype.kind == "b" else v for v in (x, y))
    return exactly_equal(x, y) | _near(x, y, tolerance)


def _near(x: NDArray[Any], y: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    if tolerance == 0 or "f" not in (x.dtype.kind, y.dtype.kind):
        return np.zeros(len(x), dtype=np.bool_)
    with np.errstate(all="ignore"):
        near = np.abs(x.astype(np.float64) - y.astype(np.float64)) <= tolerance
    return np.asarray(near, dtype=np.bool_)


def exactly_equal(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
    """Elementwise: the same number, whatever the types; NaN equals NaN."""
    if x.dtype.kind == "f" and y.dtype.kind == "f":
        return np.asarray((x == y) | ((x != x) & (y != y)), dtype=np.bool_)  # noqa: PLR0124 - only NaN differs from itself
    if "f" not in (x.dtype.kind, y.dtype.kind):
        return np.asarray(np.equal(x, y), dtype=np.bool_)  # NumPy compares int64 and uint64 exactly
    if y.dtype.kind == "f":
        x, y = y, x
    wide = x.astype(np.float64)
    # equal as floats, and the float is the integer itself: rounding of the integer cannot hide a difference
    limit = np.float64(1 << 64) if y.dtype == np.uint64 else np.float64(1 << 63)
    with np.errstate(all="ignore"):
        fits = (wide < limit) & (wide >= (0 if y.dtype.kind == "u" else -limit)) & (wide == np.trunc(wide))
        back = np.where(fits, wide, 0).astype(np.uint64 if y.dtype.kind == "u" else np.int64)
    return np.asarray(fits & (back == y), dtype=np.bool_)


def _numbers(array: pa.Array) -> pa.Array:
    """The numbers in strings; NaN where there is none."""
    values = np.full(len(array), np.nan)
    for index, text in enumerate(array.to_pylist()):
        try:
            values[index] = float(text)
        except (TypeError, ValueError):
            continue
    return pa.array(values)
