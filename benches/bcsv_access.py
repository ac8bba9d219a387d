"""The suite `access` of `bench_bcsv.py`: random access by row number, and opening."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pybcsv

from tapeline import bcsv
from tapeline.bcsv._profiles import generate

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

ACCESS_ROWS, ACCESS_PICKS = 1_000_000, 1000
# Floors of issue 3: p99 and opening in milliseconds, p50 against the peer.
ACCESS_P99_MS, OPEN_MS, ACCESS_RATIO = 10.0, 1.0, 4.0


def access(args: argparse.Namespace) -> dict:
    """1,000 random rows of a file of a million, packets of 8 MiB, by a reader just opened; milliseconds.

    `cold` are the rows that were the first of their packet, so that it had to be read, verified and decoded.
    """
    table = generate("weather_timeseries", ACCESS_ROWS)
    picks = np.random.default_rng(2).integers(0, table.num_rows, ACCESS_PICKS).tolist()
    out = {}
    for row_codec in args.row_codecs:
        for file_codec, flags in {
            "packet": pybcsv.FileFlags.NONE,
            "packet-lz4": pybcsv.FileFlags.NONE,
            "packet-lz4-batch": pybcsv.FileFlags.BATCH_COMPRESS,
        }.items():
            path = args.dir / "access.bcsv"
            level = 0 if file_codec == "packet" else 1
            pybcsv.write_from_arrow(str(path), table, row_codec, level, flags)
            rounds: dict[str, list] = {"ours": [], "theirs": []}
            for _ in range(args.repeat):
                rounds["ours"].append(_access_ours(path, picks))
                # A tenth of the rows: each of them costs as much as the first.
                rounds["theirs"].append(_access_theirs(path, picks[::10]))
            entry = {who: {k: min(r[k] for r in each) for k in each[0]} for who, each in rounds.items()}
            out[f"{row_codec}/{file_codec}"] = entry
            print(
                f"{row_codec}/{file_codec:18}",
                {who: {k: round(v, 3) for k, v in e.items()} for who, e in entry.items()},
                flush=True,
            )
    return out


def _access_ours(path: Path, picks: list[int]) -> dict[str, float]:
    start = time.perf_counter()
    reader = bcsv.Reader(path)
    opened = (time.perf_counter() - start) * 1e3
    starts = np.array([packet.first_row for packet in reader.packets])
    taken = _access(reader.__getitem__, picks)
    reader.close()
    packets = np.searchsorted(starts, picks, side="right")
    cold = taken[np.unique(packets, return_index=True)[1]]
    return {"open": opened, **_quantiles(taken), "cold p50": float(np.median(cold)), "cold max": float(cold.max())}


def _access_theirs(path: Path, picks: list[int]) -> dict[str, float]:
    peer = pybcsv.ReaderDirectAccess()
    start = time.perf_counter()
    peer.open(str(path))
    opened = (time.perf_counter() - start) * 1e3
    taken = _access(peer.read, picks)
    peer.close()
    return {"open": opened, **_quantiles(taken)}


def _access(read: Callable[[int], object], picks: list[int]) -> np.ndarray:
    taken = np.zeros(len(picks))
    for k, pick in enumerate(picks):
        start = time.perf_counter()
        read(pick)
        taken[k] = (time.perf_counter() - start) * 1e3
    return taken


def _quantiles(taken: np.ndarray) -> dict[str, float]:
    return {f"p{q}": float(np.percentile(taken, q)) for q in (50, 99, 100)}


def judge_access(results: dict) -> list[str]:
    """What of the floors is missed."""
    missed = []
    for name, entry in results.items():
        ours, theirs = entry["ours"], entry["theirs"]
        if ours["p99"] >= ACCESS_P99_MS:
            missed.append(f"{name}: p99 {ours['p99']:.1f} ms >= {ACCESS_P99_MS}")
        if ours["open"] >= OPEN_MS:
            missed.append(f"{name}: opened in {ours['open']:.2f} ms >= {OPEN_MS}")
        if ours["p50"] * ACCESS_RATIO > theirs["p50"]:
            missed.append(f"{name}: p50 {ours['p50']:.2f} ms > a quarter of {theirs['p50']:.2f} of pybcsv")
    return missed
