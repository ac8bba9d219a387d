"""The cases: what is compared with what, and the floor below which a figure fails.

Floors are the issue's. Each figure is a ratio of bests measured in one run, our program and the rival in turn,
because the machine's other tenants only ever make a run slower; medians are recorded beside it.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from . import measure
from .measure import HEADER_BYTES, Probe, Sample
from .processes import BenchError, Child, free_ports, wait_for_ports
from .receivers import RIVALS, MinimalTcp, MinimalUdp, OldDesign, Receiver, Tapeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from .output import Output

# A wreck is what a smoke run is after, on machines that do other things at the same time.
_SMOKE_SLACK = 0.1
_GB = 1_000_000_000
# CPU that others may use during a run, in cores: the system's own threads use up to 0.09.
_UNDISTURBED = 0.12
# Runs at one rate of datagrams, of which one must lose nothing.
_UDP_TRIALS = 2


@dataclass(frozen=True)
class Size:
    """How much of everything: enough to measure, or just enough to see that it works."""

    rounds: int = 6
    total_bytes: int = 3 * _GB
    file_bytes: int = 3 * _GB
    udp_seconds: float = 2.0
    udp_steps: int = 6
    soak_seconds: float = 60.0
    items: int = 20_000_000
    slack: float = 1.0
    # Whether to wait until no memory is about to be taken back; a few seconds a run.
    settle: bool = True


SMOKE = Size(
    rounds=1, total_bytes=_GB // 2, file_bytes=_GB // 4, udp_seconds=0.3, udp_steps=4, soak_seconds=4.0,
    items=500_000, slack=_SMOKE_SLACK, settle=False,
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One ratio with its floor (or its ceiling)."""

    case: str
    what: str
    unit: str
    ours: float
    rival: float
    rival_name: str
    limit: float | None
    at_most: bool = False
    ours_median: float | None = None
    rival_median: float | None = None
    samples: dict[str, Any] = field(default_factory=dict)
    slack: float = 1.0

    @property
    def ratio(self) -> float:
        """Ours over the rival's."""
        return self.ours / self.rival if self.rival else float("inf")

    @property
    def passed(self) -> bool:
        """Whether it keeps to its limit."""
        if self.limit is None:
            return True
        return self.ratio <= self.limit / self.slack if self.at_most else self.ratio >= self.limit * self.slack

    def as_dict(self) -> dict[str, Any]:
        """For the results file."""
        return {**asdict(self), "ratio": round(self.ratio, 4), "passed": self.passed}


@dataclass
class Bench:
    """What every case needs."""

    output: Output
    size: Size
    say: Callable[[str], None]
    receivers: set[str]

    def interleave(self, runs: dict[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
        """Run ours, the rival, ours, the rival ...; the order turns every round.

        A round that others on this machine disturbed, whichever side it hit, is made again, and the least disturbed
        rounds count.
        """
        rounds: list[dict[str, Sample]] = []
        wanted, most = self.size.rounds, self.size.rounds * (2 if self.size.settle else 1)
        while sum(_disturbance(each) <= _UNDISTURBED for each in rounds) < wanted and len(rounds) < most:
            samples = {}
            for name in list(runs) if len(rounds) % 2 == 0 else list(reversed(runs)):
                samples[name] = sample = runs[name]()
                disturbed = f"  others {sample.others:.2f} cores" if sample.others > _UNDISTURBED else ""
                self.say(
                    f"    {name:12} {sample.bytes_per_second / 1e9:6.2f} GB/s"
                    f"  {sample.frames_per_second / 1e6:6.3f} M frames/s"
                    f"  {sample.cpu_seconds_per_gb:.3f} CPU s/GB{disturbed}"
                )
            rounds.append(samples)
        counted = sorted(rounds, key=_disturbance)[:wanted]
        return {name: [each[name] for each in counted] for name in runs}

    def ours(self, **settings: object) -> Receiver:
        """The recorder; the rival stands in for it where it is not built, so that the harness can be worked on."""
        return Tapeline(**settings) if "tapeline" in self.receivers else _StandIn()


def _disturbance(samples: dict[str, Sample]) -> float:
    return max(sample.others for sample in samples.values())


class _StandIn(MinimalTcp):
    """The rival against itself: every ratio is about 1, which shows the noise."""


def tcp(bench: Bench, case: str, payload: int, floor: float, *, streams: int = 1) -> list[Figure]:
    """Record over TCP, against minimal-tcp."""

    def run(receiver: Receiver) -> Callable[[], Sample]:
        return lambda: measure.over_tcp(
            bench.output, receiver, payload=payload, total_bytes=bench.size.total_bytes, streams=streams
        )

    samples = bench.interleave({"tapeline": run(bench.ours()), "minimal-tcp": run(MinimalTcp())})
    what = f"TCP, {streams} stream{'s' * (streams > 1)}, {_size(payload)} payloads"
    return [
        _rate(bench, case, what, samples, "minimal-tcp", floor),
        _cpu(bench, f"{case}_cpu", what, samples, "minimal-tcp", 1.5),
    ]


def file(bench: Bench, case: str, payload: int, floor: float | None) -> list[Figure]:
    """Record a file, against minimal-tcp reading the same file."""
    frames = bench.size.file_bytes // (payload + HEADER_BYTES)
    path, account = measure.build_stream(bench.output, payload, frames)
    try:
        expected = {"frames_stored": frames, "bytes_received": account["bytes"]}

        def run(receiver: Receiver) -> Callable[[], Sample]:
            return lambda: measure.from_file(bench.output, receiver, path, expected)

        samples = bench.interleave({"tapeline": run(bench.ours()), "minimal-tcp": run(MinimalTcp())})
    finally:
        path.unlink()
    return [_rate(bench, case, f"from a file, {_size(payload)} payloads", samples, "minimal-tcp", floor)]


def faults(bench: Bench, case: str, payload: int, floor: float) -> list[Figure]:
    """Record a stream with faults of every kind, against the same stream without."""
    frames = bench.size.file_bytes // (payload + HEADER_BYTES)
    clean, clean_account = measure.build_stream(bench.output, payload, frames)
    broken, account = measure.build_stream(bench.output, payload, frames, fault=0.01)
    expected = {
        "bytes_received": account["bytes"],
        "frames_stored": account["valid"],
        "frames_received": account["valid"] + account["duplicate"],
        "frames_duplicate": account["duplicate"],
        "frames_reordered": account["reordered"],
        "frames_lost": account["dropped"] + account["corrupt"],
        "frames_corrupt.payload_crc": account["corrupt"],
        "bytes_discarded": account["corrupt_bytes"] + account["garbage_bytes"],
    }
    try:
        samples = bench.interleave(
            {
                "faults": lambda: measure.over_tcp(
                    bench.output, bench.ours(), payload=payload, total_bytes=0, send=broken, expected=expected
                ),
                "clean": lambda: measure.over_tcp(
                    bench.output, bench.ours(), payload=payload, total_bytes=0, send=clean,
                    expected={"bytes_received": clean_account["bytes"], "frames_stored": frames},
                ),
            }
        )  # fmt: skip
    finally:
        clean.unlink()
        broken.unlink()
    what = f"TCP, {_size(payload)} payloads, five kinds of fault at 1 % each, against no faults"
    return [_rate(bench, case, what, samples, "clean", floor, ours="faults")]


def hostile(bench: Bench, case: str, floor: float) -> list[Figure]:
    """Record noise, endless magics, and valid headers that claim the largest payload, against a clean stream."""
    size = bench.size.file_bytes // 6
    files = {kind: measure.build_hostile(bench.output, kind, size) for kind in ("noise", "magics", "claims")}
    files["clean"] = measure.build_stream(bench.output, 8_192, size // (8_192 + HEADER_BYTES))

    def run(kind: str) -> Callable[[], Sample]:
        path, account = files[kind]
        expected = {"bytes_received": account["bytes"], "frames_stored": account["valid"]}
        if kind != "clean":
            expected["bytes_discarded"] = account["discarded"]
        return lambda: measure.over_tcp(
            bench.output, bench.ours(), payload=8_192, total_bytes=0, send=path, expected=expected
        )

    try:
        samples = bench.interleave({kind: run(kind) for kind in files})
    finally:
        for path, _ in files.values():
            path.unlink()
    return [
        _rate(
            bench,
            f"{case}_{kind}",
            f"TCP, hostile input ({kind}), against 8 KB payloads",
            samples,
            "clean",
            floor,
            kind,
        )
        for kind in files
        if kind != "clean"
    ]


def udp(bench: Bench, case: str, payload: int, floor: float) -> list[Figure]:
    """Find the highest rate without a loss, against minimal-udp."""
    best = _search(bench, payload, [("tapeline", bench.ours(), False), ("minimal-udp", MinimalUdp(), False)])
    return [_loss_free(bench, case, f"UDP, {_size(payload)} datagrams, no loss", payload, best, "minimal-udp", floor)]


def udp_batched(bench: Bench, case: str, payload: int, floor: float) -> list[Figure]:
    """The same with GSO and GRO, against minimal-udp without; and against minimal-udp with, for the record."""
    best = _search(
        bench,
        payload,
        [
            ("tapeline", bench.ours(), True),
            ("minimal-udp", MinimalUdp(), False),
            ("minimal-udp GRO", MinimalUdp(), True),
        ],
    )
    what = f"UDP, {_size(payload)} datagrams, no loss, GSO sender"
    return [
        _loss_free(bench, case, f"{what}, GRO against none", payload, best, "minimal-udp", floor),
        _loss_free(bench, f"{case}_both", f"{what}, both with GRO", payload, best, "minimal-udp GRO", None),
    ]


def overload(bench: Bench, case: str, payload: int) -> list[Figure]:
    """Send faster than a small socket buffer can hold: what is missing is what the kernel dropped, exactly."""
    buffer = 64 << 10
    for _ in range(3):
        probe = measure.over_udp(
            bench.output, bench.ours(), payload=payload, seconds=bench.size.udp_seconds, receive_buffer=buffer, tail=3
        )
        if probe.recorded.kernel_drops:
            break
    else:
        raise BenchError("the kernel dropped nothing: no overload")
    missing = probe.recorded.ledger.get("frames_lost", probe.frames_lost)
    bench.say(f"    sent - recorded {probe.frames_lost}, kernel drops {probe.recorded.kernel_drops}, missing {missing}")
    if not probe.frames_lost == probe.recorded.kernel_drops == missing:
        raise BenchError(f"overload does not add up: {probe}")
    what = f"UDP, {_size(payload)} datagrams, overload: sequences missing against kernel drops"
    limits = {"limit": 1.0, "slack": 1.0}
    return [Figure(case, what, "frames", missing, probe.recorded.kernel_drops, "kernel", **limits)]


def old_design(bench: Bench, case: str, payload: int, floor: float) -> list[Figure]:
    """Record over TCP, against a mutex and one write per frame."""
    total = bench.size.total_bytes // 4

    def run(receiver: Receiver, size: int) -> Callable[[], Sample]:
        return lambda: measure.over_tcp(bench.output, receiver, payload=payload, total_bytes=size)

    # The old design gets a fifth of the bytes: its rate does not depend on them, the time does.
    samples = bench.interleave({"tapeline": run(bench.ours(), total), "old-design": run(OldDesign(), total // 5)})
    return [_rate(bench, case, f"TCP, {_size(payload)} payloads, whole path", samples, "old-design", floor)]


def hand_over(bench: Bench, case: str, floor: float) -> list[Figure]:
    """Hand 64-byte items from thread to thread through the ring, against a mutex and a condition."""
    ours, rival = [], []
    for _ in range(bench.size.rounds):
        ours.append(_micro(["ring", bench.size.items * 10])["items_per_second"])
        command = [RIVALS / "old-design", "--items", str(bench.size.items // 10)]
        rival.append(Child(command).wait()["items_per_second"])
        bench.say(f"    ring {ours[-1] / 1e6:8.1f} M items/s   mutex {rival[-1] / 1e6:6.2f} M items/s")
    return [_of_lists(bench, case, "hand-over of 64-byte items", "items/s", (ours, rival), "mutex", floor)]


def decoder(bench: Bench, case: str) -> list[Figure]:
    """The frame scanner alone on clean frames, against a check of both CRCs with a peer's code (minimal-tcp's)."""
    figures = []
    for payload in (64, 1_400, 8_192, 65_536):
        runs = [_micro(["decoder", payload, max(1, bench.size.rounds // 2)]) for _ in range(bench.size.rounds)]
        pair = ([run["ours"] for run in runs], [run["rival"] for run in runs])
        what = f"frame scanner, {_size(payload)} payloads, one core"
        figures.append(_of_lists(bench, f"{case}_{payload}", what, "bytes/s", pair, "parse + crc-fast", None))
        bench.say(f"    {payload:6} ours {max(pair[0]) / 1e9:6.2f} GB/s   peer {max(pair[1]) / 1e9:6.2f} GB/s")
    return figures


def memory(bench: Bench, case: str) -> list[Figure]:
    """Record at full rate for a minute: the memory of the second half is that of the first."""
    seconds = bench.size.soak_seconds
    bench.output.fill_reservoir(1 << 30)
    out = bench.output.fresh()
    port = free_ports(1)[0]
    receiver = Tapeline()
    child = receiver.start(out, [f"tcp://127.0.0.1:{port}"])
    blaster = None
    try:
        wait_for_ports(child, [port])
        bench.output.release_reservoir()
        base = child.resident_bytes()
        target = f"tcp://127.0.0.1:{port}"
        blaster = Child([RIVALS / "blaster", "--to", target, "--payload", "8192", "--seconds", str(seconds)])
        started = time.monotonic()
        readings = []
        while blaster.running():
            readings.append((time.monotonic() - started, child.resident_bytes()))
            time.sleep(0.1)
        sent = blaster.wait()
        child.terminate()
        recorded = receiver.recorded(child.wait(), out)
    finally:
        child.kill()
        if blaster:
            blaster.kill()
    if recorded.frames != sent["frames"]:
        raise BenchError(f"{sent['frames']} frames sent, {recorded.frames} recorded")
    # The first tenth is warm-up: buffers are touched for the first time.
    first = [size for at, size in readings if seconds * 0.1 <= at < seconds * 0.55]
    second = [size for at, size in readings if at >= seconds * 0.55]
    rate = sent["bytes"] / sent["seconds"] / 1e9
    bench.say(
        f"    {rate:.2f} GB/s for {sent['seconds']:.0f} s, memory {base >> 20} MiB before,"
        f" {max(first) >> 20} MiB in the first half, {max(second) >> 20} MiB in the second"
    )
    what = f"memory, {seconds:.0f} s at {rate:.1f} GB/s: second half against the first"
    # Flat: within 1 %, the noise of the interpreter's own allocator.
    return [
        Figure(case, what, "bytes", max(second), max(first), "first half", 1.01, at_most=True, slack=bench.size.slack)
    ]


def _micro(arguments: list[object]) -> dict[str, Any]:
    return Child([RIVALS / "micro", *map(str, arguments)]).wait()


def _search(bench: Bench, payload: int, receivers: list[tuple[str, Receiver, bool]]) -> dict[str, float]:
    """Bisect the rate between the best without a loss and what the sender can give.

    Others on the machine only ever add losses, so a loss must repeat in every trial to count. Flat out, where a sender
    that shares a core with the receiver may be slow and lose nothing, every trial is made: what they gave at most is
    the ceiling.
    """

    def trial(receiver: Receiver, rate: float | None, *, batched: bool) -> Probe:
        return measure.over_udp(
            bench.output,
            receiver,
            payload=payload,
            seconds=bench.size.udp_seconds,
            frames_per_second=rate,
            batched=batched,
        )

    best = dict.fromkeys((name for name, _, _ in receivers), 0.0)
    ceiling = dict(best)

    def took(name: str, result: Probe) -> bool:
        if result.frames_lost == 0:
            best[name] = max(best[name], result.frames_per_second)
        bench.say(
            f"    {name:16} {result.frames_per_second / 1e6:6.3f} M datagrams/s, lost {result.frames_lost}"
            f"   best {best[name] / 1e6:.3f}"
        )
        return result.frames_lost == 0

    for _ in range(_UDP_TRIALS):
        for name, receiver, batched in receivers:
            result = trial(receiver, None, batched=batched)
            took(name, result)
            ceiling[name] = max(ceiling[name], result.frames_per_second)
    for _ in range(bench.size.udp_steps):
        for name, receiver, batched in receivers:
            if best[name] >= ceiling[name]:
                continue  # no loss flat out: the sender is the limit
            rate = (best[name] + ceiling[name]) / 2
            if not any(took(name, trial(receiver, rate, batched=batched)) for _ in range(_UDP_TRIALS)):
                ceiling[name] = rate
    return best


def _loss_free(
    bench: Bench, case: str, what: str, payload: int, best: dict[str, float], rival: str, floor: float | None
) -> Figure:
    scale = payload + HEADER_BYTES
    return Figure(
        case, what, "bytes/s", best["tapeline"] * scale, best[rival] * scale, rival, floor, slack=bench.size.slack,
        samples={"datagrams_per_second": best},
    )  # fmt: skip


def _rate(
    bench: Bench, case: str, what: str, samples: dict[str, list[Sample]], rival: str, floor: float | None,
    ours: str = "tapeline",
) -> Figure:  # fmt: skip
    lists = [[sample.bytes_per_second for sample in samples[name]] for name in (ours, rival)]
    return _of_lists(bench, case, what, "bytes/s", (lists[0], lists[1]), rival, floor, samples)


def _cpu(bench: Bench, case: str, what: str, samples: dict[str, list[Sample]], rival: str, ceiling: float) -> Figure:
    ours, theirs = ([sample.cpu_seconds_per_gb for sample in samples[name]] for name in ("tapeline", rival))
    return Figure(
        case, f"{what}: CPU", "CPU s/GB", min(ours), min(theirs), rival, ceiling, at_most=True, slack=bench.size.slack,
        ours_median=statistics.median(ours), rival_median=statistics.median(theirs),
    )  # fmt: skip


def _of_lists(
    bench: Bench, case: str, what: str, unit: str, pair: tuple[list[float], list[float]], rival: str,
    floor: float | None, samples: dict[str, list[Sample]] | None = None,
) -> Figure:  # fmt: skip
    ours, theirs = pair
    return Figure(
        case, what, unit, max(ours), max(theirs), rival, floor, slack=bench.size.slack,
        ours_median=statistics.median(ours), rival_median=statistics.median(theirs),
        samples={name: [sample.as_dict() for sample in each] for name, each in (samples or {}).items()},
    )  # fmt: skip


def _size(payload: int) -> str:
    return f"{payload // 1024} KB" if payload % 1024 == 0 else f"{payload:,}-byte"


CASES: dict[str, Callable[[Bench, str], list[Figure]]] = {
    "tcp_64k": lambda bench, case: tcp(bench, case, 65_536, 0.90),
    "tcp_8k": lambda bench, case: tcp(bench, case, 8_192, 0.85),
    "tcp_1400": lambda bench, case: tcp(bench, case, 1_400, 0.70),
    "tcp_four": lambda bench, case: tcp(bench, case, 8_192, 0.90, streams=4),
    "file_64k": lambda bench, case: file(bench, case, 65_536, 0.35),
    "file_1400": lambda bench, case: file(bench, case, 1_400, None),
    "udp_1400": lambda bench, case: udp(bench, case, 1_400, 0.90),
    "udp_8k": lambda bench, case: udp(bench, case, 8_192, 0.90),
    "udp_60k": lambda bench, case: udp(bench, case, 60_000, 0.90),
    "udp_gro": lambda bench, case: udp_batched(bench, case, 1_400, 2.0),
    "udp_overload": lambda bench, case: overload(bench, case, 1_400),
    "old_hand_over": lambda bench, case: hand_over(bench, case, 6.0),
    "old_whole_path": lambda bench, case: old_design(bench, case, 1_400, 2.5),
    "faults": lambda bench, case: faults(bench, case, 1_400, 0.80),
    "hostile": lambda bench, case: hostile(bench, case, 0.25),
    "memory": memory,
    "decoder": decoder,
}
NEEDS_TAPELINE = {"memory", "udp_1400", "udp_8k", "udp_60k", "udp_gro", "udp_overload", "faults", "hostile"}
