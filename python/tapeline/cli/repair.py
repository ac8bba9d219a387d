"""`tapeline repair`: recover what a crash left of a recording."""

from __future__ import annotations

import json
from typing import Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, escape

_EXAMPLES = """\b
Examples:
  tapeline repair run
  tapeline repair run --json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("directory", type=click.Path(exists=True, file_okay=False), metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")
def repair(directory: str, *, as_json: bool) -> Outcome:
    """Recover a recording after a crash.

    Open segments are kept up to their last whole frame and get their final name; what follows goes into NAME.tail
    beside them. Indexes and the manifest are rebuilt. The exit code is 3 when bytes had to be cut off or a
    segment is missing.
    """
    from tapeline import _native

    report: dict[str, Any] = json.loads(_native.recover_directory(directory))
    if as_json:
        emit_json(report)
    else:
        for line in _lines(report):
            emit(escape(line))
    if report["problems"]:
        return Outcome.FAILED
    cut = any(entry["bytes_cut"] for entries in report["recovered"].values() for entry in entries)
    return Outcome.LOSS if cut or report["missing"] else Outcome.DONE


def _lines(report: dict[str, Any]) -> list[str]:
    lines = []
    for stream, entries in report["recovered"].items():
        for entry in entries:
            text = f"{stream}: {entry['name']}: {entry['frames']:,} frames, {entry['bytes_kept']:,} bytes kept"
            if entry["bytes_cut"]:
                text += f", {entry['bytes_cut']:,} bytes cut off into {entry['tail']}"
            lines.append(text)
    lines += [f"{name}: was not in the manifest, is now" for name in report["listed"]]
    lines += [f"{name}: index rebuilt" for name in report["indexes"]]
    lines += [f"{name}: listed, but its file is gone" for name in report["missing"]]
    lines += [f"problem: {text}" for text in report["problems"]]
    return lines or ["nothing to repair"]
