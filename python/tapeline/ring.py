"""Rings in shared memory: one producer that never waits, any number of readers on the same host.

A ring is a file, by its name alone in `/dev/shm`, with a slash at any path. The producer overwrites what is oldest;
a reader that was overtaken counts what it missed and goes on at the oldest whole record. Producers in C and C++
use `include/tapeline_ring.h`; a recorder reads a ring as `shm://NAME`.

    >>> import os, tempfile
    >>> name = os.path.join(tempfile.mkdtemp(), "battery")
    >>> with Writer(name, capacity=1 << 16) as writer, Reader(name) as reader:
    ...     _ = writer.write(b"first", timestamp_us=1)
    ...     reader.read()
    [Record(position=0, timestamp_us=1, payload=b'first')]
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from tapeline import _native
from tapeline.errors import ConfigError, RingError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Buffer

__all__ = ["Counters", "Reader", "Record", "RingError", "RingInfo", "Writer", "stat"]

DEFAULT_CAPACITY = 16 << 20
_MOST_RECORDS = 1 << 62
_LAST_TIME_US = (1 << 64) - 1


class Record(NamedTuple):
    """One record.

    Attributes:
        position: Bytes of the ring before it, since the ring was made.
        timestamp_us: Microseconds since the UNIX epoch, as the producer gave it.
        payload: Its bytes, checked against their CRC32C. For a recorder, a data packet without its length.
    """

    position: int
    timestamp_us: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Counters:
    """What a reader has seen.

    Attributes:
        records: Good records given.
        payload_bytes: Bytes of their payloads.
        overtakes: Times the producer overtook this reader.
        overtaken_bytes: Bytes of the ring that were overwritten before they were read.
        corrupt_records: Records that contradict their checksum, and sizes that cannot be.
        corrupt_bytes: Bytes of the ring skipped for that reason.
    """

    records: int
    payload_bytes: int
    overtakes: int
    overtaken_bytes: int
    corrupt_records: int
    corrupt_bytes: int


@dataclass(frozen=True, slots=True)
class RingInfo:
    """The header page of a ring at one moment.

    Attributes:
        capacity: Bytes of the ring, a power of two.
        producer_pid: Process that wrote last.
        has_producer: Whether a producer has the ring now.
        closed: Whether the last producer said that it was done.
        write_position: End of the newest record.
        reserve_position: End of what the producer may be writing.
        oldest_position: Start of the oldest whole record.
    """

    capacity: int
    producer_pid: int
    has_producer: bool
    closed: bool
    write_position: int
    reserve_position: int
    oldest_position: int


class Writer:
    """The producer of a ring; a context manager that closes it. The file stays for its readers.

    A ring that exists is continued. The file must not be cut while it has a producer: that kills the producer.
    """

    def __init__(self, name: str | os.PathLike[str], *, capacity: int = DEFAULT_CAPACITY) -> None:
        """Make the ring or continue it, and take it.

        Args:
            name: A file name in `/dev/shm`, or a path with a slash.
            capacity: Bytes of the ring, a power of two from 4,096. A record takes at most half of it.

        Raises:
            ConfigError: The capacity is no such number, or the name is empty.
            RingError: The file is no ring, or one of another capacity.
            OSError: EBUSY if the ring has a producer; otherwise as the operating system gave it.
        """
        most = 1 << 40
        if not (isinstance(capacity, int) and 4096 <= capacity <= most and capacity & (capacity - 1) == 0):
            raise ConfigError(f"capacity is {capacity!r}; it must be a power of two from 4096 to {most}")
        self._native = _native.RingWriter(_name(name), capacity)

    def write(self, payload: Buffer, *, timestamp_us: int | None = None) -> int:
        """Append a record. Never waits; what is oldest is overwritten.

        Args:
            payload: Anything with contiguous bytes.
            timestamp_us: Microseconds since the UNIX epoch; None: the clock.

        Returns:
            The record's position.

        Raises:
            RingError: The payload is larger than `max_payload_bytes`, or the time is not in 0..2^64-1.
            ValueError: The ring is closed.
        """
        if timestamp_us is None:
            timestamp_us = time.time_ns() // 1000
        elif not 0 <= timestamp_us <= _LAST_TIME_US:
            raise RingError(f"timestamp_us is {timestamp_us}; it must be from 0 to {_LAST_TIME_US}")
        data = payload if isinstance(payload, bytes) else bytes(memoryview(payload))
        return self._native.write(timestamp_us, data)

    @property
    def capacity(self) -> int:
        """Bytes of the ring."""
        return self._native.capacity()

    @property
    def write_position(self) -> int:
        """Bytes written since the ring was made, headers and padding included."""
        return self._native.write_position()

    @property
    def max_payload_bytes(self) -> int:
        """Largest payload this ring takes."""
        return self._native.max_payload_bytes()

    def close(self) -> None:
        """Tell the readers that nothing more comes, and give the ring free. Closing again does nothing."""
        self._native.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class Reader:
    """A reader of a ring; a context manager. Reading takes nothing away, and the producer does not see it.

    As an iterator it gives records until the producer has closed the ring, and waits in between.
    """

    def __init__(self, name: str | os.PathLike[str], *, start: Literal["oldest", "newest"] = "oldest") -> None:
        """Open the ring.

        Args:
            name: A file name in `/dev/shm`, or a path with a slash.
            start: Begin at the oldest record that is there, or behind the newest.

        Raises:
            ConfigError: `start` is neither, or the name is empty.
            RingError: The file is no ring, or a damaged one.
            OSError: As the operating system gave it.
        """
        if start not in {"oldest", "newest"}:
            raise ConfigError(f"start is {start!r}; allowed are 'oldest' and 'newest'")
        self._native = _native.RingReader(_name(name), start == "newest")
        self._state = "more"

    def read(self, limit: int | None = None, *, timeout: float | None = 0.0) -> list[Record]:
        """Take records.

        Args:
            limit: At most so many; None: all that are there.
            timeout: Seconds to wait for the first; None waits until one comes or the producer closes.

        Returns:
            The records in order; empty if none came in time, or none will come (`closed`).

        Raises:
            RingError: The ring is damaged beyond single records, or the file was cut.
            ValueError: The reader is closed, or the limit is less than 1.
            OSError: As the operating system gave it.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")
        wait = float("inf") if timeout is None else timeout
        taken, self._state = self._native.read(_MOST_RECORDS if limit is None else limit, wait)
        return [Record(*record) for record in taken]

    def __iter__(self) -> Iterator[Record]:
        """Give records as they come, until the producer closes the ring."""
        while True:
            records = self.read(4096, timeout=None)
            if not records:
                return
            yield from records

    @property
    def closed_by_producer(self) -> bool:
        """True once everything was read and the producer had closed the ring; as of the last `read`."""
        return self._state == "closed"

    @property
    def abandoned(self) -> bool:
        """True once everything was read and no producer had the ring, which none had closed; as of the last `read`."""
        return self._state == "abandoned"

    @property
    def counters(self) -> Counters:
        """What was seen so far."""
        return Counters(**self._native.counters())

    @property
    def position(self) -> int:
        """Where the next record is expected."""
        return self._native.position()

    def info(self) -> RingInfo:
        """The header page now.

        Raises:
            RingError: It is damaged, or the file was cut.
            ValueError: The reader is closed.
        """
        values = self._native.header()
        has_producer, closed = bool(values.pop("has_producer")), bool(values.pop("closed"))
        return RingInfo(has_producer=has_producer, closed=closed, **values)

    def close(self) -> None:
        """Let go of the file. Closing again does nothing."""
        self._native.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def stat(name: str | os.PathLike[str]) -> RingInfo:
    """Read the header page of a ring.

    Args:
        name: A file name in `/dev/shm`, or a path with a slash.

    Returns:
        What it says now.

    Raises:
        RingError: The file is no ring, or a damaged one.
        OSError: As the operating system gave it.
    """
    with Reader(name) as reader:
        return reader.info()


def _name(name: str | os.PathLike[str]) -> str:
    text = name if isinstance(name, str) else name.__fspath__()
    if not text or "\0" in text:
        raise ConfigError(f"{text!r} is no name of a ring")
    # a path object without a slash is a path, a text is a name
    return text if isinstance(name, str) or "/" in text else f"./{text}"
