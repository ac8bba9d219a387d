"""Registers of racks, string units and controllers: their logs as tables, the image at any moment, histories, queries.

    >>> import tapeline
    >>> image = tapeline.image_at("run", "2026-11-21T03:00:00Z")  # doctest: +SKIP
    >>> image.get("rack", 1, 4096)  # doctest: +SKIP
    3652
    >>> tapeline.history("run", "rack", 1, 4096).to_pandas().plot("timestamp_us", "value")  # doctest: +SKIP

Everything here reads and changes nothing; recordings that are still being written are read as far as they go.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tapeline import _native
from tapeline._register_files import MANIFEST, PART, RegisterFiles, find, index_of
from tapeline._sink_settings import TYPES, Route
from tapeline._times import parse_time
from tapeline.errors import TapelineError
from tapeline.sinks import table_columns

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

__all__ = ["Image", "SourceImage", "history", "image_at", "query", "scan_log"]

Moment = datetime | np.datetime64 | str | float | int
"""A moment: `datetime` or ISO 8601 text (UTC unless it says otherwise), `datetime64`, float seconds, or an integer: µs
since the UNIX epoch as in the packets, from 10^17 on ns (as µs that would be the year 5138)."""

_READ_BYTES = 4 << 20
_NS_FROM = 10**17
_MAX_US = (1 << 64) - 1
_QUERY, _REPLY = 2, 3
_HEAD = struct.Struct("<IQBBBBBI")


def scan_log(
    path: str | os.PathLike[str],
    *,
    rows: bool = True,
    route: Route | Mapping[str, Any] | None = None,
    keyframes: bool = False,
    start: int = 0,
) -> Iterator[pa.RecordBatch]:
    """Read a log of register packets, a row per register or per packet.

    About 16 MB are held at a time. A packet that is not whole at the end of an open log (`.part`) is left out.

    Args:
        path: A `.pkt` or `.spkt`, finished or not (`.part`), or a directory: then all logs in order.
        rows: A row per register. Data packets: `timestamp_us` (timestamp[us, UTC]), `type` (dictionary of names),
            `src_id`, `cmd`, `seq` u8, `offset`, `value` u16. Simple packets: `time` f64 in s, `rack`, `offset`,
            `value` i32. Without it a row per packet: `byte_offset`, `timestamp_us`, `type`, `src_id`, `cmd`, `seq`,
            `count`.
        route: Only these packets; `{"cmd": ["full"], "src_id": [1]}`.
        keyframes: Also the recorder's own FULL packets at the start of a segment; they were not received. Without an
            index beside the log they cannot be told from others.
        start: Byte to begin at, the start of a packet.

    Yields:
        Batches of up to about a million rows.

    Raises:
        TapelineError: The file is no log, or there is something in it that is no whole packet; the batches before are
            good. What the wire cannot show (it has no checksum) `verify` and `convert` find with the index.
        OSError: As the operating system gave it.
    """
    for files in find(path).values():
        for log in files.paths:
            yield from scan_files(files, log, rows=rows, route=route, keyframes=keyframes, start=start)


def scan_files(
    files: RegisterFiles,
    log: Path,
    *,
    rows: bool = True,
    route: Route | Mapping[str, Any] | None = None,
    keyframes: bool = False,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """One log of a stream, or the packets between two bytes of it; see `scan_log`."""
    import pyarrow as pa

    chosen = (Route() if route is None else Route.from_value(route, "route")).lists
    read = _native.register_rows if rows else _native.register_packets
    at, end = max(start, 0 if keyframes else keyframe_bytes(log, files)), log.stat().st_size if stop is None else stop
    while at < end:
        found = read(str(log), files.wire, at, end, _READ_BYTES, chosen)
        if found.rows:
            yield pa.record_batch(found)
        if found.broken is not None:
            raise TapelineError(f"{log}: no packet at byte {found.next_offset}: {found.broken}")
        if found.next_offset == at:
            if log.suffix == PART:
                break
            raise TapelineError(f"{log}: no packet at byte {at}: not whole, {end - at} bytes are there")
        at = found.next_offset


def scan_schema(wire: str, *, rows: bool = True) -> pa.Schema:
    """The columns that `scan_log` gives for a wire."""
    import pyarrow as pa

    if rows:
        return table_columns(wire)
    columns = table_columns("packet")
    own = [("byte_offset", pa.uint64()), columns.field("timestamp_us"), columns.field("type"), ("src_id", pa.int32())]
    return pa.schema([*own, ("cmd", pa.uint8()), ("seq", pa.uint8()), ("count", pa.uint32())])


def stream_config(root: Path, name: str) -> dict[str, Any]:
    """The settings of a stream in the manifest; {} where they are not there."""
    try:
        streams = json.loads((root / MANIFEST).read_bytes())["config"]["streams"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    for stream in streams if isinstance(streams, list) else ():
        if isinstance(stream, dict) and stream.get("name") == name:
            return stream
    return {}


def keyframe_bytes(log: Path, files: RegisterFiles) -> int:
    """Bytes at the start of a log that are the recorder's own FULL packets."""
    told = files.segment_entry(log).get("keyframe_bytes")
    if isinstance(told, int) and not isinstance(told, bool) and told >= 0:
        return told
    index = index_of(log)
    if not index.exists():
        return 0
    blocks, indexed, _ = _native.register_blocks(str(log), str(index), files.wire, False)
    end = 0
    for offset, length, *_, keyframe in blocks[:indexed]:
        if not keyframe:
            break
        end = offset + length
    return end


@dataclass(frozen=True, eq=False)
class SourceImage:
    """The known registers of one source.

    Attributes:
        type: 0 UNKNOWN, 1 SBMU, 2 RACK, 3 RTOS.
        src_id: SBMU or rack number.
        offsets: Of the known registers, ascending; u16, shape (registers,).
        values: Theirs; u16, shape (registers,).
        unknown_since: Offset to µs, of registers that a lost packet may have changed: the value is the last one known,
            the time that of the first packet behind the gap.
        timestamp_us: Of the newest packet in it.
    """

    type: int
    src_id: int
    offsets: npt.NDArray[np.uint16]
    values: npt.NDArray[np.uint16]
    unknown_since: dict[int, int]
    timestamp_us: int

    def __eq__(self, other: object) -> bool:
        """Same source, same known registers, same values, same doubts."""
        return self.as_dict() == other.as_dict() if isinstance(other, SourceImage) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def get(self, offset: int) -> int | None:
        """The value of a register; None if it is not known."""
        place = int(np.searchsorted(self.offsets, offset))
        found = place < len(self.offsets) and int(self.offsets[place]) == offset
        return int(self.values[place]) if found else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: `type`, `src_id`, `registers`, and where there are some `unknown_since`, as pairs."""
        registers = np.stack([self.offsets, self.values], axis=1).tolist()
        result: dict[str, Any] = {"type": self.type, "src_id": self.src_id, "registers": registers}
        if self.unknown_since:
            result["unknown_since"] = [[offset, since] for offset, since in self.unknown_since.items()]
        return result


@dataclass(frozen=True)
class Image:
    """The registers of all sources at one moment.

    Attributes:
        sources: (type, src_id) to registers, sorted; sources without a known register are left out.
        bytes_read: Bytes of logs that were read for it.
    """

    sources: dict[tuple[int, int], SourceImage]
    bytes_read: int = 0

    def get(self, type: int | str, src_id: int, offset: int) -> int | None:
        """The value of a register; None if it is not known.

        Args:
            type: Number or name ("rack").
            src_id: SBMU or rack number.
            offset: Of the register.
        """
        source = self.sources.get((type_number(type), src_id))
        return None if source is None else source.get(offset)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: `{"sources": [{"type", "src_id", "registers": [[offset, value], ...]}]}`."""
        return {"sources": [source.as_dict() for source in self.sources.values()]}

    @property
    def digest(self) -> str:
        """XXH3-128 over the known registers, 32 hex digits; equal images have equal digests.

        Per source, sorted by type and id: type u8, src_id i32, then offset u16 and value u16 of each known register.
        """
        parts = []
        for source in self.sources.values():
            pairs = np.stack([source.offsets, source.values], axis=1).astype("<u2")
            parts.append(struct.pack("<Bi", source.type, source.src_id) + pairs.tobytes())
        return _native.bytes_digest(b"".join(parts))

    def to_arrow(self) -> pa.Table:
        """A table with the columns type u8, src_id i32, offset u16, value u16, unknown_since_us u64 (null: certain)."""
        import pyarrow as pa

        columns: dict[str, list[Any]] = {"type": [], "src_id": [], "offset": [], "value": [], "unknown_since_us": []}
        for source in self.sources.values():
            count = len(source.offsets)
            columns["type"] += [source.type] * count
            columns["src_id"] += [source.src_id] * count
            columns["offset"] += source.offsets.tolist()
            columns["value"] += source.values.tolist()
            columns["unknown_since_us"] += [source.unknown_since.get(offset) for offset in source.offsets.tolist()]
        kinds = (pa.uint8(), pa.int32(), pa.uint16(), pa.uint16(), pa.uint64())
        return pa.table({n: pa.array(c, k) for (n, c), k in zip(columns.items(), kinds, strict=True)})


def image_at(directory: str | os.PathLike[str], time: Moment | None = None, *, stream: str | None = None) -> Image:
    """The registers of all sources at a past moment.

    What all packets with a timestamp up to that moment make of them, in the order of arrival. Read from the nearest
    keyframe on: at most about one segment, however long the recording is.

    Args:
        directory: A recording, or a single log.
        time: The moment; see `Moment`. The newest state if None.
        stream: Only this stream; all if None.

    Returns:
        The image, with registers that a lost packet may have changed marked (`SourceImage.unknown_since`).

    Raises:
        ValueError: The time cannot be read.
        TapelineError: There is no register stream, or none of that name.
        OSError: As the operating system gave it.
    """
    return image_of(_chosen(directory, stream), time)


def image_of(streams: Sequence[RegisterFiles], time: Moment | None) -> Image:
    """The image of some streams; see `image_at`."""
    moment_us = _MAX_US if time is None else moment(time)
    sources: dict[tuple[int, int], SourceImage] = {}
    bytes_read = 0
    for files in streams:
        rows, read = _native.register_image_at(files.wire, files.spans(), moment_us)
        bytes_read += read
        for kind, src_id, offsets, values, doubtful, since, timestamp_us in rows:
            if not offsets:
                continue
            pairs = zip(np.frombuffer(doubtful, "<u2").tolist(), np.frombuffer(since, "<u8").tolist(), strict=True)
            one = SourceImage(
                kind, src_id, np.frombuffer(offsets, "<u2"), np.frombuffer(values, "<u2"), dict(pairs), timestamp_us
            )
            # the same source in two streams: the one that heard of it last
            other = sources.get((kind, src_id))
            if other is None or other.timestamp_us <= timestamp_us:
                sources[kind, src_id] = one
    return Image(dict(sorted(sources.items())), bytes_read)


def history(
    directory: str | os.PathLike[str],
    type: int | str,
    src_id: int,
    offset: int,
    *,
    stream: str | None = None,
    changes_only: bool = True,
) -> pa.Table:
    """The value changes of one register, over the whole recording.

    Only blocks of the log that touch the register are read, where the touch indexes that a recorder leaves are there.

    Args:
        directory: A recording, or a single log.
        type: 0 UNKNOWN, 1 SBMU, 2 RACK, 3 RTOS, or the name.
        src_id: SBMU or rack number.
        offset: Of the register.
        stream: Only this stream; all if None, one after the other.
        changes_only: Leave out packets that set the value that the register had.

    Returns:
        Table with `timestamp_us` (timestamp[us, UTC]) and `value` (u16; null where a FULL left the register out, which
        makes it unknown), in the order of arrival.

    Raises:
        ValueError: There is no such type or offset, or `src_id` has more than 32 bits.
        TapelineError: There is no register stream, or none of that name.
        OSError: As the operating system gave it.
    """
    return history_of(_chosen(directory, stream), type, src_id, offset, changes_only=changes_only)


def history_of(
    streams: Sequence[RegisterFiles],
    type: int | str,
    src_id: int,
    offset: int,
    *,
    changes_only: bool = True,
) -> pa.Table:
    """The value changes of one register in some streams; see `history`."""
    import pyarrow as pa

    number = type_number(type)
    if not 0 <= offset <= 0xFFFF:
        raise ValueError(f"offset {offset} is not in 0..65535")
    if not -(1 << 31) <= src_id < 1 << 31:
        raise ValueError(f"src_id {src_id} is not a 32-bit number")
    batches = []
    for files in streams:
        found = _native.register_history(files.wire, files.spans(), number, src_id, offset, not changes_only)
        batches.append(pa.record_batch(found))
    return pa.Table.from_batches(batches)


def query(
    host: str,
    port: int,
    type: int | str,
    src_id: int,
    offsets: Sequence[int] = (),
    *,
    timeout_s: float = 10.0,
) -> Image:
    """Ask a running recorder for registers of one source (QUERY and REPLY of spec/register-packets.md 2).

    Args:
        host: Where it listens.
        port: Its port.
        type: 0 UNKNOWN, 1 SBMU, 2 RACK, 3 RTOS, or the name.
        src_id: SBMU or rack number, 0 to 255.
        offsets: Registers; all that are known if empty.
        timeout_s: For the connection and the reply together.

    Returns:
        An image of that one source with the known ones among those asked for; empty when there are none.

    Raises:
        ValueError: A number is out of range.
        OSError: No connection, no reply in time, or something that is no reply.
    """
    number = type_number(type)
    if not 0 <= src_id <= 255 or not all(0 <= o <= 0xFFFF for o in offsets) or len(offsets) > 65_536:
        raise ValueError("src_id must be in 0..255, and up to 65,536 offsets in 0..65535")
    count = len(offsets)
    now_us = int(datetime.now(UTC).timestamp() * 1e6)
    control = np.asarray(offsets, "<u2").tobytes()
    packet = _HEAD.pack(17 + 4 * count, now_us, src_id, _QUERY, number, 0, 0, count) + control + bytes(2 * count)
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(packet)
        length, stamp, source, cmd, kind, _seq, _, count = _HEAD.unpack(_exactly(connection, _HEAD.size))
        if (source, cmd, kind, length) != (src_id, _REPLY, number, 17 + 4 * count) or count > 65_536:
            raise ConnectionError(f"{host}:{port} answered with something that is no reply")
        body = _exactly(connection, 4 * count)
    known = dict(
        zip(
            np.frombuffer(body, "<u2", count).tolist(),
            np.frombuffer(body, "<u2", count, 2 * count).tolist(),
            strict=True,
        )
    )
    found, values = np.array(sorted(known), np.uint16), np.array([known[o] for o in sorted(known)], np.uint16)
    image = SourceImage(number, src_id, found, values, {}, stamp)
    return Image({(number, src_id): image} if known else {})


def type_number(value: int | str) -> int:
    """The number of a source type.

    >>> type_number("rack"), type_number(3), type_number("1")
    (2, 3, 1)

    Raises:
        ValueError: There is no such type.
    """
    if isinstance(value, str):
        name = value.lower()
        if name in TYPES:
            return TYPES.index(name)
        if name.isdecimal():
            value = int(name)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(TYPES):
        return value
    raise ValueError(f"{value!r} is not a source type; allowed: 0 to 3, {', '.join(TYPES)}")


def moment(value: Moment) -> int:
    """Microseconds since the UNIX epoch.

    >>> moment("1970-01-01T00:00:01.5Z"), moment(1.5), moment(7), moment(1_700_000_000_000_000_001)
    (1500000, 1500000, 7, 1700000000000000)

    Raises:
        ValueError: The value is no moment.
    """
    if isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{value!r} is not a time")  # noqa: TRY004 - what is no time is a wrong value, whatever it is
    if isinstance(value, (int, np.integer)):
        number = int(value)
        return max(0, min(_MAX_US, number // 1000 if number >= _NS_FROM else number))
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            raise ValueError("a time is not NaN")
        return int(max(0.0, min(float(value), 1.8e13)) * 1e6 + 0.5)
    return max(0, parse_time(value) // 1000)


def _chosen(directory: str | os.PathLike[str], stream: str | None) -> list[RegisterFiles]:
    found = find(directory)
    if stream is not None and stream not in found:
        raise TapelineError(f"{directory}: no register stream {stream!r}; there are: {', '.join(found) or 'none'}")
    if not found:
        raise TapelineError(f"{directory}: no register stream is here")
    return [files for name, files in found.items() if stream in {None, name}]


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(min(1 << 20, size - len(received)))
        if not part:
            raise ConnectionError("the connection was closed before the reply was whole")
        received += part
    return bytes(received)
