"""`tapeline replay`: send a recording again."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import click

from tapeline.cli._output import Outcome, emit, emit_json, interactive, note, size, table
from tapeline.cli._sending import ManyUrls, finished, quantity, sending
from tapeline.errors import ConfigError
from tapeline.quantities import parse_duration, parse_size

_EXAMPLES = """\b
Examples:
  tapeline replay run --to udp://127.0.0.1:9001
  tapeline replay run --to tcp://127.0.0.1:9001 tcp://127.0.0.1:9002 --speed max --json
  tapeline replay run/ch0/ch0_000000_20261121T030000.000000Z.dat --to tcp://127.0.0.1:9001 --speed 10
"""


@click.command(cls=ManyUrls, epilog=_EXAMPLES)
@click.argument("path", type=click.Path(exists=True), metavar="DIR")
@click.option(
    "--to", "urls", multiple=True, required=True, metavar="URL...", help="One for all streams, or one for each."
)
@click.option("--speed", default="1", show_default=True, metavar="X", help="Factor on the original pace, or max.")
@click.option("--stream", "names", multiple=True, metavar="NAME", help="Only this stream; again for more.")
@click.option("--datagram", metavar="BYTES", help="Fill UDP datagrams up to this size (one frame each).")
@click.option("--gso", is_flag=True, help="Let the kernel cut datagrams: faster; a GRO receiver counts drops by run.")
@click.option("--connect-timeout", default="10s", show_default=True, metavar="S", help="Wait so long for a listener.")
@click.option("--json", "as_json", is_flag=True, help="Print what was sent as one line of JSON.")
def replay(
    path: str,
    *,
    urls: tuple[str, ...],
    speed: str,
    names: tuple[str, ...],
    datagram: str | None,
    gso: bool,
    connect_timeout: str,
    as_json: bool,
) -> Outcome:
    """Send the frames or register packets of a recording again, bit for bit.

    DIR is a recording, a .dat or a .pkt file. The pace is the producer's, by the timestamps in the frames. Streams that
    share a URL are merged by time, each in its own order. Bytes of the files that belong to no valid frame are not
    sent; there being any is exit code 3. SIGINT or SIGTERM ends the sending.
    """
    from tapeline.replay import Replay, ReplayError

    start = partial(
        Replay,
        path,
        urls,
        speed=_speed(speed),
        streams=names or None,
        datagram_bytes=None if datagram is None else quantity("--datagram", parse_size, datagram),
        gso=gso,
        connect_timeout_s=quantity("--connect-timeout", parse_duration, connect_timeout),
    )
    with sending(start) as running:
        finished(running)
    try:
        summary = running.summary()
        skipped = any(stream["bytes_skipped"] for stream in summary["streams"])
        outcome = Outcome.LOSS if skipped else Outcome.DONE
    except ReplayError as error:
        note(f"tapeline: error: {error}")
        summary = error.summary
        outcome = Outcome.FAILED
    if "-" not in urls:
        emit_json(summary) if as_json else emit(_table(summary))
    elif as_json or interactive():
        # stdout carries the frames
        note(_table(summary))
    return outcome


def _speed(text: str) -> float | Literal["max"]:
    if text == "max":
        return "max"
    try:
        return float(text.removesuffix("x"))
    except ValueError:
        raise ConfigError(f"--speed: {text!r} is neither a number nor max") from None


def _table(summary: dict[str, Any]) -> str:
    rows = [[s["name"], s["url"], s["frames_sent"], s["bytes_sent"], s["bytes_skipped"]] for s in summary["streams"]]
    sent, seconds = sum(s["bytes_sent"] for s in summary["streams"]), summary["elapsed_s"]
    return (
        table(["stream", "to", "frames", "bytes", "skipped B"], rows, left=2)
        + f"\n{size(sent)} in {seconds:.3g} s, {size(sent / max(seconds, 1e-9))}/s"
    )
