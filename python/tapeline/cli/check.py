"""`tapeline validate` and `compare`."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Literal

import click

from tapeline.cli._output import Outcome, emit, emit_json, escape, table
from tapeline.cli._paths import InPath

if TYPE_CHECKING:
    from tapeline.bcsv import Report
    from tapeline.tools.compare import Comparison

_FILE = InPath(folders=False)
_VALIDATE_EXAMPLES = """\b
Examples:
  tapeline validate run.bcsv
  tapeline validate run.bcsv --deep --json
  tapeline validate sensor.bcsv --profile sensor_noisy
"""
_COMPARE_EXAMPLES = """\b
Examples:
  tapeline compare a.bcsv b.bcsv
  tapeline compare a.bcsv b.csv --check names,values --tolerance 1e-6 --json
"""


@click.command(epilog=_VALIDATE_EXAMPLES)
@click.argument("path", type=_FILE, metavar="FILE")
@click.option("--quick", is_flag=True, help="Header, footer, index and packet headers only.")
@click.option("--deep", is_flag=True, help="Decode every row, too.")
@click.option("--profile", metavar="NAME", help="The file must hold what `generate` makes of this profile, too.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the profile.")
@click.option("--shuffled", is_flag=True, help="The profile was generated with --shuffled.")
@click.option("-n", "--rows", type=click.IntRange(min=0), help="The file must have so many rows.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")
def validate(path: str, *, quick: bool, deep: bool, profile: str | None, as_json: bool, **words: Any) -> Outcome:
    """Check a BCSV file: every checksum, the index and all lengths.

    Exit code 1 when anything is wrong: damage, a missing footer, an unfinished end.
    """
    from tapeline import bcsv

    if quick and deep:
        raise click.UsageError("--quick and --deep exclude each other")
    depth: Literal["headers", "checksums", "rows"] = "headers" if quick else "rows" if deep else "checksums"
    report = bcsv.validate(path, depth=depth)
    facts = {**report_facts(report), "depth": depth}
    ok = report.ok
    wanted = words["rows"]
    wrong = wanted is not None and report.rows_readable != wanted
    if wrong:
        ok = facts["ok"] = False
    if ok and profile is not None:
        found = _against_profile(path, profile, words["seed"], shuffled=words["shuffled"])
        ok = facts["ok"] = found.equal
        facts["profile"] = {"name": profile, **comparison_facts(found)}
    if as_json:
        emit_json(facts)
    else:
        emit("\n".join(escape(line) for line in str(report).splitlines()))
        if wrong:
            emit(f"{wanted:,} rows were expected, {report.rows_readable:,} can be read")
        if "profile" in facts:
            emit(_comparison_text(found, path, f"profile {profile}"))
    return Outcome.DONE if ok else Outcome.FAILED


def _against_profile(path: str, profile: str, seed: int, *, shuffled: bool) -> Comparison:
    from tapeline.cli.shape import profile_table
    from tapeline.tools.compare import compare
    from tapeline.tools.tables import Source, TableSource

    source = Source(path)
    made = TableSource(profile_table(profile, source.num_rows or 0, seed, shuffled=shuffled))
    return compare(source, made)


@click.command(epilog=_COMPARE_EXAMPLES)
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@click.option(
    "--check", default="names,types,values", show_default=True, metavar="LIST", help="What has to be the same."
)
@click.option("--tolerance", type=click.FloatRange(min=0), default=0.0, help="Largest difference allowed of floats.")
@click.option("--columns", metavar="NAMES", help="Only these: a,b,c; a number or range 2:5 is a position.")
@click.option("--rows", metavar="START:STOP", default=":", help="Only these rows; -100: are the last.")
@click.option("--limit", type=click.IntRange(min=0), default=10, show_default=True, help="Differences to list.")
@click.option("--parse-strings", is_flag=True, help="A string with a number in it equals that number.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
def compare(a: str, b: str, *, check: str, columns: str | None, rows: str, as_json: bool, **words: Any) -> Outcome:
    """Compare two tables: BCSV, CSV, Parquet or Arrow files.

    Values are compared exactly, whatever their types: an integer equals a float that is the same number. NaN equals
    NaN. Exit code 1 when anything differs; the first differences are listed with row and column.
    """
    from tapeline.tools import cast
    from tapeline.tools import compare as tool
    from tapeline.tools.tables import Source

    checks = [one.strip() for one in check.split(",") if one.strip()]
    if "all" in checks:
        checks = list(tool.CHECKS)
    for one in checks:
        if one not in tool.CHECKS:
            raise click.UsageError(f"--check {one}: any of {', '.join(tool.CHECKS)}, all")
    first, second = Source(a), Source(b)
    chosen = None
    if columns is not None:
        names = first.schema.names
        chosen = [name for entry in next(csv.reader([columns]), []) for name in cast.pick(entry, names)]
    start, stop = row_range(rows)
    found = tool.compare(
        first,
        second,
        checks=checks,
        columns=chosen,
        start=start,
        stop=stop,
        tolerance=words["tolerance"],
        limit=words["limit"],
        parse_strings=words["parse_strings"],
    )
    if as_json:
        emit_json(comparison_facts(found))
    else:
        emit(_comparison_text(found, a, b))
    return Outcome.DONE if found.equal else Outcome.FAILED


def row_range(text: str) -> tuple[int, int | None]:
    """`START:STOP` as two numbers.

    Raises:
        click.UsageError: It is something else.
    """
    first, colon, last = text.partition(":")
    try:
        if colon:
            return int(first or 0), int(last) if last.strip() else None
    except ValueError:
        pass
    raise click.UsageError(f"--rows {text}: expected START:STOP, such as 0:1000 or -100:")


def report_facts(report: Report) -> dict[str, Any]:
    """A report of `bcsv.validate` or `bcsv.repair` for JSON."""
    return {
        "path": report.path,
        "ok": report.ok,
        "complete": report.complete,
        "rows_readable": report.rows_readable,
        "rows_expected": report.rows_expected,
        "rows_unverified": report.rows_unverified,
        "problems": [
            {"text": p.text, "offset": p.offset, "rows": None if p.rows is None else list(p.rows)}
            for p in report.problems
        ],
    }


def comparison_facts(found: Comparison) -> dict[str, Any]:
    """A comparison for JSON."""
    return {
        "equal": found.equal,
        "rows": found.rows,
        "rows_compared": found.rows_compared,
        "schema": found.schema,
        "differences": found.differences,
        "columns": found.columns,
        "first": [{"row": d.row, "column": d.column, "a": _word(d.a), "b": _word(d.b)} for d in found.first],
    }


def _word(value: object) -> object:
    # JSON has no NaN and no infinities
    return str(value) if isinstance(value, float) and not (-1.8e308 < value < 1.8e308) else value


def _comparison_text(found: Comparison, a: str, b: str) -> str:
    if found.equal:
        return f"the same: {found.rows_compared:,} rows compared"
    lines = [escape(line) for line in found.schema]
    if found.rows[0] != found.rows[1]:
        lines.append(f"{escape(a)} has {found.rows[0]:,} rows, {escape(b)} has {found.rows[1]:,}")
    if found.differences:
        where = ", ".join(f"{name} ({count:,})" for name, count in found.columns.items())
        lines.append(f"{found.differences:,} cells of {found.rows_compared:,} rows differ: {escape(where)}")
        rows = [[f"{d.row}", d.column, repr(d.a), repr(d.b)] for d in found.first]
        if rows:
            lines.append(table(["row", "column", "first", "second"], rows, left=2))
    return "\n".join(lines)
