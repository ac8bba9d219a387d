"""The twin against the reference implementation: the judge of our own code is judged by a second court."""

import os

import pytest
from hypothesis import HealthCheck, given, settings

from _twins import bcsv as twin
from _twins import peer
from _twins.bcsv_rows import CODECS
from _twins.tables import columns_of, quietened, tables, to_rows, types_of

EXAMPLES = int(os.environ.get("TAPELINE_TEST_EXAMPLES", "5"))
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
def test_twin_reads_the_peers_files(tmp_path, row_codec, file_codec, table):
    path = tmp_path / "peer.bcsv"
    rows = to_rows(table)
    flushes = (len(rows) // 3,) if len(rows) > 3 else ()
    peer.write(table, path, row_codec=row_codec, file_codec=file_codec, flush_after=flushes)
    reading = twin.read(path.read_bytes())
    assert reading.fault is None
    assert reading.rows == rows
    assert (reading.header.row_codec, reading.header.file_codec) == (row_codec, file_codec)


@pairs
@few
@given(table=tables)
def test_peer_reads_the_twins_files(tmp_path, row_codec, file_codec, table):
    path = tmp_path / "twin.bcsv"
    rows = to_rows(table)
    path.write_bytes(twin.write(columns_of(table), rows, row_codec=row_codec, file_codec=file_codec))
    back = peer.read(path, file_codec)
    assert quietened(types_of(back), to_rows(back)) == quietened(types_of(table), rows)
