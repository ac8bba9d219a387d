"""Speed and memory of the file tools beside those that PyPI's `pybcsv` installs, as processes on the same file.

    python benches/bench_tools.py                    # 1 GB of CSV per table; floors that fail
    python benches/bench_tools.py --tables mixed --look-gigabytes 0    # a part; what is stored of the others stays
    python benches/bench_tools.py --tables --look-gigabytes 10         # another one
    python benches/bench_tools.py --smoke            # small: do inputs, outputs and ratios work

Files lie on tmpfs (`--dir`), which takes about four times `--megabytes`. The two sides take turns and the best of
`--repeat` counts; what was written before is deleted between the turns, since freeing a gigabyte takes its time, too.
Both get the same options: row codec delta, file codec packet-lz4-batch, the same level. Before
anything is timed, CSV to BCSV to CSV must give back the CSV byte by byte, and the rival's file must hold the same rows.

`validate --deep` of both reads what ours wrote. `head`, `tail` and `info` are whole processes on a file of
`--look-gigabytes`, which `--dir` must have room for. Results go to `results/HOST/tools.json`, and the page
`docs/reference/benchmarks-tools.md` is made of them.

Tables: `mixed` is the profile mixed_generic (72 columns of every type, random), `telemetry` what loggers write (time in
ns, a counter, states, floats of six digits and doubles of all digits, words, a quoted note).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

import tapeline
from bench_bcsv import facts, host
from tapeline import bcsv
from tapeline.bcsv._profiles import generate

if TYPE_CHECKING:
    from collections.abc import Sequence

# Issue 5: at 1 GB of mixed CSV, both directions. Small files measure the start of the interpreter.
FLOOR = 4.0
# Of 5 MB; starting the interpreter is most of what ours takes.
SMOKE_FLOOR = 0.03
# validate --deep, which decodes every row on both sides.
VALIDATE_FLOOR = 2.0
# One whole process of head, tail or info, whatever the size of the file.
LOOK_SECONDS = 0.1
# Resident memory of one process; the interpreter with its libraries takes 50 MB of it.
MEMORY_MB = 256
BLOCK_ROWS = 20_000
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "benchmarks-tools.md"
TOOLS = {"csv2bcsv": "CSV to BCSV", "bcsv2csv": "BCSV to CSV", "validate": "`validate --deep`"}


def telemetry(rows: int, first: int) -> pa.Table:
    rng = np.random.default_rng([7, first])
    words = pa.array(["idle", "ramp", "hold", "fault", "service"])
    notes = pa.array(["", "ok", 'limit "high", see log', "checked", "motor 2, slow"])
    step = np.arange(first, first + rows)
    columns = {
        "time_ns": 1_750_000_000_000_000_000 + step * 1_000_000 + rng.integers(0, 1000, rows),
        "counter": step,
        "mode": words.take(pa.array(rng.integers(0, 5, rows))),
        "armed": rng.random(rows) < 0.9,
        "rpm": (3000 + 200 * np.sin(step / 500) + rng.normal(0, 2, rows)).astype(np.int32),
        "fault_code": rng.integers(0, 40, rows).astype(np.int16),
        **{f"temp_{k}": np.round(20 + k + rng.normal(0, 1, rows), 4 - k % 3).astype(np.float32) for k in range(5)},
        **{f"pos_{k}": rng.normal(0, 10, rows) for k in range(3)},
        "note": notes.take(pa.array(rng.choice(5, rows, p=[0.8, 0.1, 0.02, 0.05, 0.03]))),
    }
    return pa.table(columns)


def mixed(rows: int, first: int) -> pa.Table:
    return generate("mixed_generic", rows, seed=1 + first)


TABLES = {"mixed": mixed, "telemetry": telemetry}


def make_csv(table: str, megabytes: int, path: Path) -> None:
    """Write the table as CSV: whole blocks, each made anew, until there is enough."""
    make = TABLES[table]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        block, text = Path(folder) / "block.bcsv", Path(folder) / "block.csv"
        with path.open("wb") as out:
            first = 0
            while first == 0 or out.tell() < megabytes * 1_000_000:
                bcsv.write_table(make(BLOCK_ROWS, first), block, overwrite=True)
                tapeline.convert(block, text, header=first == 0, overwrite=True)
                out.write(text.read_bytes())
                first += BLOCK_ROWS


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and megabytes of resident memory of a process that must succeed."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as text:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=text)
        # The peak as the kernel has it for this program alone; `ru_maxrss` would count what it was forked from.
        memory = 0
        while process.poll() is None:
            memory = max(memory, peak_kb(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        seconds = time.perf_counter() - start
        text.seek(0)
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}: {text.read()}")
    return seconds, memory / 1000


def peak_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def best(turns: dict[str, list[str]], repeat: int, outputs: Sequence[Path] = ()) -> dict[str, dict[str, float]]:
    """The best time and the largest memory of each side, taking turns that begin without `outputs`."""
    found = {name: {"seconds": math.inf, "memory_mb": 0.0} for name in turns}
    for _ in range(repeat):
        for name, command in turns.items():
            for path in outputs:
                path.unlink(missing_ok=True)
            seconds, memory = run(command)
            found[name]["seconds"] = min(found[name]["seconds"], seconds)
            found[name]["memory_mb"] = max(found[name]["memory_mb"], memory)
    return found


def equal_files(a: Path, b: Path) -> bool:
    if a.stat().st_size != b.stat().st_size:
        return False
    with a.open("rb") as left, b.open("rb") as right:
        while block := left.read(1 << 20):
            if block != right.read(1 << 20):
                return False
    return True


def measure(table: str, args: argparse.Namespace) -> dict:
    source, ours, theirs = (args.dir / name for name in ("in.csv", "ours.bcsv", "theirs.bcsv"))
    back, other = args.dir / "back.csv", args.dir / "other.csv"
    make_csv(table, args.megabytes, source)
    cli = [sys.executable, "-m", "tapeline", "convert", "-f"]
    level = str(args.level)
    codecs = ["--row-codec", "delta", "--compression-level", level]
    peer = Path(sysconfig.get_path("scripts")) / "csv2bcsv"
    if not peer.exists():  # a virtual environment over another one
        import pybcsv

        peer = Path(pybcsv.__file__).parents[4] / "bin" / "csv2bcsv"
    to_bcsv = {
        "ours": [*cli, *codecs, str(source), str(ours)],
        "theirs": [str(peer), "-f", *codecs, "--file-codec", "packet_lz4_batch", str(source), str(theirs)],
    }
    to_csv = {
        "ours": [*cli, str(ours), str(back)],
        "theirs": [str(peer.with_name("bcsv2csv")), str(ours), str(other)],
    }
    for command in (*to_bcsv.values(), to_csv["ours"]):
        run(command)
    assert equal_files(source, back), "CSV to BCSV to CSV is not byte-equal"
    with bcsv.Reader(ours) as a, bcsv.Reader(theirs) as b:
        assert a.num_rows == b.num_rows
        rows = a.num_rows
        wider = sum(x != y for x, y in zip(a.columns, b.columns, strict=True))
    sizes = {"csv": source.stat().st_size, "ours": ours.stat().st_size, "theirs": theirs.stat().st_size}
    back.unlink()
    forth = best(to_bcsv, args.repeat, (ours, theirs))
    theirs.unlink()
    run(to_bcsv["ours"])
    deep = {
        "ours": [sys.executable, "-m", "tapeline", "validate", "--deep", str(ours)],
        "theirs": [str(peer.with_name("bcsvValidate")), "--deep", "-i", str(ours)],
    }
    result = {"rows": rows, "bytes": sizes, "columns_typed_otherwise": wider, "csv2bcsv": forth}
    result["bcsv2csv"] = best(to_csv, args.repeat, (back, other))
    result["validate"] = best(deep, args.repeat)
    for path in (source, ours, back, other):
        path.unlink(missing_ok=True)
    return result


def look(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The best of twenty processes of each command that looks at a large file, which is made and deleted again."""
    path = args.dir / "large.bcsv"
    block = mixed(10 * BLOCK_ROWS, 0)
    with bcsv.Writer(path, block.schema) as writer:
        while writer.rows_written == 0 or path.stat().st_size < args.look_gigabytes * 1e9:
            writer.write_table(block)
    commands = {name: [sys.executable, "-m", "tapeline", name, str(path)] for name in ("info", "head", "tail")}
    found = {name: {"seconds": math.inf} for name in commands}
    for _ in range(20):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found[name]["seconds"] = min(found[name]["seconds"], time.perf_counter() - start)
    size = path.stat().st_size
    path.unlink()
    for name, entry in found.items():
        print(f"{name} of {size / 1e9:.2f} GB: {entry['seconds'] * 1e3:.0f} ms")
    return found


def judge(results: dict, floors: dict[str, float]) -> list[str]:
    missed = []
    for table, entry in results.items():
        for tool, floor in floors.items():
            ours, theirs = entry[tool]["ours"], entry[tool]["theirs"]
            ratio = theirs["seconds"] / ours["seconds"]
            rate = entry["bytes"]["csv"] / ours["seconds"] / 1e6
            print(
                f"{table:10} {tool}: {ratio:5.2f}x  ours {ours['seconds']:.2f} s ({rate:.0f} MB/s of CSV)"
                f" {ours['memory_mb']:.0f} MB, theirs {theirs['seconds']:.2f} s {theirs['memory_mb']:.0f} MB"
            )
            if ratio < floor:
                missed.append(f"{table} {tool}: {ratio:.2f}x < {floor}x")
            if ours["memory_mb"] > MEMORY_MB:
                missed.append(f"{table} {tool}: {ours['memory_mb']:.0f} MB > {MEMORY_MB} MB")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--level", type=int, default=1, help="LZ4 level of both sides")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--look-gigabytes", type=float, default=10, help="size of the file for head, tail and info")
    parser.add_argument("--smoke", action="store_true", help="5 MB, once, with a floor that only a wreck misses")
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where files go; tmpfs for comparisons")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if args.smoke:
        args.megabytes, args.repeat, args.no_save, args.look_gigabytes = 5, 1, True, 0.01
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="bench-tools-") as folder:
        args.dir = Path(folder)
        results = {table: measure(table, args) for table in args.tables}
        looks = look(args) if args.look_gigabytes else {}
    floors = {"csv2bcsv": FLOOR, "bcsv2csv": FLOOR, "validate": VALIDATE_FLOOR}
    missed = judge(results, dict.fromkeys(floors, SMOKE_FLOOR) if args.smoke else floors)
    limit = 1.0 if args.smoke else LOOK_SECONDS
    missed += [f"{name}: {one['seconds']:.3f} s > {limit} s" for name, one in looks.items() if one["seconds"] > limit]
    if not args.no_save:
        store(results, looks, args)
    for line in missed:
        print("MISSED", line)
    return 1 if missed else 0


def store(results: dict, looks: dict, args: argparse.Namespace) -> None:
    """Put what was measured in place of what is stored of it, and write the page."""
    path = args.results / host() / "tools.json"
    stored = json.loads(path.read_text()) if path.exists() else {"tables": {}, "look": {}}
    here = {**facts(), "megabytes": args.megabytes, "level": args.level, "repeat": args.repeat}
    for table, entry in results.items():
        stored["tables"][table] = {**here, **entry}
    if looks:
        stored["look"] = {**facts(), "gigabytes": args.look_gigabytes, "commands": looks}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored, indent=1) + "\n")
    PAGE.write_text(page(stored))


HEAD = f"""# Benchmarks of the file tools

<!-- Written by `python benches/bench_tools.py`; edit it there. -->

Whole processes beside the tools that `pybcsv` installs: the same file on tmpfs, the same options (delta,
packet-lz4-batch), in turn, the best of several rounds. CSV to BCSV to CSV gives back the same bytes, which is checked
before anything is timed. `mixed` has 72 columns of random values of every type, `telemetry` what loggers write.
Floors: conversions {FLOOR:g}x, `validate --deep` {VALIDATE_FLOOR:g}x, {MEMORY_MB} MB of memory; a look at a file of
10 GB {LOOK_SECONDS * 1e3:g} ms. A line below its floor says so.

"""


def page(stored: dict) -> str:
    lines = []
    for table, entry in stored["tables"].items():
        lines += [
            f"## {table}, {entry['megabytes']} MB of CSV\n",
            (
                f"{entry['host']}, kernel {entry['kernel']}, pybcsv {entry['versions']['pybcsv']}, {entry['date']},"
                f" {entry['commit']}; {entry['rows']:,} rows, {entry['bytes']['ours'] / 1e6:.0f} MB of BCSV (theirs:"
                f" {entry['bytes']['theirs'] / 1e6:.0f} MB).\n"
            ),
            "| tool | ours | theirs | times faster | our memory | their memory | |",
            "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for tool, name in TOOLS.items():
            ours, theirs = entry[tool]["ours"], entry[tool]["theirs"]
            ratio = theirs["seconds"] / ours["seconds"]
            floor = VALIDATE_FLOOR if tool == "validate" else FLOOR
            lines.append(
                f"| {name} | {ours['seconds']:.2f} s | {theirs['seconds']:.2f} s | {ratio:.2f} |"
                f" {ours['memory_mb']:.0f} MB | {theirs['memory_mb']:.0f} MB |"
                f" {f'below its floor of {floor:g}' if ratio < floor else ''} |"
            )
        lines.append("")
    if stored["look"]:
        found = stored["look"]
        lines += [
            f"## A look at {found['gigabytes']:g} GB\n",
            f"{found['host']}, kernel {found['kernel']}, {found['date']}, {found['commit']}; the best of 20 runs.\n",
            "| command | time |",
            "| --- | ---: |",
            *(f"| `tapeline {name}` | {one['seconds'] * 1e3:.0f} ms |" for name, one in found["commands"].items()),
        ]
    return HEAD + "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
