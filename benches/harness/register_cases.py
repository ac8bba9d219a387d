"""The cases of register packets: what is compared with what, and the floor below which a figure fails.

As in `cases`: ratios of bests of one run, ours and the rival in turn. What is a bound and not a comparison (rows per
second, the time of an answer) is given as the ratio to that bound.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import Bench, Figure
from .processes import BenchError, Child, free_ports, wait_for_ports
from .receivers import RIVALS, TAPELINE
from .register_receivers import RegisterBytes, RegisterServer, RegisterThreads

if TYPE_CHECKING:
    from collections.abc import Callable

    from .receivers import Recorded

# Beside the log: tables, indexes, a segment that may be prepared.
_BESIDE_BYTES = 384 << 20
_HEADER_BYTES = 21
_MOST_PER_SECOND = 1.2e9
_GOAL = "goal"
# Issue 4, "What it must show".
_GOOD_ROWS_PER_SECOND = 5e6
_ANSWER_MS = 5.0
_IMAGE_AT_MS = 100.0
_HOSTILE = 10_000


@dataclass(frozen=True)
class RegisterSize:
    """How much of everything."""

    packets: int = 20_000_000
    total_bytes: int = 2_000_000_000
    rows: int = 40_000_000
    query_seconds: float = 3.0
    hostile_seconds: float = 10.0
    hostile: int = _HOSTILE
    changes: int = 102_000_000


# Rows for more than a second: a sink that begins loads its libraries first, which takes one where no cache has them.
SMOKE = RegisterSize(1_000_000, 200_000_000, 15_000_000, 0.5, 1.0, 500, 2_000_000)


@dataclass(frozen=True)
class Run:
    """One run of one server."""

    packets_per_second: float
    bytes_per_second: float
    cpu_seconds: float
    sent: dict[str, Any]
    recorded: Recorded
    # From the sender's start to the last file's last byte.
    whole_seconds: float

    def as_dict(self) -> dict[str, float]:
        """The figures, for the results file."""
        return {
            "packets_per_second": round(self.packets_per_second),
            "bytes_per_second": round(self.bytes_per_second),
            "cpu_seconds": round(self.cpu_seconds, 4),
        }


def run(bench: Bench, server: RegisterServer | RegisterThreads, *, clients: int, count: int, **sending: Any) -> Run:
    """Send packets to a server that is new, and compare what it has with what was sent.

    Raises:
        BenchError: They differ.
    """
    # Nothing is deleted during a run: memory that is touched for the first time would be what is measured.
    packet_bytes = _HEADER_BYTES + 4 * count
    sending_bytes = sending.get("packets", 0) * clients * packet_bytes or int(sending["seconds"] * _MOST_PER_SECOND)
    bench.output.fill_reservoir(sending_bytes + _BESIDE_BYTES)
    out = bench.output.fresh()
    port = free_ports(1)[0]
    child = server.start(out, port, clients)
    try:
        wait_for_ports(child, [port])
        bench.output.release_reservoir()
        child.mark_cpu()
        words = {"to": f"127.0.0.1:{port}", "clients": clients, "count": count, **sending}
        sent = Child([RIVALS / "packet-blaster", *_words(words)]).wait()
        if not server.stops_by_itself:
            child.terminate()
        recorded = server.recorded(child.wait(), out)
    finally:
        child.kill()
    good = recorded.ledger.get("queries", 0) + sent["packets"] if recorded.ledger else sent["packets"]
    extra = recorded.bytes - sent["bytes"]
    if recorded.frames not in {good, -1} or extra != sent["queries"] * (_HEADER_BYTES + 32):
        raise BenchError(f"{server.name}: sent {sent}, recorded {recorded.frames} packets, {recorded.bytes} bytes")
    ended_ns = max(path.stat().st_mtime_ns for path in out.rglob(server.pattern))
    complete_ns = max(path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file())
    # While queries or hostile clients are served the log goes on after the good ones: their own time counts then.
    seconds = sent["seconds"] if "seconds" in sending else (ended_ns - sent["started_ns"]) * 1e-9
    whole_seconds = (complete_ns - sent["started_ns"]) * 1e-9
    return Run(sent["packets"] / seconds, sent["bytes"] / seconds, child.cpu_seconds, sent, recorded, whole_seconds)


def against(
    bench: Bench, case: str, *, clients: int, count: int, floor: float, rival: RegisterThreads, share: float, total: int
) -> list[Figure]:  # fmt: skip
    """Packets per second of the server and of a rival; the rival gets `share` of the packets."""
    samples: dict[str, list[Run]] = {"tapeline": [], rival.name: []}
    for number in range(bench.size.rounds):
        names = list(samples) if number % 2 == 0 else list(reversed(samples))
        for name in names:
            ours = name == "tapeline"
            packets = int(total * (1 if ours else share)) // clients
            done = run(bench, RegisterServer() if ours else rival, clients=clients, count=count, packets=packets)
            samples[name].append(done)
            bench.say(
                f"    {name:16} {done.packets_per_second / 1e6:6.2f} M packets/s"
                f"  {done.bytes_per_second / 1e9:5.2f} GB/s  {done.cpu_seconds:.2f} CPU s"
            )
    lists = [[one.packets_per_second for one in samples[name]] for name in ("tapeline", rival.name)]
    what = f"register packets of {count} registers, {clients} client{'s' * (clients > 1)}"
    return [
        Figure(
            case, what, "packets/s", max(lists[0]), max(lists[1]), rival.name, floor, slack=bench.size.slack,
            ours_median=statistics.median(lists[0]), rival_median=statistics.median(lists[1]),
            samples={name: [one.as_dict() for one in each] for name, each in samples.items()},
        )
    ]  # fmt: skip


def threads(bench: Bench, case: str, size: RegisterSize, clients: int) -> list[Figure]:
    """Against a thread per client and two mutexes."""
    return against(
        bench, case, clients=clients, count=3, floor=8.0, rival=RegisterThreads(), share=0.1, total=size.packets
    )


def plain(bench: Bench, case: str, size: RegisterSize) -> list[Figure]:
    """Against a program that only receives and writes the bytes."""
    total = size.total_bytes // (_HEADER_BYTES + 4 * 1000)
    return against(bench, case, clients=1, count=1000, floor=0.8, rival=RegisterBytes(), share=1.0, total=total)


def parquet(bench: Bench, case: str, size: RegisterSize) -> list[Figure]:
    """Rows per second into Parquet, from the first byte to the end of the process that wrote the last file."""
    figures = []
    for count in (3, 100):
        rates = []
        for _ in range(bench.size.rounds):
            server = RegisterServer(sinks=[{"kind": "parquet"}], rotate_bytes=50_000_000)
            done = run(bench, server, clients=1, count=count, packets=size.rows // count)
            rates.append(size.rows // count * count / done.whole_seconds)
            bench.say(f"    {count} registers a packet: {rates[-1] / 1e6:.2f} M rows/s")
        what = f"Parquet (zstd), packets of {count} registers, until the last file is complete"
        goal = Figure(f"{case}_{count}", what, "rows/s", max(rates), _GOOD_ROWS_PER_SECOND, _GOAL, 1.0)
        figures.append(dataclasses.replace(goal, slack=bench.size.slack, ours_median=statistics.median(rates)))
    return figures


def query(bench: Bench, case: str, size: RegisterSize) -> list[Figure]:
    """The time of answers while four clients send all they can."""
    times = []
    for _ in range(bench.size.rounds):
        sending = {"seconds": size.query_seconds, "query-us": 1000}
        sent = run(bench, RegisterServer(), clients=4, count=3, **sending).sent
        times.append(sent["query_p99_us"] / 1000)
        bench.say(
            f"    {sent['packets'] / sent['seconds'] / 1e6:.2f} M packets/s, {sent['queries']} queries:"
            f" P50 {sent['query_p50_us'] / 1000:.3f} ms, P99 {times[-1]:.3f} ms, longest"
            f" {sent['query_max_us'] / 1000:.3f} ms"
        )
    what = "answer to a QUERY while four clients send all they can, P99"
    goal = Figure(case, what, "ms", min(times), _ANSWER_MS, _GOAL, 1.0, at_most=True, slack=bench.size.slack)
    return [dataclasses.replace(goal, ours_median=statistics.median(times))]


def hostile(bench: Bench, case: str, size: RegisterSize) -> list[Figure]:
    """A good client's rate while others attack, against its rate alone."""
    samples: dict[str, list[Run]] = {"attacked": [], "alone": []}
    for number in range(bench.size.rounds):
        for name in list(samples) if number % 2 == 0 else list(reversed(samples)):
            sending = {"seconds": size.hostile_seconds}
            if name == "attacked":
                sending["hostile"] = size.hostile
            done = run(bench, RegisterServer(), clients=1, count=3, **sending)
            connected = done.sent["hostile_connected"]
            if name == "attacked" and connected != size.hostile:
                raise BenchError(f"{connected} of {size.hostile} hostile connections were made")
            samples[name].append(done)
            closed = {key: value for key, value in done.recorded.ledger.items() if key.startswith("clients_") and value}
            bench.say(f"    {name:10} {done.packets_per_second / 1e6:6.2f} M packets/s  {closed}")
    lists = [[one.packets_per_second for one in samples[name]] for name in ("attacked", "alone")]
    what = f"a good client while {size.hostile:,} hostile ones connect in {size.hostile_seconds:.0f} s"
    return [
        Figure(
            case, what, "packets/s", max(lists[0]), max(lists[1]), "alone", 0.8, slack=bench.size.slack,
            ours_median=statistics.median(lists[0]), rival_median=statistics.median(lists[1]),
        )
    ]  # fmt: skip


def image_at(bench: Bench, case: str, size: RegisterSize) -> list[Figure]:
    """An image of the past from a recording on a real disk that no cache holds any more."""
    count, clients = 1000, 4
    with tempfile.TemporaryDirectory(prefix="tapeline-bench-", dir=bench.output.given) as name:
        out = Path(name)
        port = free_ports(1)[0]
        server = RegisterServer(rotate_bytes=50_000_000)
        child = server.start(out, port, clients)
        try:
            wait_for_ports(child, [port])
            words = {"to": f"tcp://127.0.0.1:{port}", "clients": clients, "count": f"{count - 100}:{count}", "seed": 1}
            packets = size.changes // (clients * (count - 50))
            command = [TAPELINE, "simulate", "battery", *_words({**words, "packets": packets}), "--json"]
            sent = Child(command).wait(timeout_s=300)
            child.terminate()
            child.wait()
        finally:
            child.kill()
        first = min(client["first_timestamp_us"] for client in sent["clients"])
        last = max(client["last_timestamp_us"] for client in sent["clients"])
        changes = sent["total"]["registers_sent"]
        recording = out / "recording"
        times = []
        for number in range(4 * bench.size.rounds + 1):
            # The last one is the end, which the sender's account knows.
            at_us = last if number == 4 * bench.size.rounds else first + (last - first) * (number * 37 % 97) // 97
            _forget(recording)
            found = _image(recording, at_us)
            times.append(found["ms"])
        if found["digest"] != sent["image_digest"]:
            raise BenchError("the image at the end is not what was sent")
        bench.say(f"    {changes:,} changes, {sent['total']['bytes_sent'] >> 20} MiB; ms: {sorted(times)}")
    what = f"image at a moment of {changes / 1e6:.0f} M register changes, nothing in the cache, slowest of {len(times)}"
    goal = Figure(case, what, "ms", max(times), _IMAGE_AT_MS, _GOAL, 1.0, at_most=True, slack=bench.size.slack)
    return [dataclasses.replace(goal, ours_median=statistics.median(times))]


_IMAGE = """
import json, sys, time
import tapeline
import tapeline.registers
before = time.perf_counter()
image = tapeline.image_at(sys.argv[1], int(sys.argv[2]))
ms = (time.perf_counter() - before) * 1e3
print(json.dumps({"ms": round(ms, 2), "digest": image.digest}))
"""


def _image(recording: Path, at_us: int) -> dict[str, Any]:
    """In a process of its own, so that nothing of the last one helps."""
    command = [sys.executable, "-c", _IMAGE, str(recording), str(at_us)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(done.stderr[-2000:])
    return json.loads(done.stdout)


def _forget(recording: Path) -> None:
    """Put every file out of the page cache."""
    for path in recording.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _words(options: dict[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


CASES: dict[str, Callable[[Bench, str, RegisterSize], list[Figure]]] = {
    "registers_1": lambda bench, case, size: threads(bench, case, size, 1),
    "registers_4": lambda bench, case, size: threads(bench, case, size, 4),
    "registers_1000": plain,
    "registers_parquet": parquet,
    "registers_query": query,
    "registers_hostile": hostile,
    "registers_image_at": image_at,
}
