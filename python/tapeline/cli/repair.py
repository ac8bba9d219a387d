"""`tapeline repair`: recover what a crash left of a recording, or what damage left of a BCSV file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, escape
from tapeline.cli._paths import InPath

_EXAMPLES = """\b
Examples:
  tapeline repair run
  tapeline repair run --json
  tapeline repair broken.bcsv whole.bcsv
  tapeline repair broken.bcsv --in-place --backup
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source", type=InPath(), metavar="SRC")
@click.argument("destination", required=False, metavar="[DST]")
@click.option("--in-place", is_flag=True, help="Replace SRC, after the new file has been verified.")
@click.option("--backup", is_flag=True, help="With --in-place: keep the old file as SRC.bak.")
@click.option("--dry-run", is_flag=True, help="Only say what would be kept and what is lost.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")
def repair(
    source: str, destination: str | None, *, in_place: bool, backup: bool, dry_run: bool, as_json: bool
) -> Outcome:
    """Recover a recording after a crash, or a BCSV file after any damage.

    SRC a BCSV file: every packet whose checksum holds goes into the new file DST, whatever lies before it, with a new
    index. The new file is read again and verified. The report lists every range of rows that is missing; the exit
    code is 3 when rows are.

    SRC the directory of a recording: open segments are kept up to their last whole frame and get their final name;
    what follows goes into NAME.tail beside them. Indexes and the manifest are rebuilt. The exit code is 3 when
    bytes had to be cut off or a segment is missing.
    """
    if Path(source).is_dir():
        if destination is not None or in_place or backup or dry_run:
            raise click.UsageError("a recording is repaired where it is; DST and the other options are for files")
        return _repair_recording(source, as_json=as_json)
    if sum((destination is not None, in_place, dry_run)) != 1:
        raise click.UsageError("say where to: DST, --in-place or --dry-run")
    if backup and not in_place:
        raise click.UsageError("--backup goes with --in-place")
    return _repair_file(source, destination, backup=backup, dry_run=dry_run, as_json=as_json)


def _repair_file(source: str, destination: str | None, *, backup: bool, dry_run: bool, as_json: bool) -> Outcome:
    from tapeline import bcsv
    from tapeline.cli.check import report_facts
    from tapeline.tools.repair import in_place

    kept = None
    if dry_run:
        report = bcsv.validate(source)
    elif destination is not None:
        report = bcsv.repair(source, destination)
    else:
        report, kept = in_place(source, backup=backup)
    written = None if dry_run else destination or source
    if as_json:
        emit_json({**report_facts(report), "path": source, "written": written, "backup": kept, "gaps": report.gaps})
    else:
        verb = "readable" if dry_run else "written"
        emit(f"{escape(written or source)}: {report.rows_readable:,} of {report.rows_expected:,} rows {verb}")
        for problem in report.problems:
            emit(f"  {escape(str(problem))}")
        if report.rows_unverified:
            emit(f"  {report.rows_unverified:,} rows at the end have no checksum and were left out")
        if kept:
            emit(f"  the old file is {escape(kept)}")
    unreadable = report.rows_readable == 0 and report.rows_expected == 0 and not report.ok and dry_run
    if unreadable and not _has_header(source):
        return Outcome.FAILED
    lost = report.gaps or report.rows_unverified or report.rows_readable < report.rows_expected
    return Outcome.LOSS if lost else Outcome.DONE


def _has_header(source: str) -> bool:
    from tapeline import bcsv

    try:
        bcsv.Reader(source).close()
    except bcsv.BcsvError:
        return False
    return True


def _repair_recording(directory: str, *, as_json: bool) -> Outcome:
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
    lines += [f"{name}: the ledger did not agree with the files; now it does" for name in report["ledgers"]]
    lines += [f"{name}: listed, but its file is gone" for name in report["missing"]]
    lines += [f"problem: {text}" for text in report["problems"]]
    return lines or ["nothing to repair"]
