"""Devices and pipes as outputs: written to or refused, never replaced by a file."""

import json
import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from tests.system._processes import Running
from tests.system._processes import tapeline as command

import tapeline
from tapeline import bcsv, wire
from tapeline.simulate import simulate_radar
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


@pytest.fixture
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("capture") / "a.dat"
    simulate_radar(f"file://{path}", streams=1, frames=2000)
    return path


SENDERS = [
    ("simulate", "radar", "--streams", 1, "--frames", 2000, "--seed", 0),
    ("simulate", "battery", "--clients", 3, "--packets", 2000),
    ("replay", "CAPTURE", "--speed", "max"),
]


@pytest.mark.parametrize("words", SENDERS, ids=lambda words: words[1] if words[0] == "simulate" else words[0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_reader(pipe, capture, words, number):
    words = [capture if word == "CAPTURE" else word for word in words]
    with Running(*words, "--to", f"file://{pipe}", "--json") as run:
        run.expect("waiting for a reader of file://")
        run.signal(number)
        code, out = run.finish()
    assert code == 1
    assert "stopped while nobody read the pipe" in run.lines[-1]
    account = json.loads(out)
    parts = account.get("streams") or account["clients"]
    assert {part["bytes_sent"] for part in parts} == {0}


@pytest.mark.parametrize("words", SENDERS, ids=lambda words: words[1] if words[0] == "simulate" else words[0])
def test_a_reader_that_comes_late_gets_every_byte(pipe, capture, words):
    words = [capture if word == "CAPTURE" else word for word in words]
    with Running(*words, "--to", f"file://{pipe}", "--json") as run:
        run.expect("waiting for a reader of file://")
        got = pipe.read_bytes()
        code, out = run.finish()
    assert code == 0, run.lines
    account = json.loads(out)
    assert len(got) == sum(part["bytes_sent"] for part in account.get("streams") or account["clients"])
    if words[1] == "battery":
        decoder = wire.PacketDecoder()
        assert len(decoder.feed(got) + decoder.finish()) == 6000


def test_a_signal_ends_a_write_that_nobody_takes(pipe):
    with Running("simulate", "radar", "--to", f"file://{pipe}", "--frames", 10**9) as run:
        reader = os.open(pipe, os.O_RDONLY)
        os.read(reader, 1)
        run.signal(signal.SIGINT)
        code, _ = run.finish()
        os.close(reader)
    assert code == 1
    assert "stopped while the receiver was not reading" in run.lines[-1]


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
