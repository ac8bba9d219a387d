"""What `info` and `cat` say of register streams."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tapeline._register_stream import LogContents, RegisterStream
from tapeline.cli._output import emit, escape
from tapeline.cli.registers import _iso
from tapeline.errors import TapelineError
from tapeline.sinks import json_lines, plain_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from tapeline.recording import Stream

_COMMANDS = ("DIFF", "FULL", "QUERY", "REPLY", "SYNC", "SYNCED")


def stream_facts(stream: Stream) -> dict[str, Any]:
    """What a register stream holds, as its indexes tell; a log without indexes that fit is walked through."""
    logs = _of(stream)
    contents = LogContents()
    damage: str | None = None
    try:
        for log in logs.logs:
            log.count_into(contents)
    except TapelineError as error:
        damage = str(error)
    first, last = contents.first_timestamp_us, contents.last_timestamp_us
    return {
        "wire": logs.wire,
        "segments": len(logs.logs),
        "open_segments": sum(segment.is_open for segment in logs.logs),
        "bytes": sum(segment.size() for segment in logs.logs),
        "packets": contents.packets,
        "registers": contents.registers,
        "sources": [{"type": kind, "src_id": src_id} for kind, src_id in sorted(contents.sources)],
        "first_timestamp_us": first,
        "last_timestamp_us": last,
        "first_time": None if first is None else _iso(first),
        "last_time": None if last is None else _iso(last),
        "damage": damage,
        "ledger": logs.ledger.as_dict() or None,
        "sinks": logs.sinks,
    }


def print_packets(
    stream: Stream, start: str | None, stop: str | None, limit: int | None, *, form: str, rows: bool
) -> None:
    """Print packets, or with `rows` registers, as text, JSON lines or CSV."""
    import pyarrow as pa
    import pyarrow.csv as pc

    logs = _of(stream)
    header = True
    for batch in _limited(logs, start, stop, limit, rows=rows):
        if form == "json":
            sys.stdout.flush()
            sys.stdout.buffer.write(json_lines(plain_batch(batch)))
        elif form == "csv":
            sys.stdout.flush()
            sink = pa.BufferOutputStream()
            pc.write_csv(plain_batch(batch), sink, pc.WriteOptions(include_header=header, quoting_style="none"))
            sys.stdout.buffer.write(sink.getvalue())
            header = False
        else:
            for row in batch.to_pylist():
                emit(_line(stream.name, row))
    sys.stdout.buffer.flush()


def _line(stream: str, row: dict[str, Any]) -> str:
    if "time" in row:
        return f"{escape(stream)} {_iso(int(row['time'] * 1e6))} RACK {row['rack']} {row['offset']} = {row['value']}"
    stamp = f"{row['timestamp_us']:%Y-%m-%dT%H:%M:%S.%fZ}"
    head = f"{escape(stream)} {stamp} {_COMMANDS[row['cmd']]} {row['type']} {row['src_id']} seq {row['seq']}"
    return f"{head} {row['offset']} = {row['value']}" if "offset" in row else f"{head} {row['count']} registers"


def _limited(
    logs: RegisterStream, start: str | None, stop: str | None, limit: int | None, *, rows: bool
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from tapeline.cli.registers import _time
    from tapeline.registers import moment

    first = None if start is None else moment(_time(start))
    after = None if stop is None else moment(_time(stop))
    left = limit
    for batch in logs.rows() if rows else logs.packets():
        stamps = batch["timestamp_us"].cast(pa.int64()) if "timestamp_us" in batch.schema.names else None
        if stamps is None:
            stamps = pc.multiply(batch["time"], 1e6)
        chosen = batch
        if first is not None or after is not None:
            low = pc.greater_equal(stamps, first or 0)
            chosen = batch.filter(low if after is None else pc.and_(low, pc.less(stamps, after)))
        if left is not None:
            chosen = chosen.slice(0, left)
            left -= chosen.num_rows
        if chosen.num_rows:
            yield chosen
        if left == 0:
            return


def _of(stream: Stream) -> RegisterStream:
    if not isinstance(stream, RegisterStream):
        raise TypeError(stream)
    return stream
