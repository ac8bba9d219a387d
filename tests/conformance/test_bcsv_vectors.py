"""Every vector through the public Python interface: strict, skipping, validated, repaired."""

import hashlib
import json
import struct
from pathlib import Path

import pyarrow as pa
import pytest

from _twins import bcsv as twin
from _twins.bcsv_rows import WIDTH
from _twins.tables import to_rows, types_of
from tapeline import bcsv

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "bcsv"
ALL = sorted(path.stem for path in VECTORS.glob("*.json"))
EXPECT = {name: json.loads((VECTORS / f"{name}.json").read_text()) for name in ALL}
OPEN = [name for name in ALL if EXPECT[name]["expect"]["open"] == "ok"]
REFUSED = [name for name in ALL if EXPECT[name]["expect"]["open"] == "error"]
CLEAN = [name for name in OPEN if EXPECT[name]["expect"]["clean"]]


def file(name: str) -> Path:
    return VECTORS / f"{name}.bcsv"


def digest(table: pa.Table) -> str:
    """sha256 over values, as vectors/bcsv/README.md defines it."""
    h = hashlib.sha256()
    types = types_of(table)
    for row in to_rows(table):
        for kind, v in zip(types, row, strict=True):
            if kind == "string":
                h.update(struct.pack("<I", len(v)) + v)
            elif kind == "bool":
                h.update(bytes([v]))
            else:
                h.update((v & ((1 << 8 * WIDTH[kind]) - 1)).to_bytes(WIDTH[kind], "little"))
    return h.hexdigest()


@pytest.mark.parametrize("name", OPEN)
def test_header(name):
    expect = EXPECT[name]
    with bcsv.Reader(file(name)) as reader:
        header = reader.header
        assert list(header.version) == expect["format_version"]
        assert (header.created and header.created.timestamp()) == expect["creation_time"]
        assert header.row_codec == expect["row_codec"]
        assert header.file_codec.replace("-", "_") == expect["file_codec"]
        assert (header.compression_level, header.flags) == (expect["compression_level"], expect["flags"])
        assert header.packet_bytes == expect["packet_size"]
        assert reader.columns == [(c["name"], c["type"]) for c in expect["layout"]]


@pytest.mark.parametrize("name", OPEN)
def test_verified_rows_come_first(name):
    expect = EXPECT[name]["expect"]
    batches = []
    with bcsv.Reader(file(name)) as reader:
        try:
            batches.extend(reader.iter_batches(batch_rows=7))
        except bcsv.CorruptError as error:
            assert not expect["clean"]
            assert error.rows_before == expect["verified_rows"]  # noqa: PT017
        table = pa.Table.from_batches(batches, reader.schema)
        if expect["clean"]:
            assert reader.complete is (None if reader.header.file_codec.startswith("stream") else True)
    assert table.num_rows == expect["verified_rows"]
    assert digest(table) == expect["verified_sha256"]


@pytest.mark.parametrize("name", CLEAN)
def test_every_route_gives_the_same_rows(name):
    expect = EXPECT[name]["expect"]
    table = bcsv.read_table(file(name))
    assert digest(table) == expect["verified_sha256"]
    with bcsv.Reader(file(name)) as reader:
        assert reader.num_rows == len(reader) == expect["verified_rows"]
        assert sum(1 for _ in reader) == expect["verified_rows"]
        rows = to_rows(table)
        for k in {0, len(rows) // 2, len(rows) - 1} if rows else ():
            assert to_rows(reader[k : k + 1]) == [rows[k]]
            one = pa.table([[v] for v in reader[k]], schema=reader.schema)
            assert str(one.to_pylist()) == str(reader[k : k + 1].to_pylist())
    columns = bcsv.read_numpy(file(name))
    assert {len(array) for array in columns.values()} <= {expect["verified_rows"]}


@pytest.mark.parametrize("name", OPEN)
def test_skipping_finds_every_verified_run(name):
    with bcsv.Reader(file(name), on_corrupt="skip") as reader:
        table = reader.read_table()
        gaps = reader.gaps
    runs = [run for run in EXPECT[name]["expect"]["salvage_runs"] if run[2]]
    at = 0
    for first, rows, _, sha in runs:
        assert digest(table.slice(at, rows)) == sha, (first, rows)
        assert not any(start < first + rows and stop > first for start, stop in gaps)
        at += rows
    assert table.num_rows == at


@pytest.mark.parametrize("name", OPEN)
def test_validate(name):
    expect = EXPECT[name]["expect"]
    report = bcsv.validate(file(name))
    assert report.ok is expect["clean"], str(report)
    assert bool(report.problems) is not expect["clean"]
    assert report.rows_readable == sum(run[1] for run in expect["salvage_runs"] if run[2])
    assert file(name).name in str(report)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(bcsv.BcsvError) as caught:
        bcsv.Reader(file(name))
    unsupported = name in ("x_flags_unknown", "x_version_major2")
    assert isinstance(caught.value, bcsv.UnsupportedError if unsupported else bcsv.CorruptError)
    assert not bcsv.validate(file(name)).ok


@pytest.mark.parametrize("name", OPEN)
def test_repair(name, tmp_path):
    out = tmp_path / "out.bcsv"
    report = bcsv.repair(file(name), out)
    salvaged = twin.read(file(name).read_bytes(), salvage=True)
    assert report.rows_readable == len(salvaged.rows)
    again = twin.read(out.read_bytes())
    assert again.fault is None
    assert again.rows == salvaged.rows
