"""The file tools as processes: what they print, what they write, and their exit codes."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.system._processes import tapeline

from _twins import bcsv as twin
from _twins.damage import PAIRS, flipped, small_file
from _twins.tables import to_rows
from tapeline import bcsv
from tapeline.simulate import simulate_radar
from tapeline.tools.sample import sample


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.bcsv"
    temp = np.array([39, 41, 42, 38, 45], dtype=np.float32)
    table = {"time": np.arange(5), "temp": temp, "state": ["a", "b", "c", "d", "e"]}
    bcsv.write_table(table, path)
    return path


def result(done, code=0):
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("row_codec", "file_codec"), PAIRS)
@pytest.mark.parametrize("command", ["head", "tail", "cat"])
def test_rows_of_every_pair(tmp_path, row_codec, file_codec, command):
    data = small_file(row_codec, file_codec)
    path = tmp_path / "a.bcsv"
    path.write_bytes(data)
    rows = twin.read(data).rows
    done = tapeline(command, path, "--json")
    wanted = rows[:10] if command == "head" else rows[-10:] if command == "tail" else rows
    assert len(result(done)) == len(wanted)


@pytest.fixture
def cut(tmp_path):
    """A BCSV file without an end, its last packet cut."""
    path = tmp_path / "cut.bcsv"
    bcsv.write_table({"n": np.arange(100_000)}, path, file_codec="packet", packet_bytes=65_536)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "cut.bcsv", "out.bcsv"),
        ("sample", "cut.bcsv", "-"),
        ("cast", "cut.bcsv", "--scan"),
        ("cast", "cut.bcsv", "out.bcsv"),
        ("cast", "cut.bcsv", "--in-place"),
        ("sql", "select max(n) from 'cut.bcsv'"),
        ("sql", "select n from 'cut.bcsv'", "-o", "out.bcsv"),
        ("cat", "cut.bcsv"),
    ],
    ids=lambda words: f"{words[0]}_{words[-1]}",
)
def test_a_source_without_an_end_is_told(tmp_path, cut, words):
    one_object = words[0] in ("sample", "cast", "sql") and not {"-", "select max(n) from 'cut.bcsv'"} & {*words}
    done = tapeline(*words, "--json", cwd=tmp_path)
    told = result(done)
    assert done.stderr == "tapeline: warning: cut.bcsv has no end: it was cut, or its writer has not closed it\n"
    if one_object:
        assert told[0]["unfinished"] is True
    bcsv.write_table({"n": np.arange(10)}, cut, overwrite=True)
    (tmp_path / "out.bcsv").unlink(missing_ok=True)
    done = tapeline(*words, "--json", cwd=tmp_path)
    told = result(done)
    assert done.stderr == ""
    if one_object:
        assert told[0]["unfinished"] is False


@pytest.mark.parametrize("content", [b"", b"PAR1" * 20, bytes(range(256)) * 8], ids=["empty", "magic", "bytes"])
@pytest.mark.parametrize("ending", ["bcsv", "parquet", "arrow"])
@pytest.mark.parametrize(
    "words", [("head", "FILE"), ("cast", "FILE", "--scan"), ("sample", "FILE", "-"), ("compare", "good.csv", "FILE")]
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, ending, content, words):
    (tmp_path / f"bad.{ending}").write_bytes(content)
    (tmp_path / "good.csv").write_text("a\n1\n")
    done = tapeline(*(f"bad.{ending}" if word == "FILE" else word for word in words), cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith(f"tapeline: error: bad.{ending}: ")
    assert done.stderr.count("\n") == 1


def test_names_that_are_no_utf8_where_they_cannot_be(tmp_path, log):
    odd = tmp_path / os.fsdecode(b"n\xff.bcsv")
    log.rename(odd)
    assert tapeline("head", odd).returncode == 0
    done = tapeline("sql", f"select * from '{odd}'")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "UTF-8" in done.stderr
    simulate_radar(f"file://{tmp_path}/a.dat", frames=2, streams=1)
    (tmp_path / "a.dat").rename(tmp_path / os.fsdecode(b"n\xff.dat"))
    for words in (
        ("replay", tmp_path / os.fsdecode(b"n\xff.dat"), "--to", f"file://{tmp_path}/b", "--speed", "max"),
        ("record", "--stream", "a=file:///dev/null", "--out", tmp_path / os.fsdecode(b"o\xff")),
    ):
        done = tapeline(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "must be UTF-8" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "x.bcsv", "--seed", -1),
        ("registers", "history", ".", "--type", "rack", "--src-id", 1 << 31, "--offset", 0),
    ],
)
def test_numbers_beyond_their_range_are_usage(tmp_path, words):
    done = tapeline(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert str(words[-1] if words[0] == "generate" else "--src-id") in done.stderr


def test_head_is_csv_in_a_pipe(log):
    done = tapeline("head", "-n", 2, log)
    assert done.stdout == "time,temp,state\n0,39,a\n1,41,b\n" or done.stdout.startswith("time,temp,state\n0,39.0,a\n")
    assert tapeline("tail", "-n", 1, "--columns", "state", "--no-header", log).stdout == "e\n"


def test_info_deep(log):
    (facts,) = result(tapeline("info", log, "--deep", "--json"))
    assert facts["rows"] == 5
    assert facts["columns"][1]["max"] == 45
    assert facts["packets_detail"][0]["rows"] == 5


def test_sample_writes_what_the_function_gives(log, tmp_path):
    out = tmp_path / "out.bcsv"
    where, select = "temp > 40 and temp[-1] <= 40", "time, m = mean(temp[-1:0])"
    (facts,) = result(tapeline("sample", log, out, "--where", where, "--select", select, "--json"))
    assert facts["rows_kept"] == 2
    assert bcsv.read_table(out).to_pydict() == {"time": [1, 4], "m": [40.0, 41.5]}
    assert sample(bcsv.read_table(log), where, select).to_pydict() == bcsv.read_table(out).to_pydict()


def test_a_wrong_expression_is_pointed_at(log):
    done = tapeline("sample", log, "-", "--where", "temp > 40 and tmp < 3")
    assert done.returncode == 2
    text, caret = done.stderr.splitlines()[-2:]
    assert text[caret.index("^") :].startswith("tmp")


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 7])
def test_batches_do_not_matter_to_neighbours(batch_rows):
    values = np.arange(20) ** 2 % 13
    whole = pa.table({"x": values})
    pieces = pa.Table.from_batches(whole.to_batches(max_chunksize=batch_rows))
    for edges in ("drop", "repeat"):
        found = sample(pieces, "x[2] >= x[-3]", "x, s = sum(x[-3:2])", edges=edges)
        assert found.to_pydict() == sample(whole, "x[2] >= x[-3]", "x, s = sum(x[-3:2])", edges=edges).to_pydict()
    kept = [k for k in range(3, 18) if values[k + 2] >= values[k - 3]]
    found = sample(pieces, "x[2] >= x[-3]", "x, s = sum(x[-3:2])").to_pydict()
    assert found == {"x": [values[k] for k in kept], "s": [values[k - 3 : k + 3].sum() for k in kept]}


def test_compare(log, tmp_path):
    other = tmp_path / "other.parquet"
    table = bcsv.read_table(log)
    pq.write_table(table, other)
    (facts,) = result(tapeline("compare", log, other, "--json"))
    assert facts["equal"]
    changed = table.set_column(1, "temp", pa.array([39, 41, 42.5, 38, 45], pa.float32()))
    pq.write_table(changed, other)
    (facts,) = result(tapeline("compare", log, other, "--json"), code=1)
    assert facts["first"] == [{"row": 2, "column": "temp", "a": 42.0, "b": 42.5}]
    assert tapeline("compare", log, other, "--tolerance", "0.5").returncode == 0


def test_cast(log, tmp_path):
    out = tmp_path / "out.bcsv"
    assert tapeline("cast", log, out, "--optimize").returncode == 0
    assert [kind for _, kind in bcsv.Reader(out).columns] == ["uint8", "uint8", "string"]
    (facts,) = result(tapeline("cast", log, out, "-f", "--types", "temp=float,time=bool", "--json"), code=3)
    assert facts["rounded"] == {"time": 3}
    assert tapeline("cast", log, out).returncode == 1, "an output that exists is not replaced"


def test_generate_and_validate_by_profile(tmp_path):
    path = tmp_path / "g.bcsv"
    assert tapeline("generate", path, "--profile", "weather_timeseries", "-n", 500).returncode == 0
    assert tapeline("validate", path, "--profile", "weather_timeseries").returncode == 0
    assert tapeline("validate", path, "--profile", "weather_timeseries", "--seed", 2).returncode == 1


@pytest.mark.parametrize(("row_codec", "file_codec"), PAIRS)
def test_validate_and_repair(tmp_path, row_codec, file_codec):
    data = small_file(row_codec, file_codec)
    path, out = tmp_path / "a.bcsv", tmp_path / "b.bcsv"
    path.write_bytes(data)
    for depth in ([], ["--quick"], ["--deep"]):
        assert tapeline("validate", path, *depth).returncode == 0
    if file_codec.startswith("stream"):
        return
    packet = twin.read(data).packets[1]
    damaged = flipped(data, 8 * (packet.end - 12))
    path.write_bytes(damaged)
    assert tapeline("validate", path).returncode == 1
    assert tapeline("repair", path, "--dry-run").returncode == 3
    assert path.read_bytes() == damaged
    (facts,) = result(tapeline("repair", path, out, "--json"), code=3)
    wanted = twin.read(damaged, salvage=True).rows
    assert facts["rows_readable"] == len(wanted)
    assert to_rows(bcsv.read_table(out)) == wanted
    assert tapeline("repair", path, "--in-place", "--backup").returncode == 3
    assert (tmp_path / "a.bcsv.bak").read_bytes() == damaged
    assert path.read_bytes() == out.read_bytes()


def test_sql(log):
    done = tapeline(
        "sql", f"select b.state, a.temp from '{log}' a join '{log}' b using (time) where a.temp > 44", "--json"
    )
    assert result(done) == [{"state": "e", "temp": 45.0}]
    done = tapeline("sql", "selec 1")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


@pytest.mark.parametrize("command", [["head"], ["tail", "--table"], ["head", "--json"], ["cat", "--csv"], ["info"]])
def test_a_look_imports_no_table_library(log, command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tapeline", *command, str(log)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "state" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"numpy", "pyarrow", "pandas", "polars", "rich"}


def test_a_table_for_people(tmp_path):
    path = tmp_path / "a.bcsv"
    bcsv.write_table({"x": np.array([0.1, np.nan], np.float32), "s": ['a "b"\n\x1b[31m', ""], "é": [1, 2]}, path)
    lines = tapeline("head", "--table", path).stdout.splitlines()
    assert lines[0].split() == ["x", "s", "é"]
    assert lines[2].split() == ["0.1", "a", '"b"\\n\\x1b[31m', "1"]
    assert lines[3].split() == ["nan", "2"]
    assert tapeline("head", "--table", "--no-header", path).stdout.splitlines() == lines[2:]


def test_rows_before_damage_are_printed(tmp_path):
    path = tmp_path / "a.bcsv"
    bcsv.write_table({"x": np.arange(100_000)}, path, packet_bytes=64 << 10, row_codec="flat", file_codec="packet")
    packets = bcsv.Reader(path).packets
    assert len(packets) > 4
    damaged = bytearray(path.read_bytes())
    damaged[packets[2].offset + 100] ^= 1
    path.write_bytes(damaged)
    done = tapeline("cat", "--no-header", path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [str(k) for k in range(packets[2].first_row)]
    done = tapeline("cat", "--no-header", "--skip-damage", path)
    assert done.returncode == 3
    assert f"rows {packets[2].first_row:,} to {packets[3].first_row - 1:,} are damaged" in done.stderr
    assert len(done.stdout.splitlines()) == 100_000 - packets[2].rows
    assert tapeline("head", path).returncode == tapeline("tail", path).returncode == 0


def test_info_does_not_take_broken_files_for_recordings(tmp_path):
    broken, text = tmp_path / "a.bcsv", tmp_path / "a.csv"
    broken.write_bytes(b"junk")
    text.write_text("a\n1\n")
    done = tapeline("info", broken, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a BCSV file" in done.stderr
    done = tapeline("info", text)
    assert (done.returncode, done.stdout) == (2, "")


def test_errors_on_the_way_are_one_line_without_a_traceback(tmp_path):
    path, empty = tmp_path / "a.bcsv", tmp_path / "b.bcsv"
    bcsv.write_table({"a": np.arange(50_000), "s": ["x"] * 50_000}, path, packet_bytes=65536)
    packet = bcsv.Reader(path).packets[2]
    damaged = bytearray(path.read_bytes())
    damaged[packet.offset + packet.size // 2] ^= 1
    path.write_bytes(damaged)
    bcsv.write_table({}, empty)
    for words in (
        ("sample", path, tmp_path / "o.csv", "--where", "a >= 0"),
        ("sample", path, tmp_path / "o.bcsv", "--where", "a >= 0"),
        ("sql", f"select sum(a) from '{path}'"),
        ("sql", f"select count(*) from '{empty}'"),
        ("cast", path, tmp_path / "o.bcsv", "--types", "s=int8", "--parse-strings"),
    ):
        done = tapeline(*words)
        assert done.returncode == 1
        assert done.stderr.startswith("tapeline: error: ")
        assert done.stderr.count("\n") == 1
        for noise in ("Traceback", "Detail: ", "C Data interface", "Producer error"):
            assert noise not in done.stderr
    assert not list(tmp_path.glob("o.*"))


def test_a_chain_of_very_many_operators_is_refused(log):
    done = tapeline("sample", log, "-", "--where", "+".join(["time"] * 5000) + " > 0")
    assert done.returncode == 2
    assert "too many operators" in done.stderr


def test_names_that_are_no_utf8(log):
    odd = os.fsdecode(os.fsencode(log.parent) + b"/odd\xff.bcsv")
    os.rename(log, odd)  # noqa: PTH104 - pathlib would do as well; this is about names
    for command in ("info", "head", "validate"):
        assert tapeline(command, odd).returncode == 0
    out = log.with_name("out.bcsv")
    assert tapeline("repair", odd, out).returncode == 0
    assert bcsv.read_table(odd).equals(bcsv.read_table(out))
    assert bcsv.read_table(os.fsencode(odd)).num_rows == 5
