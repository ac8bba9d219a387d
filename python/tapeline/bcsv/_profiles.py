"""Synthetic tables that look like what people record; for benchmarks, tests and `tapeline generate`.

Every profile is a function of (random generator, row count) that gives columns in order. The same
name, row count and seed always give the same table. Characters: docs/reference/bcsv.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Columns = Iterator[tuple[str, "NDArray[Any] | pa.Array"]]
    Generator = np.random.Generator

START_NS = 1_750_000_000_000_000_000  # a fixed instant in June 2025, so that time columns look real
INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")


def generate(profile: str, rows: int, *, seed: int = 1) -> pa.Table:
    """Make a table of a profile.

    Args:
        profile: One of `PROFILES`.
        rows: Number of rows.
        seed: Seed of the random generator.

    Returns:
        A table of `rows` rows in one chunk per column, without nulls.

    Raises:
        KeyError: No such profile.
    """
    make = PROFILES[profile]
    columns = dict(make(np.random.default_rng([seed, *profile.encode()]), rows))
    return pa.table({name: data if isinstance(data, pa.Array) else pa.array(data) for name, data in columns.items()})


def _clock(rng: Generator, rows: int, step_ns: int, jitter_ns: int = 0) -> NDArray[np.uint64]:
    ticks = START_NS + step_ns * np.arange(rows, dtype=np.int64)
    if jitter_ns:
        ticks += rng.integers(0, jitter_ns, rows)
    return ticks.astype(np.uint64)


def _pick(rng: Generator, words: list[str], rows: int) -> pa.Array:
    """Words by chance, early ones more often."""
    weights = 1.0 / np.arange(1, len(words) + 1)
    chosen = rng.choice(len(words), rows, p=weights / weights.sum()).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(chosen), pa.array(words)).cast(pa.string())


def _held(rng: Generator, rows: int, rate: float) -> NDArray[np.int64]:
    """For each row the number of the value that holds there; a new one with probability `rate`."""
    return np.cumsum(rng.random(rows) < rate)


def _words(rng: Generator, count: int, low: int, high: int) -> list[str]:
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
    sizes = rng.integers(low, high + 1, count)
    return [rng.choice(letters, size).tobytes().decode() for size in sizes]


def _mixed_generic(rng: Generator, rows: int) -> Columns:
    for k in range(6):
        yield f"bool_{k}", rng.random(rows) < 0.5
        for kind in INTEGERS:
            info = np.iinfo(kind)
            yield f"{kind}_{k}", rng.integers(info.min, info.max, rows, dtype=kind, endpoint=True)
        yield f"float_{k}", rng.normal(0, 1000, rows).astype(np.float32)
        yield f"double_{k}", rng.normal(0, 1000, rows)
        yield f"string_{k}", _pick(rng, _words(rng, 500, 0, 16), rows)


def _sparse_events(rng: Generator, rows: int) -> Columns:
    rate = 0.01

    def values(make: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
        held = _held(rng, rows, rate)
        return make(int(held[-1]) + 1 if rows else 1)[held]

    for k in range(20):
        yield f"flag_{k}", values(lambda n: rng.random(n) < 0.5)
    for k in range(30):
        yield f"state_{k}", values(lambda n: rng.integers(-1000, 1000, n, dtype=np.int32))
    for k in range(20):
        yield f"level_{k}", values(lambda n: rng.normal(20, 5, n).astype(np.float32))
    for k in range(20):
        yield f"total_{k}", values(lambda n: rng.normal(0, 1e6, n))
    for k in range(10):
        words = pa.array(_words(rng, 40, 3, 24))
        yield f"event_{k}", words.take(pa.array(values(lambda n: rng.integers(0, 40, n))))


def _sensor_noisy(rng: Generator, rows: int) -> Columns:
    yield "time_ns", _clock(rng, rows, 100_000, 4_000)
    yield "counter", np.arange(rows, dtype=np.uint32)
    for k in range(24):
        yield f"raw_{k}", rng.normal(k, 0.1 + k, rows).astype(np.float32)
    for k in range(24):
        yield f"fine_{k}", rng.normal(k, 0.1 + k, rows)


def _string_heavy(rng: Generator, rows: int) -> Columns:
    for k, size in enumerate([3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300, 500, 800, 1200, 2000, 3000, 4, 6, 10, 16]):
        yield f"text_{k}", _pick(rng, _words(rng, size, 2, 12 + 2 * k), rows)
    for k in range(5):
        yield f"code_{k}", rng.integers(0, 10 ** (k + 1), rows, dtype=np.int32)
    for k in range(5):
        yield f"value_{k}", rng.normal(100, 20, rows)


def _bool_heavy(rng: Generator, rows: int) -> Columns:
    for k in range(128):
        yield f"flag_{k}", _held(rng, rows, 0.001 * (1 + k % 16)) % 2 == 1
    for k, kind in enumerate(("uint8", "uint16", "int32", "uint32")):
        yield f"count_{k}", (_held(rng, rows, 0.2) % 200).astype(kind)


def _arithmetic_wide(rng: Generator, rows: int) -> Columns:
    for k in range(40):
        for kind in ("int32", "int64", "uint32"):
            info = np.iinfo(kind)
            yield f"{kind}_{k}", rng.integers(info.min, info.max, rows, dtype=kind, endpoint=True)
        yield f"float_{k}", rng.normal(0, 10.0 ** (k % 8), rows).astype(np.float32)
        yield f"double_{k}", rng.normal(0, 10.0 ** (k % 12), rows)


def _simulation_smooth(rng: Generator, rows: int) -> Columns:
    yield "time_ns", _clock(rng, rows, 1_000_000)
    t = np.arange(rows) * 1e-3
    for k in range(97):
        slow, fast = rng.uniform(0.01, 0.5), rng.uniform(0.5, 3)
        curve = rng.normal(0, 100) + 50 * np.sin(2 * np.pi * slow * t) + np.cos(2 * np.pi * fast * t + k)
        yield (f"x_{k}", curve) if k < 49 else (f"y_{k}", curve.astype(np.float32))
    yield "counter", np.arange(rows, dtype=np.uint32)
    yield "valid", np.arange(rows) % 1000 > 10


def _weather_timeseries(rng: Generator, rows: int) -> Columns:
    yield "time_s", (_clock(rng, rows, 60_000_000_000) // 1_000_000_000).astype(np.uint64)
    yield "station", pa.array(["Braunschweig", "Kiel", "Ulm"]).take(pa.array(np.arange(rows) % 3))
    yield "quality", _pick(rng, ["good", "fair", "check sensor"], rows)

    def walk(step: float, digits: int) -> NDArray[np.float64]:
        return np.round(rng.normal(15, 5) + np.cumsum(rng.normal(0, step, rows)), digits)

    for k in range(16):
        yield f"reading_{k}", walk(0.05, 1 + k % 2).astype(np.float32)
    for k in range(9):
        yield f"mean_{k}", walk(0.01, 1 + k % 2)
    for k, kind in enumerate(("uint8", "int16", "uint16", "int32") * 2):
        yield (
            f"step_{k}",
            (100 + np.clip(np.cumsum(rng.integers(-1, 2, rows) * (rng.random(rows) < 0.1)), -99, 99)).astype(kind),
        )


def _high_cardinality_string(rng: Generator, rows: int) -> Columns:
    yield "row", np.arange(rows, dtype=np.uint64)
    yield "shard", rng.integers(0, 64, rows, dtype=np.int32)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    dashes = np.array([8, 13, 18, 23])
    keep = np.setdiff1d(np.arange(36), dashes)
    offsets = pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * 36)
    for k in range(48):
        text = np.full((rows, 36), ord("-"), dtype=np.uint8)
        text[:, keep] = digits[rng.integers(0, 16, (rows, 32), dtype=np.uint8)]
        yield f"id_{k}", pa.StringArray.from_buffers(rows, offsets, pa.py_buffer(text))


def _float_1000ch(rng: Generator, rows: int) -> Columns:
    yield "time_ns", _clock(rng, rows, 100_000).astype(np.int64)
    t = np.arange(rows, dtype=np.float32) * np.float32(1e-4)
    for k in range(1000):
        if k % 10 < 4:  # slow
            data = np.sin(t * np.float32(0.1 + 0.01 * k)) * np.float32(10)
        elif k % 10 < 9:  # noisy
            data = rng.standard_normal(rows, dtype=np.float32) + np.float32(k)
        else:  # constant
            data = np.full(rows, k, dtype=np.float32)
        yield f"ch_{k:04d}", data


def _radar_iq(rng: Generator, rows: int) -> Columns:
    yield "time_ns", _clock(rng, rows, 1_000)
    yield "pulse", (np.arange(rows) % 1024).astype(np.uint16)
    phase = np.arange(rows) * 0.05
    for k in range(32):  # a target in every fourth range cell
        strength = 2000.0 if k % 4 == 0 else 0.0
        for part, wave in (("i", np.cos(phase + k)), ("q", np.sin(phase + k))):
            yield f"{part}_{k}", np.clip(strength * wave + rng.normal(0, 300, rows), -32768, 32767).astype(np.int16)


PROFILES: dict[str, Callable[[Generator, int], Columns]] = {
    "mixed_generic": _mixed_generic,
    "sparse_events": _sparse_events,
    "sensor_noisy": _sensor_noisy,
    "string_heavy": _string_heavy,
    "bool_heavy": _bool_heavy,
    "arithmetic_wide": _arithmetic_wide,
    "simulation_smooth": _simulation_smooth,
    "weather_timeseries": _weather_timeseries,
    "high_cardinality_string": _high_cardinality_string,
    "float_1000ch": _float_1000ch,
    "radar_iq": _radar_iq,
}
