"""Streams as bytes: encode frames and register packets, decode streams with faults, keep the account.

The frame wire is that of the radar side: a header with a sync marker, a sequence and two CRC32C, then the
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

Register packets are the battery side: (offset, value) pairs of 16 bits, on two wires (`kind`).

    >>> stream = wire.encode_packet([7, 9], [70, 90], timestamp_us=1, src_id=3, type=wire.SourceType.RACK)
    >>> decoder = wire.PacketDecoder()
    >>> [packet] = decoder.feed(stream)
    >>> packet.registers
    [(7, 70), (9, 90)]
    >>> print(packet)
    DIFF RACK 3 seq 0, 2 registers, 29 bytes, at 0.000001 s
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

from tapeline import _native
from tapeline._native import Frame, FrameLayout, Packet
from tapeline.errors import WireError
from tapeline.ledger import ClosedClients, CorruptCounters, InvalidPackets, Ledger, RegisterLedger

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

__all__ = [
    "MAX_COUNT",
    "PERIOD_END",
    "PERIOD_START",
    "ClosedClients",
    "Command",
    "CorruptCounters",
    "Frame",
    "FrameDecoder",
    "FrameLayout",
    "InvalidPackets",
    "Ledger",
    "Packet",
    "PacketDecoder",
    "RegisterImage",
    "RegisterLedger",
    "SourceType",
    "WireError",
    "encode_frame",
    "encode_packet",
    "packet_bytes",
]

PERIOD_START: Final = 1
"""Flag of the first frame of a periodic."""
PERIOD_END: Final = 2
"""Flag of the last frame of a periodic."""

_DEFAULT_LAYOUT: Final = FrameLayout()


def encode_frame(
    payload: Buffer,
    sequence: int,
    timestamp_ns: int = 0,
    *,
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


PacketKind: TypeAlias = Literal["packet", "simple"]
"""The two wires of register packets: length-prefixed data packets, and simple packets."""

MAX_COUNT: Final = 65_536
"""The most registers in a packet."""


class Command(IntEnum):
    """What a data packet says or asks (`cmd`)."""

    DIFF = 0
    FULL = 1
    QUERY = 2
    REPLY = 3
    SYNC = 4
    SYNCED = 5


class SourceType(IntEnum):
    """Kind of device a data packet comes from (`type`)."""

    UNKNOWN = 0
    SBMU = 1
    RACK = 2
    RTOS = 3


def packet_bytes(count: int, *, kind: PacketKind = "packet") -> int:
    """Size of a packet with `count` registers, a length prefix included.

    Raises:
        WireError: `count` is negative or above 65,536.
    """
    if not 0 <= count <= MAX_COUNT:
        raise WireError(f"count is {count}; it must be 0 to {MAX_COUNT}")
    return (21 if kind == "packet" else 16) + 4 * count


def encode_packet(
    control: Buffer | Sequence[int] = (),
    data: Buffer | Sequence[int] | None = None,
    *,
    kind: PacketKind = "packet",
    timestamp_us: int = 0,
    time: float | None = None,
    src_id: int = 0,
    rack: int | None = None,
    cmd: int | str = Command.DIFF,
    type: int | str = SourceType.UNKNOWN,
    seq: int = 0,
) -> bytes:
    """Encode one register packet.

    Args:
        control: Register offsets, 0 to 65535 each, at most 65,536; a sequence of ints or an array of uint16.
        data: Values, as many; zeros if None (a query's are ignored).
        kind: The wire: "packet" or "simple".
        timestamp_us: Microseconds since the UNIX epoch.
        time: Seconds since the UNIX epoch, for the simple wire; made of `timestamp_us` if None.
        src_id: Number of the SBMU or rack, 0 to 255; on the simple wire the rack, any int32.
        rack: The same as `src_id`, by its name on the simple wire.
        cmd: A `Command`, or its name ("full"); the simple wire has none.
        type: A `SourceType`, or its name ("rack"); the simple wire has none.
        seq: Number of the packet, 0 to 255, wrapping, per (type, src_id); the simple wire has none.

    Returns:
        The packet; of kind "packet" with its length prefix.

    Raises:
        WireError: A value does not fit its field, or there are not as many values as offsets.
    """
    source = src_id if rack is None else rack
    codes = _code("cmd", cmd, Command), _code("type", type, SourceType)
    return _native.encode_packet(control, data, kind, timestamp_us, time, source, *codes, seq)


def _code(field: str, value: int | str, names: type[IntEnum]) -> int:
    """The number of a command or type, which may be given by its name."""
    if not isinstance(value, str):
        return value
    try:
        return names[value.upper()]
    except KeyError:
        raise WireError(f"{field} is {value!r}; it must be one of {', '.join(names.__members__).lower()}") from None


class PacketDecoder:
    """Turns the bytes of a stream, in any chunking, into its valid register packets.

    A packet that contradicts itself is counted and skipped, never raised. Neither wire has a marker to
    search for: once the framing is lost, the rest is discarded and counted, and `framing_lost` says
    why. At most one packet is held. A decoder is for one thread at a time.

    Args:
        kind: The wire: "packet" or "simple".

    Raises:
        WireError: Another `kind`.
    """

    __slots__ = ("_decoder", "_kind")

    def __init__(self, kind: PacketKind = "packet") -> None:
        """Start at the beginning of a stream."""
        self._kind = kind
        self._decoder = _native.PacketDecoder(kind)

    def feed(self, chunk: Buffer) -> list[Packet]:
        """Take the next bytes of the stream.

        Args:
            chunk: Any contiguous buffer, of any length.

        Returns:
            The packets that are complete now, in order of the stream.

        Raises:
            BufferError: The buffer is not contiguous.
        """
        return self._decoder.feed(chunk)

    def finish(self) -> list[Packet]:
        """Say that the stream has ended.

        A packet cut by the end counts as truncated. The decoder is then ready for a new stream;
        counts, sequences and offsets go on.

        Returns:
            Nothing ever: no packet is decided by the end. A list, as of `FrameDecoder.finish`.
        """
        self._decoder.finish()
        return []

    @property
    def kind(self) -> PacketKind:
        """The wire."""
        return self._kind

    @property
    def pending_bytes(self) -> int:
        """Bytes fed that are not decided yet."""
        return self._decoder.pending_bytes

    @property
    def framing_lost(self) -> str | None:
        """Why the framing is lost, with the byte offset; None while it is not."""
        return self._decoder.framing_lost

    @property
    def ledger(self) -> RegisterLedger:
        """The account so far, as a snapshot. `packets_stored` are the packets handed out."""
        return RegisterLedger.from_dict(self._decoder.ledger())

    def __repr__(self) -> str:
        """Settings, not state."""
        return f"PacketDecoder(kind={self._kind!r})"


class RegisterImage:
    """65,536 registers of each (type, src_id): what is known, and since when.

    DIFF packets set the listed registers; FULL packets make all others of the source unknown; other
    commands change nothing. A source costs 10.8 KB for each 1,024 registers touched.

    Args:
        max_sources: Packets of further sources are ignored.
        max_pages: Most pages of 1,024 registers; registers beyond are ignored.
    """

    __slots__ = ("_image", "position")

    position: tuple[int, int, int]
    """Of a loaded file: segment and byte offset up to which the log is contained, and when it was written (ns)."""

    def __init__(self, *, max_sources: int = 1024, max_pages: int = 32_768) -> None:
        """Nothing is known."""
        self._image = _native.RegisterImage(max_sources, max_pages)
        self.position = (0, 0, 0)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, max_sources: int = 1024, max_pages: int = 32_768) -> Self:
        """Read an `image.bin`.

        Raises:
            WireError: The file is something else, is damaged, or is beyond the limits.
            OSError: As the operating system gave it.
        """
        self = cls()
        self._image, self.position = _native.RegisterImage.from_file(path, max_sources, max_pages)
        return self

    def to_bytes(self) -> bytes:
        """The image as an `image.bin`."""
        return self._image.to_bytes(*self.position)

    def apply(self, packet: Packet) -> int:
        """Apply a packet; returns how many registers changed or became known."""
        return self._image.apply(packet)

    def apply_bytes(self, data: Buffer, *, kind: PacketKind = "packet") -> int:
        """Apply all whole packets of `data`, at memory speed; invalid ones are skipped.

        Returns:
            Bytes of whole packets, from the start of `data`: what follows is an unfinished packet.

        Raises:
            WireError: The framing is lost; what came before is applied.
        """
        return self._image.apply_bytes(data, kind)[1]

    @property
    def sources(self) -> list[tuple[int, int]]:
        """The sources seen as (type, src_id), sorted."""
        return self._image.sources()

    def get(self, type: int, src_id: int, offset: int) -> int | None:
        """Value of a register; None if it is not known."""
        state = self._image.get(type, src_id, offset)
        return None if state is None else state[0]

    def changed_us(self, type: int, src_id: int, offset: int) -> int | None:
        """When a register took its value, in microseconds since the UNIX epoch; None if it is not known."""
        state = self._image.get(type, src_id, offset)
        return None if state is None else state[1]

    def unknown_since_us(self, type: int, src_id: int, offset: int) -> int | None:
        """Time up to which the value is sure, if a lost packet may have changed it since; else None."""
        state = self._image.get(type, src_id, offset)
        return None if state is None else state[2]

    def arrays(self, type: int, src_id: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint64]]:
        """The known registers of a source: offsets, values and change times (us), shape (known,) each."""
        import numpy as np

        offsets, values, times = self._image.columns(type, src_id)
        return np.frombuffer(offsets, "<u2"), np.frombuffer(values, "<u2"), np.frombuffer(times, "<u8")

    def registers(self, type: int, src_id: int) -> list[tuple[int, int]]:
        """The known registers of a source with their values, by offset."""
        offsets, values, _ = self.arrays(type, src_id)
        return list(zip(offsets.tolist(), values.tolist(), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `{"sources": [{"type": 2, "src_id": 1, "registers": [[offset, value], ...]}]}`.

        Known registers only; sources of which nothing is known are left out.
        """
        sources = []
        for kind, src_id in self.sources:
            registers = [list(pair) for pair in self.registers(kind, src_id)]
            if registers:
                sources.append({"type": kind, "src_id": src_id, "registers": registers})
        return {"sources": sources}

    def digest(self) -> str:
        """XXH3-128 over everything known, 32 hexadecimal digits: equal for equal images.

        Of each source with a known register, sorted: type u8, src_id i32, then offset u16 and value u16 of
        its known registers by offset, little-endian.
        """
        return self._image.digest()

    def __repr__(self) -> str:
        """How many sources."""
        return f"<RegisterImage of {len(self.sources)} sources>"
