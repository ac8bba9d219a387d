"""`tapeline head`, `tail`, and `cat` and `info` of tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, escape, note, size, table
from tapeline.cli._paths import InPath
from tapeline.cli._tables import column_list, rows_table, show, text_form, text_options
from tapeline.errors import TapelineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from tapeline.tools.tables import Source

# More rows than this are printed page by page as they are read
_FEW_ROWS = 1000
_HEAD_EXAMPLES = """\b
Examples:
  tapeline head run.bcsv
  tapeline head -n 100 --columns time,temp run.bcsv --json
  tapeline head run --stream rack
"""
_TAIL_EXAMPLES = """\b
Examples:
  tapeline tail run.bcsv
  tapeline tail -n 1 --no-header -d ';' run.bcsv
  tapeline tail run/rack/rack_000000_20261121T030000.000000Z.pkt
"""


@click.command(epilog=_HEAD_EXAMPLES)
@click.argument("path", type=InPath(), metavar="PATH")
@click.option("-n", "--rows", type=click.IntRange(min=0), default=10, show_default=True, help="How many.")
@click.option("--columns", metavar="NAMES", help="Only these, in this order: a,b,c.")
@click.option("--stream", metavar="NAME", help="Of a recording with several.")
@text_options
def head(path: str, *, rows: int, columns: str | None, stream: str | None, **words: Any) -> Outcome:
    """Print the first rows of a table, a recording, a .dat or a .pkt.

    A table on a terminal, CSV elsewhere. Only the packets with these rows are read. A frame is a row, of register
    packets each register is one.
    """
    return print_rows(path, columns, 0, rows, words, stream=stream)


@click.command(epilog=_TAIL_EXAMPLES)
@click.argument("path", type=InPath(), metavar="PATH")
@click.option("-n", "--rows", type=click.IntRange(min=0), default=10, show_default=True, help="How many.")
@click.option("--columns", metavar="NAMES", help="Only these, in this order: a,b,c.")
@click.option("--stream", metavar="NAME", help="Of a recording with several.")
@text_options
def tail(path: str, *, rows: int, columns: str | None, stream: str | None, **words: Any) -> Outcome:
    """Print the last rows of a table, a recording, a .dat or a .pkt.

    As `head`. In a BCSV file without a footer, packet headers are searched for first. Frames are read from the first
    on, of register packets only the last logs.
    """
    return print_rows(path, columns, -rows, 0 if rows == 0 else None, words, stream=stream)


def print_rows(
    path: str,
    columns: str | None,
    start: int,
    stop: int | None,
    words: dict[str, Any],
    *,
    skip_damage: bool = False,
    stream: str | None = None,
) -> Outcome:
    """Print rows of a table; `words` are those of `text_options`."""
    from tapeline.tools.quick import kind_of

    if kind_of(path) == "bcsv":
        gaps = _print_bcsv(path, column_list(columns), start, stop, words, skip_damage=skip_damage)
    else:
        from tapeline.tools.tables import Source

        source = Source(path, skip_damage=skip_damage, stream=stream)
        gaps = _print_table(source, column_list(columns), start, stop, words)
    for first, last in gaps:
        note(f"rows {first:,} to {last - 1:,} are damaged and were left out")
    return Outcome.LOSS if gaps else Outcome.DONE


def _print_bcsv(
    path: str, chosen: list[str] | None, start: int, stop: int | None, words: dict[str, Any], *, skip_damage: bool
) -> list[tuple[int, int]]:
    """Without pyarrow, whose import takes longer than the few rows that most ask for."""
    from tapeline.tools import quick

    if chosen is not None:
        _check_names(chosen, quick.names_of(path))
    form = text_form(words)
    span = {"columns": chosen, "start": start, "stop": stop, "skip_damage": skip_damage}
    if form is not None:
        sys.stdout.flush()
        return quick.print_text(path, **form, **span)
    if skip_damage or (stop is None and start >= 0) or abs((stop or 0) - start) > _FEW_ROWS:
        from tapeline.tools.tables import Source

        return _print_table(Source(path, skip_damage=skip_damage), chosen, start, stop, words)
    names, *rows = quick.cells(path, **span)
    emit(rows_table(names, rows, header=not words["no_header"]))
    return []


def _print_table(
    source: Source, chosen: list[str] | None, start: int, stop: int | None, words: dict[str, Any]
) -> list[tuple[int, int]]:
    import pyarrow as pa

    from tapeline.tools.tables import stream_of

    if chosen is not None:
        _check_names(chosen, source.schema.names)
    schema = source.schema if chosen is None else pa.schema([source.schema.field(name) for name in chosen])
    failed: list[TapelineError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from source.scan(chosen, start, stop)
        except TapelineError as error:
            failed.append(error)
            raise

    try:
        show(stream_of(schema, batches()), words)
    except Exception:
        # on its way through an Arrow stream an error becomes a text
        if failed:
            raise failed[0] from None
        raise
    return source.gaps


def _check_names(chosen: list[str], known: list[str]) -> None:
    for name in chosen:
        if name not in known:
            raise click.UsageError(f"there is no column {name!r}; there are {', '.join(known)}")


def bcsv_info(path: str, *, deep: bool, as_json: bool) -> Outcome:
    """Facts of a BCSV file from its header and footer; with `deep`, of its packets and values too."""
    from tapeline.tools.quick import facts

    found = facts(path)
    if deep:
        from tapeline.tools.facts import deep_facts

        found.update(deep_facts(path))
    if as_json:
        emit_json(found)
    else:
        emit(_text(found))
    return Outcome.LOSS if deep and found["gaps"] else Outcome.DONE


def _text(found: dict[str, Any]) -> str:
    columns = found["columns"]
    one = {name: value for name, value in found.items() if not isinstance(value, (list, dict))}
    lines = [table(["fact", "value"], [[name, _value(name, value)] for name, value in one.items()], left=2), ""]
    if "min" in (columns[0] if columns else {}):
        headers = ["column", "type", "min", "max", "mean", "changes", "NaN", "zeros"]
        keys = ("name", "type", "min", "max", "mean", "changes", "nan", "zeros")
        lines.append(table(headers, [[_short(column[key]) for key in keys] for column in columns], left=2))
    else:
        lines.append(table(["#", "column", "type"], [[i, c["name"], c["type"]] for i, c in enumerate(columns)], left=3))
    packets = found.get("packets_detail")
    if packets:
        parts = ("offset", "first_row", "rows", "bytes", "ratio")
        lines += ["", table(["byte offset", "first row", "rows", "bytes", "ratio"], [_row(p, parts) for p in packets])]
    if found.get("gaps"):
        lines += ["", *(f"rows {first:,} to {stop - 1:,} are damaged" for first, stop in found["gaps"])]
    return "\n".join(lines)


def _row(facts: dict[str, Any], keys: tuple[str, ...]) -> list[Any]:
    return [_short(facts[key]) for key in keys]


def _short(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and len(value) > 24:
        return escape(value[:21]) + "..."
    return value


def _value(name: str, value: object) -> str:
    if value is None:
        return "not known"
    if name.endswith("bytes") and isinstance(value, int):
        return f"{value} ({size(value)})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
