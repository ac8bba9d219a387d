"""`tapeline simulate`: producers whose faults are accounted for. The account is the result, on stdout."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from tapeline.cli._output import Outcome, emit, emit_json, interactive, note, size, table
from tapeline.cli._sending import ManyUrls, finished, quantity, sending
from tapeline.quantities import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeline.simulate._simulation import Simulation

_RADAR_EXAMPLES = """\b
Examples:
  tapeline simulate radar --to tcp://127.0.0.1:9001 --streams 1 --frames 100000 --payload 64KiB
  tapeline simulate radar --to udp://:9001 udp://:9002 --rate 5000 --duration 10s --drop 0.01 --json
"""
_BATTERY_EXAMPLES = """\b
Examples:
  tapeline simulate battery --to tcp://127.0.0.1:9000 --clients 4 --packets 100000 --count 3 --json
  tapeline simulate battery --to udp://:9000 --count 1:40 --delay 0.01 --duration 10s --full-every 100
"""
_COLUMNS = (
    ("generated", "frames_generated"),
    ("sent", "frames_sent"),
    ("dropped", "frames_dropped"),
    ("duplicated", "frames_duplicated"),
    ("reordered", "frames_reordered"),
    ("corrupted", "frames_corrupted"),
    ("garbage B", "garbage_bytes"),
    ("bytes", "bytes_sent"),
)


@click.group()
def simulate() -> None:
    """Send test streams, with faults that are accounted for."""


@simulate.command(cls=ManyUrls, epilog=_RADAR_EXAMPLES)
@click.option("--to", "urls", multiple=True, required=True, metavar="URL...", help="tcp://, udp://, file:// or -.")
@click.option("--streams", type=click.IntRange(1, 65_535), help="Streams, spread over the URLs (4, or one per URL).")
@click.option("--frames", type=click.IntRange(0), help="Frames of each stream (10000; with --duration no limit).")
@click.option("--payload", default="1400", show_default=True, metavar="BYTES", help="Payload of a frame.")
@click.option("--rate", type=float, default=0.0, metavar="HZ", help="Frames per second of each stream; 0: no limit.")
@click.option("--duration", metavar="S", help="Stop after this time.")
@click.option("--periodic", type=click.IntRange(0), default=0, metavar="N", help="Mark periodics of N frames.")
@click.option("--drop", type=click.FloatRange(0, 1), default=0.0, metavar="P", help="Leave frames out.")
@click.option("--duplicate", type=click.FloatRange(0, 1), default=0.0, metavar="P", help="Send frames twice.")
@click.option("--reorder", type=click.FloatRange(0, 1), default=0.0, metavar="P", help="Send frames late.")
@click.option("--corrupt", type=click.FloatRange(0, 1), default=0.0, metavar="P", help="Flip a bit of frames.")
@click.option("--garbage", type=click.FloatRange(0, 1), default=0.0, metavar="P", help="Bytes that are no frame.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Decides all faults.")
@click.option("--datagram", metavar="BYTES", help="Fill UDP datagrams up to this size (one frame each).")
@click.option("--gso", is_flag=True, help="Let the kernel cut datagrams: faster; a GRO receiver counts drops by run.")
@click.option("--connect-timeout", default="10s", show_default=True, metavar="S", help="Wait so long for a listener.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as one line of JSON.")
def radar(
    *,
    urls: tuple[str, ...],
    streams: int | None,
    frames: int | None,
    payload: str,
    rate: float,
    duration: str | None,
    periodic: int,
    seed: int,
    datagram: str | None,
    gso: bool,
    connect_timeout: str,
    as_json: bool,
    **faults: float,
) -> Outcome:
    """Send radar frames and say exactly what was sent and what was broken.

    Stream i carries the stream id i and goes to URL i modulo their number. Probabilities are per frame and follow
    from the seed alone. SIGINT or SIGTERM ends the sending; the account is printed then, too.
    """
    from tapeline.simulate import FaultRates, RadarSimulation
    from tapeline.simulate._radar import DEFAULT_FRAMES

    duration_s = None if duration is None else quantity("--duration", parse_duration, duration)
    if frames is None and duration_s is None:
        frames = DEFAULT_FRAMES
    start = partial(
        RadarSimulation,
        urls,
        streams=streams,
        frames=frames,
        payload_bytes=quantity("--payload", parse_size, payload),
        rate_hz=rate,
        duration_s=duration_s,
        periodic=periodic,
        faults=FaultRates(**faults),
        seed=seed,
        datagram_bytes=None if datagram is None else quantity("--datagram", parse_size, datagram),
        gso=gso,
        connect_timeout_s=quantity("--connect-timeout", parse_duration, connect_timeout),
    )
    return _send(start, urls, _table, as_json=as_json)


@simulate.command(cls=ManyUrls, epilog=_BATTERY_EXAMPLES)
@click.option("--to", "urls", multiple=True, required=True, metavar="URL...", help="tcp://, udp://, file:// or -.")
@click.option("--clients", type=click.IntRange(1, 1024), help="Connections, each a source (one per URL).")
@click.option("--packets", type=click.IntRange(0), help="Packets of each client (10000; with --duration no limit).")
@click.option("--count", default="8", show_default=True, metavar="C", help="Registers of a packet: N, or MIN:MAX.")
@click.option("--registers", type=click.IntRange(1, 65_536), help="Registers of a source (1024, or the count).")
@click.option("--delay", metavar="S", help="Time between two packets of a client (none).")
@click.option("--rate", type=float, default=0.0, metavar="HZ", help="Packets per second of each client; 0: no limit.")
@click.option("--duration", metavar="S", help="Stop after this time.")
@click.option("--random", is_flag=True, help="Random offsets and values instead of a battery's.")
@click.option("--full-every", type=click.IntRange(0), default=0, metavar="N", help="Each N-th packet is a FULL.")
@click.option("--wire", type=click.Choice(["simple", "packet"]), default="packet", show_default=True, help="The wire.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="Decides all, times included (0, times by the clock).")
@click.option("--datagram", metavar="BYTES", help="Fill UDP datagrams up to this size (one packet each).")
@click.option("--image", is_flag=True, help="Put the final image into the account.")
@click.option("--connect-timeout", default="10s", show_default=True, metavar="S", help="Wait so long for a listener.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as one line of JSON.")
def battery(
    *,
    urls: tuple[str, ...],
    clients: int | None,
    packets: int | None,
    count: str,
    registers: int | None,
    delay: str | None,
    rate: float,
    duration: str | None,
    random: bool,
    full_every: int,
    wire: Literal["simple", "packet"],
    seed: int | None,
    datagram: str | None,
    image: bool,
    connect_timeout: str,
    as_json: bool,
) -> Outcome:
    """Send register packets of a battery and say what was sent and what image must come of it.

    Each client is a rack with a connection of its own; cell voltages, temperatures, currents and contactors drift.
    Client i goes to URL i modulo their number. SIGINT or SIGTERM ends the sending; the account is printed then, too.
    """
    from tapeline.simulate import BatterySimulation
    from tapeline.simulate._battery import DEFAULT_PACKETS

    duration_s = None if duration is None else quantity("--duration", parse_duration, duration)
    if packets is None and duration_s is None:
        packets = DEFAULT_PACKETS
    start = partial(
        BatterySimulation,
        urls,
        clients=clients,
        packets=packets,
        count=quantity("--count", _count, count),
        registers=registers,
        delay_s=0.0 if delay is None else quantity("--delay", parse_duration, delay),
        rate_hz=rate,
        duration_s=duration_s,
        random=random,
        full_every=full_every,
        wire=wire,
        seed=seed,
        datagram_bytes=None if datagram is None else quantity("--datagram", parse_size, datagram),
        image=image,
        connect_timeout_s=quantity("--connect-timeout", parse_duration, connect_timeout),
    )
    return _send(start, urls, _battery_text, as_json=as_json)


def _count(text: object) -> tuple[int, int]:
    low, _, high = str(text).partition(":")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor MIN:MAX") from None


def _send(
    start: Callable[[], Simulation], urls: tuple[str, ...], text: Callable[[dict[str, Any]], str], *, as_json: bool
) -> Outcome:
    """Start a simulation, wait for its end and print its account."""
    from tapeline.simulate import SendError

    to_stdout = "-" in urls
    with sending(start) as simulation:
        finished(simulation)
    try:
        truth = simulation.truth()
        outcome = Outcome.DONE
    except SendError as error:
        note(f"tapeline: error: {error}")
        truth = error.truth
        outcome = Outcome.FAILED
    if not to_stdout:
        emit_json(truth) if as_json else emit(text(truth))
    elif as_json or interactive():
        # stdout carries the stream
        note(text(truth))
    return outcome


def _battery_text(truth: dict[str, Any]) -> str:
    total, seconds = truth["total"], truth["elapsed_s"]
    speed = f" in {seconds:.3g} s, {total['packets_sent'] / seconds:,.0f} packets/s" if seconds > 0 else ""
    return (
        f"{len(truth['clients'])} clients: {total['packets_sent']:,} packets ({total['full_packets']:,} FULL) with "
        f"{total['registers_sent']:,} registers, {size(total['bytes_sent'])}{speed}\nimage {truth['image_digest']}"
    )


def _table(truth: dict[str, Any]) -> str:
    rows = [[s["name"], s["url"], *(s[field] for _, field in _COLUMNS)] for s in truth["streams"]]
    rows.append(["total", "", *(truth["total"][field] for _, field in _COLUMNS)])
    seconds = max((d["elapsed_s"] for d in truth["destinations"]), default=0.0)
    sent = truth["total"]["bytes_sent"]
    speed = f", {size(sent / seconds)}/s" if seconds > 0 else ""
    return (
        table(["stream", "to", *(title for title, _ in _COLUMNS)], rows, left=2)
        + f"\n{size(sent)} in {seconds:.3g} s{speed}"
    )
