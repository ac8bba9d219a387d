"""`tapeline registers`: images at past moments, histories, and questions to a running recorder."""

from __future__ import annotations

import itertools
import json
import time as clock
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, table
from tapeline.cli._sending import quantity
from tapeline.quantities import parse_duration

if TYPE_CHECKING:
    from tapeline.registers import Image, Moment

_GROUP_EXAMPLES = """\b
Examples:
  tapeline registers image run --at 2026-11-21T03:00:00Z
  tapeline registers query 127.0.0.1:9000 --type rack --src-id 1 4096
"""
_IMAGE_EXAMPLES = """\b
Examples:
  tapeline registers image run
  tapeline registers image run --at 2026-11-21T03:00:00Z --json
"""
_HISTORY_EXAMPLES = """\b
Examples:
  tapeline registers history run --type rack --src-id 1 --offset 4096
  tapeline registers history run rack 1 4096 --json
"""
_QUERY_EXAMPLES = """\b
Examples:
  tapeline registers query 127.0.0.1:9000 --type rack --src-id 1 4096 4097
  tapeline registers query 127.0.0.1:9000 --type 1 --src-id 3 --json
"""
_WATCH_EXAMPLES = """\b
Examples:
  tapeline registers watch 127.0.0.1:9000 --type rack --src-id 1 4096
  tapeline registers watch 127.0.0.1:9000 --type rack --src-id 1 --interval 1s --json
"""
_PATH = click.Path(exists=True)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@click.group(epilog=_GROUP_EXAMPLES)
def registers() -> None:
    """Look at the registers of a recording or a running recorder.

    Types are numbers or names: 0 unknown, 1 sbmu, 2 rack, 3 rtos.
    """


@registers.command(epilog=_IMAGE_EXAMPLES)
@click.argument("path", type=_PATH, metavar="DIR")
@click.option("--at", metavar="TIME", help="ISO 8601, or us since 1970; the newest state without it.")
@click.option("--stream", metavar="NAME", help="Only this stream.")
@click.option("--json", "as_json", is_flag=True, help="Print the image as one line of JSON.")
def image(path: str, *, at: str | None, stream: str | None, as_json: bool) -> Outcome:
    """Print the registers of all sources at a moment.

    Read from the nearest keyframe on, never from the beginning. A mark (?) is on registers that a lost packet may have
    changed; JSON lists them as unknown_since.
    """
    from tapeline.registers import image_at

    found = image_at(path, None if at is None else _time(at), stream=stream)
    if as_json:
        emit_json(found.as_dict())
    else:
        emit(_image_text(found))
    return Outcome.DONE


@registers.command(epilog=_HISTORY_EXAMPLES)
@click.argument("path", type=_PATH, metavar="DIR")
@click.argument("words", nargs=-1, metavar="[TYPE SRC_ID OFFSET]")
@click.option("--type", "kind", metavar="TYPE", help="Number or name of the source type.")
@click.option("--src-id", type=int, metavar="N", help="Number of the source.")
@click.option("--offset", type=int, metavar="N", help="Offset of the register.")
@click.option("--stream", metavar="NAME", help="Only this stream.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def history(
    path: str,
    *,
    words: tuple[str, ...],
    kind: str | None,
    src_id: int | None,
    offset: int | None,
    stream: str | None,
    as_json: bool,
) -> Outcome:
    """Print the value changes of one register.

    JSON: {"type", "src_id", "offset", "changes": [[timestamp_us, value or null], ...]}; null where a FULL left the
    register out.
    """
    from tapeline import registers as core

    if words:
        if len(words) != 3 or not all(_is_integer(word) for word in words[1:]):
            raise click.UsageError("expected TYPE SRC_ID OFFSET")
        kind, src_id, offset = kind or words[0], int(words[1]), int(words[2])
    if kind is None or src_id is None or offset is None:
        raise click.UsageError("--type, --src-id and --offset are needed")
    number = _type(kind)
    if not 0 <= offset <= 0xFFFF:
        raise click.UsageError(f"--offset {offset} is not in 0..65535")
    if not -(1 << 31) <= src_id < 1 << 31:
        raise click.UsageError(f"--src-id {src_id} is not a 32-bit number")
    import pyarrow as pa

    found = core.history(path, number, src_id, offset, stream=stream)
    changes = zip(found["timestamp_us"].cast(pa.int64()).to_pylist(), found["value"].to_pylist(), strict=True)
    if as_json:
        facts = {"type": number, "src_id": src_id, "offset": offset, "changes": [list(pair) for pair in changes]}
        emit_json(facts)
    else:
        for stamp, value in changes:
            emit(f"{_iso(stamp)} {'-' if value is None else value}")
    return Outcome.DONE


@registers.command(epilog=_QUERY_EXAMPLES)
@click.argument("address", metavar="HOST:PORT")
@click.argument("offsets", nargs=-1, type=click.IntRange(0, 0xFFFF))
@click.option("--type", "kind", required=True, metavar="TYPE", help="Number or name of the source type.")
@click.option("--src-id", required=True, type=click.IntRange(0, 255), metavar="N", help="Number of the source.")
@click.option("--timeout", default="10s", show_default=True, metavar="S", help="Wait so long for the reply.")
@click.option("--json", "as_json", is_flag=True, help="Print the registers as one line of JSON.")
def query(address: str, *, offsets: tuple[int, ...], kind: str, src_id: int, timeout: str, as_json: bool) -> Outcome:
    """Ask a running recorder for registers of one source.

    Without OFFSETS all that are known. Exit code 1 when none is.
    """
    found = _ask(address, kind, src_id, offsets, quantity("--timeout", parse_duration, timeout))
    if as_json:
        emit_json(found.as_dict())
    else:
        emit(_image_text(found))
    return Outcome.DONE if found.sources else Outcome.FAILED


@registers.command(epilog=_WATCH_EXAMPLES)
@click.argument("address", metavar="HOST:PORT")
@click.argument("offsets", nargs=-1, type=click.IntRange(0, 0xFFFF))
@click.option("--type", "kind", required=True, metavar="TYPE", help="Number or name of the source type.")
@click.option("--src-id", required=True, type=click.IntRange(0, 255), metavar="N", help="Number of the source.")
@click.option("--interval", default="500ms", show_default=True, metavar="S", help="Ask so often.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N questions.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per change.")
def watch(
    address: str,
    *,
    offsets: tuple[int, ...],
    kind: str,
    src_id: int,
    interval: str,
    count: int | None,
    as_json: bool,
) -> Outcome:
    """Print registers of one source whenever they have changed, until interrupted.

    One line per register: time of the newest change, offset, value.
    """
    pause_s = quantity("--interval", parse_duration, interval)
    last: dict[int, int] = {}
    for number in itertools.count(1):
        found = _ask(address, kind, src_id, offsets, 10.0)
        for source in found.sources.values():
            now = dict(zip(source.offsets.tolist(), source.values.tolist(), strict=True))
            for offset, value in now.items():
                if last.get(offset) != value:
                    facts = {"timestamp_us": source.timestamp_us, "offset": offset, "value": value}
                    emit(json.dumps(facts) if as_json else f"{_iso(source.timestamp_us)} {offset} {value}")
            last = now
        if number == count:
            break
        clock.sleep(pause_s)
    return Outcome.DONE


def _ask(address: str, kind: str, src_id: int, offsets: tuple[int, ...], timeout_s: float) -> Image:
    from tapeline.registers import query as ask

    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise click.UsageError(f"{address}: expected HOST:PORT, as in 127.0.0.1:9000")
    return ask(host.strip("[]") or "127.0.0.1", int(port), _type(kind), src_id, offsets, timeout_s=timeout_s)


def _type(text: str) -> int:
    from tapeline.registers import type_number

    try:
        return type_number(text)
    except ValueError as error:
        raise click.UsageError(f"--type: {error}") from None


def _time(text: str) -> Moment:
    from tapeline.registers import moment

    try:
        if _is_integer(text):
            return moment(int(text))
        return moment(float(text) if text.replace(".", "", 1).isdecimal() else text)
    except ValueError:
        raise click.UsageError(f"--at {text}: expected ISO 8601 such as 2026-11-21T03:00:00Z, or us") from None


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _iso(timestamp_us: int) -> str:
    """UTC; the bare number where the calendar ends."""
    try:
        return f"{_EPOCH + timedelta(microseconds=timestamp_us):%Y-%m-%dT%H:%M:%S.%fZ}"
    except OverflowError:
        return str(timestamp_us)


def _image_text(found: Image) -> str:
    names = ("unknown", "sbmu", "rack", "rtos")
    rows: list[list[Any]] = [
        [names[source.type], source.src_id, offset, value, "?" if offset in source.unknown_since else ""]
        for source in found.sources.values()
        for offset, value in zip(source.offsets.tolist(), source.values.tolist(), strict=True)
    ]
    return table(["type", "src_id", "offset", "value", "doubt"], rows) if rows else "no known register"
