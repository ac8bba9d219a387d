"""The ledger of a stream: where every byte and frame went (spec/frame-stream.md 4).

The fields are declared once, here, with their text; the reference page is made of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def _counter(doc: str) -> int:
    counter: int = field(default=0, metadata={"doc": doc})
    return counter


@dataclass(frozen=True, slots=True)
class CorruptCounters:
    """Why candidates for a frame were refused."""

    header_crc: int = _counter("Header checksum wrong.")
    payload_crc: int = _counter("Payload checksum wrong.")
    bad_version: int = _counter("A version other than 1.")
    bad_length: int = _counter("Payload length zero or above max_payload.")
    truncated: int = _counter("The stream ended inside the frame.")

    @property
    def total(self) -> int:
        """All of them together."""
        return self.header_crc + self.payload_crc + self.bad_version + self.bad_length + self.truncated


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account of one stream at one moment."""

    bytes_received: int = _counter("Bytes that arrived from the source.")
    frames_received: int = _counter("Valid frames found in them, duplicates included.")
    frames_stored: int = _counter("Frames written to segments.")
    bytes_stored: int = _counter("Bytes of those frames, headers included.")
    frames_corrupt: CorruptCounters = field(
        default_factory=CorruptCounters, metadata={"doc": "Candidates refused, by reason."}
    )
    resyncs: int = _counter("Searches for the next magic after something invalid.")
    bytes_discarded: int = _counter("Bytes that belong to no valid frame.")
    gaps: int = _counter("Jumps forward in the sequence.")
    frames_lost: int = _counter("Sequences missing between the first and the last seen.")
    frames_duplicate: int = _counter("Frames seen before; dropped unless keep_duplicates.")
    frames_reordered: int = _counter("Frames that came after a later one and filled a gap.")
    frames_late: int = _counter("Frames that came after their periodic was closed; stored all the same.")
    restarts: int = _counter("Epochs begun because the producer or the connection started again.")
    datagrams_received: int = _counter("UDP datagrams taken from the kernel.")
    datagrams_dropped_by_kernel: int = _counter("UDP datagrams the kernel dropped for want of buffer (SO_RXQ_OVFL).")
    ring_high_water_bytes: int = _counter("Most bytes that ever waited between receiver and writer.")
    backpressure_ns: int = _counter("Time the receiver did not receive because the ring was full, in ns.")
    periodics_complete: int = _counter("Periodics closed with every frame.")
    periodics_incomplete: int = _counter("Periodics closed with frames missing.")
    frames_repaired: int = _counter("Frames that one path lost and the other brought.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ledger:
        """Read the form of `as_dict`, as in `recording.json`; missing names are 0 and unknown ones ignored."""
        names = {f.name for f in fields(cls)} - {"frames_corrupt"}
        reasons = {f.name for f in fields(CorruptCounters)}
        corrupt = CorruptCounters(**{k: int(v) for k, v in values.get("frames_corrupt", {}).items() if k in reasons})
        return cls(frames_corrupt=corrupt, **{k: int(v) for k, v in values.items() if k in names})

    def as_dict(self) -> dict[str, Any]:
        """Name to number in the order of the specification; `frames_corrupt` is a dict of its own."""
        return asdict(self)

    @property
    def lost_anything(self) -> bool:
        """True when a frame or byte that was sent is not in the recording, as far as the receiver can tell."""
        return bool(
            self.frames_lost or self.frames_corrupt.total or self.bytes_discarded or self.datagrams_dropped_by_kernel
        )

    def broken_laws(
        self, *, bytes_pending: int = 0, frames_in_flight: int = 0, bytes_valid: int | None = None
    ) -> list[str]:
        """Check the conservation laws (spec/frame-stream.md 4, 1 and 2).

        Args:
            bytes_pending: Bytes the decoder still holds; 0 after the end.
            frames_in_flight: Frames between receiver and writer; 0 after the end.
            bytes_valid: Bytes of all valid frames. Without it law 1 is checked where no duplicates were dropped,
                because then they are `bytes_stored`.

        Returns:
            One sentence for each law that does not hold; empty when all hold.
        """
        broken = []
        dropped = self.frames_received - self.frames_stored - frames_in_flight
        if dropped not in {0, self.frames_duplicate}:
            broken.append(
                f"frames_received {self.frames_received} != frames_stored {self.frames_stored} + dropped duplicates "
                f"{self.frames_duplicate} + in flight {frames_in_flight}"
            )
        if bytes_valid is None and dropped == 0 and frames_in_flight == 0:
            bytes_valid = self.bytes_stored
        if bytes_valid is not None and self.bytes_received != bytes_valid + self.bytes_discarded + bytes_pending:
            broken.append(
                f"bytes_received {self.bytes_received} != valid {bytes_valid} + bytes_discarded {self.bytes_discarded} "
                f"+ pending {bytes_pending}"
            )
        return broken


def describe() -> list[tuple[str, str]]:
    """Dotted name and text of every field, for the documentation."""
    rows = []
    for f in fields(Ledger):
        rows.append((f.name, f.metadata["doc"]))
        if f.name == "frames_corrupt":
            rows += [(f"frames_corrupt.{part.name}", part.metadata["doc"]) for part in fields(CorruptCounters)]
    return rows
