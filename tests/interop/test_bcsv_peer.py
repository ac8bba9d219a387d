"""`tapeline.bcsv` and the reference implementation read each other's files, all codec pairs, random tables."""

import os

import pybcsv
import pytest
from hypothesis import HealthCheck, given, settings

from _twins import bcsv as twin
from _twins import peer
from _twins.bcsv_rows import CODECS
from _twins.tables import quietened, tables, to_rows, types_of
from tapeline import bcsv

EXAMPLES = int(os.environ.get("TAPELINE_TEST_EXAMPLES", "6"))
few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
pairs = pytest.mark.parametrize(
    ("row_codec", "file_codec"), [(row, file) for row in CODECS for file in twin.FILE_CODECS]
)


@pairs
@few
@given(table=tables)
def test_we_read_the_peers_files(tmp_path, row_codec, file_codec, table):
    path = tmp_path / "peer.bcsv"
    flushes = (table.num_rows // 3, 2 * table.num_rows // 3) if table.num_rows > 6 else ()
    peer.write(table, path, row_codec=row_codec, file_codec=file_codec, flush_after=flushes)
    back = bcsv.read_table(path)
    assert back.schema.names == table.schema.names
    assert to_rows(back) == to_rows(table)
    with bcsv.Reader(path) as reader:
        assert reader.num_rows == table.num_rows
        assert (reader.header.row_codec, reader.header.file_codec) == (row_codec, file_codec)


@pairs
@few
@given(table=tables)
def test_the_peer_reads_our_tables(tmp_path, row_codec, file_codec, table):
    path = tmp_path / "ours.bcsv"
    bcsv.write_table(table, path, row_codec=row_codec, file_codec=file_codec, packet_bytes=65536, overwrite=True)
    assert twin.read(path.read_bytes()).fault is None
    back = peer.read(path, file_codec)
    assert back.schema.names == table.schema.names
    assert quietened(types_of(back), to_rows(back)) == quietened(types_of(table), to_rows(table))


@pairs
@few
@given(table=tables)
def test_the_peer_reads_our_rows(tmp_path, row_codec, file_codec, table):
    """Row by row, flushed now and then: other code than a whole table."""
    path = tmp_path / "rows.bcsv"
    path.unlink(missing_ok=True)
    kinds = types_of(table)
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    with bcsv.Writer(
        path, list(zip(table.column_names, kinds, strict=True)), row_codec=row_codec, file_codec=file_codec
    ) as writer:
        for number, row in enumerate(rows):
            writer.write_row(row)
            if number % 17 == 5:
                writer.flush()
    reading = twin.read(path.read_bytes())
    assert reading.fault is None
    expected = quietened(kinds, to_rows(table))
    assert quietened(kinds, reading.rows) == expected
    back = peer.read(path, file_codec)
    assert quietened(kinds, to_rows(back)) == expected


@pytest.mark.parametrize("row_codec", CODECS)
@pytest.mark.parametrize("file_codec", twin.FILE_CODECS)
def test_tables_and_rows_make_the_same_bytes(tmp_path, row_codec, file_codec):
    """The two faces of the writer agree, and raw codecs agree with the twin byte for byte."""
    import numpy as np

    from _twins.tables import columns_of, random_table

    table = random_table(np.random.default_rng(11), 300, 9)
    options = {"row_codec": row_codec, "file_codec": file_codec, "packet_bytes": 65536}
    bcsv.write_table(table, tmp_path / "table.bcsv", **options)
    with bcsv.Writer(tmp_path / "rows.bcsv", table.schema, **options) as writer:
        writer.write_table(table)
    one, two = ((tmp_path / name).read_bytes() for name in ("table.bcsv", "rows.bcsv"))
    assert one[12:] == two[12:]  # behind the creation time
    if "lz4" not in file_codec:
        header = twin.parse_header(one)
        expected = twin.write(
            columns_of(table), to_rows(table), row_codec=row_codec, file_codec=file_codec,
            version=header.version, created=header.created,
        )  # fmt: skip
        assert one == expected


@pytest.mark.parametrize("level", range(1, 10))
def test_every_level(tmp_path, level):
    import numpy as np

    from _twins.tables import random_table

    table = random_table(np.random.default_rng(12), 500, 6)
    for file_codec in ("packet-lz4", "packet-lz4-batch"):
        path = tmp_path / f"{file_codec}.bcsv"
        bcsv.write_table(table, path, file_codec=file_codec, compression_level=level)
        assert to_rows(pybcsv.read_to_arrow(str(path))) == to_rows(table)
        assert bcsv.Reader(path).header.compression_level == level
