"""Measure recording against rivals that do the least the task allows, and fail below a floor.

    python benches/bench_record.py                    all cases (about ten minutes on an idle machine)
    python benches/bench_record.py tcp_64k udp_gro    some cases
    python benches/bench_record.py --smoke            small, with floors at a tenth of the real ones: does it work
    python benches/bench_record.py --list

Exit status: 0 all floors kept; 1 a floor missed or a run that does not count; 2 usage. Results go to
`benches/results/HOST/DATE.json`, the table to `docs/reference/benchmarks.md` (not with `--smoke` or `--no-save`).
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
from pathlib import Path

from harness import report
from harness.cases import CASES, NEEDS_TAPELINE, SMOKE, Bench, Figure, Size
from harness.output import Output
from harness.processes import BenchError
from harness.receivers import TAPELINE, build_rivals


def main() -> int:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(description="Measure recording against minimal rivals.")
    parser.add_argument("cases", nargs="*", help="cases to run (see --list); all if none is named")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--smoke", action="store_true", help="small and lax: does it work at all")
    parser.add_argument("--rounds", type=int, help="rounds of each case, default 5")
    parser.add_argument("--gigabytes", type=float, help="bytes of each TCP run, default 8")
    parser.add_argument("--out", type=Path, help="directory for the recordings; default: memory")
    parser.add_argument("--no-save", action="store_true", help="write neither results nor the table")
    options = parser.parse_args()
    if options.list:
        print("\n".join(CASES))
        return 0
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"unknown case {unknown[0]}; cases: {' '.join(CASES)}")
    size = SMOKE if options.smoke else Size()
    if options.rounds:
        size = dataclasses.replace(size, rounds=options.rounds)
    if options.gigabytes:
        size = dataclasses.replace(size, total_bytes=int(options.gigabytes * 1e9))
    build_rivals()
    receivers = {"tapeline"} if _records() else set()
    if not receivers:
        print("tapeline record is not there: the rival stands in for it", file=sys.stderr)
    figures, failures = _run(options.cases or list(CASES), size, receivers, options.out)
    kind, figures_only = figures
    print()
    for figure in figures_only:
        print(report.row_text(figure))
    for failure in failures:
        print(failure)
    if receivers and not options.smoke and not options.no_save and figures_only:
        print(f"\n{report.save(figures_only, kind)}\n{report.write_page()}")
    return 1 if failures or not all(figure.passed for figure in figures_only) else 0


def _run(
    names: list[str], size: Size, receivers: set[str], out: Path | None
) -> tuple[tuple[str, list[Figure]], list[str]]:
    figures: list[Figure] = []
    failures = []
    with Output(out, settle=size.settle) as output:
        bench = Bench(output, size, lambda line: print(line, flush=True), receivers)
        print(f"output: {output.kind}")
        for name in names:
            if name in NEEDS_TAPELINE and not receivers:
                continue
            print(f"{name}", flush=True)
            started = time.monotonic()
            try:
                figures += CASES[name](bench, name)
            except BenchError as error:
                failures.append(f"{name}: {error}")
                print(f"    {error}", flush=True)
            print(f"    ({time.monotonic() - started:.0f} s)", flush=True)
        return (output.kind, figures), failures


def _records() -> bool:
    return (
        TAPELINE.exists()
        and subprocess.run([TAPELINE, "record", "--help"], capture_output=True, check=False).returncode == 0
    )


if __name__ == "__main__":
    sys.exit(main())
