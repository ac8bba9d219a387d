"""Measure the register server against rivals and against what issue 4 asks, and fail below a floor.

    python benches/bench_registers.py                       all cases (about ten minutes on an idle machine)
    python benches/bench_registers.py registers_4           some cases
    python benches/bench_registers.py --smoke               every case, small, floors at a tenth of the real ones
    python benches/bench_registers.py --list

Exit status and results as of `bench_record.py`. The rivals: `register-threads` (a thread per client, two receives per
packet, a mutex for the file and one for the image) and `register-bytes` (receives and writes, looks at nothing).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

from harness import report
from harness.cases import SMOKE, Bench, Figure, Size
from harness.output import Output
from harness.processes import BenchError
from harness.receivers import build_rivals
from harness.register_cases import CASES, RegisterSize
from harness.register_cases import SMOKE as REGISTER_SMOKE

_ROUNDS = 5


def main() -> int:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(description="Measure the register server.")
    parser.add_argument("cases", nargs="*", help="cases to run (see --list); all if none is named")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--smoke", action="store_true", help="small and lax: does it work at all")
    parser.add_argument("--rounds", type=int, help=f"rounds of each case, default {_ROUNDS}")
    parser.add_argument("--out", type=Path, help="directory for the recordings; default: memory")
    parser.add_argument("--no-save", action="store_true", help="write neither results nor the table")
    options = parser.parse_args()
    if options.list:
        print("\n".join(CASES))
        return 0
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"unknown case {unknown[0]}; cases: {' '.join(CASES)}")
    size = SMOKE if options.smoke else Size(rounds=_ROUNDS)
    if options.rounds:
        size = dataclasses.replace(size, rounds=options.rounds)
    build_rivals()
    figures: list[Figure] = []
    failures = []
    with Output(options.out, settle=size.settle) as output:
        bench = Bench(output, size, lambda line: print(line, flush=True), {"tapeline"})
        print(f"output: {output.kind}")
        for name in options.cases or CASES:
            print(name, flush=True)
            started = time.monotonic()
            try:
                figures += CASES[name](bench, name, REGISTER_SMOKE if options.smoke else RegisterSize())
            except BenchError as error:
                failures.append(f"{name}: {error}")
                print(f"    {error}", flush=True)
            print(f"    ({time.monotonic() - started:.0f} s)", flush=True)
    print()
    for figure in figures:
        print(report.row_text(figure))
    for failure in failures:
        print(failure)
    if not options.smoke and not options.no_save and figures:
        print(f"\n{report.save(figures, output.kind)}\n{report.write_page()}")
    return 1 if failures or not all(figure.passed for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
