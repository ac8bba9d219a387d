"""`tapeline demo`: a whole recording on one machine, with a table in which every frame and byte is accounted for.

Producers and recorder run in this process but share nothing except sockets: what the producers did is compared
with what the ledgers say, and a number that does not close is a failure. `Account` does the arithmetic.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, note, progress, size, table
from tapeline.errors import TapelineError
from tapeline.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeline.recorder import Recorder
    from tapeline.simulate import RadarSimulation

_EXAMPLES = """\b
Examples:
  tapeline demo
  tapeline demo --out run --seed 7
"""
_PAYLOAD_BYTES = 8192
_PERIODIC_FRAMES = 64
_UDP_RATE_HZ = 15_000.0  # 120 MB/s each: UDP has no backpressure, so at full speed the kernel would drop much
_FAULT_RATE = 0.001  # of each kind
_QUIET_S = 2.0  # nothing more comes once the counters have stood still for so long
_STREAMS = {"ch0": "tcp", "ch1": "tcp", "ch2": "udp", "ch3": "udp"}


@click.command(epilog=_EXAMPLES)
@click.option("--out", type=click.Path(file_okay=False), metavar="DIR", help="Keep the recording here.")
@click.option("--frames", type=click.IntRange(100), default=102_400, show_default=True, help="Frames of a TCP stream.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Decides all faults.")
@click.option("--json", "as_json", is_flag=True, help="Print the reconciliation as one line of JSON.")
def demo(out: str | None, *, frames: int, seed: int, as_json: bool) -> Outcome:
    """Record four faulty radar streams and account for every byte.

    Two streams come over TCP as fast as they are taken, two over UDP. One frame in a thousand is dropped, one
    corrupted, one sent twice, one sent late, and there is garbage in between. The exit code is 1 when one
    number does not close.
    """
    with ExitStack() as stack:
        directory = (
            Path(out) if out else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tapeline-")), "run")
        )
        if not as_json:
            note(f"recording four streams of {_PAYLOAD_BYTES:,}-byte frames into {directory}")
        accounts, seconds = _record(directory, frames, seed)
        problems = _verify(directory)
    closes = all(account.closes for account in accounts.values()) and not problems
    if as_json:
        streams = {name: account.as_dict() for name, account in accounts.items()}
        emit_json({"closes": closes, "seconds": seconds, "problems": problems, "streams": streams})
    else:
        emit(_report(accounts, seconds))
        emit(
            "\n".join(f"verify: {problem}" for problem in problems) or "verify: digests, CRCs, sequences and laws hold"
        )
        emit("every frame and byte is accounted for" if closes else "A NUMBER DOES NOT CLOSE")
    return Outcome.DONE if closes else Outcome.FAILED


@dataclass(frozen=True)
class Account:
    """One stream: the producer's account beside the recorder's.

    Attributes:
        transport: `tcp` or `udp`.
        sent: The producer's account of its destination.
        ledger: The recorder's.
        span: Sequences between the first and last recorded one, both included.
    """

    transport: str
    sent: Mapping[str, Any]
    ledger: Ledger
    span: int

    @property
    def kernel_frames(self) -> int:
        """Frames sent intact of which no copy was received."""
        return int(self.sent["frames_unique"]) - self.ledger.frames_stored

    @property
    def kernel_bytes(self) -> int:
        """Bytes sent that the recorder did not receive."""
        return int(self.sent["bytes_sent"]) - self.ledger.bytes_received

    @property
    def duplicate_bytes(self) -> int:
        """Bytes of valid frames that were received and, being duplicates, not stored."""
        return self.ledger.bytes_received - self.ledger.bytes_discarded - self.ledger.bytes_stored

    @property
    def garbage_bytes(self) -> int:
        """Bytes received that never were a frame; at most that where the kernel dropped datagrams."""
        return min(int(self.sent["garbage_bytes"]), self.ledger.bytes_discarded)

    def checks(self) -> dict[str, bool]:
        """Name of each sum to whether it closes.

        Without kernel drops every counter equals the producer's. A dropped datagram held one frame or one piece
        of garbage, nobody knows which; each difference is then bounded by their number, and the sums over
        sequences and datagrams stay exact.
        """
        sent, ledger = self.sent, self.ledger
        expected = sent["expected"]
        drops = ledger.datagrams_dropped_by_kernel
        frame_bytes = max((ledger.bytes_stored // ledger.frames_stored) if ledger.frames_stored else 0, 256)

        def near(ours: int, theirs: int, unit: int = 1) -> bool:
            return 0 <= theirs - ours <= drops * unit

        return {
            "generated = recorded + dropped + corrupted + kernel": (
                sent["frames_generated"]
                == ledger.frames_stored + sent["frames_dropped"] + sent["frames_corrupted"] + self.kernel_frames
                and 0 <= self.kernel_frames <= drops
            ),
            "first to last = recorded + lost": self.span == ledger.frames_stored + ledger.frames_lost,
            "lost": ledger.frames_lost == expected["frames_lost"] or drops > 0,
            "duplicate": near(ledger.frames_duplicate, expected["frames_duplicate"]),
            "late": near(ledger.frames_reordered, expected["frames_reordered"]),
            "corrupt": near(ledger.frames_corrupt.total, sum(expected["frames_corrupt"].values())),
            "discarded bytes": near(ledger.bytes_discarded, expected["bytes_discarded"], frame_bytes),
            "duplicate bytes": self.duplicate_bytes
            == ledger.frames_duplicate * (ledger.bytes_stored // max(ledger.frames_stored, 1)),
            "sent bytes = received + kernel": near(ledger.bytes_received, sent["bytes_sent"], frame_bytes),
            "datagrams = received + kernel": (
                self.transport != "udp" or sent["datagrams_sent"] == ledger.datagrams_received + drops
            ),
            "laws": not ledger.broken_laws(),
        }

    @property
    def closes(self) -> bool:
        """True when every sum closes."""
        return all(self.checks().values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "transport": self.transport,
            "sent": dict(self.sent),
            "ledger": self.ledger.as_dict(),
            "checks": self.checks(),
        }


def _record(directory: Path, frames: int, seed: int) -> tuple[dict[str, Account], float]:
    from tapeline import simulate
    from tapeline.recorder import Recorder

    config = {
        "out": directory,
        "defaults": {"assembly": "markers", "hold_seconds": 0.1},
        "streams": {name: f"{transport}://127.0.0.1:0" for name, transport in _STREAMS.items()},
    }
    faults = simulate.FaultRates(*[_FAULT_RATE] * 5)
    with Recorder(config) as recorder:
        urls = {name: stream.addresses[0] for name, stream in recorder.status().streams.items()}
        start_s = time.monotonic()
        simulations: list[RadarSimulation] = []
        for transport, count, rate_hz in (("tcp", frames, 0.0), ("udp", frames // 2, _UDP_RATE_HZ)):
            targets = [urls[name] for name, kind in _STREAMS.items() if kind == transport]
            simulations.append(
                simulate.RadarSimulation(
                    targets, frames=count, payload_bytes=_PAYLOAD_BYTES, rate_hz=rate_hz, streams=len(targets),
                    periodic=_PERIODIC_FRAMES, faults=faults, seed=seed + len(simulations),
                )
            )  # fmt: skip
        sent = _watch(simulations, frames)
        by_name = {name: sent[url] for name, url in urls.items()}
        _drain(recorder, by_name)
        seconds = time.monotonic() - start_s
    ledgers = _frame_ledgers(recorder)
    spans = _spans(directory)
    return {
        name: Account(transport, by_name[name], ledgers[name], spans.get(name, 0))
        for name, transport in _STREAMS.items()
    }, seconds


def _watch(simulations: Sequence[RadarSimulation], frames: int) -> dict[str, Mapping[str, Any]]:
    """Wait for the producers; returns the account by destination."""
    with progress("sending", total=float(3 * frames * _PAYLOAD_BYTES)) as advance:
        while not all(simulation.wait(0.1) for simulation in simulations):
            advance(float(sum(simulation.bytes_sent() for simulation in simulations)))
    return {d["url"]: d for simulation in simulations for d in simulation.truth()["destinations"]}


def _drain(recorder: Recorder, sent: Mapping[str, Mapping[str, Any]]) -> None:
    """Wait until everything that was sent has been received or dropped, or nothing comes any more."""
    last, quiet_since_s = -1, time.monotonic()
    while True:
        ledgers = _frame_ledgers(recorder)
        missing = [
            name
            for name, account in sent.items()
            if ledgers[name].bytes_received < account["bytes_sent"]
            and (_STREAMS[name] == "tcp" or not _all_datagrams(ledgers[name], account))
        ]
        received, now_s = sum(ledger.bytes_received for ledger in ledgers.values()), time.monotonic()
        if received != last:
            last, quiet_since_s = received, now_s
        if not missing or now_s - quiet_since_s > _QUIET_S:
            return
        if recorder.wait(0.01):
            raise TapelineError("the recorder ended before everything was received")


def _all_datagrams(ledger: Ledger, account: Mapping[str, Any]) -> bool:
    return bool(ledger.datagrams_received + ledger.datagrams_dropped_by_kernel >= account["datagrams_sent"])


def _spans(directory: Path) -> dict[str, int]:
    from tapeline.recording import open_recording

    spans = {}
    for name, stream in open_recording(directory).streams.items():
        index = stream.periodics()
        if index.num_rows:
            first, last = index["first_sequence"].to_numpy(), index["last_sequence"].to_numpy()
            spans[name] = int(last.max()) - int(first.min()) + 1
    return spans


def _verify(directory: Path) -> list[str]:
    from tapeline.recording import open_recording

    return [str(problem) for problem in open_recording(directory).verify().problems]


def _report(accounts: Mapping[str, Account], seconds: float) -> str:
    def row(label: str, value: Any) -> list[object]:
        numbers = [value(account) for account in accounts.values()]
        shown = [number for number in numbers if number is not None]
        return [label, *numbers, sum(shown)]

    frames = [
        row("sequences generated", lambda a: a.sent["frames_generated"]),
        row("- dropped on the way", lambda a: a.sent["frames_dropped"]),
        row("- corrupted on the way", lambda a: a.sent["frames_corrupted"]),
        row("- dropped by the kernel", lambda a: a.kernel_frames),
        row("= recorded", lambda a: a.ledger.frames_stored),
        row("lost, says the ledger", lambda a: a.ledger.frames_lost),
        row("sent twice", lambda a: a.sent["frames_duplicated"]),
        row("duplicate, says the ledger", lambda a: a.ledger.frames_duplicate),
        row("sent late", lambda a: a.sent["frames_reordered"]),
        row("reordered, says the ledger", lambda a: a.ledger.frames_reordered),
    ]
    octets = [
        row("bytes sent", lambda a: a.sent["bytes_sent"]),
        row("- duplicates", lambda a: a.duplicate_bytes),
        row("- corrupt frames", lambda a: a.ledger.bytes_discarded - a.garbage_bytes),
        row("- garbage", lambda a: a.garbage_bytes),
        row("- dropped by the kernel", lambda a: a.kernel_bytes),
        row("= recorded", lambda a: a.ledger.bytes_stored),
    ]
    headers = ["", *(f"{name} {account.transport}" for name, account in accounts.items()), "total"]
    closes: list[object] = ["closes", *(account.closes for account in accounts.values()), ""]
    gap: list[object] = [""] * len(headers)
    received = sum(account.ledger.bytes_received for account in accounts.values())
    failed = [f"{n}: {what}: does not close" for n, a in accounts.items() for what, ok in a.checks().items() if not ok]
    return "\n".join(
        [
            table(headers, [*frames, gap, *octets, gap, closes]),
            *failed,
            f"{size(received)} in {seconds:.2f} s: {size(received / seconds)}/s",
        ]
    )


def _frame_ledgers(recorder: Recorder) -> dict[str, Ledger]:
    """The ledgers; every stream of the demonstration carries frames."""
    return {name: ledger for name, ledger in recorder.ledger().items() if isinstance(ledger, Ledger)}
