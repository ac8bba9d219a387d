"""The radar producer: options in, account out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from tapeline import _native
from tapeline.errors import ConfigError
from tapeline.urls import parse_destination

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

DEFAULT_FRAMES = 10_000
DEFAULT_PAYLOAD_BYTES = 1400
_POLL_S = 0.1  # how often a wait comes up for signals; the compiled wait sleeps in between


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Probabilities of faults for each frame, each from 0 to 1. A frame has at most one of the first four.

    Attributes:
        drop: The frame is not sent.
        corrupt: One bit of the frame is flipped, in its magic, header or payload.
        duplicate: The frame is sent twice.
        reorder: The frame is sent up to eight frames late.
        garbage: 1 to 256 bytes that are no frame come before it (over UDP as a datagram of their own).
    """

    drop: float = 0.0
    corrupt: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    garbage: float = 0.0


class RadarSimulation:
    """A radar simulation in the background. Options and errors are those of `simulate_radar`.

    As a context manager it waits for the end on leaving, or stops when an exception passes through:

        with RadarSimulation("tcp://127.0.0.1:9001", frames=None, rate_hz=100) as simulation:
            ...
            simulation.stop()
        print(simulation.truth()["total"]["frames_sent"])
    """

    def __init__(
        self,
        to: str | Sequence[str],
        *,
        streams: int | None = None,
        frames: int | None = DEFAULT_FRAMES,
        payload_bytes: int = DEFAULT_PAYLOAD_BYTES,
        rate_hz: float = 0.0,
        duration_s: float | None = None,
        periodic: int = 0,
        faults: FaultRates | None = None,
        seed: int = 0,
        first_sequence: int = 0,
        start_ns: int | None = None,
        datagram_bytes: int | None = None,
        gso: bool = False,
        connect_timeout_s: float = 10.0,
    ) -> None:
        """Start sending; see `simulate_radar` for the options."""
        targets = [parse_destination(url) for url in ([to] if isinstance(to, str) else to)]
        count = max(4, len(targets)) if streams is None else streams
        options = {
            "to": [target.as_dict() for target in targets],
            "streams": _whole("streams", count, 1, 65_535),
            "frames": None if frames is None else _whole("frames", frames, 0),
            "duration_s": duration_s,
            "payload_bytes": _whole("payload", payload_bytes, 1),
            "rate_hz": rate_hz,
            "periodic": _whole("periodic", periodic, 0),
            "faults": asdict(faults or FaultRates()),
            "seed": _whole("seed", seed, 0),
            "first_sequence": _whole("first_sequence", first_sequence, 0, 1 << 63),
            "start_ns": None if start_ns is None else _whole("start_ns", start_ns, 0),
            "datagram_bytes": None if datagram_bytes is None else _whole("datagram", datagram_bytes, 1),
            "gso": gso,
            "connect_timeout_s": connect_timeout_s,
        }
        try:
            text = json.dumps(options, allow_nan=False)
        except ValueError:
            raise ConfigError("a rate, probability or time is not a finite number") from None
        self._native = _native.RadarSimulation(text)
        self._truth: dict[str, Any] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything is sent.

        Args:
            timeout: Seconds; None waits for the end.

        Returns:
            True when everything is sent.
        """
        if self._truth is not None:
            return True
        left = float("inf") if timeout is None else timeout
        while not self._native.wait(min(left, _POLL_S)):
            left -= _POLL_S
            if left <= 0:
                return False
        return True

    def stop(self) -> None:
        """Ask the senders to end after what they are sending now."""
        if self._truth is None:
            self._native.stop()

    def bytes_sent(self) -> int:
        """Bytes given to the operating system so far."""
        return self._native.bytes_sent() if self._truth is None else int(self._truth["total"]["bytes_sent"])

    def truth(self) -> dict[str, Any]:
        """Wait for the end and return the account, as `simulate_radar` does.

        Raises:
            ConnectionError: A destination failed; `truth` of the exception is the account so far.
        """
        self.wait()
        if self._truth is None:
            self._truth = json.loads(self._native.finish())
        failed = [d for d in self._truth["destinations"] if d["error"] is not None]
        if failed:
            raise SendError("; ".join(f"{d['url']}: {d['error']}" for d in failed), self._truth)
        return self._truth

    def __enter__(self) -> Self:
        """Return itself; it is sending already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the end, or stop when an exception passes through."""
        if kind is not None:
            self.stop()
        self.wait()


class SendError(ConnectionError):
    """A destination took no more.

    Attributes:
        truth: The account so far; the last part of it may not have been sent.
    """

    def __init__(self, text: str, truth: dict[str, Any]) -> None:
        """Keep the account beside the text."""
        super().__init__(text)
        self.truth = truth


def simulate_radar(
    to: str | Sequence[str],
    *,
    streams: int | None = None,
    frames: int | None = DEFAULT_FRAMES,
    payload_bytes: int = DEFAULT_PAYLOAD_BYTES,
    rate_hz: float = 0.0,
    duration_s: float | None = None,
    periodic: int = 0,
    drop: float = 0.0,
    duplicate: float = 0.0,
    reorder: float = 0.0,
    corrupt: float = 0.0,
    garbage: float = 0.0,
    seed: int = 0,
    first_sequence: int = 0,
    start_ns: int | None = None,
    datagram_bytes: int | None = None,
    gso: bool = False,
    connect_timeout_s: float = 10.0,
) -> dict[str, Any]:
    """Send frames, some of them broken on purpose, and say exactly what was sent.

    Every choice follows from `seed` alone, whatever the speed and the transport. A receiver that gets every byte
    in order (TCP, a file) finds exactly what `expected` says; over UDP it finds that less what the network lost.

    Args:
        to: Destination, or several: `tcp://HOST:PORT` (connects), `udp://HOST:PORT`, `file://PATH`, `-`. Each has
            a thread. Stream i goes to destination i modulo their number.
        streams: Number of streams; stream i carries the stream id i. 4 if None, or the number of destinations
            where that is more.
        frames: Frames of each stream; None: until `duration_s` has passed.
        payload_bytes: Payload of every frame, 1 to 1,048,576 bytes.
        rate_hz: Frames per second of each stream; 0: as fast as the destination takes them.
        duration_s: Stop after so many seconds, whatever `frames` says.
        periodic: Frames of a periodic, the first and last marked in the flags; 0: no marks.
        drop: Probability that a frame is not sent.
        duplicate: Probability that a frame is sent twice.
        reorder: Probability that a frame is sent up to eight frames late.
        corrupt: Probability that one bit of a frame is flipped.
        garbage: Probability of 1 to 256 bytes before a frame that are none.
        seed: Decides about payloads and faults.
        first_sequence: Number of the first frame of each stream.
        start_ns: Timestamp of the first frame, the others following at `rate_hz` (1 MHz where that is 0);
            None: the clock.
        datagram_bytes: Over UDP, put as many frames into a datagram as fit this size; None: one.
        gso: Over UDP, let the kernel cut datagrams out of larger messages: several times cheaper, but a receiver
            that joins them again (GRO) is told of drops by the run and not by the datagram.
        connect_timeout_s: How long to wait for a listener.

    Returns:
        dict with `seed`, `elapsed_s`, `streams` (one dict for each stream), `destinations` (for each destination,
        what one receiver there sees), `total`. Each account has `frames_generated`, `frames_sent`,
        `frames_unique`, `frames_dropped`, `frames_duplicated`, `frames_reordered`, `frames_corrupted`,
        `garbage_bytes`, `bytes_sent`, `first_sequence`, `last_sequence`, and `expected`: the receiver's ledger in
        its own field names.

    Raises:
        ConfigError: An option is out of its range, or a URL is none.
        ConnectionError: A destination could not be reached, or went away; `.truth` is the account so far.
    """
    simulation = RadarSimulation(
        to,
        streams=streams,
        frames=frames,
        payload_bytes=payload_bytes,
        rate_hz=rate_hz,
        duration_s=duration_s,
        periodic=periodic,
        faults=FaultRates(drop, corrupt, duplicate, reorder, garbage),
        seed=seed,
        first_sequence=first_sequence,
        start_ns=start_ns,
        datagram_bytes=datagram_bytes,
        gso=gso,
        connect_timeout_s=connect_timeout_s,
    )
    with simulation:
        return simulation.truth()


def _whole(name: str, value: object, least: int, most: int = (1 << 64) - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
    return value
