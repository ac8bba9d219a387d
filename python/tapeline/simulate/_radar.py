"""The radar producer: options in, account out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tapeline import _native
from tapeline._numbers import amount, flag, rate, whole
from tapeline._sending import destinations
from tapeline.errors import ConfigError
from tapeline.simulate._simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_FRAMES = 10_000
DEFAULT_PAYLOAD_BYTES = 1400
MOST_PAYLOAD_BYTES = 1 << 20


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


class RadarSimulation(Simulation):
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
        targets = destinations(to)
        if faults is not None and not isinstance(faults, FaultRates):
            raise ConfigError(f"faults is {type(faults).__name__}; it must be FaultRates or None")
        options = {
            "to": [target.as_dict() for target in targets],
            "streams": max(4, len(targets)) if streams is None else whole("streams", streams, 1, 65_535),
            "frames": None if frames is None else whole("frames", frames, 0),
            "duration_s": None if duration_s is None else amount("duration_s", duration_s),
            "payload_bytes": whole("payload_bytes", payload_bytes, 1, MOST_PAYLOAD_BYTES),
            "rate_hz": rate("rate_hz", rate_hz),
            "periodic": whole("periodic", periodic, 0),
            "faults": {name: amount(name, value, 1) for name, value in asdict(faults or FaultRates()).items()},
            "seed": whole("seed", seed, 0),
            "first_sequence": whole("first_sequence", first_sequence, 0, 1 << 63),
            "start_ns": None if start_ns is None else whole("start_ns", start_ns, 0),
            "datagram_bytes": None if datagram_bytes is None else whole("datagram_bytes", datagram_bytes, 1),
            "gso": flag("gso", gso),
            "connect_timeout_s": amount("connect_timeout_s", connect_timeout_s),
        }
        super().__init__(_native.RadarSimulation(json.dumps(options)), "destinations")


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
        to: Destination, or several: `tcp://HOST:PORT` (connects), `udp://HOST:PORT`, `file://PATH` (a named pipe is
            waited for until someone reads it), `-`. Each has a thread. Stream i goes to destination i modulo their
            number.
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
