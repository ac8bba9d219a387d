"""A slow, obvious decoder and encoder of frame streams, straight from spec/frame-stream.md 1 to 3.

It keeps the whole stream, looks at it once it has ended, hashes byte by byte and keeps sequences in a
set. Nothing here is shared with the implementation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAGIC = bytes.fromhex("d1c64f93a7b25e8c")


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC32C, one byte at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Layout:
    """The variants of the header."""

    magic: bytes = MAGIC
    version_flags: int = 4
    length_bytes: int = 4
    header_crc: bool = True
    max_payload: int = 1 << 20

    @property
    def header_bytes(self) -> int:
        return 8 + self.version_flags + 16 + self.length_bytes + 4 * self.header_crc + 4

    def encode(
        self,
        payload: bytes,
        *,
        sequence: int = 0,
        timestamp_ns: int = 0,
        stream_id: int = 0,
        flags: int = 0,
        version: int = 1,
        length: int | None = None,
        payload_crc: int | None = None,
        header_crc: int | None = None,
    ) -> bytes:
        """A frame; the last four say otherwise than the truth, to make faulty ones."""
        header = self.magic + bytes([version, flags])
        if self.version_flags == 4:
            header += stream_id.to_bytes(2, "big")
        header += sequence.to_bytes(8, "big") + timestamp_ns.to_bytes(8, "big")
        header += (len(payload) if length is None else length).to_bytes(self.length_bytes, "big")
        if self.header_crc:
            header += (crc32c(header) if header_crc is None else header_crc).to_bytes(4, "big")
        header += (crc32c(payload) if payload_crc is None else payload_crc).to_bytes(4, "big")
        return header + payload


@dataclass
class Counters:
    """What the decoder counted."""

    header_crc: int = 0
    payload_crc: int = 0
    bad_version: int = 0
    bad_length: int = 0
    truncated: int = 0
    resyncs: int = 0
    valid_bytes: int = 0
    bytes_discarded: int = 0


@dataclass(frozen=True)
class Frame:
    """One valid frame."""

    sequence: int
    timestamp_ns: int
    stream_id: int
    flags: int
    payload: bytes
    offset: int


class Decoder:
    """Decodes one whole stream."""

    def __init__(self, layout: Layout, stream: bytes) -> None:
        self.layout, self.stream = layout, stream
        self.frames: list[Frame] = []
        self.counters = Counters()
        self._at = 0
        self._in_step = True
        while self._at < len(stream):
            self._step()

    def _step(self) -> None:
        stream, layout, at = self.stream, self.layout, self._at
        if not stream.startswith(layout.magic, at):
            if layout.magic.startswith(stream[at:]):  # an end that may be half a magic: nobody was lost
                self._discard(len(stream) - at)
            else:
                self._lost()
            return
        size = layout.header_bytes
        header = stream[at : at + size]
        if len(header) < size:
            self._discard(len(stream) - at)
            return
        if layout.header_crc and crc32c(header[: size - 8]) != int.from_bytes(header[size - 8 : size - 4], "big"):
            self.counters.header_crc += 1
            self._lost()
            return
        version, flags = header[8], header[9]
        if version != 1:
            self.counters.bad_version += 1
            self._lost()
            return
        rest = header[8 + layout.version_flags :]
        sequence, timestamp_ns = int.from_bytes(rest[:8], "big"), int.from_bytes(rest[8:16], "big")
        length = int.from_bytes(rest[16 : 16 + layout.length_bytes], "big")
        if not 0 < length <= layout.max_payload:
            self.counters.bad_length += 1
            self._lost()
            return
        end = at + size + length
        if end > len(stream):
            self.counters.truncated += 1
            self._lost()
            return
        payload = stream[at + size : end]
        if crc32c(payload) != int.from_bytes(header[size - 4 :], "big"):
            self.counters.payload_crc += 1
            if layout.header_crc and (end == len(stream) or stream.startswith(layout.magic, end)):
                self._discard(end - at)
            else:
                self._lost()
            return
        stream_id = int.from_bytes(header[10:12], "big") if layout.version_flags == 4 else 0
        self.frames.append(Frame(sequence, timestamp_ns, stream_id, flags, payload, at))
        self.counters.valid_bytes += end - at
        self._at = end
        self._in_step = True

    def _discard(self, n: int) -> None:
        self.counters.bytes_discarded += n
        self._at += n

    def _lost(self) -> None:
        """Give up one byte; one resync per run of lost bytes."""
        self.counters.resyncs += self._in_step
        self._in_step = False
        self._discard(1)


@dataclass
class Sequence:
    """One stream id: every epoch is a set of the sequences seen in it."""

    window: int = 65_536
    gaps: int = 0
    duplicate: int = 0
    reordered: int = 0
    restarts: int = 0
    epochs: list[set[int]] = field(default_factory=list)

    def observe(self, sequence: int) -> bool:
        """Take the next frame; True if it is a duplicate."""
        if not self.epochs:
            self.epochs.append({sequence})
            return False
        seen = self.epochs[-1]
        expected = max(seen) + 1
        if sequence >= expected:
            self.gaps += sequence > expected
        elif expected - sequence > self.window:
            self.restarts += 1
            self.epochs.append(seen := set())
        elif sequence in seen:
            self.duplicate += 1
            return True
        else:
            self.reordered += 1
        seen.add(sequence)
        return False

    @property
    def lost(self) -> int:
        return sum(max(seen) - min(seen) + 1 - len(seen) for seen in self.epochs)
