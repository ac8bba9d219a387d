"""Small files of every codec pair, and ways to break them."""

from __future__ import annotations

import numpy as np

from _twins import bcsv as twin
from _twins.bcsv_rows import CODECS
from _twins.tables import columns_of, random_column, to_rows

PAIRS = [(row, file) for row in CODECS for file in twin.FILE_CODECS]
KINDS = ("bool", "uint8", "int16", "uint32", "int64", "float", "double", "string")


def small_file(row_codec: str, file_codec: str, *, rows: int = 60, seed: int = 5, flushes: int = 3) -> bytes:
    """A file of a few kilobytes with `flushes` + 1 packets, written by the twin."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    table = pa.table({f"c{k}": random_column(rng, kind, rows) for k, kind in enumerate(KINDS)})
    step = rows // (flushes + 1)
    stops = tuple(step * (k + 1) for k in range(flushes))
    return twin.write(columns_of(table), to_rows(table), row_codec=row_codec, file_codec=file_codec, flush_after=stops)


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def bad_block(data: bytes, rng: np.random.Generator, size: int = 4096) -> bytes:
    """One block zeroed, swapped with another, or a copy of the one before it; the header stays."""
    out = bytearray(data)
    blocks = len(data) // size
    a, b = (int(k) for k in rng.choice(np.arange(1, blocks), 2, replace=False))
    kind = rng.choice(["zero", "swap", "double"])
    first, second = slice(a * size, (a + 1) * size), slice(b * size, (b + 1) * size)
    if kind == "zero":
        out[first] = bytes(size)
    elif kind == "swap":
        out[first], out[second] = data[second], data[first]
    else:
        out[first] = data[(a - 1) * size : a * size]
    return bytes(out)
