"""`info --deep`: what the packets and values of a BCSV file are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapeline import bcsv
from tapeline.tools.cast import value_bounds

# Bytes of a row in memory, by which ratios are reckoned; a bool is a bit
_WIDTH = {"bool": 0.125, "float": 4.0, "double": 8.0}


def deep_facts(path: str) -> dict[str, Any]:
    """Sizes, ratios and statistics of each column and packet; everything is read, damage is left out and listed.

    Returns:
        `columns` with min, max, mean, changes (rows that differ from the one before), nan, zeros, raw_bytes;
        `packets_detail` with offset, first_row, rows, bytes, raw_bytes, ratio; `raw_bytes`, `ratio`, `gaps`.
    """
    with bcsv.Reader(path, on_corrupt="skip") as reader:
        columns = [_Column(name, kind) for name, kind in reader.columns]
        packets = reader.packets
        details = []
        if packets:
            for packet in packets:
                raw = 0.0
                # a packet at a time; its rows that cannot be read are in the gaps afterwards
                for batch in reader.iter_batches(start=packet.first_row, stop=packet.first_row + packet.rows):
                    raw += sum(one.add(array) for one, array in zip(columns, batch.columns, strict=True))
                details.append(
                    {
                        "offset": packet.offset,
                        "first_row": packet.first_row,
                        "rows": packet.rows,
                        "bytes": packet.size,
                        "raw_bytes": math.ceil(raw),
                        "ratio": packet.size / raw if raw else None,
                    }
                )
        else:
            for batch in reader.iter_batches():
                for one, array in zip(columns, batch.columns, strict=True):
                    one.add(array)
        raw_bytes = math.ceil(sum(one.raw for one in columns))
        return {
            "raw_bytes": raw_bytes,
            "ratio": Path(path).stat().st_size / raw_bytes if raw_bytes else None,
            "columns": [one.as_dict() for one in columns],
            "packets_detail": details,
            "gaps": [list(gap) for gap in reader.gaps],
        }


class _Column:
    """Statistics of one column, batch by batch."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.raw = 0.0
        self.rows = 0
        self.low: Any = None
        self.high: Any = None
        self.sum = 0.0
        self.finite = 0
        self.nan = 0
        self.zeros = 0
        self.changes = 0
        self.last: pa.Array | None = None

    def add(self, array: pa.Array) -> float:
        """Take a batch; returns its bytes in memory."""
        rows = len(array)
        self.rows += rows
        low, high = value_bounds(array)
        if low is not None:
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)
        if self.last is not None:
            self.changes += not _alike(self.last, array.slice(0, 1))
        self.last = array.slice(rows - 1)
        raw: float
        if self.kind == "string":
            before, after = array.slice(0, rows - 1), array.slice(1)
            self.changes += int(pc.sum(pc.not_equal(before, after)).as_py() or 0)
            self.zeros += int(pc.sum(pc.equal(array, "")).as_py() or 0)
            raw = 2.0 * rows + int(pc.sum(pc.binary_length(array)).as_py() or 0)
        else:
            values = array.to_numpy(zero_copy_only=False)
            if values.dtype.kind == "f":
                values = values.view(np.uint32 if values.dtype.itemsize == 4 else np.uint64)
                numbers = array.to_numpy(zero_copy_only=False)
                self.nan += int(np.isnan(numbers).sum())
                finite = numbers[np.isfinite(numbers)]
            else:
                numbers = finite = values
            self.changes += int(np.count_nonzero(values[1:] != values[:-1]))
            self.zeros += rows - int(np.count_nonzero(numbers))
            with np.errstate(all="ignore"):
                self.sum += float(finite.sum(dtype=np.float64))
            self.finite += int(finite.size)
            raw = rows * _WIDTH.get(self.kind, array.type.bit_width / 8)
        self.raw += raw
        return raw

    def as_dict(self) -> dict[str, Any]:
        mean = self.sum / self.finite if self.finite and self.kind not in ("string", "bool") else None
        return {
            "name": self.name,
            "type": self.kind,
            "min": _finite(self.low),
            "max": _finite(self.high),
            "mean": _finite(mean),
            "changes": self.changes,
            "nan": self.nan,
            "zeros": self.zeros,
            "raw_bytes": math.ceil(self.raw),
        }


def _alike(a: pa.Array, b: pa.Array) -> bool:
    one, two = a[0].as_py(), b[0].as_py()
    return bool(one == two or (one != one and two != two))  # noqa: PLR0124 - only NaN differs from itself


def _finite(value: Any) -> Any:
    """JSON has no infinities; they are words."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
