"""A slow reader and writer of BCSV files in plain Python, straight from spec/bcsv-format.md.

Rows are as in `bcsv_rows`: floats as the int of their bits, strings as bytes. `read` never raises for
what is behind a good header: it says how far the file is good (`fault`) and gives runs of rows, each
marked as verified by a checksum or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from _twins.bcsv_rows import CODECS, TYPES, WIDTH, RowError
from _twins.lz4 import Lz4Error, compress, decompress
from _twins.xxhash import xxh32, xxh64

ZERO_ORDER_HOLD, NO_FILE_INDEX, STREAM_MODE, BATCH_COMPRESS, DELTA_ENCODING = 1, 2, 4, 8, 16
MAX_ROW = 16_777_214
TERMINATOR = 0x3FFF_FFFF
MAX_NAMES = 16 << 20
WINDOW = 65536
NEWEST_MINOR = 5
FILE_CODECS = ("stream", "stream-lz4", "packet", "packet-lz4", "packet-lz4-batch")


class RefusedError(ValueError):
    """The file is refused at open."""


@dataclass
class Header:
    """Section 2 and 3."""

    version: tuple[int, int, int]
    created: int | None
    level: int
    flags: int
    packet_bytes: int
    names: list[bytes]
    types: list[str]
    size: int = 0

    @property
    def row_codec(self) -> str:
        return "delta" if self.flags & DELTA_ENCODING else "zoh" if self.flags & ZERO_ORDER_HOLD else "flat"

    @property
    def file_codec(self) -> str:
        if self.flags & STREAM_MODE:
            return "stream-lz4" if self.level else "stream"
        if not self.level:
            return "packet"
        return "packet-lz4-batch" if self.flags & BATCH_COMPRESS else "packet-lz4"

    def encode(self) -> bytes:
        tail = self.flags.to_bytes(2, "little") + len(self.types).to_bytes(2, "little")
        tail += self.packet_bytes.to_bytes(4, "little")
        if self.created is None:
            out = b"BCSV" + bytes([*self.version, self.level]) + tail
        else:
            out = b"BCSV" + self.created.to_bytes(8, "little") + bytes([*self.version, self.level]) + tail
        out += bytes(TYPES.index(t) for t in self.types)
        out += b"".join(len(n).to_bytes(2, "little") for n in self.names)
        return out + b"".join(self.names)


def parse_header(b: bytes) -> Header:
    if len(b) < 16 or b[:4] != b"BCSV":
        raise RefusedError("not a BCSV file")
    long = len(b) >= 24 and b[12] == 1 and b[13] >= 4 and b[15] <= 9
    short = b[4] == 1 and b[5] == 3 and b[7] <= 9 and b[12] == 0
    if long == short:
        raise RefusedError("unsupported version")
    at = 12 if long else 4
    created = int.from_bytes(b[4:12], "little") if long else None
    version, level = (b[at], b[at + 1], b[at + 2]), b[at + 3]
    flags, count = (int.from_bytes(b[at + k : at + k + 2], "little") for k in (4, 6))
    packet_bytes = int.from_bytes(b[at + 8 : at + 12], "little")
    if version[1] > NEWEST_MINOR or flags >> 5 or packet_bytes > 1 << 30:
        raise RefusedError("unsupported version, flags or packet size")
    at += 12
    codes, at = b[at : at + count], at + count
    if len(b) < at + 2 * count or any(code >= len(TYPES) for code in codes):
        raise RefusedError("column table cut or unknown type")
    lengths = [int.from_bytes(b[at + 2 * k : at + 2 * k + 2], "little") for k in range(count)]
    at += 2 * count
    if sum(lengths) > MAX_NAMES or len(b) < at + sum(lengths):
        raise RefusedError("names cut or too long")
    names = []
    for length in lengths:
        names.append(b[at : at + length])
        at += length
    return Header(version, created, level, flags, packet_bytes, names, [TYPES[c] for c in codes], at)


# ---------------------------------------------------------------- reading


@dataclass
class Packet:
    """One BCSV packet as found; `end` is where the next should start if this one is framed."""

    offset: int
    first: int
    rows: list[tuple] = field(default_factory=list)
    state: str = "ok"  # ok, truncated, bad_checksum, bad_data
    end: int = 0


@dataclass
class Fault:
    """Where and why a strict reader stops."""

    offset: int
    reason: str


@dataclass
class Run:
    """Neighbouring rows of one packet (or of a stream)."""

    first: int
    rows: list[tuple]
    verified: bool


@dataclass
class Reading:
    """All that a file says."""

    header: Header
    runs: list[Run]
    fault: Fault | None
    packets: list[Packet]
    footer_rows: int | None = None  # of a valid footer

    @property
    def rows(self) -> list[tuple]:
        """The verified rows, in order."""
        return [row for run in self.runs if run.verified for row in run.rows]


def vle(value: int) -> bytes:
    n = max((value.bit_length() + 3 + 7) // 8, 1)
    return (value << 3 | n - 1).to_bytes(n, "little")


def read_vle(b: bytes, at: int) -> tuple[int, int] | None:
    """Value and the place behind it; None if cut."""
    if at >= len(b):
        return None
    n = (b[at] & 7) + 1
    if at + n > len(b):
        return None
    return int.from_bytes(b[at : at + n], "little") >> 3, at + n


def read(b: bytes, *, salvage: bool = False) -> Reading:
    """Read a whole file; strict stops at the first fault, salvage goes on behind it."""
    header = parse_header(b)
    if header.flags & STREAM_MODE:
        return _read_stream(b, header, salvage=salvage)
    return _salvage_packets(b, header) if salvage else _strict_packets(b, header)


def _read_stream(b: bytes, header: Header, *, salvage: bool) -> Reading:
    codec = CODECS[header.row_codec](header.types)
    at, number, history, fault = header.size, 0, b"", None
    runs = [Run(0, [], True)]
    repeats = 0  # empty rows since the last hash that held: a length prefix has no checksum
    may_go_on = salvage and header.row_codec == "flat" and header.level == 0
    while at < len(b):
        start, prefix = at, read_vle(b, at)
        length, at = prefix or (0, at)
        stored = b[at : at + length]
        bad = None
        if prefix is None:
            bad = "truncated row length"
        elif length > MAX_ROW:
            bad = "row length out of range"
        elif length and at + length + 4 > len(b):
            bad = "truncated row"
        elif length and not _hash_holds(b, at, length):
            bad = "row checksum mismatch"
        elif not length and header.row_codec == "flat" and header.types:
            bad = "empty row"
        if bad:
            fault = fault or Fault(start, bad)
            damaged = [place for place in range(start - repeats, start + 1) if _another_length(b, place)]
            if not bad.startswith("truncated") or damaged:
                _take_back(runs, repeats)
            end = _end_of_flat_row(b, start, header) if may_go_on else None
            if end is None:
                break
            at, number = end, number + 1
            runs.append(Run(number, [], True))
            continue
        if length:
            at += length + 4
        try:
            plain = decompress(stored, MAX_ROW, history) if length and header.level else stored
            row = codec.decode(plain)
        except (RowError, Lz4Error) as error:
            fault = fault or Fault(start, str(error))
            _take_back(runs, repeats)
            break
        history = (history + plain)[-WINDOW:]
        runs[-1].rows.append(row)
        number += 1
        repeats = 0 if length else repeats + 1
    return Reading(header, [run for run in runs if run.rows], fault, [])


def _hash_holds(b: bytes, at: int, length: int) -> bool:
    end = at + length
    return (
        0 < length <= MAX_ROW and end + 4 <= len(b) and xxh32(b[at:end]) == int.from_bytes(b[end : end + 4], "little")
    )


def _another_length(b: bytes, at: int) -> bool:
    """Whether another byte here, as the first of a length prefix, gives a row whose hash holds."""
    others = [bytes([first]) + b[at + 1 : at + 4] for first in range(256)]
    return any(_hash_holds(b, at + n, length) for length, n in filter(None, (read_vle(o, 0) for o in others)))


def _end_of_flat_row(b: bytes, start: int, header: Header) -> int | None:
    """Behind one bad row of a flat stream; None if its length prefix and its strings cannot tell where that is."""
    strings = header.types.count("string")
    fixed = (header.types.count("bool") + 7) // 8 + 2 * strings
    fixed += sum(WIDTH[kind] for kind in header.types)

    def own_length(at: int) -> int:
        lengths = b[at + fixed - 2 * strings : at + fixed]
        return fixed + sum(int.from_bytes(lengths[k : k + 2], "little") for k in range(0, len(lengths), 2))

    for at in range(start + 1, start + 5):
        if _hash_holds(b, at, own_length(at)):  # only the prefix is damaged
            return at + own_length(at) + 4
    if not strings:
        end = start + len(vle(fixed)) + fixed + (4 if fixed else 0)
        return end if end <= len(b) else None
    prefix = read_vle(b, start)
    if prefix is None or not prefix[0] or prefix[0] > MAX_ROW:
        return None
    end = prefix[1] + prefix[0]
    if end + 4 > len(b):
        return None
    if prefix[0] == own_length(prefix[1]) or end + 4 == len(b):
        return end + 4
    behind = read_vle(b, end + 4)
    if behind is None or not _hash_holds(b, behind[1], behind[0]):
        return None
    for place in range(start + 1, end):  # a good row in the middle: the prefix cannot be trusted
        other = read_vle(b, place)
        if other and other[0] == own_length(other[1]) and _hash_holds(b, other[1], other[0]):
            return None
    return end + 4


def _take_back(runs: list[Run], repeats: int) -> None:
    """Damage follows, not the end: the empty rows before it may be damage as well."""
    if repeats:
        del runs[-1].rows[-repeats:]


def _strict_packets(b: bytes, header: Header) -> Reading:
    reading = Reading(header, [], None, [])
    at, rows = header.size, 0
    while reading.fault is None:
        if b[at : at + 4] == b"BIDX":
            footer = _footer(b, at)
            if footer is None:
                reading.fault = Fault(at, "footer missing or invalid")
                break
            entries, total = footer
            reading.footer_rows = total
            if total != rows or entries != [(p.offset, p.first) for p in reading.packets]:
                only_rows = total == rows and not entries and header.flags & NO_FILE_INDEX
                reading.fault = None if only_rows else Fault(at, "footer does not agree with the packets")
            break
        if at >= len(b):
            reading.fault = Fault(at, "footer missing or invalid")
            break
        first = _packet_header(b, at)
        if first is None:
            reading.fault = Fault(at, "bad packet header")
            break
        if first != rows:
            reading.fault = Fault(at, "rows are missing before this packet")
            break
        packet = _packet(b, header, at, first)
        reading.packets.append(packet)
        if packet.rows:
            reading.runs.append(Run(first, packet.rows, packet.state == "ok"))
        if packet.state != "ok":
            reading.fault = Fault(at, packet.state)
        at, rows = packet.end, rows + len(packet.rows)
    return reading


def _salvage_packets(b: bytes, header: Header) -> Reading:
    strict = _strict_packets(b, header)
    out = Reading(header, [], strict.fault, [])
    footer = find_footer(b)
    search, places = True, iter([])
    if footer is not None:
        out.footer_rows = footer[1]
        search, places = not footer[0], iter(offset for offset, _ in footer[0])
    at, rows = header.size, 0
    while True:
        at = _next_header(b, at) if search else next(places, None)
        if at is None:
            out.runs.sort(key=lambda run: run.first)
            return out
        first = _packet_header(b, at)
        if first is None:
            at += 1
            continue
        if first < rows:  # behind later ones, or a copy of what was there before
            packet = _packet(b, header, at, first)
            fits = packet.state == "ok" and not _overlaps(out.packets, first, first + len(packet.rows))
            if fits:
                out.packets.append(packet)
                out.runs.append(Run(first, packet.rows, True))
            at = packet.end if fits else at + 1
            continue
        packet = _packet(b, header, at, first)
        out.packets.append(packet)
        good = packet.state == "ok"
        if packet.rows:
            out.runs.append(Run(first, packet.rows, good))
        if good:
            rows = first + len(packet.rows)
        at = packet.end if good else at + 1


def _overlaps(packets: list[Packet], first: int, stop: int) -> bool:
    good = [(p.first, p.first + len(p.rows)) for p in packets if p.state == "ok"]
    return first >= stop or any(first < behind and before < stop for before, behind in good)


def _next_header(b: bytes, at: int) -> int | None:
    while True:
        at = b.find(b"PKCT", at)
        if at < 0:
            return None
        if _packet_header(b, at) is not None:
            return at
        at += 1


def _packet_header(b: bytes, at: int) -> int | None:
    """First row of the packet whose header is here, or None."""
    head = b[at : at + 16]
    if len(head) < 16 or head[:4] != b"PKCT" or xxh32(head[:12]) != int.from_bytes(head[12:], "little"):
        return None
    return int.from_bytes(head[4:12], "little")


def _packet(b: bytes, header: Header, at: int, first: int) -> Packet:
    packet = Packet(at, first)
    if header.file_codec == "packet-lz4-batch":
        _batch(b, header, packet)
        return packet
    packet.state, packet.end = _rows(b, at + 16, header, packet.rows, compressed=header.level > 0)
    if packet.state == "ok":
        stored = b[packet.end : packet.end + 8]
        if len(stored) < 8:
            packet.state = "truncated"
        elif xxh64(b[at + 16 : packet.end]) != int.from_bytes(stored, "little"):
            packet.state = "bad_checksum"
        packet.end += 8
    return packet


def _rows(b: bytes, at: int, header: Header, rows: list[tuple], *, compressed: bool) -> tuple[str, int]:
    """Rows up to and including the terminator; the state and the place behind it."""
    codec = CODECS[header.row_codec](header.types)
    history = b""
    while True:
        prefix = read_vle(b, at)
        if prefix is None:
            return "truncated", at
        length, at = prefix
        if length == TERMINATOR:
            return "ok", at
        if length > MAX_ROW:
            return "bad_data", at
        if at + length > len(b):
            return "truncated", at
        stored, at = b[at : at + length], at + length
        try:
            plain = decompress(stored, MAX_ROW, history) if length and compressed else stored
            rows.append(codec.decode(plain))
        except (RowError, Lz4Error):
            return "bad_data", at
        history = (history + plain)[-WINDOW:]


def _batch(b: bytes, header: Header, packet: Packet) -> None:
    at = packet.offset + 16
    packet.end = at
    plain_size, size = (int.from_bytes(b[at + k : at + k + 4], "little") for k in (0, 4))
    most = header.packet_bytes + MAX_ROW + 16
    if len(b) < at + 8:
        packet.state = "truncated"
    elif plain_size > most or size > most + most // 255 + 16:
        packet.state = "bad_data"
    elif len(b) < at + 8 + size + 8:
        packet.state = "truncated"
    else:
        packet.end = at + 8 + size + 8
        try:
            plain = decompress(b[at + 8 : at + 8 + size], plain_size)
        except Lz4Error:
            packet.state = "bad_data"
            return
        if len(plain) != plain_size or xxh64(plain) != int.from_bytes(b[packet.end - 8 : packet.end], "little"):
            packet.state = "bad_checksum"
            return
        packet.state, end = _rows(plain, 0, header, packet.rows, compressed=False)
        if packet.state != "ok" or end != len(plain):
            packet.state, packet.rows = "bad_data", []


def find_footer(b: bytes) -> tuple[list[tuple[int, int]], int] | None:
    """Index entries and row count of the footer at the end of the file, or None."""
    if len(b) < 28:
        return None
    size = int.from_bytes(b[-20:-16], "little")
    return _footer(b, len(b) - size) if 28 <= size <= len(b) else None


def _footer(b: bytes, at: int) -> tuple[list[tuple[int, int]], int] | None:
    f = b[at:]
    if len(f) < 28 or (len(f) - 28) % 16 or f[:4] != b"BIDX" or f[-24:-20] != b"EIDX":
        return None
    if int.from_bytes(f[-20:-16], "little") != len(f) or xxh64(f[:-8]) != int.from_bytes(f[-8:], "little"):
        return None
    entries = [
        (int.from_bytes(f[k : k + 8], "little"), int.from_bytes(f[k + 8 : k + 16], "little"))
        for k in range(4, len(f) - 24, 16)
    ]
    return entries, int.from_bytes(f[-16:-8], "little")


# ---------------------------------------------------------------- writing


def write(
    columns: list[tuple[bytes, str]],
    rows: list[tuple],
    *,
    row_codec: str = "delta",
    file_codec: str = "packet-lz4-batch",
    level: int | None = None,
    packet_bytes: int = 1 << 16,
    index: bool = True,
    version: tuple[int, int, int] = (1, 5, 0),
    created: int | None = 0,
    flush_after: tuple[int, ...] = (),
) -> bytes:
    """A whole file; `flush_after` holds row counts after which `flush` was called (section 11)."""
    stream, compressed = file_codec.startswith("stream"), "lz4" in file_codec
    batch = file_codec == "packet-lz4-batch"
    flags = {"flat": 0, "zoh": ZERO_ORDER_HOLD, "delta": DELTA_ENCODING}[row_codec]
    flags |= STREAM_MODE * stream | BATCH_COMPRESS * batch | NO_FILE_INDEX * (not index)
    level = (1 if level is None else level) if compressed else 0
    names, types = [name for name, _ in columns], [kind for _, kind in columns]
    out = bytearray(Header(version, created, level, flags, packet_bytes, names, types).encode())
    if stream:
        codec, history = CODECS[row_codec](types), b""
        for row in rows:
            plain = codec.encode(row)
            stored = compress(plain, history) if plain and compressed else plain
            history = (history + plain)[-WINDOW:]
            out += vle(len(stored)) + stored + (xxh32(stored).to_bytes(4, "little") if stored else b"")
        return bytes(out)
    entries: list[tuple[int, int]] = []
    packet: _OpenPacket | None = None
    for number, row in enumerate(rows):
        if packet is not None and len(packet.payload) >= packet_bytes:
            out += packet.close()
            packet = None
        if packet is None:
            packet = _OpenPacket(number, row_codec, types, compressed=compressed, batch=batch)
            entries.append((len(out), number))
        packet.add(row)
        if number + 1 in flush_after:
            out += packet.close()
            packet = None
            if not batch:
                packet = _OpenPacket(number + 1, row_codec, types, compressed=compressed, batch=batch)
                entries.append((len(out), number + 1))
    if packet is not None:
        out += packet.close()
    return bytes(out + _footer_bytes(entries if index else [], len(rows)))


class _OpenPacket:
    def __init__(self, first: int, row_codec: str, types: list[str], *, compressed: bool, batch: bool) -> None:
        self.head = b"PKCT" + first.to_bytes(8, "little")
        self.codec = CODECS[row_codec](types)
        self.each, self.batch = compressed and not batch, batch
        self.payload, self.history = bytearray(), b""

    def add(self, row: tuple) -> None:
        plain = self.codec.encode(row)
        stored = compress(plain, self.history) if plain and self.each else plain
        if self.each:
            self.history = (self.history + plain)[-WINDOW:]
        self.payload += vle(len(stored)) + stored

    def close(self) -> bytes:
        body = bytes(self.payload + vle(TERMINATOR))
        head = self.head + xxh32(self.head).to_bytes(4, "little")
        check = xxh64(body).to_bytes(8, "little")
        if self.batch:
            block = compress(body)
            return head + len(body).to_bytes(4, "little") + len(block).to_bytes(4, "little") + block + check
        return head + body + check


def _footer_bytes(entries: list[tuple[int, int]], rows: int) -> bytes:
    out = b"BIDX" + b"".join(o.to_bytes(8, "little") + r.to_bytes(8, "little") for o, r in entries)
    out += b"EIDX" + (28 + 16 * len(entries)).to_bytes(4, "little") + rows.to_bytes(8, "little")
    return out + xxh64(out).to_bytes(8, "little")
