"""Frame streams as bytes: encode frames, decode streams with faults, keep the account.

The wire is that of the radar side: a header with a sync marker, a sequence and two CRC32C, then the
payload. Nothing here does IO: bytes in any chunking go in, frames come out, and the result never
depends on the chunking.

    >>> from tapeline import wire
    >>> stream = wire.encode_frame(b"abc", sequence=7, timestamp_ns=1)
    >>> decoder = wire.FrameDecoder()
    >>> decoder.feed(b"noise" + stream)
    [Frame(sequence=7, timestamp_ns=1, stream_id=0, flags=0, payload=<3 bytes>, offset=5)]
    >>> decoder.finish()
    []
    >>> decoder.ledger.bytes_discarded
    5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from tapeline import _native
from tapeline._native import Frame, FrameLayout
from tapeline.errors import WireError

if TYPE_CHECKING:
    from typing import Self

    from tapeline._native import Buffer

__all__ = [
    "PERIOD_END",
    "PERIOD_START",
    "CorruptCounters",
    "Frame",
    "FrameDecoder",
    "FrameLayout",
    "Ledger",
    "WireError",
    "encode_frame",
]

PERIOD_START: Final = 1
"""Flag of the first frame of a periodic."""
PERIOD_END: Final = 2
"""Flag of the last frame of a periodic."""

_DEFAULT_LAYOUT: Final = FrameLayout()


@dataclass(frozen=True, slots=True)
class CorruptCounters:
    """Frames refused, one count per reason, in the order of the checks.

    Attributes:
        header_crc: The header's CRC32C does not match.
        payload_crc: The header is good, the payload's CRC32C does not match.
        bad_version: The header names a version other than 1.
        bad_length: The payload length is zero or over the layout's limit.
        truncated: The stream ended inside the payload.
    """

    header_crc: int = 0
    payload_crc: int = 0
    bad_version: int = 0
    bad_length: int = 0
    truncated: int = 0

    @property
    def total(self) -> int:
        """Sum over all reasons."""
        return self.header_crc + self.payload_crc + self.bad_version + self.bad_length + self.truncated

    def as_dict(self) -> dict[str, int]:
        """The counts by reason."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account of one stream: what became of every byte and frame.

    Always holds: `bytes_received` = bytes of valid frames + `bytes_discarded` + bytes pending, and
    `frames_received` = `frames_stored` + duplicates dropped + frames in flight.

    Attributes:
        bytes_received: Bytes that came in.
        frames_received: Valid frames, duplicates included.
        frames_stored: Frames written; by a decoder: handed out.
        bytes_stored: Bytes of the frames stored, headers included.
        frames_corrupt: Frames refused, by reason.
        resyncs: Times the place in the stream was lost and a sync marker searched for.
        bytes_discarded: Bytes that belong to no valid frame.
        gaps: Times the sequence jumped ahead.
        frames_lost: Sequence numbers between the first and the last seen that never came.
        frames_duplicate: Frames seen before; dropped unless duplicates are kept.
        frames_reordered: Frames that came after a later one.
        frames_late: Frames that came after their periodic was closed.
        restarts: Producer restarts seen in the sequence.
        datagrams_received: UDP datagrams received.
        datagrams_dropped_by_kernel: UDP datagrams dropped because the socket's buffer was full.
        ring_high_water_bytes: The most that waited for the writer, in bytes.
        backpressure_ns: Time the receiver waited for the writer, in nanoseconds.
        periodics_complete: Periodics with all their frames.
        periodics_incomplete: Periodics closed with frames missing.
        frames_repaired: Frames that one path lost and the other brought.
    """

    bytes_received: int = 0
    frames_received: int = 0
    frames_stored: int = 0
    bytes_stored: int = 0
    frames_corrupt: CorruptCounters = CorruptCounters()
    resyncs: int = 0
    bytes_discarded: int = 0
    gaps: int = 0
    frames_lost: int = 0
    frames_duplicate: int = 0
    frames_reordered: int = 0
    frames_late: int = 0
    restarts: int = 0
    datagrams_received: int = 0
    datagrams_dropped_by_kernel: int = 0
    ring_high_water_bytes: int = 0
    backpressure_ns: int = 0
    periodics_complete: int = 0
    periodics_incomplete: int = 0
    frames_repaired: int = 0

    @classmethod
    def from_dict(cls, counts: Mapping[str, int | Mapping[str, int]]) -> Self:
        """Make a ledger of what `as_dict` gave, as it stands in a recording's manifest.

        Args:
            counts: Names and counts; those of `frames_corrupt` in a mapping of their own. What is
                not named is 0.

        Raises:
            TypeError: A name is not a field of the ledger.
        """
        plain = {name: value for name, value in counts.items() if not isinstance(value, Mapping)}
        nested = {name: CorruptCounters(**value) for name, value in counts.items() if isinstance(value, Mapping)}
        return cls(**plain, **nested)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """Names and counts in the order of the specification; `frames_corrupt` is a dict itself."""
        counts: dict[str, int | dict[str, int]] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            counts[field.name] = value.as_dict() if isinstance(value, CorruptCounters) else value
        return counts


def encode_frame(
    payload: Buffer,
    sequence: int,
    timestamp_ns: int = 0,
    stream_id: int = 0,
    flags: int = 0,
    layout: FrameLayout | None = None,
) -> bytes:
    """Encode one frame.

    Args:
        payload: 1 to `layout.max_payload` bytes; any contiguous buffer.
        sequence: Number of the frame in its stream, 0 to 2**64 - 1.
        timestamp_ns: Nanoseconds since the UNIX epoch, 0 to 2**64 - 1.
        stream_id: Which stream, 0 to 65535; must be 0 in a layout without the field.
        flags: `PERIOD_START`, `PERIOD_END` or both; 0 to 255, the other bits have no meaning yet.
        layout: The header's layout; the default one if None.

    Returns:
        Header and payload.

    Raises:
        WireError: The payload is empty or too long, or a value does not fit its field.
    """
    return _native.encode_frame(payload, sequence, timestamp_ns, stream_id, flags, layout or _DEFAULT_LAYOUT)


class FrameDecoder:
    """Turns the bytes of a stream, in any chunking, into its valid frames.

    A frame is handed out once it is complete and both its CRCs are good. What is wrong is counted
    and skipped, never raised. At most one frame of the largest size and one read buffer are held.
    A decoder is for one thread at a time.

    Args:
        layout: The header's layout; the default one if None.
        keep_duplicates: Hand out frames whose sequence was seen before as well. They are counted
            either way.
        reorder_window: How many sequence numbers back a frame is told from a restart of its
            producer, per stream id.

    Raises:
        WireError: `reorder_window` is out of range.
    """

    __slots__ = ("_decoder", "_keep_duplicates", "_layout")

    def __init__(
        self, layout: FrameLayout | None = None, *, keep_duplicates: bool = False, reorder_window: int = 65_536
    ) -> None:
        """Start at the beginning of a stream."""
        self._layout = layout or _DEFAULT_LAYOUT
        self._keep_duplicates = keep_duplicates
        self._decoder = _native.FrameDecoder(self._layout, keep_duplicates, reorder_window)

    def feed(self, chunk: Buffer) -> list[Frame]:
        """Take the next bytes of the stream.

        Payloads are copied once, into their `bytes`. The lock is released while a long `bytes`
        chunk is checked.

        Args:
            chunk: Any contiguous buffer, of any length; empty is allowed and means nothing.

        Returns:
            The frames that are complete now, in order of the stream.

        Raises:
            BufferError: The buffer is not contiguous.
        """
        return self._decoder.feed(chunk)

    def finish(self) -> list[Frame]:
        """Say that the stream has ended.

        A frame cut by the end counts as truncated, and whole frames inside it are still found. The
        decoder is then ready for a new stream; counts, sequences and offsets go on.

        Returns:
            The frames that only the end decides.
        """
        return self._decoder.finish()

    @property
    def layout(self) -> FrameLayout:
        """The layout it looks for."""
        return self._layout

    @property
    def pending_bytes(self) -> int:
        """Bytes fed that are neither part of a frame nor discarded yet."""
        return self._decoder.pending_bytes

    @property
    def ledger(self) -> Ledger:
        """The account so far, as a snapshot. `frames_stored` are the frames handed out."""
        return Ledger.from_dict(self._decoder.ledger())

    def __repr__(self) -> str:
        """Settings, not state."""
        return f"FrameDecoder({self._layout!r}, keep_duplicates={self._keep_duplicates})"
