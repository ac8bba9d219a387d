"""`tapeline sample`, `cast`, `generate` and `sql`: make tables of tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, escape, note, table
from tapeline.cli._paths import InPath
from tapeline.cli._tables import codec_options, codecs, column_list, show, text_options, warn_unfinished

if TYPE_CHECKING:
    import pyarrow as pa

_FILE = InPath(folders=False)
_SAMPLE_EXAMPLES = """\b
Examples:
  tapeline sample run.bcsv hot.bcsv --where 'temp > 40 and temp[-1] <= 40'
  tapeline sample run.bcsv power.csv --select 'time, p = u * i, calm = mean(p_raw[-4:0])'
  tapeline sample run.bcsv - --where 'state != "off"' --json | head
"""
_CAST_EXAMPLES = """\b
Examples:
  tapeline cast run.bcsv --scan
  tapeline cast run.bcsv small.bcsv --optimize
  tapeline cast run.bcsv out.bcsv --types 'time=uint64,temp=float' --tolerance 1e-3
"""
_GENERATE_EXAMPLES = """\b
Examples:
  tapeline generate sensor.bcsv --profile sensor_noisy --rows 1000000
  tapeline generate --list
"""
_SQL_EXAMPLES = """\b
Examples:
  tapeline sql "select max(temp) from 'run.bcsv' where time > 5"
  tapeline sql "select * from 'a.bcsv' join 'b.parquet' using (time)" --json
"""


@click.command(epilog=_SAMPLE_EXAMPLES)
@click.argument("source", type=_FILE, metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("--where", metavar="EXPR", help="Which rows to keep; all if not given.")
@click.option("--select", metavar="LIST", help="Which columns to make: a, b = EXPR; all if not given.")
@click.option(
    "--edges",
    type=click.Choice(["drop", "repeat"]),
    default="drop",
    show_default=True,
    help="Rows without all their neighbours: left out, or the first and last row stand for what lies beyond.",
)
@codec_options
@text_options
def sample(
    source: str, destination: str, *, where: str | None, select: str | None, edges: Any, **words: Any
) -> Outcome:
    """Filter and project a table with expressions over the current and neighbouring rows.

    SRC is a BCSV, CSV, Parquet or Arrow file. DST is a file, its format by its extension, or `-`: rows to stdout.
    With a file, --json prints the counts. The language: docs/reference/expressions.md.
    """
    from tapeline.errors import ConfigError
    from tapeline.tools.sample import Sampler
    from tapeline.tools.tables import Source, plain, stream_of, write

    table_in = Source(source)
    try:
        sampler = Sampler(table_in.schema, where, select, edges=edges)
    except ValueError as error:
        return _told(error)
    stream = stream_of(sampler.schema, sampler.run(table_in.scan(sampler.columns)))
    if destination == "-":
        show(stream, words)
        warn_unfinished(source)
        return Outcome.DONE
    if Path(destination).exists() and Path(destination).samefile(source):
        raise ConfigError(f"{destination}: source and output are the same file")
    write(plain(stream), destination, **codecs(words))
    counts = {"rows_read": sampler.rows_read, "rows_kept": sampler.rows_kept, "unfinished": warn_unfinished(source)}
    if words["as_json"]:
        emit_json({"path": destination, **counts})
    else:
        emit(f"{escape(destination)}: {sampler.rows_kept:,} of {sampler.rows_read:,} rows")
    return Outcome.DONE


def _told(error: ValueError) -> Outcome:
    """Show where an expression goes wrong, with the caret under its column; other errors go on."""
    from tapeline.tools._syntax import ExpressionError

    if not isinstance(error, ExpressionError):
        raise error
    lines = str(error).splitlines()
    note(f"tapeline: error: {lines[0]}")
    for line in lines[1:]:
        note(line)
    return Outcome.USAGE


@click.command(epilog=_CAST_EXAMPLES)
@click.argument("source", type=_FILE, metavar="SRC")
@click.argument("destination", metavar="[DST]", required=False)
@click.option("--scan", "scan_only", is_flag=True, help="Only say which types would be the smallest without loss.")
@click.option("--optimize", is_flag=True, help="Apply these types; the default with DST and without --types.")
@click.option("--types", "spec", metavar="TYPES", help="a=int32,b=double; 2:5=float for positions; or all: int32,auto.")
@click.option("--skip-lossy", is_flag=True, help="Leave a column as it is when its type in --types would lose.")
@click.option("--columns", metavar="NAMES", help="Only these, for --scan and --optimize; 2:5 are positions.")
@click.option("--tolerance", type=click.FloatRange(min=0), default=0.0, help="Difference of floats that is no loss.")
@click.option("--parse-strings", is_flag=True, help="Strings that hold only numbers may become numbers.")
@click.option("--in-place", is_flag=True, help="Replace SRC.")
@codec_options
@click.option("--json", "as_json", is_flag=True, help="Print plan and result as one line of JSON.")
def cast(source: str, destination: str | None, *, scan_only: bool, as_json: bool, **words: Any) -> Outcome:
    """Change the types of columns; find the smallest ones that lose nothing.

    Values beyond the range of their type are clamped and counted, others rounded and counted; either gives exit
    code 3. Without DST, or with --scan, nothing is written.
    """
    from tapeline.errors import ConfigError
    from tapeline.tools.cast import Caster, total
    from tapeline.tools.tables import Source, plain, stream_of, write

    if words["in_place"]:
        if destination is not None:
            raise click.UsageError("--in-place and DST exclude each other")
        destination, words["overwrite"] = source, True
    if not scan_only and destination is None and (words["optimize"] or words["spec"] is not None):
        raise click.UsageError("DST is missing; --scan only looks")
    if words["optimize"] and words["spec"] is not None:
        raise click.UsageError("--optimize and --types exclude each other")
    other = destination is not None and not words["in_place"]
    if other and Path(str(destination)).exists() and Path(str(destination)).samefile(source):
        raise ConfigError(f"{destination}: source and output are the same file; --in-place replaces it")
    table_in = Source(source)
    schema = table_in.schema
    plan = _plan(table_in, words)
    before = {field.name: _name(field) for field in schema}
    facts: dict[str, Any] = {
        "source": source,
        "columns": [{"name": n, "type": k, "cast": plan.get(n, k)} for n, k in before.items()],
    }
    lines = [[n, k, plan.get(n, k)] for n, k in before.items()]
    if scan_only or destination is None:
        facts["unfinished"] = warn_unfinished(source)
        if as_json:
            emit_json(facts)
        else:
            emit(table(["column", "type", "smallest without loss"], lines, left=3))
        return Outcome.DONE
    caster = Caster(schema, plan, tolerance=words["tolerance"])
    facts["unfinished"] = warn_unfinished(source)  # first, because --in-place finishes it
    write(plain(stream_of(caster.schema, caster.run(table_in.scan()))), destination, **codecs(words))
    facts.update(path=destination, clamped=caster.clamped, rounded=caster.rounded)
    if as_json:
        emit_json(facts)
    else:
        rows = [[*line, caster.clamped.get(line[0], 0), caster.rounded.get(line[0], 0)] for line in lines]
        emit(table(["column", "was", "is", "clamped", "rounded"], rows, left=3))
    return Outcome.LOSS if total(caster.clamped) or total(caster.rounded) else Outcome.DONE


def _name(field: pa.Field) -> str:
    from tapeline.bcsv._schema import type_name

    return type_name(field.name, field.type)


def _plan(source: Any, words: dict[str, Any]) -> dict[str, str]:
    """The types of the columns that change."""
    from tapeline.tools.cast import Caster, parse_types, pick, scan

    names = source.schema.names
    before = {field.name: _name(field) for field in source.schema}
    if words["spec"] is not None:
        wanted = parse_types(words["spec"], names)
        if words["skip_lossy"]:
            trial = Caster(source.schema, wanted, tolerance=words["tolerance"], trial=True)
            trial.try_out(source.scan())
            lossy = {*trial.clamped, *trial.rounded, *trial.unreadable}
            wanted = {name: kind for name, kind in wanted.items() if name not in lossy}
    else:
        found = scan(source.schema, source.scan(), tolerance=words["tolerance"], parse_strings=words["parse_strings"])
        chosen = column_list(words["columns"])
        some = names if chosen is None else [name for entry in chosen for name in pick(entry, names)]
        wanted = {one.name: one.smallest for one in found if one.name in some}
    return {name: kind for name, kind in wanted.items() if kind != before.get(name)}


@click.command(epilog=_GENERATE_EXAMPLES)
@click.argument("destination", metavar="[DST]", required=False)
@click.option("--profile", default="mixed_generic", show_default=True, metavar="NAME", help="What the table is like.")
@click.option("-n", "--rows", type=click.IntRange(min=0), default=10_000, show_default=True, help="How many.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The same seed makes the same table."
)
@click.option("--shuffled", is_flag=True, help="The rows in random order: nothing left to predict.")
@click.option("--list", "listing", is_flag=True, help="List the profiles.")
@codec_options
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one line of JSON.")
def generate(
    destination: str | None,
    *,
    profile: str,
    rows: int,
    seed: int,
    shuffled: bool,
    listing: bool,
    as_json: bool,
    **words: Any,
) -> Outcome:
    """Write a synthetic table of one of the profiles of the benchmarks.

    The format goes by the extension of DST. The table is made in memory.
    """
    from tapeline.bcsv._profiles import PROFILES
    from tapeline.tools.tables import write

    if listing:
        found = [{"name": name, "columns": profile_table(name, 0, 1, shuffled=False).num_columns} for name in PROFILES]
        if as_json:
            emit_json({"profiles": found})
        else:
            emit(table(["profile", "columns"], [[one["name"], one["columns"]] for one in found]))
        return Outcome.DONE
    if destination is None:
        raise click.UsageError("DST is missing")
    if profile not in PROFILES:
        raise click.UsageError(f"--profile {profile}: there are {', '.join(PROFILES)}")
    made = profile_table(profile, rows, seed, shuffled=shuffled)
    write(made.to_reader(65536), destination, **codecs(words))
    size = Path(destination).stat().st_size
    if as_json:
        emit_json({"path": destination, "profile": profile, "rows": rows, "seed": seed, "bytes": size})
    else:
        emit(f"{escape(destination)}: {rows:,} rows, {size:,} bytes")
    return Outcome.DONE


def profile_table(profile: str, rows: int, seed: int, *, shuffled: bool) -> pa.Table:
    """The table of a profile."""
    import numpy as np

    from tapeline.bcsv._profiles import PROFILES
    from tapeline.bcsv._profiles import generate as make

    if profile not in PROFILES:
        raise click.UsageError(f"--profile {profile}: there are {', '.join(PROFILES)}")
    made = make(profile, rows, seed=seed)
    return made.take(np.random.default_rng(seed).permutation(rows)) if shuffled else made


@click.command(epilog=_SQL_EXAMPLES)
@click.argument("query")
@click.option("-o", "--output", metavar="FILE", help="Write the result: .bcsv .csv .parquet .arrow .jsonl.")
@codec_options
@text_options
def sql(query: str, *, output: str | None, **words: Any) -> Outcome:
    """Run SQL of DuckDB over BCSV files, together with Parquet and CSV files.

    Tables are file names in quotes. Only the columns that the query needs are decoded. Rows go to stdout as
    `cat` prints them, or into a file. Needs duckdb: pip install 'tapeline[duckdb]'.
    """
    from tapeline.tools import sql as tool
    from tapeline.tools.tables import plain, write

    stream = tool.run(query)
    if not len(stream.schema):
        warn_unfinished(*tool.names(query))
        return Outcome.DONE
    if output is None:
        show(plain(stream), words)
        warn_unfinished(*tool.names(query))
        return Outcome.DONE
    write(plain(stream), output, **codecs(words))
    unfinished = warn_unfinished(*tool.names(query))
    if words["as_json"]:
        emit_json({"path": output, "unfinished": unfinished})
    else:
        emit(escape(output))
    return Outcome.DONE
