"""`tapeline info`, `cat`, `verify` and `plot`: look at what was recorded."""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, escape, size, table
from tapeline.cli._paths import InPath
from tapeline.cli._tables import text_options, warn_unfinished

if TYPE_CHECKING:
    from tapeline.recording import Frame, Recording, Stream

_INFO_EXAMPLES = """\b
Examples:
  tapeline info run
  tapeline info run/ch0/ch0_000000_20261121T030000.000000Z.dat --json
  tapeline info run.bcsv --deep
"""
_CAT_EXAMPLES = """\b
Examples:
  tapeline cat run --stream ch0 --limit 10
  tapeline cat run --start 2026-11-21T03:00:00Z --stop 2026-11-21T03:00:01Z --json
  tapeline cat capture.dat --payloads > samples.bin
  tapeline cat run.bcsv --range 1000:2000 --columns time,temp
"""
_VERIFY_EXAMPLES = """\b
Examples:
  tapeline verify run
  tapeline verify run --json
"""
_PLOT_EXAMPLES = """\b
Examples:
  tapeline plot run -o run.png
  tapeline plot run --stream ch0 --stream ch1 -o channels.svg --json
"""
_PATH = InPath()
_TABLES = (".bcsv", ".csv", ".tsv", ".parquet", ".pq", ".arrow", ".ipc", ".feather", ".arrows")
# Bytes of a payload shown per line
_SHOWN_BYTES = 16


@click.command(epilog=_INFO_EXAMPLES)
@click.argument("path", type=_PATH)
@click.option("--deep", is_flag=True, help="BCSV: read everything; sizes, ratios, statistics per column and packet.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def info(path: str, *, deep: bool, as_json: bool) -> Outcome:
    """Say what a recording or file holds.

    PATH is the directory of a recording, a .dat, .pkt or BCSV file. Only the indexes are read; `verify` reads
    the data. A segment without an index that fits is scanned.
    """
    if path.lower().endswith(".bcsv") or _is_bcsv(path):
        from tapeline.cli.look import bcsv_info

        return bcsv_info(path, deep=deep, as_json=as_json)
    if path.lower().endswith(_TABLES):
        raise click.UsageError(f"{path} is a table without facts of its own; head shows its columns and rows")
    if deep:
        raise click.UsageError("--deep is for BCSV files; verify reads all of a recording")
    rec = _open(path)
    facts: dict[str, Any] = {
        "path": str(path),
        "kind": "recording" if rec.manifest or rec.path.is_dir() else _file_kind(rec),
        "complete": rec.complete,
        "started": rec.manifest.get("started"),
        "stopped": rec.manifest.get("stopped"),
        "host": rec.manifest.get("host"),
        "streams": {name: _facts(stream) for name, stream in rec.streams.items()},
    }
    if as_json:
        emit_json(facts)
    else:
        emit(_info_text(facts))
    return Outcome.DONE


@click.command(epilog=_CAT_EXAMPLES)
@click.argument("path", type=_PATH)
@click.option("--stream", "names", multiple=True, metavar="NAME", help="Only this stream; again for more.")
@click.option("--start", metavar="TIME", help="First producer time: ISO 8601, or ns since 1970.")
@click.option("--stop", metavar="TIME", help="Producer time after the last one.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N frames of each stream, or N rows.")
@click.option("--payloads", is_flag=True, help="Write the payloads as they are, one after the other.")
@click.option("--rows", is_flag=True, help="Of register packets print one line per register.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="Of register packets: lines for people, JSON objects, or CSV.",
)
@click.option("--columns", metavar="NAMES", help="Tables: only these columns, in this order: a,b,c.")
@click.option("--range", "span", default=":", metavar="START:STOP", help="Tables: only these rows; -100: are the last.")
@click.option("--skip-damage", is_flag=True, help="BCSV: leave damaged rows out, and say which.")
@text_options
def cat(
    path: str,
    *,
    names: tuple[str, ...],
    start: str | None,
    stop: str | None,
    limit: int | None,
    payloads: bool,
    rows: bool,
    form: str,
    columns: str | None,
    span: str,
    skip_damage: bool,
    **words: Any,
) -> Outcome:
    """Print the rows of a table, or the frames or register packets of a recording, .dat or .pkt file.

    Tables (BCSV, CSV, Parquet, Arrow): as a table on a terminal, as CSV elsewhere.

    One line per frame: stream, sequence, producer time, stream id, marks (< period start, > period end, L late),
    payload bytes and the first of them. One line per register packet: stream, producer time, command, source, sequence,
    registers; keyframes are left out.
    """
    as_json = words["as_json"]
    if _is_table(path):
        if names or start or stop or payloads:
            raise click.UsageError("--stream, --start, --stop and --payloads are for recordings")
        from tapeline.cli.check import row_range
        from tapeline.cli.look import print_rows

        first, last = row_range(span)
        if limit is not None:
            last = first + limit if last is None and (first >= 0 or first + limit < 0) else last
        outcome = print_rows(path, columns, first, last, words, skip_damage=skip_damage)
        if last is None:
            warn_unfinished(path)
        return outcome
    if payloads and as_json:
        raise click.UsageError("--payloads and --json exclude each other")
    for stream in _chosen(_open(path), names):
        if _is_registers(stream):
            from tapeline.cli._packets import print_packets

            if payloads:
                raise click.UsageError(f"{stream.name} carries register packets, which have no payloads; see --rows")
            chosen = "json" if as_json else "csv" if words["as_csv"] else form
            print_packets(stream, start, stop, limit, form=chosen, rows=rows)
            continue
        frames = stream.frames(_time(start, "--start"), _time(stop, "--stop"))
        for frame in itertools.islice(frames, limit):
            if payloads:
                sys.stdout.buffer.write(frame.payload)
            elif as_json:
                emit_json(_frame_facts(stream.name, frame))
            else:
                emit(_frame_line(stream.name, frame))
    return Outcome.DONE


@click.command(epilog=_VERIFY_EXAMPLES)
@click.argument("path", type=_PATH, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")
def verify(path: str, *, as_json: bool) -> Outcome:
    """Check digests, CRCs, sequences and the ledger of a recording.

    Everything is read and compared: files with manifest, indexes with frames, totals with the ledger, the ledger
    with its conservation laws. Each difference is one line. Exit code 1 when there is any.
    """
    report = _open(path).verify()
    if as_json:
        emit_json(report.as_dict())
    else:
        emit("\n".join(escape(line) for line in str(report).splitlines()))
    return Outcome.DONE if report.ok else Outcome.FAILED


@click.command(epilog=_PLOT_EXAMPLES)
@click.argument("path", type=_PATH)
@click.option("-o", "--output", required=True, metavar="FILE.png", help="Picture to write; .png, .svg or .pdf.")
@click.option("--stream", "names", multiple=True, metavar="NAME", help="Only this stream; again for more.")
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as one line of JSON.")
def plot(path: str, *, output: str, names: tuple[str, ...], as_json: bool) -> Outcome:
    """Draw rates, losses and completeness of a recording.

    Over the producer's time: bytes per second, frames missing or late, and how much of each periodic is there.
    Drawn from the indexes. Needs matplotlib: pip install 'tapeline[plot]'.
    """
    from tapeline.cli import _plot

    streams = [stream for stream in _chosen(_open(path), names) if not _is_registers(stream)]
    series = [_plot.series(stream) for stream in streams]
    _plot.draw(series, output, title=escape(path))
    facts = {"file": output, "streams": {one.name: one.as_dict() for one in series}}
    if as_json:
        emit_json(facts)
    else:
        emit(f"{escape(output)}: {len(series)} streams")
    return Outcome.DONE


def _open(path: str) -> Recording:
    from tapeline.recording import open_recording

    return open_recording(path)


def _chosen(rec: Recording, names: tuple[str, ...]) -> list[Stream]:
    unknown = [name for name in names if name not in rec.streams]
    if unknown:
        raise click.UsageError(f"no stream {unknown[0]}; there are {', '.join(rec.streams) or 'none'}")
    return [stream for name, stream in rec.streams.items() if not names or name in names]


def _time(text: str | None, option: str) -> int | None:
    from tapeline.recording import parse_time

    if text is None:
        return None
    try:
        return int(text) if text.lstrip("-").isdecimal() else parse_time(text)
    except ValueError:
        raise click.UsageError(f"{option} {text}: expected ISO 8601 such as 2026-11-21T03:00:00Z, or ns") from None


def _is_registers(stream: Stream) -> bool:
    from tapeline._register_stream import RegisterStream

    return isinstance(stream, RegisterStream)


def _file_kind(rec: Recording) -> str:
    streams = list(rec.register_streams.values())
    return "dat" if not streams else "pkt" if streams[0].wire == "packet" else "spkt"


def _facts(stream: Stream) -> dict[str, Any]:
    if not _is_registers(stream):
        return _stream_facts(stream)
    from tapeline.cli._packets import stream_facts

    return stream_facts(stream)


def _stream_facts(stream: Stream) -> dict[str, Any]:
    import pyarrow.compute as pc

    rows = stream.periodics()
    status = rows["status"]

    def total(name: str, code: int | None = None) -> int:
        column = rows[name] if code is None else rows[name].filter(pc.equal(status, code))
        return int(pc.sum(column).as_py() or 0)

    def end(name: str, which: str) -> int | None:
        value = pc.min_max(rows[name])[which].as_py()
        return None if value is None else int(value)

    first, last = end("first_timestamp_ns", "min"), end("last_timestamp_ns", "max")
    data = sum(segment.size() for segment in stream.segments)
    seconds = 0.0 if first is None or last is None else (last - first) / 1e9
    return {
        "segments": len(stream.segments),
        "open_segments": sum(segment.is_open for segment in stream.segments),
        "bytes": data,
        "frames": total("frames_present"),
        "assembly": stream.assembly,
        "first_sequence": end("first_sequence", "min"),
        "last_sequence": end("last_sequence", "max"),
        "first_timestamp_ns": first,
        "last_timestamp_ns": last,
        "bytes_per_second": data / seconds if seconds > 0 else None,
        "periodics_complete": len(status.filter(pc.equal(status, 0))),
        "periodics_incomplete": len(status.filter(pc.equal(status, 1))),
        "frames_late": total("frames_present", 2),
        "ledger": stream.ledger.as_dict() if stream.entry is not None and stream.entry.ledger is not None else None,
    }


def _info_text(facts: dict[str, Any]) -> str:
    state = "complete" if facts["complete"] else "a single file" if facts["kind"] != "recording" else "not complete"
    if facts["kind"] == "recording" and facts["stopped"] is None:
        state += ": still recording, or the recorder was killed"
    lines = [f"{escape(facts['path'])}: {state}"]
    if facts["started"]:
        lines.append(f"from {escape(str(facts['started']))} to {escape(str(facts['stopped'] or '-'))}")
    rows = []
    packets = []
    for name, one in facts["streams"].items():
        if "packets" in one:
            if one["damage"]:
                lines.append(f"{escape(name)}: {escape(one['damage'])}")
            packets.append([name, one["wire"], one["segments"], one["packets"], one["registers"], size(one["bytes"]),
                            len(one["sources"]), one["first_time"], one["last_time"]])  # fmt: skip
            continue
        lost = one["ledger"]["frames_lost"] if one["ledger"] else None
        rate = one["bytes_per_second"]
        rows.append(
            [
                name,
                one["segments"],
                one["frames"],
                size(one["bytes"]),
                None if rate is None else f"{size(rate)}/s",
                one["first_sequence"],
                one["last_sequence"],
                lost,
                one["frames_late"],
                one["periodics_complete"],
                one["periodics_incomplete"],
                None if one["first_timestamp_ns"] is None else _iso(one["first_timestamp_ns"]),
            ]
        )
    headers = ["stream", "segments", "frames", "bytes", "rate", "first", "last", "lost", "late", "complete"]
    if rows or not packets:
        lines += ["", table([*headers, "incomplete", "begins"], rows)]
    if packets:
        headers = ["stream", "wire", "segments", "packets", "registers", "bytes", "sources", "begins", "ends"]
        lines += ["", table(headers, packets, left=2)]
    return "\n".join(lines)


def _frame_facts(stream: str, frame: Frame) -> dict[str, Any]:
    return {
        "stream": stream,
        "sequence": frame.sequence,
        "timestamp_ns": frame.timestamp_ns,
        "stream_id": frame.stream_id,
        "flags": frame.flags,
        "late": frame.late,
        "payload": frame.payload.hex(),
    }


def _frame_line(stream: str, frame: Frame) -> str:
    marks = ("<" if frame.flags & 1 else "") + (">" if frame.flags & 2 else "") + ("L" if frame.late else "")
    shown = frame.payload[:_SHOWN_BYTES].hex(" ", 4) + ("..." if len(frame.payload) > _SHOWN_BYTES else "")
    time = _iso(frame.timestamp_ns)
    return f"{escape(stream)} {frame.sequence} {time} {frame.stream_id} {marks or '-'} {len(frame.payload)} {shown}"


def _iso(timestamp_ns: int) -> str:
    """UTC to the nanosecond; the bare number where the calendar ends."""
    seconds, below = divmod(timestamp_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{below:09d}Z"
    except (ValueError, OverflowError, OSError):
        return str(timestamp_ns)


def _is_table(path: str) -> bool:
    return path.lower().endswith(_TABLES) or _is_bcsv(path)


def _is_bcsv(path: str) -> bool:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a device or pipe as well
            return file.read(4) == b"BCSV"
    except IsADirectoryError:
        return False
