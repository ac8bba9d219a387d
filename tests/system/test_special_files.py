"""Devices and pipes as outputs: written to or refused, never replaced by a file."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from tests.system._processes import tapeline as command

import tapeline
from tapeline import bcsv
from tapeline.tools.tables import write

TABLE = pa.table({"a": pa.array([1, 2, 3], pa.uint8())})


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    yield path
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert [item.name for item in tmp_path.iterdir() if item.name not in ("pipe", "a.bcsv")] == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_convert_writes_into_a_pipe(tmp_path, pipe, overwrite):
    bcsv.write_table(TABLE, tmp_path / "a.bcsv")
    for kind, check in (("csv", lambda got: got == b"a\n1\n2\n3\n"), ("parquet", lambda got: got[:4] == b"PAR1")):
        with ThreadPoolExecutor(1) as pool:
            read = pool.submit(pipe.read_bytes)
            tapeline.convert(tmp_path / "a.bcsv", pipe, destination_format=kind, overwrite=overwrite)
            assert check(read.result(60))


def test_convert_into_the_null_device(tmp_path):
    bcsv.write_table(TABLE, tmp_path / "a.bcsv")
    assert tapeline.convert(tmp_path / "a.bcsv", os.devnull, destination_format="bcsv").rows == 3
    assert Path(os.devnull).is_char_device()


def test_convert_reads_a_pipe(tmp_path, pipe):
    bcsv.write_table(TABLE, tmp_path / "a.bcsv")
    for kind, given in (("csv", b"a\n1\n2\n3\n"), ("bcsv", (tmp_path / "a.bcsv").read_bytes())):
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(pipe.write_bytes, given)
            report = tapeline.convert(pipe, os.devnull, source_format=kind, destination_format="bcsv")
            assert (report.rows, report.bytes_read, written.result(60)) == (3, len(given), len(given))


@pytest.mark.parametrize(
    "words",
    [["info"], ["head"], ["tail"], ["cat"], ["validate"], ["repair", "--dry-run"], ["cast", "--scan"]],
    ids=lambda words: words[0],
)
def test_commands_refuse_a_pipe_instead_of_waiting(pipe, words):
    done = command(*words, pipe)
    assert done.returncode == 2
    assert "is a device or a pipe" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_a_writer_refuses_a_pipe(pipe, mode):
    with pytest.raises(OSError, match="not a regular file"):
        bcsv.Writer(pipe, TABLE.schema, mode=mode)


def test_tools_refuse_a_pipe(tmp_path, pipe):
    final = pipe.with_suffix(".csv")
    pipe.rename(final)
    with pytest.raises(OSError, match="a device or a pipe"):
        write(TABLE.to_reader(), str(final), overwrite=True)
    final.rename(pipe)
