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
    backpressure_ns: int = _counter(
        "Time the receiver did not receive because the ring was full or the disk held it up, in ns."
    )
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


@dataclass(frozen=True, slots=True)
class InvalidPackets:
    """Why register packets were refused."""

    length_mismatch: int = _counter("The body contradicts the length.")
    unknown_command: int = _counter("cmd above 5.")
    unknown_type: int = _counter("type above 3.")
    truncated: int = _counter("The stream ended inside the packet.")

    @property
    def total(self) -> int:
        """All of them together."""
        return self.length_mismatch + self.unknown_command + self.unknown_type + self.truncated


@dataclass(frozen=True, slots=True)
class ClosedClients:
    """Why connections of a register stream ended."""

    ended: int = _counter("The client closed it.")
    framing_lost: int = _counter("The framing was lost.")
    idle: int = _counter("Silent for too long, or no whole packet in time.")
    not_reading: int = _counter("It did not read its answers.")
    broken: int = _counter("The connection broke.")
    stopped: int = _counter("Open when the recorder stopped.")


@dataclass(frozen=True, slots=True)
class RegisterLedger:
    """The account of one register stream at one moment."""

    bytes_received: int = _counter("Bytes that arrived from the sources.")
    packets_received: int = _counter("Valid packets of every command.")
    bytes_valid: int = _counter("Bytes of those packets.")
    registers_received: int = _counter("Registers listed in DIFF and FULL packets.")
    packets_stored: int = _counter("Packets written to the log; in a decoder: handed out.")
    bytes_stored: int = _counter("Bytes of those packets.")
    packets_refused: int = _counter("Packets not logged because the disk refused them.")
    bytes_refused: int = _counter("Bytes of those packets.")
    bytes_invalid: int = _counter("Bytes of packets skipped as invalid.")
    bytes_discarded: int = _counter("Bytes of packets that an end cut, and bytes after lost framing.")
    framing_lost: int = _counter("Connections or inputs whose framing was lost.")
    gaps: int = _counter("Jumps forward in the sequence of a source (DIFF and FULL only).")
    packets_lost: int = _counter("Numbers jumped over that did not come late.")
    packets_duplicate: int = _counter("Numbers that came twice; stored all the same.")
    packets_reordered: int = _counter("Numbers that came late and filled a gap.")
    full_packets: int = _counter("FULL packets.")
    queries: int = _counter("QUERY packets.")
    replies: int = _counter("REPLY packets sent.")
    syncs: int = _counter("SYNC packets.")
    synced: int = _counter("SYNCED packets sent.")
    registers_unplaced: int = _counter("Registers for which the image had no place within its limits; they are logged.")
    clients_accepted: int = _counter("Connections taken.")
    clients_refused: int = _counter("Connections refused because there were too many.")
    datagrams_received: int = _counter("UDP datagrams taken from the kernel.")
    datagrams_dropped_by_kernel: int = _counter("UDP datagrams the kernel dropped for want of buffer (SO_RXQ_OVFL).")
    shm_overtakes: int = _counter("Times the producer of a shared-memory ring overtook the recorder.")
    shm_overtaken_bytes: int = _counter("Bytes of such a ring that were overwritten before they were read.")
    shm_records_corrupt: int = _counter("Records of such a ring that contradict their checksum or cannot be.")
    shm_bytes_corrupt: int = _counter("Bytes of such a ring skipped for that reason.")
    ring_high_water_bytes: int = _counter("Most bytes that ever waited between receiver and writer.")
    backpressure_ns: int = _counter("Time the receiver did not receive because the ring was full, in ns.")
    packets_invalid: InvalidPackets = field(
        default_factory=InvalidPackets, metadata={"doc": "Packets refused, by reason."}
    )
    clients_closed: ClosedClients = field(
        default_factory=ClosedClients, metadata={"doc": "Connections that ended, by reason."}
    )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RegisterLedger:
        """Read the form of `as_dict`, as in `recording.json`; missing names are 0 and unknown ones ignored."""
        groups: dict[str, Any] = {"packets_invalid": InvalidPackets, "clients_closed": ClosedClients}
        made: dict[str, Any] = {}
        for name, group in groups.items():
            known = {f.name for f in fields(group)}
            made[name] = group(**{k: int(v) for k, v in values.get(name, {}).items() if k in known})
        names = {f.name for f in fields(cls)} - groups.keys()
        made |= {k: int(v) for k, v in values.items() if k in names}
        return cls(**made)

    def as_dict(self) -> dict[str, Any]:
        """Name to number; `packets_invalid` and `clients_closed` are dicts of their own."""
        return asdict(self)

    @property
    def lost_anything(self) -> bool:
        """True when something that reached the receiver, or its kernel, is not in the log.

        Gaps are the producer's to explain on a byte stream and do not count there; between datagrams they are losses.
        """
        return bool(
            self.packets_invalid.total
            or self.bytes_discarded
            or self.framing_lost
            or self.packets_refused
            or self.datagrams_dropped_by_kernel
            or (self.datagrams_received and self.packets_lost)
            or self.shm_overtakes
            or self.shm_records_corrupt
        )

    def broken_laws(self, *, bytes_pending: int = 0, packets_in_flight: int = 0) -> list[str]:
        """Check the conservation laws.

        Args:
            bytes_pending: Bytes of unfinished packets; 0 after the end.
            packets_in_flight: Packets between receiver and writer; 0 after the end.

        Returns:
            One sentence for each law that does not hold; empty when all hold.
        """
        broken = []
        if self.bytes_received != self.bytes_valid + self.bytes_invalid + self.bytes_discarded + bytes_pending:
            broken.append(
                f"bytes_received {self.bytes_received} != bytes_valid {self.bytes_valid} + bytes_invalid "
                f"{self.bytes_invalid} + bytes_discarded {self.bytes_discarded} + pending {bytes_pending}"
            )
        if self.packets_received != self.packets_stored + self.packets_refused + packets_in_flight:
            broken.append(
                f"packets_received {self.packets_received} != packets_stored {self.packets_stored} + packets_refused "
                f"{self.packets_refused} + in flight {packets_in_flight}"
            )
        return broken


def describe_registers() -> list[tuple[str, str]]:
    """Dotted name and text of every field of a register stream's ledger, for the documentation."""
    rows = []
    for f in fields(RegisterLedger):
        rows.append((f.name, f.metadata["doc"]))
        group = {"packets_invalid": InvalidPackets, "clients_closed": ClosedClients}.get(f.name)
        if group is not None:
            rows += [(f"{f.name}.{part.name}", part.metadata["doc"]) for part in fields(group)]
    return rows


def describe() -> list[tuple[str, str]]:
    """Dotted name and text of every field, for the documentation."""
    rows = []
    for f in fields(Ledger):
        rows.append((f.name, f.metadata["doc"]))
        if f.name == "frames_corrupt":
            rows += [(f"frames_corrupt.{part.name}", part.metadata["doc"]) for part in fields(CorruptCounters)]
    return rows
