"""Results as a file per host and day, and as the table of `docs/reference/benchmarks.md`."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .receivers import BENCHES

if TYPE_CHECKING:
    from .cases import Figure

_RESULTS = BENCHES / "results"
_PAGE = BENCHES.parent / "docs" / "reference" / "benchmarks.md"

# Not the results, nor the page made of them.
_MEASURED = [":(top)", ":(top,exclude)benches/results", ":(top,exclude)docs"]

_HEAD = """# Benchmarks

<!-- Written by benches/harness/report.py; edit that. -->

Every figure is a ratio measured in one run, ours and the rival in turn, best of several rounds (medians are in the
results file). Rounds that others on the machine disturbed are made again, both sides of them. The rivals are in
`benches/rivals`: they do the least that the task allows and know nothing of tapeline.
Before a figure counts, the ledger must say that every frame or packet sent was recorded. Where the rival
is a `goal`, the figure is compared with a number.

`make bench` repeats all of it on your machine.
"""


def machine() -> dict[str, Any]:
    """What the figures depend on, without a machine's name."""
    cpu = "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"^model name\s*:\s*(.*)$", info.read_text(), re.MULTILINE)):
        cpu = found[1]
    words = re.findall(r"[a-z][a-z0-9]*", cpu.lower())
    words = [word for word in words if word not in {"amd", "intel", "r", "tm", "cpu", "processor", "core", "with"}]
    cores = len(os.sched_getaffinity(0))
    return {
        "host": f"{words[0] if words else platform.machine()}-{cores}core",
        "cpu": cpu,
        "cores": cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": re.match(r"[0-9.]+", platform.release())[0],  # type: ignore[index]
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit that was measured; `+` where files differ from it, other than what a measurement writes."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", BENCHES, *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + (
        "+" if git("status", "--porcelain", "--untracked-files=no", "--", *_MEASURED) else ""
    )


def save(figures: list[Figure], output_kind: str) -> Path:
    """Add figures to the file of this host and day: a case measured again replaces what it was."""
    about = machine()
    path = _RESULTS / about["host"] / f"{dt.datetime.now(dt.UTC):%Y-%m-%d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {"figures": {}}
    results["machine"] = about
    for figure in figures:
        results["figures"][figure.case] = {**figure.as_dict(), "commit": commit(), "output": output_kind}
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    return path


def write_page() -> Path:
    """Make the page of the newest results of every host."""
    parts = [
        _HEAD,
    ]
    for host in sorted(path for path in _RESULTS.iterdir() if path.is_dir() and path.name != "local"):
        # Other benchmarks keep their results here too, under names of their own.
        newest = max(host.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].json"), default=None)
        if newest is None:
            continue
        results = json.loads(newest.read_text())
        about = results["machine"]
        parts.append(
            f"## {about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']}\n\n"
            f"Measured {newest.stem}.\n"
        )
        parts.append(
            "| case | tapeline | rival | ratio | limit | | commit |\n| --- | ---: | ---: | ---: | ---: | --- | --- |"
        )
        parts[-1] += "".join("\n" + _row(figure) for figure in _in_order(results["figures"])) + "\n"
        outputs = ", ".join(sorted({figure["output"] for figure in results["figures"].values()}))
        parts.append(f"Command: `make bench`; output on {outputs}. A commit with `+` had other changes in its tree.\n")
    _PAGE.parent.mkdir(parents=True, exist_ok=True)
    _PAGE.write_text("\n".join(parts))
    return _PAGE


def row_text(figure: Figure) -> str:
    """One figure as a line for the terminal."""
    limit = "" if figure.limit is None else f"{'<=' if figure.at_most else '>='} {figure.limit:.2f}"
    verdict = "" if figure.limit is None else ("ok" if figure.passed else "FAILED")
    ours, rival = _amount(figure.ours, figure.unit), _amount(figure.rival, figure.unit)
    return f"{figure.case:18} {ours:>16} {rival:>16}  {figure.ratio:6.2f} {limit:8} {verdict:7} {figure.what}"


def _in_order(figures: dict[str, Any]) -> list[dict[str, Any]]:
    from .cases import CASES
    from .register_cases import CASES as REGISTER_CASES

    order = [*CASES, *REGISTER_CASES]

    def place(name: str) -> tuple[int, str]:
        return next(
            (at for at, case in enumerate(order) if name == case or name.startswith(f"{case}_")), len(order)
        ), name

    return [figures[name] for name in sorted(figures, key=place)]


def _row(figure: dict[str, Any]) -> str:
    unit = figure["unit"]
    limit = "" if figure["limit"] is None else f"{'≤' if figure['at_most'] else '≥'} {figure['limit']:.2f}"
    verdict = "" if figure["limit"] is None else ("kept" if figure["passed"] else "**missed**")
    ours, rival = _amount(figure["ours"], unit), _amount(figure["rival"], unit)
    rival += f" ({figure['rival_name']})"
    return f"| {figure['what']} | {ours} | {rival} | {figure['ratio']:.2f} | {limit} | {verdict} | {figure['commit']} |"


def _amount(value: float, unit: str) -> str:
    if unit == "bytes/s":
        return f"{value / 1e9:.2f} GB/s"
    if unit in {"packets/s", "rows/s"}:
        return f"{value / 1e6:.2f} M {unit}"
    if unit == "ms":
        return f"{value:.2f} ms"
    if unit == "items/s":
        return f"{value / 1e6:.1f} M items/s"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if unit == "CPU s/GB":
        return f"{value:.3f} {unit}"
    return f"{value:,.0f} {unit}"
