"""What the commands that print or write tables share: options, and rows to stdout."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Any

import click

from tapeline.cli._output import escape, note, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa

ROW_CODECS = ["flat", "zoh", "delta"]
FILE_CODECS = ["stream", "stream-lz4", "packet", "packet-lz4", "packet-lz4-batch"]
# A terminal shows this many rows at a time of a long table, each page with its own widths
_PAGE_ROWS = 1000
_CELL = 40


def text_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that prints rows: `as_table as_csv as_json delimiter decimal no_header`."""
    for option in (
        click.option("--no-header", is_flag=True, help="No line with the names."),
        click.option("--decimal", type=click.Choice([".", ","]), default=".", help="Decimal separator of CSV."),
        click.option("-d", "--delimiter", metavar="CHAR", help="Between cells of CSV; 'tab' is a tab."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object per row."),
        click.option("--csv", "as_csv", is_flag=True, help="CSV, also on a terminal."),
        click.option("--table", "as_table", is_flag=True, help="A table for people, also into a file or pipe."),
    ):
        command = option(command)
    return command


def codec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that writes a BCSV file; `codecs` picks them out again."""
    for option in (
        click.option("-f", "--overwrite", is_flag=True, help="Replace the file if it exists."),
        click.option(
            "--packet-kib", type=click.IntRange(64, 1 << 20), default=8192, show_default=True, help="KiB of a packet."
        ),
        click.option(
            "--compression-level", type=click.IntRange(1, 9), default=1, show_default=True, help="1 fast, 9 small."
        ),
        click.option("--file-codec", type=click.Choice(FILE_CODECS), default=FILE_CODECS[-1], show_default=True),
        click.option("--row-codec", type=click.Choice(ROW_CODECS), default=ROW_CODECS[-1], show_default=True),
    ):
        command = option(command)
    return command


def codecs(words: dict[str, Any]) -> dict[str, Any]:
    """Options of `tools.tables.write` from those of `codec_options`."""
    return {
        "row_codec": words["row_codec"],
        "file_codec": words["file_codec"],
        "compression_level": words["compression_level"],
        "packet_bytes": words["packet_kib"] << 10,
        "overwrite": words["overwrite"],
    }


def column_list(text: str | None) -> list[str] | None:
    """Names with commas between; one with a comma in it is quoted as in CSV."""
    return None if text is None else next(csv.reader([text]), [])


def text_form(words: dict[str, Any]) -> dict[str, Any] | None:
    """The form of the text that the options of `text_options` ask for; None: a table for people.

    Raises:
        click.UsageError: They contradict each other.
    """
    if sum(map(bool, (words["as_table"], words["as_csv"], words["as_json"]))) > 1:
        raise click.UsageError("--table, --csv and --json exclude each other")
    chosen = words["as_csv"] or words["as_json"] or words["delimiter"] or words["decimal"] != "."
    if words["as_table"] or (not chosen and sys.stdout.isatty()):
        return None
    delimiter = words["delimiter"] or (";" if words["decimal"] == "," else ",")
    if delimiter in ("tab", "\\t"):
        delimiter = "\t"
    if len(delimiter.encode()) != 1 or delimiter == words["decimal"]:
        raise click.UsageError(f"--delimiter {delimiter!r}: one ASCII character, and not the decimal separator")
    if words["as_json"]:
        return {"json": True}
    header = not words["no_header"]
    return {"json": False, "delimiter": delimiter, "decimal": words["decimal"], "header": header, "nan": "nan"}


def show(stream: pa.RecordBatchReader, words: dict[str, Any], *, left: int = 0) -> None:
    """Print a stream: a table on a terminal, CSV elsewhere, or what the options of `text_options` say.

    Raises:
        OSError: The reader has gone away or the device is full.
    """
    from tapeline.tools.tables import write_text

    form = text_form(words)
    if form is None:
        _pages(stream, header=not words["no_header"], left=left)
        return
    sys.stdout.flush()
    write_text(stream, None, form)


def warn_unfinished(*paths: str) -> bool:
    """Say on stderr which sources are BCSV files without an end; what is missing there nobody can tell.

    Returns:
        True if there is one: the field `unfinished` with --json, as of `convert`.
    """
    from tapeline import _native
    from tapeline.tools.quick import kind_of

    found = False
    for path in paths:
        if kind_of(path) == "bcsv" and _native.BcsvReader(path, "skip", False, 1).complete() is False:
            note(f"tapeline: warning: {path} has no end: it was cut, or its writer has not closed it")
            found = True
    return found


def rows_table(names: Sequence[str], rows: Sequence[Sequence[object]], *, header: bool, left: int = 0) -> str:
    """A table of rows for people, long cells cut."""
    text = table(names, [[_cell(value) for value in row] for row in rows], left=left)
    return text if header else "\n".join(text.split("\n")[2:])


def _pages(stream: pa.RecordBatchReader, *, header: bool, left: int) -> None:
    names = stream.schema.names
    empty = True
    for batch in stream:
        for first in range(0, batch.num_rows, _PAGE_ROWS):
            rows = _cells(batch.slice(first, _PAGE_ROWS))
            sys.stdout.write(rows_table(names, rows, header=header and empty, left=left) + "\n")
            empty = False
    if empty and header:
        sys.stdout.write(table(names, [], left=left) + "\n")


def _cells(batch: pa.RecordBatch) -> list[Sequence[object]]:
    import pyarrow as pa

    columns = []
    for array in batch.columns:
        # Arrow prints binary32 with the digits of binary32
        text = array.cast(pa.string()) if array.type != pa.bool_() else array
        columns.append(text.to_pylist())
    return list(zip(*columns, strict=True))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "-" if value is None else escape(str(value))
    return text if len(text) <= _CELL else text[: _CELL - 3] + "..."
