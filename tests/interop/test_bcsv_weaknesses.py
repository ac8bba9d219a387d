"""The weaknesses of the reference that spec/bcsv-format.md 14 lists, by number: this package has none of them.

Numbers 8 (no checksum of the header) and the limits at the end are the format's; what can be checked of a header is.
"""

import struct
import subprocess
import sys

import pyarrow as pa
import pytest

from _twins import bcsv as twin
from _twins.damage import PAIRS, flipped
from _twins.tables import columns_of, to_rows
from _twins.xxhash import xxh32, xxh64
from tapeline import bcsv

ROWS = 50
TABLE = pa.table(
    {
        "k": pa.array(range(ROWS), pa.int32()),
        "x": pa.array([k // 7 / 4 for k in range(ROWS)]),
        "s": pa.array([f"text {k // 5}" for k in range(ROWS)]),
        "b": pa.array([k % 9 > 4 for k in range(ROWS)]),
    }
)
pairs = pytest.mark.parametrize(("row_codec", "file_codec"), PAIRS)


def file_of(row_codec="delta", file_codec="packet-lz4-batch", **options) -> bytes:
    options = {"flush_after": (20, 35), **options}
    return twin.write(columns_of(TABLE), to_rows(TABLE), row_codec=row_codec, file_codec=file_codec, **options)


def stored(tmp_path, data: bytes):
    path = tmp_path / "file.bcsv"
    path.write_bytes(data)
    return path


def every_bulk_reader(path):
    yield bcsv.read_table(path)
    yield pa.Table.from_pandas(bcsv.read_pandas(path), preserve_index=False)
    yield bcsv.scan(path).collect().to_arrow()
    with bcsv.Reader(path) as reader:
        assert reader.num_rows == ROWS
        yield pa.Table.from_batches(reader.iter_batches())
        rows = list(reader)
        assert [reader[k] for k in range(ROWS)] == rows
        yield pa.Table.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], TABLE.column_names)
    columns = bcsv.read_numpy(path)
    yield pa.table({name: pa.array(values.tolist()) for name, values in columns.items()})


def all_rows_by_every_way(path):
    for table in every_bulk_reader(path):
        assert table.to_pydict() == TABLE.to_pydict()


@pairs
def test_1_and_2_files_without_a_footer_and_streams(tmp_path, row_codec, file_codec):
    data = file_of(row_codec, file_codec)
    end = data.rfind(b"BIDX") if file_codec.startswith("packet") else len(data)
    all_rows_by_every_way(stored(tmp_path, data[:end]))


@pytest.mark.parametrize("file_codec", ["stream", "stream-lz4", "packet", "packet-lz4"])
@pytest.mark.parametrize("row_codec", ["flat", "zoh"])
def test_3_the_short_header(tmp_path, row_codec, file_codec):
    data = file_of(row_codec, file_codec, version=(1, 3, 0), created=None)
    all_rows_by_every_way(stored(tmp_path, data))


@pytest.mark.parametrize("file_codec", ["packet", "packet-lz4", "packet-lz4-batch"])
def test_4_no_file_index(tmp_path, file_codec):
    all_rows_by_every_way(stored(tmp_path, file_of(file_codec=file_codec, index=False)))


@pytest.mark.parametrize("file_codec", ["stream", "stream-lz4", "packet", "packet-lz4", "packet-lz4-batch"])
def test_5_and_19_rows_at_the_limit_are_readable_or_refused(tmp_path, file_codec):
    """A row of 16,776,962 bytes that LZ4 makes longer; then others, as if it had never been offered."""
    path = tmp_path / "limit.bcsv"
    words = "".join(map(chr, range(33, 127)))
    noise = "".join(words[(k * k * 7919 + k // 94) % 94] for k in range(65535))
    long = tuple(noise[k:] + noise[:k] for k in range(256))
    with bcsv.Writer(path, [(f"s{k}", "string") for k in range(256)], file_codec=file_codec) as writer:
        written = 0
        for row in [("a",) * 256, long, ("b",) * 256, tuple(s * 2 for s in ("c" * 32768,) * 256), ("d",) * 256]:
            try:
                writer.write_row(row)
                written += 1
            except bcsv.BcsvError:
                assert max(map(len, row)) > 65000
        assert writer.rows_written == written
    with bcsv.Reader(path) as reader:
        rows = list(reader)
    assert len(rows) == written >= 3
    assert [row[0][:1] for row in rows if len(row[0]) == 1] == ["a", "b", "d"]
    assert all(row == long for row in rows if len(row[0]) > 1)


@pairs
def test_6_a_cut_file_is_never_complete(tmp_path, row_codec, file_codec):
    data = file_of(row_codec, file_codec)
    for stop in range(len(data) - 40, len(data)):
        with bcsv.Reader(stored(tmp_path, data[:stop])) as reader:
            reader.read_table()
            assert reader.complete is not True


@pytest.mark.parametrize("file_codec", ["packet", "packet-lz4", "packet-lz4-batch"])
def test_7_9_and_10_damage_costs_one_packet_and_no_row_comes_out_of_it(tmp_path, file_codec):
    data = file_of("zoh", file_codec)
    packets = twin.read(data).packets
    at = packets[1].offset + 30
    path = stored(tmp_path, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    with bcsv.Reader(path, on_corrupt="skip") as reader:
        assert reader.read_table().num_rows == ROWS - 15
        assert reader.gaps == [(20, 35)]
    given = []
    with bcsv.Reader(path) as reader, pytest.raises(bcsv.CorruptError):
        given.extend(reader)
    assert [row[0] for row in given] == list(range(20))
    for lost in (
        data[: packets[1].offset] + data[packets[2].offset :],
        data[: packets[0].offset] + data[packets[1].offset :],
    ):
        with pytest.raises(bcsv.CorruptError):
            bcsv.read_table(stored(tmp_path, lost))


@pytest.mark.parametrize("row_codec", ["flat", "zoh", "delta"])
def test_11_lengths_of_a_stream(tmp_path, row_codec):
    """No flipped length adds a row or changes one that is given."""
    data = file_of(row_codec, "stream")
    at, expected = twin.parse_header(data).size, bcsv.read_table(stored(tmp_path, data)).to_pylist()
    while at < len(data):
        length, start = twin.read_vle(data, at)
        for bit in range(8 * at, 8 * start):
            path = stored(tmp_path, flipped(data, bit))
            given = []
            with bcsv.Reader(path) as reader:
                try:
                    for batch in reader.iter_batches():
                        given += batch.to_pylist()
                except bcsv.BcsvError:
                    pass
            assert given == expected[: len(given)]
        at = start + length + (4 if length else 0)


def test_12_16_and_17_headers_and_ends(tmp_path):
    data = file_of()
    for place, value in {16: data[16] | 0x20, 17: 1, 15: 10, 24: 255}.items():
        damaged = bytearray(data)
        damaged[place] = value
        with pytest.raises(bcsv.BcsvError):
            bcsv.Reader(stored(tmp_path, bytes(damaged)))
    for junk in (b"x", b"junk of more than sixteen bytes"):
        path = stored(tmp_path, data + junk)
        assert not bcsv.validate(path).ok
        with bcsv.Reader(path, on_corrupt="skip") as reader:
            assert reader.read_table().num_rows == ROWS
            assert reader.complete is False


def one_row_file(payload: bytes, row_codec: str, *, kinds: list[str], batch: bytes | None = None) -> bytes:
    flags = {"flat": 0, "zoh": twin.ZERO_ORDER_HOLD, "delta": twin.DELTA_ENCODING}[row_codec]
    flags |= twin.BATCH_COMPRESS * (batch is not None)
    level = 0 if batch is None else 1
    header = twin.Header((1, 5, 0), 0, level, flags, 1 << 16, [b"c%d" % k for k in range(len(kinds))], kinds)
    head = b"PKCT" + bytes(8)
    head += struct.pack("<I", xxh32(head))
    body = payload if batch is None else batch
    return header.encode() + head + body + struct.pack("<Q", xxh64(payload))


END = twin.vle(twin.TERMINATOR)


@pytest.mark.parametrize(
    ("row_codec", "kinds", "row"),
    [
        ("flat", ["int32"], b"\1\0\0\0\0"),
        ("zoh", ["int32"], b"\1\1\0\0\0\0"),
        ("zoh", ["int32"], b""),
        ("zoh", ["int32"], b"\0"),
        ("delta", ["int16"], b"\2\1\0"),
        ("delta", ["string"], b"\0"),
    ],
)
def test_13_and_14_rows_that_no_writer_makes(tmp_path, row_codec, kinds, row):
    """Surplus bytes, a first row that is not whole: behind a checksum that holds, and refused.

    (Unused bits behind the last bool are "ignored when read", section 8.)
    """
    payload = twin.vle(len(row)) + row + END
    with pytest.raises(bcsv.CorruptError):
        bcsv.read_table(stored(tmp_path, one_row_file(payload, row_codec, kinds=kinds)))


@pytest.mark.parametrize("extra", [-1, 1])
def test_15_the_size_of_a_batch_packet(tmp_path, extra):
    payload = twin.vle(4) + b"\1\0\0\0" + END
    block = bytes([len(payload) << 4]) + payload
    sizes = struct.pack("<II", len(payload) + extra, len(block))
    with pytest.raises(bcsv.CorruptError):
        bcsv.read_table(stored(tmp_path, one_row_file(payload, "flat", kinds=["int32"], batch=sizes + block)))
    without_end = payload[: -len(END)]
    block = bytes([len(without_end) << 4]) + without_end
    sizes = struct.pack("<II", len(without_end), len(block))
    with pytest.raises(bcsv.CorruptError):
        bcsv.read_table(stored(tmp_path, one_row_file(without_end, "flat", kinds=["int32"], batch=sizes + block)))


def test_18_text_is_utf8(tmp_path):
    path = tmp_path / "text.bcsv"
    with bcsv.Writer(path, [("s", "string")]) as writer:
        with pytest.raises((bcsv.BcsvError, UnicodeError)):
            writer.write_row(("\ud800",))
        with pytest.raises(bcsv.BcsvError):
            writer.write_row(("é" * 32768,))
        writer.write_row(("é" * 32767,))
    assert bcsv.read_table(path).to_pydict() == {"s": ["é" * 32767]}
    payload = twin.vle(3) + b"\1\0\xff" + END
    with pytest.raises(bcsv.BcsvError):
        bcsv.read_table(stored(tmp_path, one_row_file(payload, "flat", kinds=["string"])))


def test_20_validate_by_default_fails_on_what_is_wrong(tmp_path):
    data = file_of()
    assert bcsv.validate(stored(tmp_path, data)).ok
    at = data.rfind(b"BIDX")
    footer = bytearray(data[at:])
    footer[-16] += 1
    wrong_count = bytes(footer[:-8]) + struct.pack("<Q", xxh64(bytes(footer[:-8])))
    stream = file_of(file_codec="stream")
    payload = data[: at - 3] + bytes([data[at - 3] ^ 1]) + data[at - 2 :]
    for damaged in (data[:at], data[:at] + wrong_count, stream[:-2], payload):
        assert not bcsv.validate(stored(tmp_path, damaged)).ok


READ_ALL = """
import sys
from tapeline import bcsv
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
with bcsv.Reader(sys.argv[1]) as reader:
    batches = reader.iter_batches(batch_rows=20_000)
    rows = next(batches).num_rows
    before, given = peak(), 0
    for batch in batches:
        rows += batch.num_rows
        given += batch.nbytes
print(rows, given, (peak() - before) << 10)
"""


def test_iterating_takes_the_memory_of_some_packets(tmp_path):
    path = tmp_path / "large.bcsv"
    block = pa.table({f"x{k}": pa.array([k * 0.5] * 50_000) for k in range(50)})
    with bcsv.Writer(path, block.schema, row_codec="zoh") as writer:
        for _ in range(40):
            writer.write_table(block)
    done = subprocess.run([sys.executable, "-c", READ_ALL, str(path)], capture_output=True, text=True, check=True)
    rows, given, grown = map(int, done.stdout.split())
    assert rows == 2_000_000
    assert given > 700e6
    assert grown < 200e6
