"""The battery producer: options in, account and image out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from tapeline import _native
from tapeline._numbers import amount, flag, rate, whole
from tapeline._sending import destinations
from tapeline.errors import ConfigError
from tapeline.simulate._simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PACKETS = 10_000
DEFAULT_COUNT = 8
DEFAULT_REGISTERS = 1024
_MOST_REGISTERS = 65_536
_MOST_CLIENTS = 1024
_LAST_TIME_US = ((1 << 64) - 1) // 1000
# 2026-01-01: where the times of a run begin that is to be repeatable
_SEEDED_START_US = 1_767_225_600_000_000


class BatterySimulation(Simulation):
    """A battery simulation in the background. Options and errors are those of `simulate_battery`.

    As a context manager it waits for the end on leaving, or stops when an exception passes through:

        with BatterySimulation("tcp://127.0.0.1:9000", clients=4, packets=None, delay_s=0.01) as simulation:
            ...
            simulation.stop()
        print(simulation.truth()["image_digest"])
    """

    def __init__(
        self,
        to: str | Sequence[str],
        *,
        clients: int | None = None,
        packets: int | None = DEFAULT_PACKETS,
        count: int | tuple[int, int] = DEFAULT_COUNT,
        registers: int | None = None,
        delay_s: float = 0.0,
        rate_hz: float = 0.0,
        duration_s: float | None = None,
        random: bool = False,
        full_every: int = 0,
        wire: Literal["packet", "simple"] = "packet",
        seed: int | None = None,
        start_us: int | None = None,
        datagram_bytes: int | None = None,
        connect_timeout_s: float = 10.0,
        image: bool = False,
    ) -> None:
        """Start sending; see `simulate_battery` for the options."""
        targets = destinations(to)
        least, most = _count(count)
        if start_us is None and seed is not None:
            start_us = _SEEDED_START_US
        options = {
            "to": [target.as_dict() for target in targets],
            "clients": len(targets) if clients is None else whole("clients", clients, 1, _MOST_CLIENTS),
            "packets": None if packets is None else whole("packets", packets, 0),
            "duration_s": None if duration_s is None else amount("duration_s", duration_s),
            "count_min": least,
            "count_max": most,
            "registers": max(DEFAULT_REGISTERS, most)
            if registers is None
            else whole("registers", registers, 1, _MOST_REGISTERS),
            "delay_s": _delay(delay_s, rate_hz),
            "random": flag("random", random),
            "full_every": whole("full_every", full_every, 0),
            "wire": wire,
            "seed": 0 if seed is None else whole("seed", seed, 0),
            "start_us": None if start_us is None else whole("start_us", start_us, 0, _LAST_TIME_US),
            "datagram_bytes": None if datagram_bytes is None else whole("datagram_bytes", datagram_bytes, 1),
            "connect_timeout_s": amount("connect_timeout_s", connect_timeout_s),
            "image": flag("image", image),
        }
        if wire not in ("packet", "simple"):
            raise ConfigError(f"wire is {wire!r}; it must be 'packet' or 'simple'")
        super().__init__(_native.BatterySimulation(json.dumps(options)), "clients")


def simulate_battery(
    to: str | Sequence[str],
    *,
    clients: int | None = None,
    packets: int | None = DEFAULT_PACKETS,
    count: int | tuple[int, int] = DEFAULT_COUNT,
    registers: int | None = None,
    delay_s: float = 0.0,
    rate_hz: float = 0.0,
    duration_s: float | None = None,
    random: bool = False,
    full_every: int = 0,
    wire: Literal["packet", "simple"] = "packet",
    seed: int | None = None,
    start_us: int | None = None,
    datagram_bytes: int | None = None,
    connect_timeout_s: float = 10.0,
    image: bool = False,
) -> dict[str, Any]:
    """Send the registers of a battery as packets, and say exactly what was sent and what is known afterwards.

    Each client is a thread with a connection and a source of its own: client i is rack i (on the packet wire from
    client 256 on another type, so that each has one byte of number). Values drift like cell voltages, temperatures,
    currents, contactors and counters; all registers have their turn. Every choice follows from the seed alone.

    Args:
        to: Destination, or several: `tcp://HOST:PORT` (connects), `udp://HOST:PORT` (a datagram per packet),
            `file://PATH` (a named pipe is waited for until someone reads it), `-`. Client i goes to destination i
            modulo their number; those that share a file take turns.
        clients: Number of clients, at most 1,024; one for each destination if None.
        packets: Packets of each client; None: until `duration_s` has passed.
        count: Registers of a DIFF, or the fewest and the most.
        registers: Registers of a source, from offset 0; a FULL lists them all. 1,024 if None, or `count`
            where that is more.
        delay_s: Seconds between two packets of a client; 0: as fast as the destination takes them.
        rate_hz: Packets per second of each client, instead of `delay_s`.
        duration_s: Stop after so many seconds, whatever `packets` says.
        random: Random offsets and values instead of a battery's.
        full_every: Every so many packets of a client, beginning with its first, one is a FULL; 0: none. The simple
            wire has none.
        wire: `packet` (data packets with their length) or `simple`.
        seed: Decides about counts, offsets and values. With a seed the times begin at 2026-01-01 and the bytes are
            the same each time; None is seed 0 with times by the clock.
        start_us: Time of the first packet in microseconds since the UNIX epoch, the others following `delay_s` apart
            (1 us where that is 0).
        datagram_bytes: Over UDP, put as many packets into a datagram as fit this size; None: one.
        connect_timeout_s: How long to wait for a listener.
        image: Put the image itself into the account, too.

    Returns:
        dict with `seed`, `wire`, `elapsed_s`, `clients` (one dict for each), `total` (`packets_sent`,
        `full_packets`, `registers_sent`, `bytes_sent`, `datagrams_sent`) and `image_digest`: XXH3-128 over the image
        that a receiver of everything has, the `digest` of `tapeline.wire.RegisterImage`. With `image`, also
        `image`, in the form of `tapeline registers image --json`. A client has the fields of `total`, and
        `url`, `type`, `src_id`, `first_timestamp_us`, `last_timestamp_us`, `error`.

    Raises:
        ConfigError: An option is out of its range, or a URL is none.
        ConnectionError: A destination could not be reached, or went away; `.truth` is the account so far.
    """
    simulation = BatterySimulation(
        to,
        clients=clients,
        packets=packets,
        count=count,
        registers=registers,
        delay_s=delay_s,
        rate_hz=rate_hz,
        duration_s=duration_s,
        random=random,
        full_every=full_every,
        wire=wire,
        seed=seed,
        start_us=start_us,
        datagram_bytes=datagram_bytes,
        connect_timeout_s=connect_timeout_s,
        image=image,
    )
    with simulation:
        return simulation.truth()


def _count(count: int | tuple[int, int]) -> tuple[int, int]:
    """The fewest and the most registers of a packet."""
    if not isinstance(count, (tuple, list)):
        number = whole("count", count, 0, _MOST_REGISTERS)
        return number, number
    if len(count) != 2:
        raise ConfigError(f"count is {count!r}; it must be a number, or the fewest and the most")
    most = whole("count", count[1], 0, _MOST_REGISTERS)
    return whole("count", count[0], 0, most), most


def _delay(delay_s: float, rate_hz: float) -> float:
    """Seconds between two packets, given as such or as a rate."""
    delay, wanted = amount("delay_s", delay_s), rate("rate_hz", rate_hz)
    if wanted == 0:
        return delay
    if delay:
        raise ConfigError(f"delay_s is {delay_s!r} and rate_hz is {rate_hz!r}; they exclude each other")
    return 1.0 / wanted
