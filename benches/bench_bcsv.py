"""Speed and size of BCSV files: `tapeline.bcsv` beside pybcsv, Parquet, Feather, polars and CSV.

Suites, each a function below and a JSON file in `results/HOST/`:

    python benches/bench_bcsv.py pairs       # against pybcsv: 11 profiles x 3 row codecs, floors that fail
    python benches/bench_bcsv.py contenders  # against other formats
    python benches/bench_bcsv.py rows        # latency of writing row by row
    python benches/bench_bcsv.py access      # random access by row number, and opening
    python benches/bench_bcsv.py report      # the tables of the docs, from the JSON files

Files lie on tmpfs (`--dir`). Contenders take turns within one run and the best of `--repeat` counts, so that both
meet the same machine. Every result is compared with its input before it is timed. With `--threads 1` the process is
bound to one core; with 2 to two, which also gives pybcsv's background compressor its core. Results of a run that
covers some profiles only are merged into the file.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pybcsv

from tapeline import bcsv
from tapeline.bcsv._profiles import PROFILES, generate

SIZES = {"S": 10_000, "M": 100_000, "L": 500_000, "XL": 2_000_000}
TABLE_BYTES = 120_000_000  # wide profiles get fewer rows, so that a run fits into memory and a minute
ROW_CODECS = ("flat", "zoh", "delta")
# Floors of issue 3, as geometric means over all profiles and row codecs; per (threads, direction).
FLOORS = {(2, "read"): 3.0, (2, "write"): 2.5, (1, "read"): 2.0, (1, "write"): 1.7}
GOALS = {(2, "read"): 4.0, (2, "write"): 3.5}


def table_of(profile: str, size: str) -> pa.Table:
    """The profile's table, cut where it would get too large."""
    per_row = max(generate(profile, 1000).nbytes / 1000, 1)
    return generate(profile, min(SIZES[size], int(TABLE_BYTES / per_row)))


def best(turns: dict[str, callable], repeat: int) -> dict[str, float]:
    """Seconds of the fastest of `repeat` turns, the turns of all interleaved."""
    seconds = dict.fromkeys(turns, math.inf)
    for _ in range(repeat):
        for name, run in turns.items():
            gc.collect()
            start = time.perf_counter()
            result = run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            del result
    return seconds


def equal(a: pa.Table, b: pa.Table) -> bool:
    """Equal values; NaN equals NaN."""
    if a.column_names != b.column_names or a.num_rows != b.num_rows:
        return False
    return all(
        x.equals(y) or np.array_equal(x.to_numpy(), y.to_numpy(), equal_nan=True)
        for x, y in zip(a.combine_chunks().columns, b.combine_chunks().columns, strict=True)
    )


# ---------------------------------------------------------------- against pybcsv


def peer_write(table: pa.Table, path: Path, row_codec: str) -> None:
    pybcsv.write_from_arrow(str(path), table, row_codec, 1, pybcsv.FileFlags.BATCH_COMPRESS)


def pairs(args: argparse.Namespace) -> dict:
    """Both through Arrow: same data, codec pair (packet-lz4-batch), level 1, packets of 8 MiB."""
    out = {}
    for profile in args.profiles:
        table = table_of(profile, args.size)
        for row_codec in ROW_CODECS:
            ours, theirs = args.dir / "ours.bcsv", args.dir / "theirs.bcsv"

            def write(row_codec=row_codec, table=table, ours=ours):
                bcsv.write_table(table, ours, row_codec=row_codec, overwrite=True, threads=args.threads)

            def read(ours=ours):
                return bcsv.read_table(ours, threads=args.threads)

            write()
            peer_write(table, theirs, row_codec)
            assert equal(read(), table)
            assert equal(bcsv.read_table(theirs), table)
            assert equal(pybcsv.read_to_arrow(str(ours)), table)
            w = best({"ours": write, "theirs": lambda c=row_codec, t=table, p=theirs: peer_write(t, p, c)}, args.repeat)
            r = best({"ours": read, "theirs": lambda p=theirs: pybcsv.read_to_arrow(str(p))}, args.repeat)
            out[f"{profile}/{row_codec}"] = {
                "rows": table.num_rows,
                "table_bytes": table.nbytes,
                "bytes": {"ours": ours.stat().st_size, "theirs": theirs.stat().st_size},
                "write_s": w,
                "read_s": r,
            }
            show(f"{profile}/{row_codec}", out[f"{profile}/{row_codec}"])
    return out


def show(name: str, entry: dict) -> None:
    ratio = {k: entry[f"{k}_s"]["theirs"] / entry[f"{k}_s"]["ours"] for k in ("read", "write")}
    size = entry["bytes"]["ours"] / entry["bytes"]["theirs"]
    print(
        f"{name:32} read {ratio['read']:5.2f}x {entry['read_s']['ours'] * 1e3:7.1f} ms"
        f"  write {ratio['write']:5.2f}x {entry['write_s']['ours'] * 1e3:7.1f} ms  size {size:.3f}",
        flush=True,
    )


def geometric(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def judge(results: dict, threads: int) -> list[str]:
    """What of the floors is missed; empty if nothing."""
    missed = []
    for kind in ("read", "write"):
        ratios = {name: e[f"{kind}_s"]["theirs"] / e[f"{kind}_s"]["ours"] for name, e in results.items()}
        mean, floor = geometric(list(ratios.values())), FLOORS[threads, kind]
        print(f"{threads} thread(s), {kind}: geometric mean {mean:.2f}x over {len(ratios)}, floor {floor}x")
        if mean < floor:
            missed.append(f"{threads} thread(s) {kind}: {mean:.2f}x < {floor}x")
        if threads == 1:
            missed += [f"1 thread {kind} {name}: {ratio:.2f}x < 1x" for name, ratio in ratios.items() if ratio < 1]
    for name, entry in results.items():
        if entry["bytes"]["ours"] > 1.02 * entry["bytes"]["theirs"]:
            missed.append(f"size {name}: {entry['bytes']['ours']} > 1.02 x {entry['bytes']['theirs']}")
    return missed


# ---------------------------------------------------------------- against other formats


def contenders(args: argparse.Namespace) -> dict:
    """Default and fast settings of other formats, through Arrow (polars through its own frame)."""
    import polars as pl

    out, d, threaded = {}, args.dir, args.threads != 1
    for profile in args.profiles:
        table = table_of(profile, args.size)
        frame = pl.from_arrow(table)

        def bcsv_write(row_codec, table=table):
            bcsv.write_table(table, d / f"{row_codec}.bcsv", row_codec=row_codec, overwrite=True, threads=args.threads)

        def parquet(compression, table=table):
            pyarrow.parquet.write_table(table, d / f"{compression}.parquet", compression=compression)

        writes = {
            "bcsv delta": (lambda: bcsv_write("delta"), "delta.bcsv"),
            "bcsv zoh": (lambda: bcsv_write("zoh"), "zoh.bcsv"),
            "bcsv flat": (lambda: bcsv_write("flat"), "flat.bcsv"),
            "parquet snappy": (lambda: parquet("snappy"), "snappy.parquet"),
            "parquet zstd": (lambda: parquet("zstd"), "zstd.parquet"),
            "polars zstd": (lambda f=frame: f.write_parquet(d / "polars.parquet"), "polars.parquet"),
            "feather": (
                lambda t=table: pyarrow.feather.write_feather(t, str(d / "f.arrow"), compression="uncompressed"),
                "f.arrow",
            ),
            "csv": (lambda t=table: pyarrow.csv.write_csv(t, d / "t.csv"), "t.csv"),
        }
        reads = {
            "bcsv delta": lambda: bcsv.read_table(d / "delta.bcsv", threads=args.threads),
            "bcsv zoh": lambda: bcsv.read_table(d / "zoh.bcsv", threads=args.threads),
            "bcsv flat": lambda: bcsv.read_table(d / "flat.bcsv", threads=args.threads),
            "parquet snappy": lambda: pyarrow.parquet.read_table(d / "snappy.parquet", use_threads=threaded),
            "parquet zstd": lambda: pyarrow.parquet.read_table(d / "zstd.parquet", use_threads=threaded),
            "polars zstd": lambda: pl.read_parquet(d / "polars.parquet"),
            "feather": lambda: pyarrow.feather.read_table(str(d / "f.arrow"), memory_map=False),
            "csv": lambda: pyarrow.csv.read_csv(d / "t.csv"),
        }
        for run, _ in writes.values():
            run()
        assert equal(reads["bcsv delta"](), table)
        w = best({name: run for name, (run, _) in writes.items()}, args.repeat)
        r = best(reads, args.repeat)
        size = {name: (d / file).stat().st_size for name, (_, file) in writes.items()}
        out[profile] = {"rows": table.num_rows, "table_bytes": table.nbytes, "bytes": size, "write_s": w, "read_s": r}
        print(
            profile, {name: f"{table.nbytes / w[name] / 1e6:.0f}/{table.nbytes / r[name] / 1e6:.0f} MB/s" for name in w}
        )
    return out


# ---------------------------------------------------------------- row by row


CHANNELS, ROWS = 1000, 20_000
# Floors of issue 3, microseconds: packed rows on average, the slowest row of all. Tuples: the peer's median.
PACKED_US, WORST_US = 3.0, 300.0


def rows(args: argparse.Namespace) -> dict:
    """Time of every row of 1,000 floats, as tuples and packed, in batch mode; microseconds.

    What the machine itself takes away is measured in the same rounds: a loop that only looks at the clock, as long as
    writing takes. Its longest gap is the floor below which no latency can be told from noise.
    """
    data = np.random.default_rng(1).standard_normal((ROWS, CHANNELS), dtype=np.float32)
    names = [f"ch{k}" for k in range(CHANNELS)]
    tuples = [tuple(map(float, row)) for row in data[:2000]]
    lists = [list(row) for row in tuples]
    packed = [row.tobytes() for row in data[:2000]]
    blocks = np.array_split(data, 200)
    layout = pybcsv.Layout()
    for name in names:
        layout.add_column(name, pybcsv.FLOAT)
    path, peer_path = args.dir / "rows.bcsv", args.dir / "rows_peer.bcsv"

    def writer():
        return bcsv.Writer(path, [(name, "float") for name in names], mode="w")

    def peer():
        writer = pybcsv.Writer(layout, "delta")
        writer.open(str(peer_path), True, 1, 8192, pybcsv.FileFlags.BATCH_COMPRESS)
        return writer

    def timed(write, values) -> np.ndarray:
        taken = np.zeros(ROWS)  # touched before the first row
        clock = time.perf_counter
        for k in range(ROWS):
            row = values[k % len(values)]
            start = clock()
            write(row)
            taken[k] = clock() - start
        return taken

    def in_blocks() -> np.ndarray:
        with writer() as ours:
            start = time.perf_counter()
            for block in blocks:
                ours.write_packed(block)
            return np.array([(time.perf_counter() - start) / ROWS])

    def closing(make, write: str, values) -> np.ndarray:
        one = make()
        try:
            return timed(getattr(one, write), values)
        finally:
            one.close()

    cases = {
        "tuples": lambda: closing(writer, "write_row", tuples),
        "peer": lambda: closing(peer, "write_row", lists),
        "packed": lambda: closing(writer, "write_packed", packed),
        "blocks": in_blocks,
        "clock": lambda: _gaps(0.25),
    }
    taken: dict[str, list] = {name: [] for name in cases}
    for _ in range(args.repeat):
        for name, run in cases.items():
            gc.collect()
            taken[name].append(run() * 1e6)
    out: dict = {"channels": CHANNELS, "rows": ROWS, "rounds": args.repeat}
    for name, rounds in taken.items():
        quantiles = [[float(np.percentile(r, q)) for q in (50, 99, 99.9, 100)] for r in rounds]
        best, middle = np.min(quantiles, axis=0), np.median(quantiles, axis=0)
        out[name] = {
            "mean": float(min(r.mean() for r in rounds)),
            **{f"p{q}": float(v) for q, v in zip((50, 99, 99.9, 100), best, strict=True)},
            "p100 of the median round": float(middle[3]),
            "slower than 300 us, per round": float(np.mean([(r > WORST_US).sum() for r in rounds])),
        }
        print(f"{name:8}", {k: round(v, 2) for k, v in out[name].items()}, flush=True)
    return out


def _gaps(seconds: float) -> np.ndarray:
    """Gaps between looks at the clock."""
    clock = time.perf_counter
    looks = np.zeros(int(seconds * 2e7))
    end = clock() + seconds
    count = 0
    while (now := clock()) < end:
        looks[count] = now
        count += 1
    return np.diff(looks[:count])


def judge_rows(results: dict) -> list[str]:
    """What of the floors is missed."""
    missed = []
    for name in ("packed", "blocks"):
        if results[name]["mean"] > PACKED_US:
            missed.append(f"{name}: {results[name]['mean']:.2f} us per row > {PACKED_US}")
    if results["tuples"]["p50"] > results["peer"]["p50"]:
        missed.append(f"tuples: p50 {results['tuples']['p50']:.2f} us > {results['peer']['p50']:.2f} of pybcsv")
    missed += [
        f"{name}: slowest row {results[name]['p100']:.0f} us > {WORST_US}"
        for name in ("tuples", "packed")
        if results[name]["p100"] > max(WORST_US, results["clock"]["p100"])
    ]
    return missed


# ---------------------------------------------------------------- random access


def access(args: argparse.Namespace) -> dict:
    """1,000 random rows of a file of a million, packets of 8 MiB; milliseconds."""
    table = generate("weather_timeseries", 1_000_000)
    out = {}
    for row_codec in ROW_CODECS:
        for file_codec, flags in {
            "packet": pybcsv.FileFlags.NONE,
            "packet-lz4": pybcsv.FileFlags.NONE,
            "packet-lz4-batch": pybcsv.FileFlags.BATCH_COMPRESS,
        }.items():
            path = args.dir / "access.bcsv"
            level = 0 if file_codec == "packet" else 1
            pybcsv.write_from_arrow(str(path), table, row_codec, level, flags)
            picks = np.random.default_rng(2).integers(0, table.num_rows, 1000).tolist()
            entry = {}
            start = time.perf_counter()
            reader = bcsv.Reader(path)
            opened = time.perf_counter() - start
            entry["ours"] = {"open": opened * 1e3, **_access(lambda k, r=reader: r[k], picks)}
            reader.close()
            peer = pybcsv.ReaderDirectAccess()
            start = time.perf_counter()
            peer.open(str(path))
            opened = time.perf_counter() - start
            entry["theirs"] = {"open": opened * 1e3, **_access(lambda k, r=peer: r.read(k), picks[:200])}
            peer.close()
            out[f"{row_codec}/{file_codec}"] = entry
            print(row_codec, file_codec, {who: {k: round(v, 3) for k, v in e.items()} for who, e in entry.items()})
    return out


def _access(read: callable, picks: list[int]) -> dict[str, float]:
    taken = []
    for pick in picks:
        start = time.perf_counter()
        read(pick)
        taken.append((time.perf_counter() - start) * 1e3)
    return {f"p{q}": float(np.percentile(taken, q)) for q in (50, 99, 100)}


# ---------------------------------------------------------------- results


def host() -> str:
    """A name for this kind of machine: processor and core count."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return "-".join(model.lower().replace("(r)", "").split()[:3]) + f"-{os.cpu_count()}cpu"


def facts() -> dict:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return {
        "host": host(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {"pybcsv": pybcsv.__version__, "pyarrow": pa.__version__},
    }


def store(suite: str, results: dict, args: argparse.Namespace) -> dict:
    """Merge into the suite's file; the whole content."""
    folder = args.results / host()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bcsv-{suite}-{args.size}-{args.threads}.json"
    old = json.loads(path.read_text())["results"] if path.exists() else {}
    merged = {**old, **results}
    path.write_text(
        json.dumps({**facts(), "size": args.size, "threads": args.threads, "results": merged}, indent=1) + "\n"
    )
    return merged


def report(args: argparse.Namespace) -> None:
    """Markdown tables from the stored results of this host."""
    for threads in (1, 2):
        path = args.results / host() / f"bcsv-pairs-{args.size}-{threads}.json"
        if not path.exists():
            continue
        stored = json.loads(path.read_text())
        print(f"### pybcsv {stored['versions']['pybcsv']}, {threads} thread(s), {stored['date']}, {stored['host']}\n")
        print("| profile | " + " | ".join(f"{c} read | {c} write | {c} size" for c in ROW_CODECS) + " |")
        print("|---|" + "---|" * 9)
        results = stored["results"]
        for profile in PROFILES:
            cells = []
            for codec in ROW_CODECS:
                e = results.get(f"{profile}/{codec}")
                if e is None:
                    cells += ["-"] * 3
                    continue
                cells += [f"{e[k]['theirs'] / e[k]['ours']:.2f}x" for k in ("read_s", "write_s")]
                cells.append(f"{e['bytes']['ours'] / e['bytes']['theirs']:.3f}")
            print(f"| {profile} | " + " | ".join(cells) + " |")
        for kind in ("read", "write"):
            mean = geometric([e[f"{kind}_s"]["theirs"] / e[f"{kind}_s"]["ours"] for e in results.values()])
            print(f"\nGeometric mean, {kind}: {mean:.2f}x")
        print()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=["pairs", "contenders", "rows", "access", "report"])
    parser.add_argument("--size", choices=SIZES, default="M")
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=list(PROFILES))
    parser.add_argument("--threads", type=int, choices=[1, 2], default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where files go; tmpfs for comparisons")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if args.suite == "report":
        report(args)
        return 0
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads :])
    pa.set_cpu_count(args.threads)
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="bench-bcsv-") as folder:
        args.dir = Path(folder)
        merged = store(args.suite, globals()[args.suite](args), args)
    judges = {"pairs": lambda: judge(merged, args.threads), "rows": lambda: judge_rows(merged)}
    missed = judges.get(args.suite, list)()
    for line in missed:
        print("MISSED", line)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
