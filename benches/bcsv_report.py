"""The page and plots of `bench_bcsv.py`, made from its stored results: `docs/reference/benchmarks-bcsv.md`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

Results = dict[str, Any]
ROW_CODECS = ("flat", "zoh", "delta")
FORMATS = (
    ("bcsv flat", "bcsv zoh", "bcsv delta"),
    ("parquet snappy", "parquet zstd", "polars snappy", "polars zstd", "feather", "csv"),
)

HEAD = """# Benchmarks of BCSV files

<!-- Written by `python benches/bench_bcsv.py report`; edit benches/bcsv_report.py. -->

Files on tmpfs, the best of several rounds, the contenders in turn within one run. Every file is read back and compared
with its table before anything is timed. The tables are made by `tapeline generate`; what is in them is in
[BCSV](bcsv.md). `python benches/bench_bcsv.py --help` tells how to measure on your machine.
"""


def geometric(values: Iterable[float]) -> float:
    """Geometric mean."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def ratio(entry: Results, kind: str) -> float:
    """How many times our seconds the other's are."""
    return entry[f"{kind}_s"]["theirs"] / entry[f"{kind}_s"]["ours"]


class Report:
    """Collects sections from the JSON files of one host."""

    def __init__(self, folder: Path, page: Path, profiles: Sequence[str]) -> None:
        """Results of `folder`, to be written to `page`; plots go beside it."""
        self.folder, self.page, self.profiles = folder, page, profiles
        self.lines: list[str] = []

    def stored(self, suite: str, size: str, threads: int) -> Results | None:
        """The content of a results file, if it is there."""
        path = self.folder / f"bcsv-{suite}-{size}-{threads}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def heading(self, title: str, of: Results) -> None:
        """A section, and what its figures were measured with."""
        versions = ", ".join(f"{name} {version}" for name, version in of["versions"].items())
        commits = ", ".join(sorted(set(of["commits"].values())))
        noun = "measured in parts, commits" if "," in commits else "commit"
        rounds = f"{of['repeat']} rounds"
        self.lines += [
            f"\n## {title}\n",
            f"{of['cpu']}, Linux {of['kernel']}, {versions}, {of['date']}, {noun} {commits}; best of {rounds}.\n",
        ]

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A Markdown table; all columns but the first to the right."""
        self.lines += ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]
        self.lines.append("")

    def pairs(self, size: str, threads: int) -> None:
        """Against pybcsv, as ratios."""
        stored = self.stored("pairs", size, threads)
        if stored is None:
            return
        results = stored["results"]
        noun = "one thread" if threads == 1 else f"{threads} threads"
        self.heading(f"Against pybcsv, {noun}, size {size}", stored)
        self.lines.append(
            "How many times faster than pybcsv, same table and options; size: our bytes through its, with the smaller"
            " packets that tables get. A commit with `+` had other changes in its tree.\n"
        )
        rows = []
        for profile in self.profiles:
            found = [results[name] for codec in ROW_CODECS if (name := f"{profile}/{codec}") in results]
            if not found:
                continue
            cells = [profile, f"{found[0]['rows']:,}"]
            for codec in ROW_CODECS:
                entry = results.get(f"{profile}/{codec}")
                if entry is None:
                    cells += ["-"] * 3
                    continue
                size_ratio = entry["bytes"]["ours"] / entry["bytes"]["theirs"]
                cells += [f"{ratio(entry, 'read'):.2f}", f"{ratio(entry, 'write'):.2f}", f"{size_ratio:.3f}"]
            rows.append(cells)
        head = ["profile", "rows", *(f"{codec} {what}" for codec in ROW_CODECS for what in ("read", "write", "size"))]
        self.table(head, rows)
        means = [f"{kind} {geometric(ratio(e, kind) for e in results.values()):.2f}x" for kind in ("read", "write")]
        self.lines.append(f"Geometric mean over {len(results)} pairs: {', '.join(means)}.\n")

    def contenders(self, size: str, threads: int) -> None:
        """Other formats: speeds, sizes, plots."""
        stored = self.stored("contenders", size, threads)
        if stored is None:
            return
        results = stored["results"]
        names = [name for group in FORMATS for name in group if all(name in e["write_s"] for e in results.values())]
        self.heading(f"Against other formats, size {size}, {threads} thread(s)", stored)
        for kind in ("write", "read"):
            self.lines.append(f"Megabytes of table {'written' if kind == 'write' else 'read'} per second:\n")

            def speed(e: Results, name: str, kind: str = kind) -> float:
                return e["table_bytes"] / e[f"{kind}_s"][name] / 1e6

            self.by_profile(results, names, lambda e, name, speed=speed: f"{speed(e, name):,.0f}")
            self.plot(f"bcsv-{kind}.svg", results, names, speed, f"{kind}: MB/s of table")
        self.lines.append("Bytes of the file for each byte of the table in memory:\n")
        self.by_profile(results, names, lambda e, name: f"{e['bytes'][name] / e['table_bytes']:.3f}")

    def by_profile(self, results: Results, names: Sequence[str], cell: Callable[[Results, str], str]) -> None:
        """A table with a row for each profile."""
        found = [profile for profile in self.profiles if profile in results]
        self.table(["profile", *names], [[p, *(cell(results[p], name) for name in names)] for p in found])

    def plot(
        self, file: str, results: Results, names: Sequence[str], value: Callable[[Results, str], float], title: str
    ) -> None:
        """Bars by profile, the same bytes whenever the results are the same."""
        import matplotlib as mpl

        mpl.use("svg")
        mpl.rcParams.update({"svg.hashsalt": "tapeline", "svg.fonttype": "none"})
        import matplotlib.pyplot as plt

        found = [profile for profile in self.profiles if profile in results]
        figure, axes = plt.subplots(figsize=(9, 0.62 * len(found) + 1.4))
        step = 0.8 / len(names)
        for k, name in enumerate(names):
            places = [place + k * step for place in range(len(found))]
            axes.barh(places, [value(results[p], name) for p in found], height=step, label=name)
        axes.set_yticks([place + 0.4 - step / 2 for place in range(len(found))], found)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel(title)
        axes.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.4, -0.1))
        figure.savefig(self.page.parent / file, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
        self.lines.append(f"![{title}]({file})\n")

    def rows(self) -> None:
        """Latency of single rows."""
        stored = self.stored("rows", "M", 2)
        if stored is None:
            return
        results = stored["results"]
        self.heading("Row by row", stored)
        self.lines.append(
            f"{results['channels']:,} float columns, `packet-lz4-batch`, delta, microseconds per row; best of"
            f" {results['rounds']} rounds of {results['rows']:,} rows. `clock` is a loop that only looks at the"
            " clock in the same rounds: its longest gap is what the machine takes from any program.\n"
        )
        names = {
            "tuples": "`Writer.write_row` of a tuple",
            "peer": "pybcsv, `write_row` of a list",
            "packed": "`Writer.write_packed`, one row a call",
            "clock": "clock",
        }
        columns = ("mean", "p50", "p99", "p99.9", "p100", "p100 of the median round")
        self.table(["", *columns], [[t, *(f"{results[n][c]:.1f}" for c in columns)] for n, t in names.items()])
        self.lines.append(f"`write_packed` of 100 rows a call: {results['blocks']['mean']:.2f} us per row.\n")

    def access(self) -> None:
        """Random access."""
        stored = self.stored("access", "M", 2)
        if stored is None:
            return
        self.heading("Random access", stored)
        self.lines.append(
            "1,000 random rows of a file of a million (weather), packets of 8 MiB, by a reader just opened;"
            " milliseconds. `cold`: the rows that were the first of their packet.\n"
        )
        rows = []
        for name, entry in stored["results"].items():
            ours, theirs = entry["ours"], entry["theirs"]
            cells = [ours["open"], ours["p50"], ours["p99"], ours["cold p50"], ours["cold max"]]
            cells += [theirs["open"], theirs["p50"], theirs["p99"]]
            rows.append([name, *(f"{cell:.2f}" for cell in cells)])
        head = ["codecs", "open", "p50", "p99", "cold p50", "cold max", "pybcsv open", "pybcsv p50", "pybcsv p99"]
        self.table(head, rows)

    def targets(self) -> None:
        """The absolute targets of the format's users."""
        stored = self.stored("targets", "M", 1)
        if stored is None:
            return
        self.heading("Absolute targets", stored)
        rows = [
            [
                name,
                f"{e['value']:,.3g} {e['unit']}",
                f"{e['sense']} {e['limit']:g}",
                ("kept" if e["kept"] else "**missed**") + (f"; {e['remark']}" if "remark" in e else ""),
            ]
            for name, e in stored["results"].items()
        ]
        self.table(["target", "measured", "limit", ""], rows)

    def write(self) -> None:
        """All sections to the page."""
        for size in ("M", "S", "L", "XL"):
            for threads in (2, 1):
                self.pairs(size, threads)
        for size in ("M", "S", "L", "XL"):
            self.contenders(size, 2)
        self.rows()
        self.access()
        self.targets()
        self.page.write_text(HEAD + "\n".join(self.lines).rstrip() + "\n")
