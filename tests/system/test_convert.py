"""`tapeline convert` as a process: every option, exit codes, pipes, the report."""

import json
import subprocess

import numpy as np
import pytest
from tests.system._processes import COMMAND, ENVIRONMENT, tapeline

from tapeline import bcsv

TEXT = "time,temp,state\n1,20.5,on\n2,21.25,off\n3,nan,on\n"
FIELDS = {
    "source", "destination", "source_format", "destination_format", "rows", "rows_skipped", "rows_padded",
    "bytes_skipped", "blank_lines", "columns", "renamed", "delimiter", "decimal", "gaps", "passes", "bytes_read",
    "bytes_written", "seconds", "complete", "unfinished",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in.csv").write_text(TEXT)
    return tmp_path


def convert(folder, *words, code=0, stdin=None):
    done = tapeline("convert", *words, cwd=folder, stdin=stdin)
    assert done.returncode == code, done.stderr
    return done


def rows(folder, name="out.bcsv"):
    with bcsv.Reader(folder / name) as reader:
        return [name for name, _ in reader.columns], list(reader)


def test_there_and_back(folder):
    done = convert(folder, "in.csv", "out.bcsv")
    assert done.stdout.startswith("out.bcsv: 3 rows, 3 columns, ")
    assert done.stderr == ""
    convert(folder, "out.bcsv", "back.csv")
    assert (folder / "back.csv").read_text() == TEXT


def test_the_report_has_the_documented_fields(folder):
    report = json.loads(convert(folder, "in.csv", "out.bcsv", "--json").stdout)
    assert set(report) == FIELDS
    assert set(report["columns"][0]) == {"name", "type", "widened_from", "empty_cells", "rounded_cells"}
    assert [column["type"] for column in report["columns"]] == ["uint8", "float", "string"]
    assert (report["rows"], report["complete"], report["delimiter"]) == (3, True, ",")


def test_pipes(folder):
    done = convert(folder, "-", "-", "--from", "csv", "--to", "jsonl", stdin=TEXT)
    assert [json.loads(line) for line in done.stdout.splitlines()][1] == {"time": 2, "temp": 21.25, "state": "off"}
    assert done.stderr.startswith("-: 3 rows")
    for binary in ("bcsv", "parquet", "arrow"):
        words = [*COMMAND, "convert", "in.csv", "-", "--to", binary]
        packed = subprocess.run(words, capture_output=True, check=True, cwd=folder, env=ENVIRONMENT).stdout
        words = [*COMMAND, "convert", "-", "-", "--from", binary, "--to", "csv"]
        back = subprocess.run(words, input=packed, capture_output=True, check=True, cwd=folder, env=ENVIRONMENT).stdout
        assert back.decode() == TEXT
    assert sorted(path.name for path in folder.iterdir()) == ["in.csv"]


@pytest.mark.parametrize(
    ("text", "words", "names", "first"),
    [
        (TEXT, ["--columns", "state,time"], ["state", "time"], ("on", 1)),
        (TEXT, ["--rows", "1:2"], ["time", "temp", "state"], (2, 21.25, "off")),
        (TEXT, ["--types", "time=double,temp=string"], ["time", "temp", "state"], (1.0, "20.5", "on")),
        (TEXT, ["--types", "int64,auto,string"], ["time", "temp", "state"], (1, 20.5, "on")),
        (TEXT, ["--names", 'a,"b,c",d'], ["a", "b,c", "d"], (1, 20.5, "on")),
        ("1,x\n", ["--no-header"], ["Column_0", "Column_1"], (1, "x")),
        ("a;b\n1,5;x\n", ["--delimiter", ";", "--decimal", ","], ["a", "b"], (1.5, "x")),
        ("a\tb,c\n1\tx\n", ["--delimiter", "tab"], ["a", "b,c"], (1, "x")),
        ("a,b\n1,\n,x\n", ["--empty", "string"], ["a", "b"], ("1", "")),
        ("a,b\n1,2\nNA,3\n", ["--null", "NA", "--null", "-"], ["a", "b"], (1.0, 2)),
    ],
)
def test_options_of_reading_csv(folder, text, words, names, first):
    (folder / "in.csv").write_text(text)
    convert(folder, "in.csv", "out.bcsv", *words)
    found, values = rows(folder)
    assert (found, values[0]) == (names, first)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--no-header"], "1,20.5,on\n2,21.25,off\n3,nan,on\n"),
        (["--decimal", ","], "time;temp;state\n1;20,5;on\n2;21,25;off\n3;nan;on\n"),
        (["--delimiter", "|", "--nan", ""], "time|temp|state\n1|20.5|on\n2|21.25|off\n3||on\n"),
        (["--rows", "-1:"], "time,temp,state\n3,nan,on\n"),
        (["--columns", "temp", "--rows", ":1", "--threads", "1"], "temp\n20.5\n"),
    ],
)
def test_options_of_writing_csv(folder, words, text):
    convert(folder, "in.csv", "out.bcsv")
    convert(folder, "out.bcsv", "out.csv", *words)
    assert (folder / "out.csv").read_text() == text


def test_options_of_writing_bcsv(folder):
    words = ["--row-codec", "zoh", "--file-codec", "stream-lz4", "--compression-level", "9"]
    convert(folder, "in.csv", "out.bcsv", *words)
    with bcsv.Reader(folder / "out.bcsv") as reader:
        header = reader.header
    assert (header.row_codec, header.file_codec, header.compression_level) == ("zoh", "stream-lz4", 9)


def test_records_left_out_are_exit_code_3(folder):
    (folder / "in.csv").write_text("a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert "in.csv, line 3: the record has 1 fields" in convert(folder, "in.csv", "out.bcsv", code=1).stderr
    assert sorted(path.name for path in folder.iterdir()) == ["in.csv"]
    done = convert(folder, "in.csv", "out.bcsv", "--ragged", "skip", "--json", code=3)
    report = json.loads(done.stdout)
    assert (report["rows"], report["rows_skipped"], report["complete"]) == (2, 2, False)
    (folder / "in.csv").write_text("a,b\n1,2\n3\n")
    assert "1 short records filled" in convert(folder, "in.csv", "out.bcsv", "--ragged", "pad", "-f").stdout


def test_damaged_rows_stop_or_are_exit_code_3(folder):
    bcsv.write_table({"n": np.arange(100_000)}, folder / "t.bcsv", file_codec="packet", packet_bytes=65_536)
    data = bytearray((folder / "t.bcsv").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "t.bcsv").write_bytes(data)
    convert(folder, "t.bcsv", "t.csv", code=1)
    assert not (folder / "t.csv").exists()
    report = json.loads(convert(folder, "t.bcsv", "t.csv", "--skip-damage", "--json", code=3).stdout)
    assert report["rows"] + sum(stop - first for first, stop in report["gaps"]) == 100_000


def test_a_source_that_was_cut_is_told(folder):
    bcsv.write_table({"n": np.arange(100_000)}, folder / "t.bcsv", file_codec="packet", packet_bytes=65_536)
    data = (folder / "t.bcsv").read_bytes()
    assert "has no end" not in convert(folder, "t.bcsv", "t.csv").stdout
    (folder / "t.bcsv").write_bytes(data[: len(data) // 2])
    assert "t.bcsv has no end" in convert(folder, "t.bcsv", "t.csv", "-f").stdout
    for name in ("t.csv", "t.parquet"):
        assert json.loads(convert(folder, "t.bcsv", name, "-f", "--json").stdout)["unfinished"]


def test_a_value_that_does_not_fit_names_file_line_and_column(folder):
    done = convert(folder, "in.csv", "out.bcsv", "--types", "state=int8", code=1)
    assert done.stderr == 'tapeline: error: in.csv, line 2, column 3 ("state"): "on" does not fit int8\n'
    done = convert(folder, "in.csv", "out.bcsv", "--empty", "stop", "--null", "nan", code=1)
    assert 'line 4, column 2 ("temp"): an empty cell' in done.stderr


def test_a_file_is_replaced_only_on_request(folder):
    (folder / "out.bcsv").write_bytes(b"old")
    assert "out.bcsv" in convert(folder, "in.csv", "out.bcsv", code=1).stderr
    assert (folder / "out.bcsv").read_bytes() == b"old"
    convert(folder, "in.csv", "out.bcsv", "--overwrite")
    assert len(rows(folder)[1]) == 3


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["in.csv"], 2, "Missing argument 'DST'"),
        (["in.csv", "out.dat"], 2, "written by the recorder only"),
        (["in.xyz", "out.bcsv"], 2, "extension is not known"),
        (["in.csv", "-"], 2, "say which"),
        (["in.csv", "-", "--to", "csv", "--json"], 2, "both want stdout"),
        (["in.csv", "out.bcsv", "--rows", "5"], 2, "expected START:STOP"),
        (["in.csv", "out.bcsv", "--rows", "-5:"], 2, "no end to count from"),
        (["in.csv", "out.bcsv", "--types", "a=int8,b"], 2, "expected NAME=TYPE"),
        (["in.csv", "out.bcsv", "--types", "time=int7"], 2, 'no type "int7"'),
        (["in.csv", "out.bcsv", "--columns", "q"], 2, 'no column "q"'),
        (["in.csv", "out.bcsv", "--delimiter", ";;"], 2, "one ASCII character"),
        (["in.csv", "in.csv", "-f"], 2, "same file"),
        (["none.csv", "out.bcsv"], 1, "none.csv: No such file"),
    ],
)
def test_wrong_usage_is_one_line(folder, words, code, says):
    done = convert(folder, *words, code=code)
    assert says in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_help_has_examples():
    done = tapeline("convert", "--help")
    assert done.returncode == 0
    assert done.stdout.count("  tapeline convert ") >= 2
