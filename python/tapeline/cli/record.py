"""`tapeline record`: run a recorder until a signal, a limit or the end of its sources.

The first SIGINT or SIGTERM drains and finishes, a second one gives up at once; SIGUSR2 rotates. Handlers only
note what came, the loop acts: a handler may interrupt any line of Python. A stop does not wait for the loop, which is
in the compiled wait most of the time: the interpreter writes each signal's number into a pipe as it comes, and a
thread that reads it asks for the stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, interactive, note, size, table
from tapeline.config import RecorderConfig
from tapeline.errors import ConfigError, RecorderError
from tapeline.ledger import RegisterLedger
from tapeline.quantities import parse_rotation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapeline.recorder import Recorder

_EXAMPLES = """\b
Examples:
  tapeline record --stream ch0=udp://127.0.0.1:9001 --out run
  tapeline record --stream ch0=udp://:9001 --stream ch0=tcp://:9001 --out run   (one stream, two paths)
  tapeline record radar.toml --rotate 10min --set ring_bytes=256MiB --json
  cat capture.dat | tapeline record --stream ch0=- --out run
"""
_REFRESH_S = 0.25
_STREAM_FLAGS = ("assembly", "sync")
_TOP_FLAGS = ("out", "count", "duration_seconds", "start_timeout_seconds")


@click.command(epilog=_EXAMPLES)
@click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False), metavar="[CONFIG.toml]")
@click.option("--stream", "streams", multiple=True, metavar="NAME=URL", help="A stream and its source; twice for two.")
@click.option("--out", metavar="DIR", help="Directory of the recording; made when missing.")
@click.option("--rotate", metavar="SIZE|TIME", help="Begin a new segment past this size (256MiB) or age (10min).")
@click.option("--duration", "duration_seconds", metavar="S", help="Stop after this time.")
@click.option("--count", metavar="N", help="Stop after N frames stored in all streams together.")
@click.option("--assembly", metavar="RULE", help="How frames form periodics: none, markers or count:N.")
@click.option("--sync", metavar="MODE", help="When data is forced to disk: segment, batch or interval:SECONDS.")
@click.option("--start-timeout", "start_timeout_seconds", metavar="S", help="Fail when a stream receives nothing.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting; without a dot, of every stream."
)
@click.option("--allow-insecure-bind", is_flag=True, help="Allow listening beyond this machine without authentication.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one last line of JSON.")
def record(
    config: str | None,
    *,
    streams: tuple[str, ...],
    rotate: str | None,
    settings: tuple[str, ...],
    allow_insecure_bind: bool,
    as_json: bool,
    **options: str | None,
) -> Outcome:
    """Record streams into a directory until stopped.

    Settings come from the file, then from variables named TAPELINE_..., then from options; the last wins.
    The first SIGINT or SIGTERM stops receiving, writes what has arrived and finishes; a second one forces
    the end. SIGUSR2 begins new segments.
    """
    from tapeline.recorder import Recorder

    flags: dict[str, Any] = {name: options[name] for name in _TOP_FLAGS if options[name] is not None}
    stream_flags: dict[str, Any] = {name: options[name] for name in _STREAM_FLAGS if options[name] is not None}
    if allow_insecure_bind:
        flags["allow_insecure_bind"] = True
    if rotate is not None:
        _put_rotation(stream_flags, rotate)
    for name, url in (_pair(text, "--stream", "NAME=URL") for text in streams):
        flags.setdefault("streams", {}).setdefault(name, {}).setdefault("sources", []).append(url)
    for key, value in (_pair(text, "--set", "KEY=VALUE") for text in settings):
        _put_setting(flags, stream_flags, key, value)
    recorder = Recorder(RecorderConfig.load(config, flags=flags, stream_flags=stream_flags))
    return _run(recorder, as_json=as_json)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise click.UsageError(f"{option} {text}: expected {form}")
    return name, value


def _put_rotation(stream_flags: dict[str, Any], text: str) -> None:
    try:
        name, value = parse_rotation(text)
    except ValueError as error:
        raise ConfigError(f"--rotate: {error}") from None
    stream_flags[name] = value


def _put_setting(flags: dict[str, Any], stream_flags: dict[str, Any], key: str, value: str) -> None:
    """`keep_bytes` is the recording's, `streams.NAME.KEY` one stream's, any other key every stream's."""
    parts = key.split(".")
    if parts[0] == "streams" and len(parts) > 2:
        settings = flags.setdefault("streams", {}).setdefault(parts[1], {})
        if len(parts) == 4 and parts[2] == "layout":
            settings = settings.setdefault("layout", {})
        settings[parts[-1]] = value
    elif key in RecorderConfig.__dataclass_fields__ and key != "streams":
        flags[key] = value
    else:
        stream_flags[key] = value


def _run(recorder: Recorder, *, as_json: bool) -> Outcome:
    with _signals() as signals:
        recorder.start()
        failure: str | None = None
        told = 0
        with _stopped_at_once(recorder, signals), _live(recorder) as refresh:
            _announce(recorder)
            try:
                while not recorder.wait(_REFRESH_S):
                    if signals.stops > 1:
                        return Outcome.FORCED
                    if signals.stops == 1:
                        recorder.request_stop()
                    if signals.rotate:
                        signals.rotate = False
                        recorder.rotate()
                    refresh()
                    told = _tell(recorder, told)
                if signals.stops > 1:
                    return Outcome.FORCED
            except RecorderError as error:
                failure = str(error)
        try:
            recorder.stop()
        except RecorderError as error:
            failure = failure or str(error)
        _tell(recorder, told)
    summary = recorder.summary()
    if as_json:
        # absolute, so that the reader needs to know neither --out nor our working directory
        out = recorder.out.absolute()
        streams = {
            name: {
                "ledger": stream["ledger"],
                "files": [str(out / file) for file in stream["files"]],
                **({"sinks": stream["sinks"]} if stream.get("sinks") else {}),
            }
            for name, stream in summary["streams"].items()
        }
        emit_json({"streams": streams})
    else:
        emit(_table(recorder))
    if failure is not None:
        raise RecorderError(failure)
    return Outcome.LOSS if summary["lost_anything"] else Outcome.DONE


class _Signals:
    """What has come since the start."""

    stops = 0
    rotate = False


@contextmanager
def _signals() -> Iterator[_Signals]:
    seen = _Signals()

    def stop(_number: int, _frame: object) -> None:
        seen.stops += 1

    def rotate(_number: int, _frame: object) -> None:
        seen.rotate = True

    wanted: list[tuple[int, Callable[[int, object], None]]] = [(signal.SIGINT, stop), (signal.SIGTERM, stop)]
    if hasattr(signal, "SIGUSR2"):
        wanted.append((signal.SIGUSR2, rotate))
    before = [(number, signal.signal(number, handler)) for number, handler in wanted]
    try:
        yield seen
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def _stopped_at_once(recorder: Recorder, signals: _Signals) -> Iterator[None]:
    """Ask for the stop as soon as SIGINT or SIGTERM comes."""
    coming, noted = os.pipe()
    os.set_blocking(noted, False)

    def act() -> None:
        while numbers := os.read(coming, 64):
            # a second one with it is for the loop, which gives up
            if sum(number in {signal.SIGINT, signal.SIGTERM} for number in numbers) == 1:
                recorder.request_stop()

    thread = threading.Thread(target=act, name="signals")
    thread.start()
    before = signal.set_wakeup_fd(noted, warn_on_full_buffer=False)
    try:
        if signals.stops:  # it came before the pipe was there
            recorder.request_stop()
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(noted)
        thread.join()
        os.close(coming)


def _announce(recorder: Recorder) -> None:
    verbs = {"udp": "listening on", "tcp": "listening on", "tcp+connect": "connecting to", "file": "reading"}
    for name, stream in recorder.status().streams.items():
        for address in stream.addresses:
            note(f"{name}: {verbs.get(address.partition('://')[0], 'reading')} {address}")


def _tell(recorder: Recorder, told: int) -> int:
    """Say why connections were closed, once each; how many have been told."""
    lost = [event for event in recorder.status().events if event["kind"] == "framing_lost"]
    for event in lost[told:]:
        note(f"{event['stream']}: {event['text']}")
    return max(told, len(lost))


@contextmanager
def _live(recorder: Recorder) -> Iterator[Callable[[], None]]:
    """A table that follows the recording while a person watches; nothing otherwise."""
    if not interactive():
        yield lambda: None
        return
    from rich.console import Console
    from rich.live import Live

    from tapeline.cli._live import View

    view = View(recorder)
    console = Console(file=sys.stderr)
    with Live(view.render(), console=console, auto_refresh=False, transient=True) as live:
        yield lambda: live.update(view.render(), refresh=True)


def _table(recorder: Recorder) -> str:
    rows = []
    for name, ledger in recorder.ledger().items():
        if isinstance(ledger, RegisterLedger):
            rows.append(
                (name, ledger.packets_stored, size(ledger.bytes_stored), ledger.packets_lost,
                 ledger.packets_invalid.total, ledger.packets_duplicate, 0, ledger.datagrams_dropped_by_kernel,
                 ledger.bytes_invalid + ledger.bytes_discarded)
            )  # fmt: skip
            continue
        bad = ledger.frames_corrupt.total
        rows.append(
            (name, ledger.frames_stored, size(ledger.bytes_stored), ledger.frames_lost, bad, ledger.frames_duplicate,
             ledger.frames_repaired, ledger.datagrams_dropped_by_kernel, ledger.bytes_discarded)
        )  # fmt: skip
    headers = ("stream", "stored", "bytes", "lost", "corrupt", "duplicate", "repaired", "kernel drops", "discarded")
    return table(headers, rows)
