"""Tables between the worlds: Arrow tables, the twin's rows (floats as bits, strings as bytes), random tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from _twins.bcsv_rows import TYPES

ARROW = {
    **{t: pa.type_for_alias(t) for t in TYPES if "int" in t},
    "bool": pa.bool_(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
}
TWIN = {arrow: name for name, arrow in ARROW.items()}
BITS = {"float": np.uint32, "double": np.uint64}


def types_of(table: pa.Table) -> list[str]:
    return [TWIN[kind] for kind in table.schema.types]


def to_rows(table: pa.Table) -> list[tuple]:
    """The twin's rows of a table."""
    columns = []
    for kind, column in zip(types_of(table), table.columns, strict=True):
        if kind in BITS:
            parts = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
            columns.append([int(v) for part in parts for v in part.view(BITS[kind])])
        elif kind == "string":
            columns.append([v.encode() for v in column.to_pylist()])
        else:
            columns.append(column.to_pylist())
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def from_rows(columns: list[tuple[bytes, str]], rows: list[tuple]) -> pa.Table:
    """A table of the twin's rows."""
    arrays = []
    for number, (_, kind) in enumerate(columns):
        values = [row[number] for row in rows]
        if kind in BITS:
            bits = np.array(values, dtype=BITS[kind])
            arrays.append(pa.array(bits.view(np.float32 if kind == "float" else np.float64)))
        elif kind == "string":
            arrays.append(pa.array([v.decode() for v in values], pa.string()))
        else:
            arrays.append(pa.array(values, ARROW[kind]))
    return pa.table(arrays, names=[name.decode() for name, _ in columns])


def columns_of(table: pa.Table) -> list[tuple[bytes, str]]:
    """The twin's columns of a table."""
    return [(name.encode(), kind) for name, kind in zip(table.column_names, types_of(table), strict=True)]


NASTY = {
    "float": [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7FA00001, 0xFFC12345, 1, 0x7F7FFFFF, 0x3F800000],
    "double": [0, 1 << 63, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 0x7FF4 << 48 | 1, 0xFFF81234 << 32, 1, 0x3FF << 52],
    "string": ["", "a", "\x00", "é", "日本", "x" * 300, "line\nbreak", ",;\"'", "\U0001f680"],
}  # fmt: skip


def random_column(rng: np.random.Generator, kind: str, rows: int) -> pa.Array:
    """Values of one of several characters: held, ramping, extreme, random."""
    style = rng.choice(["hold", "ramp", "nasty", "random"])
    held = np.cumsum(rng.random(rows) < 0.2) if style == "hold" else np.arange(rows)
    count = int(held[-1]) + 1 if rows else 0
    if kind == "bool":
        return pa.array((rng.random(count) < 0.5)[held])
    if kind == "string":
        words = [NASTY["string"][k % len(NASTY["string"])] * int(1 + k % 3) for k in rng.integers(0, 30, count)]
        return pa.array([words[k] for k in held], pa.string())
    if kind in BITS:
        real = np.float32 if kind == "float" else np.float64
        if style == "ramp":
            return pa.array((rng.normal() + rng.normal() * np.arange(rows)).astype(real))
        if style == "nasty":
            return pa.array(np.array(NASTY[kind], dtype=BITS[kind])[rng.integers(0, len(NASTY[kind]), rows)].view(real))
        return pa.array(rng.normal(0, 100, count).astype(real)[held])
    info = np.iinfo(kind)
    if style == "ramp":
        step = int(rng.integers(-300, 300))
        first, modulus = int(rng.integers(info.min, info.max, dtype=kind)), 1 << info.bits
        ramp = [((first + step * k - int(info.min)) % modulus) + int(info.min) for k in range(rows)]
        return pa.array(ramp, ARROW[kind])
    if style == "nasty":
        return pa.array(np.array([info.min, info.max, 0, 1], dtype=kind)[rng.integers(0, 4, rows)])
    return pa.array(rng.integers(info.min, info.max, count, dtype=kind, endpoint=True)[held])


def random_table(rng: np.random.Generator, rows: int, columns: int) -> pa.Table:
    """A table of random types and values."""
    kinds = [TYPES[k] for k in rng.integers(0, len(TYPES), columns)]
    return pa.table({f"c{k}_{kind}": random_column(rng, kind, rows) for k, kind in enumerate(kinds)})


tables = st.builds(
    lambda seed, rows, columns: random_table(np.random.default_rng(seed), rows, columns),
    st.integers(0, 2**32 - 1),
    st.one_of(st.integers(0, 80), st.just(700)),
    st.integers(1, 9),
)
"""Random tables for hypothesis."""


def quietened(kinds: list[str], rows: list[tuple]) -> list[tuple]:
    """The rows with every signalling NaN made quiet: what values suffer on their way through a Python float."""
    quiet = {"float": (0x7F800000, 0x400000), "double": (0x7FF << 52, 1 << 51)}

    def value(kind: str, v):
        if kind in quiet:
            exponent, bit = quiet[kind]
            return v | bit if v & exponent == exponent and v & (bit * 2 - 1) else v
        return v

    return [tuple(map(value, kinds, row)) for row in rows]
