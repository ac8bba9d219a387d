"""Hypothesis strategies: frame streams with every fault, layouts, chunkings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from _twins.frames import MAGIC, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

# Magics that overlap themselves, and ones that look like other header bytes.
MAGICS = (MAGIC, b"\x01" * 8, b"abababab", b"abcabcab", b"\x00" * 7 + b"\x01", b"\x00" * 8, MAGIC[:4] * 2)


def layouts() -> st.SearchStrategy[Layout]:
    return st.builds(
        Layout,
        magic=st.sampled_from(MAGICS) | st.binary(min_size=8, max_size=8),
        version_flags=st.sampled_from((2, 4)),
        length_bytes=st.sampled_from((4, 8)),
        header_crc=st.booleans(),
        max_payload=st.sampled_from((1, 50, 200, 4096, 1 << 20)),
    )


@st.composite
def _pieces(draw: st.DrawFn, layout: Layout) -> list[bytes]:
    """Frames in sequence, some of them broken, garbage in between."""
    pieces: list[bytes] = []
    sequence = draw(st.sampled_from((0, 5, 1 << 40, (1 << 64) - 20)))
    longest = min(layout.max_payload, 300)
    for _ in range(draw(st.integers(0, 25))):
        payload = draw(st.binary(min_size=1, max_size=longest))
        stream_id = draw(st.integers(0, 2)) if layout.version_flags == 4 else 0
        flags = draw(st.sampled_from((0, 1, 2, 3, 255)))
        known = {"sequence": sequence % (1 << 64), "timestamp_ns": sequence % (1 << 64), "stream_id": stream_id}
        known["flags"] = flags
        sequence += 1
        frame = layout.encode(payload, **known)
        match draw(st.sampled_from(FAULTS)):
            case "none":
                pieces.append(frame)
            case "drop":
                pass
            case "duplicate":
                pieces += [frame, frame]
            case "reorder":
                pieces.insert(draw(st.integers(0, len(pieces))), frame)
            case "flip":
                at = draw(st.integers(0, len(frame) - 1))
                bit = 1 << draw(st.integers(0, 7))
                pieces.append(frame[:at] + bytes([frame[at] ^ bit]) + frame[at + 1 :])
            case "garbage":
                pieces += [draw(st.binary(max_size=100)), frame]
            case "truncate":
                pieces.append(frame[: draw(st.integers(0, len(frame) - 1))])
            case "magic in payload":
                room = longest - min(len(payload), longest - 1)
                pieces.append(layout.encode((layout.magic + payload)[: max(room, 1)], **known))
            case "frame in payload":
                inner = layout.encode(payload[:8], sequence=77)
                if len(inner) <= layout.max_payload:
                    broken = draw(st.booleans())
                    pieces.append(layout.encode(inner, **known, payload_crc=0 if broken else None))
            case "long length":
                claimed = draw(st.integers(1, 2 * layout.max_payload))
                pieces.append(layout.encode(payload, **known, length=claimed))
            case "past good frames":
                claimed = len(payload) + draw(st.integers(0, 5)) * (layout.header_bytes + len(payload))
                pieces.append(layout.encode(payload, **known, length=min(claimed, layout.max_payload)))
            case "fake header":
                pieces += [layout.encode(payload, **known, header_crc=draw(st.integers(0, 3))), frame]
            case "zero or oversize":
                length = draw(st.sampled_from((0, layout.max_payload + 1, (1 << 31), (1 << 32) - 1)))
                pieces.append(layout.encode(payload, **known, length=length))
            case "claims the maximum":
                header = layout.encode(b"", **known, length=layout.max_payload, payload_crc=1)
                pieces += [header] * draw(st.integers(1, 6))
            case "bad version":
                pieces.append(layout.encode(payload, **known, version=draw(st.sampled_from((0, 2, 255)))))
            case "part of a magic":
                pieces += [layout.magic[: draw(st.integers(1, 7))] * draw(st.integers(1, 3)), frame]
    return pieces


FAULTS = (
    "none", "none", "none", "drop", "duplicate", "reorder", "flip", "garbage", "truncate", "magic in payload",
    "frame in payload", "long length", "past good frames", "fake header", "zero or oversize", "claims the maximum",
    "bad version", "part of a magic",
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> tuple[Layout, bytes]:
    """A layout and a stream of it, broken in any number of ways."""
    layout = draw(layouts())
    return layout, b"".join(draw(_pieces(layout)))


@st.composite
def chunks_of(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """The stream cut whole, in 64 KiB, byte by byte, or at random in small, middle or large pieces."""
    kind = draw(st.sampled_from(("whole", "64 KiB", "1", "0..7", "0..100", "0..5000")))
    if kind == "whole":
        return [stream]
    if ".." not in kind:
        size = 1 if kind == "1" else 1 << 16
        return [stream[i : i + size] for i in range(0, len(stream), size)]
    rng = draw(st.randoms(use_true_random=False))
    return cut(stream, int(kind.split("..")[1]), rng.randint)


def cut(stream: bytes, largest: int, randint: object) -> Sequence[bytes]:
    chunks, at = [], 0
    while at < len(stream):
        size = randint(0, largest)  # type: ignore[operator]
        chunks.append(stream[at : at + size])
        at += size
    return chunks
