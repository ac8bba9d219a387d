"""One run of one receiver: start, send, stop, compare what was sent with what was recorded, and only then time it.

Rate: bytes recorded over the time from the sender's start to the last change of an output file. CPU: the
receiver's own, from the moment it listens to its end, so closing, syncing and digests are in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .disturbance import Watch
from .processes import BenchError, Child, free_ports, wait_for_ports, wait_until_read
from .receivers import KEEP_SEGMENTS, RIVALS, SEGMENT_BYTES, Receiver, Recorded

if TYPE_CHECKING:
    from pathlib import Path

    from .output import Output

HEADER_BYTES = 40
_BLASTER = RIVALS / "blaster"
# Finished segments, the open one, one that may be prepared, and the indexes.
_RESERVOIR_PER_STREAM = (KEEP_SEGMENTS + 2) * SEGMENT_BYTES + (16 << 20)


@dataclass(frozen=True)
class Sample:
    """What one run gave."""

    bytes_per_second: float
    frames_per_second: float
    cpu_seconds_per_gb: float
    recorded: Recorded
    # CPU of other processes and the hypervisor's steal, in cores.
    others: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """The figures, for the results file."""
        return {
            "bytes_per_second": round(self.bytes_per_second),
            "frames_per_second": round(self.frames_per_second),
            "cpu_seconds_per_gb": round(self.cpu_seconds_per_gb, 4),
            "others": round(self.others, 3),
        }


@dataclass(frozen=True)
class Probe:
    """One UDP run at one rate."""

    frames_sent: int
    frames_per_second: float
    recorded: Recorded

    @property
    def frames_lost(self) -> int:
        """Sent and not recorded."""
        return self.frames_sent - self.recorded.frames


def build_stream(output: Output, payload: int, frames: int, *, fault: float = 0.0) -> tuple[Path, dict[str, Any]]:
    """Write a stream to a file; return it with the sender's account of it."""
    path = output.directory / f"stream-{payload}-{fault}.bin"
    arguments = ["--build", path, "--payload", payload, "--frames", frames, "--fault", fault]
    return path, Child([_BLASTER, *map(str, arguments)]).wait()


def build_hostile(output: Output, kind: str, size: int) -> tuple[Path, dict[str, Any]]:
    """Write `size` bytes of hostile input of a kind between two frames to a file; return it with its account."""
    path = output.directory / f"hostile-{kind}.bin"
    arguments = ["--build", path, "--payload", 8192, "--hostile", kind, "--bytes", size]
    return path, Child([_BLASTER, *map(str, arguments)]).wait()


def over_tcp(
    output: Output,
    receiver: Receiver,
    *,
    payload: int,
    total_bytes: int,
    streams: int = 1,
    send: Path | None = None,
    expected: dict[str, int] | None = None,
) -> Sample:
    """Record `streams` connections of generated frames, or one of the file `send`.

    Raises:
        BenchError: What was recorded is not what was sent.
    """
    output.fill_reservoir(streams * _RESERVOIR_PER_STREAM)
    out = output.fresh()
    watch = Watch()
    one_port = receiver.stops_by_itself
    ports = free_ports(1 if one_port else streams) * (streams if one_port else 1)
    addresses = [f"tcp://127.0.0.1:{port}" for port in ports]
    child = receiver.start(out, addresses)
    try:
        wait_for_ports(child, ports)
        source = ["--send", send] if send else ["--frames", total_bytes // streams // (payload + HEADER_BYTES)]
        output.release_reservoir()
        child.mark_cpu()
        sent = Child([_BLASTER, "--to", ",".join(addresses), "--payload", str(payload), *map(str, source)]).wait()
        if not receiver.stops_by_itself:
            child.terminate()
        recorded = receiver.recorded(child.wait(), out)
    finally:
        child.kill()
    _compare(receiver, recorded, expected or {"frames_stored": sent["frames"], "bytes_received": sent["bytes"]})
    return _sample(recorded, out, sent["started_ns"], child, sent["bytes"], watch.share())


def from_file(
    output: Output, receiver: Receiver, path: Path, expected: dict[str, int], *, started: int | None = None
) -> Sample:
    """Record a file of frames; the receiver ends by itself.

    Raises:
        BenchError: What was recorded is not what the file holds.
    """
    output.fill_reservoir(_RESERVOIR_PER_STREAM)
    out = output.fresh()
    output.release_reservoir()
    watch = Watch()
    child = receiver.start(out, [f"file://{path}"])
    try:
        recorded = receiver.recorded(child.wait(), out)
    finally:
        child.kill()
    _compare(receiver, recorded, expected)
    return _sample(recorded, out, started or recorded.started_ns, child, path.stat().st_size, watch.share())


def over_udp(
    output: Output,
    receiver: Receiver,
    *,
    payload: int,
    seconds: float,
    frames_per_second: float | None = None,
    batched: bool = False,
    receive_buffer: int | None = None,
    tail: int = 0,
) -> Probe:
    """Send datagrams, flat out or at a rate; `batched`: the kernel cuts them on sending and joins them on receiving.

    Raises:
        BenchError: The receiver does not account for every datagram.
    """
    output.fill_reservoir(_RESERVOIR_PER_STREAM)
    out = output.fresh()
    port = free_ports(1, udp=True)[0]
    child = receiver.start(out, [f"udp://127.0.0.1:{port}"], gro=batched, receive_buffer=receive_buffer)
    try:
        wait_for_ports(child, [port], udp=True)
        output.release_reservoir()
        arguments: list[object] = ["--to", f"udp://127.0.0.1:{port}", "--payload", payload, "--seconds", seconds]
        arguments += ["--rate", frames_per_second] if frames_per_second else []
        arguments += ["--tail", tail] if tail else []
        sent = Child([_BLASTER, *map(str, arguments), *(["--gso"] if batched else [])]).wait()
        if not receiver.stops_by_itself:
            wait_until_read(port)
            child.terminate()
        recorded = receiver.recorded(child.wait(), out)
    finally:
        child.kill()
    probe = Probe(sent["frames"], sent["frames"] / sent["seconds"], recorded)
    # Joined datagrams are dropped, and counted by the kernel, as one.
    if not batched and probe.frames_lost != recorded.kernel_drops:
        raise BenchError(
            f"{receiver.name}: {sent['frames']} sent, {recorded.frames} recorded, "
            f"{recorded.kernel_drops} dropped by the kernel"
        )
    return probe


def _compare(receiver: Receiver, recorded: Recorded, expected: dict[str, int]) -> None:
    found = recorded.ledger or {"frames_stored": recorded.frames, "bytes_received": recorded.bytes}
    wrong = {key: (found.get(key), value) for key, value in expected.items() if found.get(key) != value}
    if wrong:
        raise BenchError(f"{receiver.name}: recorded is not sent, (found, expected): {wrong}")


def _sample(
    recorded: Recorded, out: Path, started_ns: int, child: Child, total_bytes: int, others: float
) -> Sample:  # fmt: skip
    # The open segment is `.dat.part` until it is closed, but closing changes no time of modification.
    ended_ns = max(path.stat().st_mtime_ns for path in out.rglob("*.dat*"))
    seconds = (ended_ns - started_ns) * 1e-9
    cpu = child.cpu_seconds / (total_bytes * 1e-9)
    return Sample(total_bytes / seconds, recorded.frames / seconds, cpu, recorded, others)
