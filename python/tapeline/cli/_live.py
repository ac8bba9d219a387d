"""The table that `tapeline record` shows on a terminal; the only module here that needs `rich`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tapeline.cli._output import escape, size
from tapeline.ledger import RegisterLedger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeline.ledger import Ledger
    from tapeline.recorder import Recorder, StreamStatus


class View:
    """Rates between two snapshots, ring fill and losses of a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        """Take the first snapshot."""
        self._recorder = recorder
        self._start_s = self._last_s = time.monotonic()
        self._last: dict[str, Ledger | RegisterLedger] = {}

    def render(self) -> Table:
        """Draw the present state and remember it for the next rates."""
        now_s = time.monotonic()
        elapsed_s = max(now_s - self._last_s, 1e-6)
        grid = Table(title=f"recording to {escape(str(self._recorder.out))}, {now_s - self._start_s:.0f} s")
        grid.add_column("stream")
        streams = self._recorder.status().streams
        clients = any(isinstance(stream.ledger, RegisterLedger) for stream in streams.values())
        for heading in ("rate", _units(streams), "stored", "ring", "lost", "corrupt", "kernel drops"):
            grid.add_column(heading, justify="right")
        if clients:
            grid.add_column("clients", justify="right")
        for name, stream in streams.items():
            before = self._last.get(name, stream.ledger)
            row = _row(name, stream, before, elapsed_s)
            grid.add_row(*row, *([_clients(stream)] if clients else []))
        self._last = {name: stream.ledger for name, stream in streams.items()}
        self._last_s = now_s
        return grid


def _units(streams: Mapping[str, StreamStatus]) -> str:
    """What the streams count."""
    found = {"packets" if isinstance(s.ledger, RegisterLedger) else "frames" for s in streams.values()}
    return f"{' or '.join(sorted(found))}/s"


def _row(name: str, stream: StreamStatus, before: Ledger | RegisterLedger, elapsed_s: float) -> list[Text]:
    ledger = stream.ledger
    rate = (ledger.bytes_received - before.bytes_received) / elapsed_s
    (units, *bad), (units_before, *_) = _counts(ledger), _counts(before)
    frames = (units - units_before) / elapsed_s
    fill = stream.ring_used_bytes / max(stream.ring_bytes, 1)
    return [
        Text(escape(name), style="bold red" if stream.error else ""),
        Text(f"{size(rate)}/s"),
        Text(f"{frames:,.0f}"),
        Text(size(ledger.bytes_stored)),
        Text(f"{fill:.0%}", style="yellow" if fill > 0.5 else ""),
        *(Text(f"{count:,}", style="bold red" if count else "") for count in bad),
    ]


def _clients(stream: StreamStatus) -> Text:
    """How many are connected to a register server, and how many it has thrown out or refused."""
    ledger = stream.ledger
    if not isinstance(ledger, RegisterLedger):
        return Text("")
    closed = ledger.clients_closed
    bad = closed.framing_lost + closed.idle + closed.not_reading + ledger.clients_refused
    return Text(f"{stream.connections:,}" + (f", {bad:,} refused" if bad else ""), style="yellow" if bad else "")


def _counts(ledger: Ledger | RegisterLedger) -> tuple[int, int, int, int]:
    """Frames or packets received, lost, corrupt, and datagrams dropped."""
    dropped = ledger.datagrams_dropped_by_kernel
    if isinstance(ledger, RegisterLedger):
        return ledger.packets_received, ledger.packets_lost, ledger.packets_invalid.total, dropped
    return ledger.frames_received, ledger.frames_lost, ledger.frames_corrupt.total, dropped
