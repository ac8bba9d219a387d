"""Damaged files: what is read is what was written, what is missing is named, nothing passes as whole.

Judged twice: against the rows that went in, and against the twin, which reads the same bytes in plain Python.
"""

import os

import numpy as np
import pyarrow as pa
import pytest

from _twins import bcsv as twin
from _twins.damage import PAIRS, bad_block, flipped, small_file
from _twins.tables import to_rows
from tapeline import bcsv

MANY = "TAPELINE_TEST_EXAMPLES" in os.environ
pairs = pytest.mark.parametrize(("row_codec", "file_codec"), PAIRS)


def strict(path):
    """Rows given before the end or the error, the error, and what `complete` says."""
    rows = []
    with bcsv.Reader(path) as reader:
        try:
            for batch in reader.iter_batches():
                rows += to_rows(pa.Table.from_batches([batch]))
        except bcsv.BcsvError as error:
            return rows, error, reader.complete
        return rows, None, reader.complete


def skipped(path):
    """Rows of a reader that skips damage, its gaps, and what `complete` says."""
    with bcsv.Reader(path, on_corrupt="skip") as reader:
        return to_rows(reader.read_table()), reader.gaps, reader.complete


def by_number(reading):
    """The twin's verified rows by row number."""
    return {run.first + k: row for run in reading.runs if run.verified for k, row in enumerate(run.rows)}


def check(path, data, original):
    """One damaged file; `original` are the rows that went in."""
    path.write_bytes(data)
    expected = twin.read(data)
    rows, error, complete = strict(path)
    assert rows == original[: len(rows)], "a wrong row was given"
    assert rows == expected.rows
    if expected.fault is not None:
        assert error is not None or complete is False or (complete is None and len(rows) <= len(original))
    there = by_number(twin.read(data, salvage=True))
    assert all(row == original[k] for k, row in there.items())
    rows, gaps, complete = skipped(path)
    named = {k for first, stop in gaps for k in range(first, min(stop, len(original)))}
    numbers = [k for k in range(len(rows) + len(named)) if k not in named]
    assert rows == [original[k] for k in numbers], "rows that are not named as missing are there, and right"
    assert set(there) <= set(numbers), "whatever the twin finds is found"


@pairs
def test_cut_at_every_byte(tmp_path, row_codec, file_codec):
    data = small_file(row_codec, file_codec, rows=40)
    whole = twin.read(data)
    path = tmp_path / "cut.bcsv"
    for stop in range(0, len(data), 1 if MANY else 13):
        if stop < whole.header.size:
            path.write_bytes(data[:stop])
            with pytest.raises(bcsv.BcsvError):
                bcsv.Reader(path)
            continue
        check(path, data[:stop], whole.rows)
        finished = sum(len(p.rows) for p in whole.packets if p.end <= stop)
        rows, error, complete = strict(path)
        assert error is None, "the end of a file is no damage"
        assert len(rows) >= finished
        assert complete is (None if file_codec.startswith("stream") and not twin.read(data[:stop]).fault else False)
        assert bcsv.read_table(path).num_rows == len(rows)


@pairs
def test_bit_flips(tmp_path, row_codec, file_codec):
    data = small_file(row_codec, file_codec)
    whole = twin.read(data)
    rng = np.random.default_rng(7)
    body = np.arange(8 * whole.header.size, 8 * len(data))
    for bit in rng.choice(body, 500 if MANY else 40, replace=False):
        check(tmp_path / "flipped.bcsv", flipped(data, int(bit)), whole.rows)


@pairs
def test_every_bit_of_two_kilobytes(tmp_path, row_codec, file_codec):
    data = small_file(row_codec, file_codec, rows=30)
    whole = twin.read(data)
    # In everyday tests one in 211 (a prime: each bit of a byte has its turn).
    for bit in range(8 * whole.header.size, 8 * min(len(data), 2048), 1 if MANY else 211):
        check(tmp_path / "toggled.bcsv", flipped(data, bit), whole.rows)


@pairs
def test_flips_of_the_header_are_refused_or_harmless(tmp_path, row_codec, file_codec):
    """The header has no checksum: a flip may change names or types, but never crashes or hangs."""
    data = small_file(row_codec, file_codec, rows=12)
    path = tmp_path / "header.bcsv"
    for bit in range(0, 8 * twin.parse_header(data).size, 1 if MANY else 11):
        damaged = flipped(data, bit)
        path.write_bytes(damaged)
        try:
            twin.parse_header(damaged)
        except twin.RefusedError:
            with pytest.raises(bcsv.BcsvError):
                bcsv.Reader(path)
            continue
        try:
            bcsv.read_table(path, on_corrupt="skip")
            bcsv.validate(path)
        except bcsv.BcsvError:
            pass


@pytest.mark.parametrize("row_codec", ["flat", "zoh", "delta"])
@pytest.mark.parametrize("file_codec", ["packet", "packet-lz4", "packet-lz4-batch"])
def test_bad_blocks(tmp_path, row_codec, file_codec):
    data = small_file(row_codec, file_codec, rows=900, flushes=14)
    whole = twin.read(data)
    rng = np.random.default_rng(8)
    for _ in range(30 if MANY else 3):
        damaged = bad_block(data, rng)
        check(tmp_path / "block.bcsv", damaged, whole.rows)
        same = [p for p in whole.packets if damaged[p.offset : p.end] == data[p.offset : p.end]]
        rows, _, _ = skipped(tmp_path / "block.bcsv")
        assert len(rows) >= sum(len(p.rows) for p in same), "a packet that was not touched is missing"


@pytest.mark.parametrize("file_codec", ["packet", "packet-lz4", "packet-lz4-batch"])
def test_the_error_names_the_place(tmp_path, file_codec):
    data = small_file("delta", file_codec)
    packet = twin.read(data).packets[2]
    path = tmp_path / "place.bcsv"
    path.write_bytes(flipped(data, 8 * (packet.offset + 16 + 12) + 3))
    with pytest.raises(bcsv.CorruptError) as caught:
        bcsv.read_table(path)
    assert caught.value.packet == 2
    assert caught.value.rows_before == packet.first
    assert packet.offset <= caught.value.offset <= packet.end
    with bcsv.Reader(path, on_corrupt="skip") as reader:
        assert reader.read_table().num_rows == 60 - len(packet.rows)
        assert reader.gaps == [(packet.first, packet.first + len(packet.rows))]


@pairs
def test_validate_and_repair(tmp_path, row_codec, file_codec):
    data = small_file(row_codec, file_codec)
    whole = twin.read(data)
    source, out = tmp_path / "source.bcsv", tmp_path / "repaired.bcsv"
    source.write_bytes(data)
    assert bcsv.validate(source).ok, str(bcsv.validate(source))
    assert bcsv.validate(source).rows_readable == len(whole.rows)
    rng = np.random.default_rng(9)
    for bit in rng.choice(np.arange(8 * whole.header.size, 8 * len(data)), 60 if MANY else 6, replace=False):
        damaged = flipped(data, int(bit))
        source.write_bytes(damaged)
        report = bcsv.validate(source)
        assert report.ok == (twin.read(damaged).fault is None)
        assert bool(report.problems) is not report.ok
        result = bcsv.repair(source, out)
        assert source.read_bytes() == damaged, "the source was touched"
        verified = twin.read(damaged, salvage=True).rows
        assert result.rows_readable == len(verified)
        again = twin.read(out.read_bytes())
        assert again.fault is None
        assert again.rows == verified
        out.unlink()
