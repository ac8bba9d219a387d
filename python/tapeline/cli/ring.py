"""`tapeline ring`: what is in a ring in shared memory."""

from __future__ import annotations

import itertools
import struct
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, note, size
from tapeline.cli._sending import stopping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapeline.ring import Reader, Record

_STAT_EXAMPLES = """\b
Examples:
  tapeline ring stat battery
  tapeline ring stat /dev/shm/battery --json
"""
_CAT_EXAMPLES = """\b
Examples:
  tapeline ring cat battery --limit 10
  tapeline ring cat battery --follow --newest --json
  tapeline ring cat battery --packets > battery.pkt
"""
# spec/register-packets.md 2, without the length: timestamp_us, src_id, cmd, type, seq, reserved, count
_PACKET = struct.Struct("<Q5BI")
_COMMANDS = ("DIFF", "FULL", "QUERY", "REPLY", "SYNC", "SYNCED")
_TYPES = ("UNKNOWN", "SBMU", "RACK", "RTOS")


@click.group()
def ring() -> None:
    """Look at a ring in shared memory."""


@ring.command(epilog=_STAT_EXAMPLES)
@click.argument("name", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
def stat(name: str, *, as_json: bool) -> Outcome:
    """Say what a ring holds: positions, producer, and the records that are there now."""
    from tapeline.ring import Reader

    with Reader(name) as reader:
        info = reader.info()
        facts: dict[str, Any] = {"name": name, **asdict(info), "readable_bytes": 0}
        first = last = None
        # a producer that goes on could keep this going forever: what was written before the look is enough
        while reader.position < info.write_position:
            records = reader.read(65_536)
            if not records:
                break
            first = first or records[0]
            last = records[-1]
        counters = reader.counters
    facts["readable_bytes"] = info.write_position - info.oldest_position
    facts["records"] = counters.records
    facts["payload_bytes"] = counters.payload_bytes
    facts["corrupt_records"] = counters.corrupt_records
    facts["first_timestamp_us"] = None if first is None else first.timestamp_us
    facts["last_timestamp_us"] = None if last is None else last.timestamp_us
    if as_json:
        emit_json(facts)
        return Outcome.DONE
    state = "closed" if info.closed else "open" if info.has_producer else "no producer"
    emit(f"{name}: {size(info.capacity)} ring, {state} (last producer: process {info.producer_pid})")
    positions = (
        ("oldest", info.oldest_position),
        ("written", info.write_position),
        ("reserved", info.reserve_position),
    )
    emit("positions: " + "  ".join(f"{what} {position:,}" for what, position in positions))
    emit(f"records: {counters.records:,} with {size(counters.payload_bytes)}, {counters.corrupt_records:,} damaged")
    if first is not None and last is not None:
        emit(f"time: {first.timestamp_us} to {last.timestamp_us} us")
    return Outcome.DONE


@ring.command(epilog=_CAT_EXAMPLES)
@click.argument("name", metavar="NAME")
@click.option("--follow", "-f", is_flag=True, help="Wait for more until the producer closes the ring.")
@click.option("--newest", is_flag=True, help="Begin behind the newest record; with --follow only what is new.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N records.")
@click.option("--payloads", is_flag=True, help="Write the payloads as they are, one after the other.")
@click.option("--packets", is_flag=True, help="Write each payload behind its length (u32): the data packets of a .pkt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per record, the payload in hexadecimal.")
def cat(
    name: str, *, follow: bool, newest: bool, limit: int | None, payloads: bool, packets: bool, as_json: bool
) -> Outcome:
    """Print the records of a ring, the oldest first.

    One line per record: position, time in us, bytes, and the register packet it holds, if it is one. Records that
    were overwritten before they could be read, or are damaged, are counted on stderr; the exit code is then 3.
    """
    from tapeline.ring import Reader

    if payloads + packets + as_json > 1:
        raise click.UsageError("--payloads, --packets and --json exclude each other")
    with Reader(name, start="newest" if newest else "oldest") as reader:
        for record in itertools.islice(_records(reader, follow=follow), limit):
            if payloads or packets:
                if packets:
                    sys.stdout.buffer.write(len(record.payload).to_bytes(4, "little"))
                sys.stdout.buffer.write(record.payload)
            elif as_json:
                emit_json(_facts(record))
            else:
                what = _summary(record.payload)
                emit(f"{record.position:>12} {record.timestamp_us} {len(record.payload):>6} B  {what}")
        counters = reader.counters
    if counters.overtaken_bytes or counters.corrupt_records:
        note(
            f"{name}: {counters.overtaken_bytes:,} bytes were overwritten before they could be read, "
            f"{counters.corrupt_records:,} records were damaged"
        )
        return Outcome.LOSS
    return Outcome.DONE


def _records(reader: Reader, *, follow: bool) -> Iterator[Record]:
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True

    with stopping(stop):
        # without --follow, what is there now: a producer that goes on must not keep this going
        end = reader.info().write_position
        while not stopped and (follow or reader.position < end):
            records = reader.read(4096, timeout=0.2 if follow else 0)
            sys.stdout.flush()
            for record in records:
                if not follow and record.position >= end:
                    return
                yield record
            if not records and (reader.closed_by_producer or not follow):
                return


def _packet(payload: bytes) -> dict[str, int] | None:
    if len(payload) < _PACKET.size:
        return None
    timestamp_us, src_id, cmd, kind, seq, _, count = _PACKET.unpack_from(payload)
    if cmd >= len(_COMMANDS) or kind >= len(_TYPES) or len(payload) != _PACKET.size + 4 * count:
        return None
    return {"timestamp_us": timestamp_us, "type": kind, "src_id": src_id, "cmd": cmd, "seq": seq, "count": count}


def _summary(payload: bytes) -> str:
    packet = _packet(payload)
    if packet is None:
        return payload[:16].hex(" ") + (" ..." if len(payload) > 16 else "")
    of = f"{_TYPES[packet['type']]} {packet['src_id']}"
    return f"{of} {_COMMANDS[packet['cmd']]} seq {packet['seq']} count {packet['count']}"


def _facts(record: Record) -> dict[str, Any]:
    facts: dict[str, Any] = {"position": record.position, "timestamp_us": record.timestamp_us}
    facts["payload"] = record.payload.hex()
    facts["packet"] = _packet(record.payload)
    return facts
