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

from typing import TYPE_CHECKING, Final

from tapeline import _native
from tapeline._native import Frame, FrameLayout
from tapeline.errors import WireError
from tapeline.ledger import CorruptCounters, Ledger

if TYPE_CHECKING:
    from typing_extensions import Buffer

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
