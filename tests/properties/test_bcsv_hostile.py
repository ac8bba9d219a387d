"""Files made to hurt: every one is refused or read in bounded memory, and none takes the process down."""

import os
import resource
import struct
import time

import pytest

from _twins import bcsv as twin
from _twins.damage import PAIRS, small_file
from _twins.xxhash import xxh32, xxh64
from tapeline import bcsv

MANY = "TAPELINE_TEST_EXAMPLES" in os.environ
HEAD = twin.Header((1, 5, 0), 0, 0, 0, 1 << 16, [b"a"], ["int32"])


def header(**changes) -> bytes:
    values = {**HEAD.__dict__, **changes}
    values.pop("size", None)
    return twin.Header(**values).encode()


def packet_header(first: int) -> bytes:
    head = b"PKCT" + struct.pack("<Q", first)
    return head + struct.pack("<I", xxh32(head))


def footer(entries, rows) -> bytes:
    out = b"BIDX" + b"".join(struct.pack("<QQ", *entry) for entry in entries)
    out += b"EIDX" + struct.pack("<IQ", len(out) + 24, rows)
    return out + struct.pack("<Q", xxh64(out))


def packet(first: int, payload: bytes) -> bytes:
    return packet_header(first) + payload + struct.pack("<Q", xxh64(payload))


def hostile():
    """(name, bytes)"""
    end = twin.vle(twin.TERMINATOR)
    one = twin.vle(4) + b"\x01\0\0\0"
    good = packet(0, one + end)
    at = len(header())
    yield "empty", b""
    yield "magic only", b"BCSV"
    yield "65535 columns, none there", b"BCSV" + bytes(8) + b"\1\5\0\0" + struct.pack("<HHI", 0, 65535, 65536)
    yield "name lengths beyond the file", header()[:-1][:25] + b"\xff\xff"
    yield "row of 16 MB that is not there", header() + packet_header(0) + twin.vle(twin.MAX_ROW) + b"x"
    yield "row over the limit", header() + packet(0, twin.vle(twin.MAX_ROW + 1) + end)
    yield "length of 8 bytes", header() + packet(0, b"\xff" * 8 + end)
    yield "no terminator", header() + packet(0, one)
    yield "first row 2^64-1", header() + packet((1 << 64) - 1, one + end) + footer([(at, (1 << 64) - 1)], 0)
    yield "first row 2^63", header() + packet(1 << 63, one + end)
    yield "rows go back", header() + good + packet(0, one + end) + footer([(at, 0), (at + len(good), 0)], 2)
    yield "footer counts 2^64-1 rows", header() + good + footer([(at, 0)], (1 << 64) - 1)
    yield "footer of one row too many", header() + good + footer([(at, 0)], 2)
    yield "footer of 2^32 bytes", header() + good + b"EIDX" + struct.pack("<IQQ", 0xFFFFFFFF, 1, 1)
    yield "footer points outside", header() + good + footer([(1 << 62, 0)], 1)
    yield "footer points into the header", header() + good + footer([(3, 0)], 1)
    yield "footer points at itself", header() + good + footer([(at + len(good), 0)], 1)
    yield "footer names a packet twice", header() + good + footer([(at, 0), (at, 0)], 1)
    yield "footer without packets", header() + footer([], 1000)
    yield "footer only, size 28 but rows", header() + footer([], (1 << 64) - 1)
    yield "entries all the same", header() + good + footer([(at, 0)] * 5000, 1)
    yield "100000 empty packets", header() + packet(0, end) * 20000
    yield "magics without end", header() + b"PKCT" * 50_000
    yield "headers without packets", header() + packet_header(0) * 10_000
    yield "headers that climb", header() + b"".join(packet_header(k) for k in range(5000))
    batch = header(level=1, flags=twin.BATCH_COMPRESS)
    bomb = b"\x1f\x00\x01\x00" + b"\xff" * 60_000 + b"\x00\x50" + bytes(5)
    yield "batch claims 4 GB", batch + packet_header(0) + struct.pack("<II", 0xFFFFFFFF, 10) + bytes(18)
    yield "batch claims 16 MB of 10 bytes", batch + packet_header(0) + struct.pack("<II", 16 << 20, 10) + bytes(18)
    yield "batch is a bomb", batch + packet_header(0) + struct.pack("<II", 16 << 20, len(bomb)) + bomb + bytes(8)
    yield "batch of nothing", batch + packet_header(0) + struct.pack("<II", 0, 0) + bytes(8)
    linked = header(level=1)
    yield "linked bomb", linked + packet(0, twin.vle(len(bomb)) + bomb + end)
    stream = header(flags=twin.STREAM_MODE)
    yield "stream with a terminator", stream + end
    yield "stream of empty flat rows", stream + bytes(10_000)
    yield "stream of repeats before a row", header(flags=twin.STREAM_MODE | twin.ZERO_ORDER_HOLD) + bytes(10_000)
    none = header(names=[], types=[])
    yield "no columns, a million rows", none[:-8][:24] + packet(0, bytes(1 << 20) + end) + b""
    yield "packets of no columns", none + packet(0, bytes(100) + end) + footer([(len(none), 0)], 100)
    wide = header(names=[b"x"] * 65535, types=["double"] * 65535)
    yield "65535 columns of one name", wide + footer([], 0)
    yield "both codec flags", header(flags=17) + good
    for code in (12, 127, 255):
        yield f"type {code}", header()[:24] + bytes([code]) + header()[25:] + good
    for name, delta in {"delta code too big": b"\x07", "delta value cut": b"\x05\x01"}.items():
        yield name, header(flags=16) + packet(0, twin.vle(len(delta)) + delta + end)
    for name, zoh in {"zoh first row partial": b"\x00", "zoh repeat first": b""}.items():
        yield name, header(flags=1) + packet(0, twin.vle(len(zoh)) + zoh + end)
    text = header(names=[b"s"], types=["string"])
    yield "string longer than its row", text + packet(0, twin.vle(3) + b"\xff\xff" + b"a" + end)
    yield "string that is no text", text + packet(0, twin.vle(4) + b"\x02\x00\xff\xfe" + end)
    yield "surplus bytes in a row", header() + packet(0, twin.vle(5) + bytes(5) + end)
    yield "name that is no text", header(names=[b"\xff\xfe"]) + good
    yield "name of a NUL", header(names=[b"\0"]) + good
    yield "names that are empty", header(names=[b"", b""], types=["int32", "int32"]) + footer([], 0)
    for row_codec, file_codec in PAIRS:
        data = small_file(row_codec, file_codec, rows=8, flushes=1)
        yield f"doubled {row_codec} {file_codec}", data + data
        yield f"random tail {row_codec} {file_codec}", data + bytes(range(256)) * 20
        yield f"turned {row_codec} {file_codec}", data[:24] + data[24:][::-1]


CASES = dict(hostile())


@pytest.mark.parametrize("name", CASES)
def test_bounded_and_typed(tmp_path, name):
    path = tmp_path / "hostile.bcsv"
    path.write_bytes(CASES[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for work in (
        bcsv.read_table,
        lambda p: bcsv.read_table(p, on_corrupt="skip"),
        lambda p: list(bcsv.Reader(p)),
        lambda p: bcsv.Reader(p).num_rows,
        lambda p: bcsv.Reader(p)[0],
        lambda p: bcsv.Reader(p).packets,
        lambda p: list(bcsv.Reader(p, follow=True)),
        bcsv.validate,
        lambda p: bcsv.repair(p, p.with_suffix(".out")),
    ):
        start = time.perf_counter()
        try:
            work(path)
        except (bcsv.BcsvError, IndexError, FileExistsError) as error:
            assert str(error)  # noqa: PT017
        # In the long form only: a loaded machine would make it fail.
        assert not MANY or time.perf_counter() - start < 0.05 + len(CASES[name]) / 1e6
        path.with_suffix(".out").unlink(missing_ok=True)
    # A column costs about a kilobyte in Python and Arrow; the bound is for what the file claims, not for what it has.
    limit = (64 << 10) + len(CASES[name]) // 4
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < limit, f"{grown} KiB"


def test_there_are_enough_of_them():
    assert len(CASES) >= 90


def test_a_footer_with_too_few_rows_is_no_excuse_to_leave_rows_out(tmp_path):
    one = twin.vle(4) + b"\x01\0\0\0"
    data = header() + packet(0, one * 5 + twin.vle(twin.TERMINATOR)) + footer([(len(header()), 0)], 3)
    path = tmp_path / "few.bcsv"
    path.write_bytes(data)
    with bcsv.Reader(path) as reader:
        with pytest.raises(bcsv.CorruptError, match="more rows than the index says"):
            reader.read_table()
        assert reader.complete is False
        with pytest.raises(bcsv.CorruptError, match="more rows than the index says"):
            list(reader)


def test_repair_keeps_the_rows_before_an_impossible_one(tmp_path):
    """A byte of zero where a flat row's length stood looks like an empty row, which flat never writes."""
    row = twin.vle(4) + b"\x01\0\0\0"
    row += struct.pack("<I", xxh32(b"\x01\0\0\0"))
    path, out = tmp_path / "zero.bcsv", tmp_path / "out.bcsv"
    path.write_bytes(header(flags=twin.STREAM_MODE) + row * 8 + b"\0" + row)
    assert bcsv.repair(path, out).rows_readable == 8
    assert bcsv.read_table(out).num_rows == 8
