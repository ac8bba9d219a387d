"""`tapeline convert`: between CSV, BCSV, Parquet, Arrow and JSON lines, and out of recordings."""

from __future__ import annotations

import csv
from typing import Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, escape, note, rated_progress

_EXAMPLES = """\b
Examples:
  tapeline convert run.csv run.bcsv
  tapeline convert run.bcsv run.parquet --columns time,temp --rows 0:100000
  tapeline convert measured.csv run.bcsv --delimiter ';' --decimal , --types 'id=uint64,temp=double'
  zcat run.csv.gz | tapeline convert - run.bcsv --from csv --ragged skip --json
"""
_FORMATS = ["csv", "bcsv", "parquet", "arrow", "jsonl", "dat", "pkt"]
_ROW_CODECS = ["flat", "zoh", "delta"]
_FILE_CODECS = ["stream", "stream-lz4", "packet", "packet-lz4", "packet-lz4-batch"]


@click.command(epilog=_EXAMPLES)
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option(
    "--from", "source_format", type=click.Choice(_FORMATS), help="Format of SRC; by its extension if not given."
)
@click.option("--to", "destination_format", type=click.Choice(_FORMATS[:5]), help="Format of DST, likewise.")
@click.option("--columns", metavar="NAMES", help="Only these columns, in this order: a,b,c.")
@click.option(
    "--rows", metavar="START:STOP", help="Only these rows, from 0; STOP is not one of them. -100: are the last."
)
@click.option("--types", metavar="TYPES", help="Types of columns: a=int32,b=double, or of all: int32,auto,string.")
@click.option("--names", metavar="NAMES", help="Names for the columns of a CSV file: a,b,c.")
@click.option("--no-header", is_flag=True, help="The CSV file has no names in its first record; write none.")
@click.option("--delimiter", metavar="CHAR", help="Between cells of CSV; found out when reading. 'tab' is a tab.")
@click.option("--decimal", type=click.Choice([".", ","]), help="Decimal separator of CSV; found out when reading.")
@click.option(
    "--empty",
    type=click.Choice(["nan", "string", "stop"]),
    default="nan",
    show_default=True,
    help="Empty CSV cells among numbers: NaN, or the column becomes strings, or an error.",
)
@click.option(
    "--null", "nulls", multiple=True, metavar="TEXT", help="Text that counts as empty among numbers; again for more."
)
@click.option("--nan", default="nan", show_default=True, metavar="TEXT", help="What NaN is written as in CSV.")
@click.option(
    "--ragged",
    type=click.Choice(["stop", "skip", "pad"]),
    default="stop",
    show_default=True,
    help="CSV records with another number of fields: an error, left out, or short ones filled.",
)
@click.option("--skip-damage", is_flag=True, help="Leave damaged rows of BCSV, bytes of .dat or blocks of .pkt out.")
@click.option("--stream", metavar="NAME", help="Stream of a recording.")
@click.option("--row-codec", type=click.Choice(_ROW_CODECS), default="delta", show_default=True, help="Of BCSV.")
@click.option(
    "--file-codec", type=click.Choice(_FILE_CODECS), default="packet-lz4-batch", show_default=True, help="Of BCSV."
)
@click.option(
    "--compression-level", type=click.IntRange(1, 9), default=1, show_default=True, help="Of BCSV: 1 fast, 9 small."
)
@click.option(
    "--packet-kib", type=click.IntRange(64, 1 << 20), default=8192, show_default=True, help="Of BCSV: KiB of a packet."
)
@click.option("-f", "--overwrite", is_flag=True, help="Replace DST if it exists.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads; one per core if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")
def convert(source: str, destination: str, *, as_json: bool, **words: Any) -> Outcome:
    """Convert a table or recording between file formats.

    Formats go by extension: .csv .tsv, .bcsv, .parquet, .arrow .feather, .jsonl; .dat and .pkt can be read. `-` is
    stdin or stdout, with --from or --to. No value changes silently: a CSV column gets the smallest type that holds
    all of its cells, and a cell that does not fit a given type stops with its line and column. DST gets its name
    when it is complete. Exit code 3 when records or damaged rows were left out.
    """
    from tapeline.conversion import convert as run

    if destination == "-" and as_json:
        raise click.UsageError("--json and the output both want stdout")
    options = _options(words)
    unit = "bytes" if source.lower().endswith((".csv", ".tsv", ".txt")) else "rows"
    with rated_progress(f"{source} to {destination}", unit) as show:
        report = run(source, destination, progress=show, **options)
    if as_json:
        emit_json(report.as_dict())
    else:
        say = note if destination == "-" else emit
        for line in str(report).splitlines():
            say(escape(line))
    return Outcome.DONE if report.complete else Outcome.LOSS


def _options(words: dict[str, Any]) -> dict[str, Any]:
    """Options of `tapeline.convert` from those of the command line."""
    start, stop = _rows(words.pop("rows"))
    delimiter = words.pop("delimiter")
    columns, names = words.pop("columns"), words.pop("names")
    options = {
        "columns": None if columns is None else _list(columns),
        "names": None if names is None else _list(names),
        "types": _types(words.pop("types")),
        "start": start,
        "stop": stop,
        "header": not words.pop("no_header"),
        "packet_bytes": words.pop("packet_kib") << 10,
        "delimiter": "\t" if delimiter in ("tab", "\\t") else delimiter,
        "on_corrupt": "skip" if words.pop("skip_damage") else "raise",
    }
    return {**words, **options}


def _list(text: str) -> list[str]:
    """Names with commas between; one with a comma in it is quoted as in CSV."""
    return next(csv.reader([text]), [])


def _types(text: str | None) -> dict[str, str] | list[str | None] | None:
    if text is None:
        return None
    entries = _list(text)
    if not any("=" in entry for entry in entries):
        return [None if kind.strip() == "auto" else kind.strip() for kind in entries]
    types = {}
    for entry in entries:
        name, equals, kind = entry.rpartition("=")
        if not equals:
            raise click.UsageError(f"--types {entry}: expected NAME=TYPE")
        types[name] = kind.strip()
    return types


def _rows(text: str | None) -> tuple[int, int | None]:
    if text is None:
        return 0, None
    start, colon, stop = text.partition(":")
    try:
        first, last = int(start or 0), int(stop) if stop.strip() else None
    except ValueError:
        colon = ""
        first, last = 0, None
    if not colon:
        raise click.UsageError(f"--rows {text}: expected START:STOP, such as 0:1000 or -100:")
    return first, last
