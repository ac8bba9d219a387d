"""`tapeline.convert` in Python: every pair of formats, the rules of types, what is refused and where."""

import math
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

import tapeline
from tapeline import bcsv, wire
from tapeline.errors import BcsvError, ConfigError, ConvertError

TABLE = pa.table(
    {
        "n": pa.array([1, 2, 300], pa.uint16()),
        "small": pa.array([-1, 0, 127], pa.int8()),
        "big": pa.array([0, 1, 2**64 - 1], pa.uint64()),
        "f": pa.array([0.1, -2.0, 1e-05], pa.float32()),
        "d": pa.array([0.30000000000000004, 1e300, -0.0], pa.float64()),
        "ok": pa.array([True, False, True]),
        "s": pa.array(["plain", 'quote " comma , and\nnewline', ""]),
    }
)
FORMATS = ("csv", "tsv", "bcsv", "parquet", "arrow", "arrows", "feather", "jsonl")


@pytest.fixture
def csv_of(tmp_path):
    def write(text, name="in.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def types(report):
    return [column.type for column in report.columns]


def cells(path):
    return bcsv.read_table(path).to_pydict()


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_every_pair_of_formats_keeps_values_and_types(tmp_path, first, second):
    bcsv.write_table(TABLE, tmp_path / "a.bcsv")
    tapeline.convert(tmp_path / "a.bcsv", tmp_path / f"b.{first}")
    report = tapeline.convert(tmp_path / f"b.{first}", tmp_path / f"c.{second}", overwrite=True)
    assert (report.rows, report.complete) == (3, True)
    tapeline.convert(tmp_path / f"c.{second}", tmp_path / "d.bcsv")
    assert bcsv.read_table(tmp_path / "d.bcsv").equals(TABLE)
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*"))


def test_canonical_csv_comes_back_byte_by_byte(tmp_path, csv_of):
    text = 'a,"b, c",d\n1,0.5,true\n-2,1e-05,false\n3,"nan",true\n'.replace('"nan"', "nan")
    source = csv_of(text)
    tapeline.convert(source, tmp_path / "t.bcsv")
    tapeline.convert(tmp_path / "t.bcsv", tmp_path / "back.csv")
    assert (tmp_path / "back.csv").read_text() == text


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["true", "false"], "bool"),
        (["0", "255"], "uint8"),
        (["256", "0"], "uint16"),
        (["-1", "200"], "int16"),
        (["18446744073709551615"], "uint64"),
        (["18446744073709551616"], "string"),
        (["0.1", "2"], "float"),
        (["0.123456789"], "double"),
        (["0.1", "16777217"], "double"),
        (["007"], "string"),
        (["+5"], "string"),
        (["1e400"], "string"),
        (["1_000"], "string"),
        (["1 "], "string"),
        (["0.1234567890123456789"], "string"),
        (["1", "", "3"], "float"),
        (["true", ""], "string"),
        (["", ""], "string"),
        (["inf", "-inf", "nan"], "float"),
        (["-0"], "float"),
        (["1", "x"], "string"),
    ],
)
def test_a_column_gets_the_smallest_type_that_holds_it(tmp_path, csv_of, values, kind):
    report = tapeline.convert(csv_of("k,v\n" + "".join(f"0,{v}\n" for v in values)), tmp_path / "t.bcsv")
    assert types(report) == ["uint8", kind]
    if kind == "string":
        assert cells(tmp_path / "t.bcsv")["v"] == values


@pytest.mark.parametrize(
    ("late", "kind"), [("-1", "int16"), ("70000", "uint32"), ("0.5", "float"), ("x", "string"), ("", "float")]
)
def test_a_late_cell_widens_its_column_in_a_second_pass(tmp_path, csv_of, late, kind):
    # far from the head, the end and the places between that the first look goes to
    rows = ["7,300\n"] * 800_000
    rows[540_000] = f"7,{late}\n"
    report = tapeline.convert(csv_of("a,b\n" + "".join(rows)), tmp_path / "t.bcsv")
    assert (report.rows, report.passes, types(report)) == (800_000, 2, ["uint8", kind])
    assert report.columns[1].widened_from == "uint16"
    with bcsv.Reader(tmp_path / "t.bcsv") as reader:
        value = reader[540_000][1]
        assert reader[539_999][1] == (300 if kind != "string" else "300")
    assert str(value) == late or value == pytest.approx(float(late or "nan"), nan_ok=True)


def test_empty_cells_are_counted_kept_or_refused(tmp_path, csv_of):
    source = csv_of("a,b\n1,x\n,\n3,y\nNA,z\n")
    report = tapeline.convert(source, tmp_path / "nan.bcsv", nulls=["NA"])
    assert (types(report), report.columns[0].empty_cells) == (["float", "string"], 2)
    assert np.array_equal(bcsv.read_numpy(tmp_path / "nan.bcsv")["a"], [1, math.nan, 3, math.nan], equal_nan=True)
    tapeline.convert(source, tmp_path / "text.bcsv", empty="string")
    assert cells(tmp_path / "text.bcsv")["a"] == ["1", "", "3", "NA"]
    with pytest.raises(ConvertError, match=r"in\.csv, line 3, column 1 \(\"a\"\): an empty cell") as error:
        tapeline.convert(source, tmp_path / "stop.bcsv", empty="stop", nulls=["NA"])
    assert (error.value.line, error.value.column, error.value.path) == (3, "a", str(source))
    assert not (tmp_path / "stop.bcsv").exists()


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("int8", " -012 ", -12),
        ("uint16", "+5", 5),
        ("bool", "True", True),
        ("bool", "0", False),
        ("float", "0.123456789", float(np.float32("0.123456789"))),
        ("string", "007", "007"),
    ],
)
def test_given_types_read_leniently(tmp_path, csv_of, kind, given, value):
    report = tapeline.convert(csv_of(f"k,v\n1,{given}\n"), tmp_path / "t.bcsv", types={"v": kind})
    assert (types(report)[1], cells(tmp_path / "t.bcsv")["v"]) == (kind, [value])
    assert report.columns[1].rounded_cells == (kind == "float")


@pytest.mark.parametrize(
    ("kind", "cell"), [("int8", "128"), ("bool", "yes"), ("double", "x"), ("uint8", ""), ("float", "1e39")]
)
def test_a_cell_that_does_not_fit_a_given_type_stops(tmp_path, csv_of, kind, cell):
    source = csv_of(f'k,v\n"two\nlines",1\n1,{cell}\n')
    with pytest.raises(ConvertError, match=r"in\.csv, line 4, column 2 \(\"v\"\)") as error:
        tapeline.convert(source, tmp_path / "t.bcsv", types=[None, kind])
    assert (error.value.line, error.value.column) == (4, "v")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_ragged_records(tmp_path, csv_of):
    source = csv_of("a,b\n1,2\n3\n4,5,6\n\n7,8\n")
    with pytest.raises(ConvertError, match=r"line 3: the record has 1 fields, the table 2 columns"):
        tapeline.convert(source, tmp_path / "t.bcsv")
    report = tapeline.convert(source, tmp_path / "skip.bcsv", ragged="skip")
    assert (report.rows, report.rows_skipped, report.blank_lines, report.complete) == (2, 2, 1, False)
    assert cells(tmp_path / "skip.bcsv") == {"a": [1, 7], "b": [2, 8]}
    with pytest.raises(ConvertError, match=r"line 4: the record has 3 fields"):
        tapeline.convert(source, tmp_path / "pad.bcsv", ragged="pad")
    report = tapeline.convert(csv_of("a,b\n1,2\n3\n"), tmp_path / "pad.bcsv", ragged="pad")
    assert (report.rows, report.rows_padded, report.complete) == (2, 1, True)
    assert math.isnan(cells(tmp_path / "pad.bcsv")["b"][1])


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        (b"\xef\xbb\xbfa;b\r\n1,5;x\r\n2,25;y\r\n", ["a", "b"], (1.5, "x")),
        (b"a\tb\n1.5\tx", ["a", "b"], (1.5, "x")),
        (b'a|b\n"1.5"|"x"\n', ["a", "b"], (1.5, "x")),
        (b" a ,,a\n1,2,3\n", ["a", "Column_1", "a.1"], (1, 2, 3)),
        (b's\n\n""\nx\n', ["s"], ("",)),
    ],
)
def test_dialects(tmp_path, csv_of, text, names, first):
    tapeline.convert(csv_of(text), tmp_path / "t.bcsv")
    with bcsv.Reader(tmp_path / "t.bcsv") as reader:
        assert ([name for name, _ in reader.columns], reader[0]) == (names, first)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "empty"),
        (b'a,b\n1,"x\n', "line 2: the text ends inside a quoted cell"),
        (b'a,b\n1,"x"y\n', "line 2, column 2 .*: text follows a closing quote"),
        (b"a,b\n1,x\ry\n", "line 2, column 2 .*: a carriage return"),
        (b"a,b\n1,x\n2,\xff\n", "line 3: the text is not UTF-8"),
        (b"\xff\xfea\0", "UTF-16"),
        (b"a,b\n1," + b"x" * 65_536 + b"\n", "line 2, column 2 .*: the cell has 65536 bytes"),
    ],
)  # fmt: skip
def test_text_that_is_no_table_stops_with_its_line(tmp_path, csv_of, text, says):
    with pytest.raises(ConvertError, match=says):
        tapeline.convert(csv_of(text), tmp_path / "t.bcsv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_rows_columns_names_and_header(tmp_path, csv_of):
    source = csv_of('0,a,0.5\n1,"b\nb",1.5\n\n2,c,2.5\n3,d,3.5\n')
    options = {"header": False, "names": ["n", "s", "f"]}
    tapeline.convert(source, tmp_path / "t.bcsv", columns=["f", "n"], start=1, stop=3, **options)
    assert cells(tmp_path / "t.bcsv") == {"f": [1.5, 2.5], "n": [1, 2]}
    for middle in ("bcsv", "parquet", "arrow"):
        tapeline.convert(source, tmp_path / f"all.{middle}", overwrite=True, **options)
        options_out = {"columns": ["s"], "start": -2, "overwrite": True, "header": False}
        tapeline.convert(tmp_path / f"all.{middle}", tmp_path / "o.csv", **options_out)
        assert (tmp_path / "o.csv").read_text() == "c\nd\n"
        tapeline.convert(tmp_path / f"all.{middle}", tmp_path / "o.parquet", start=-3, stop=-1, overwrite=True)
        assert pyarrow.parquet.read_table(tmp_path / "o.parquet")["n"].to_pylist() == [1, 2]
    with pytest.raises(ConfigError, match="no end to count from"):
        tapeline.convert(source, tmp_path / "x.bcsv", start=-1)
    with pytest.raises(ConfigError, match='there is no column "q"'):
        tapeline.convert(source, tmp_path / "x.bcsv", columns=["q"])
    with pytest.raises(ConfigError, match="2 names are given for 3 columns"):
        tapeline.convert(source, tmp_path / "x.bcsv", header=False, names=["a", "b"])


def test_csv_out_with_decimal_comma_and_own_nan(tmp_path):
    bcsv.write_table({"x": np.array([0.5, math.nan]), "s": ["a;b", "c,d"]}, tmp_path / "t.bcsv")
    tapeline.convert(tmp_path / "t.bcsv", tmp_path / "t.csv", decimal=",", nan="")
    assert (tmp_path / "t.csv").read_text() == 'x;s\n0,5;"a;b"\n;c,d\n'
    with pytest.raises(ConfigError, match="cannot be the delimiter"):
        tapeline.convert(tmp_path / "t.bcsv", tmp_path / "u.csv", decimal=",", delimiter=",")


def test_csv_to_csv_changes_only_the_frame(tmp_path, csv_of):
    tapeline.convert(csv_of("a;b\n007;1e5\n+5;x,y\n"), tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == 'a,b\n007,1e5\n+5,"x,y"\n'
    tapeline.convert(csv_of("a;b\n1,5;1\n"), tmp_path / "o.csv", decimal=".", overwrite=True)
    assert (tmp_path / "o.csv").read_text() == "a,b\n1.5,1\n"


def test_json_lines(tmp_path, csv_of):
    first = '{"a": 1, "s": "5"}\n\n{"a": 0.30000000000000004, "b": true, "s": null, "o": {"k": [1]}}\n'
    text = first + '{"a": 1e999, "b": false}\n'
    report = tapeline.convert(csv_of(text, "in.jsonl"), tmp_path / "t.bcsv")
    kinds = {column.name: column.type for column in report.columns}
    assert kinds == {"a": "double", "s": "string", "b": "string", "o": "string"}
    assert cells(tmp_path / "t.bcsv") == {
        "a": [1.0, 0.30000000000000004, math.inf], "s": ["5", "", ""], "b": ["", "true", "false"],
        "o": ["", '{"k": [1]}', ""],
    }  # fmt: skip
    tapeline.convert(tmp_path / "t.bcsv", tmp_path / "o.jsonl", columns=["a"])
    assert (tmp_path / "o.jsonl").read_text() == '{"a":1.0}\n{"a":0.30000000000000004}\n{"a":1e999}\n'
    with pytest.raises(ConvertError, match=r"in\.jsonl, line 2: no JSON object") as error:
        tapeline.convert(csv_of('{"a":1}\n[]\n', "in.jsonl"), tmp_path / "x.bcsv")
    assert error.value.line == 2


def test_foreign_arrow_types(tmp_path):
    table = pa.table(
        {
            "t": pa.array([0, 1_500_000], pa.timestamp("us")),
            "day": pa.array([1, 2], pa.date32()),
            "raw": pa.array([b"\x00\xff", b""]),
            "word": pa.array(["a", "b"]).dictionary_encode(),
            "gap": pa.array([1.5, None]),
            "text": pa.array([None, "x"]),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    report = tapeline.convert(tmp_path / "t.parquet", tmp_path / "t.bcsv")
    assert report.renamed == (("t", "t_us"), ("day", "day_days"))
    found = cells(tmp_path / "t.bcsv")
    assert math.isnan(found["gap"].pop())
    assert found == {
        "t_us": [0, 1_500_000], "day_days": [1, 2], "raw": ["00ff", ""], "word": ["a", "b"], "gap": [1.5],
        "text": ["", "x"],
    }  # fmt: skip
    assert [column.empty_cells for column in report.columns] == [0, 0, 0, 0, 1, 1]
    tapeline.convert(tmp_path / "t.parquet", tmp_path / "t.csv", columns=["t"])
    assert (tmp_path / "t.csv").read_text().startswith("t\n1970-01-01 00:00:00")


def test_nulls_among_whole_numbers_stop_or_take_a_given_type(tmp_path):
    pyarrow.parquet.write_table(pa.table({"n": pa.array([1, None, 3])}), tmp_path / "t.parquet")
    with pytest.raises(ConvertError, match="row 1, column 'n' is null, which int64 cannot hold"):
        tapeline.convert(tmp_path / "t.parquet", tmp_path / "t.csv")
    tapeline.convert(tmp_path / "t.parquet", tmp_path / "t.csv", types={"n": "string"})
    assert (tmp_path / "t.csv").read_text() == 'n\n1\n""\n3\n'
    tapeline.convert(tmp_path / "t.parquet", tmp_path / "t.bcsv", types={"n": "double"})
    assert bcsv.read_numpy(tmp_path / "t.bcsv")["n"][2] == 3
    with pytest.raises(ConvertError, match="column 'n'"):
        tapeline.convert(tmp_path / "t.parquet", tmp_path / "x.bcsv", types={"n": "bool"})


def test_frames_become_rows(tmp_path):
    frames = [wire.encode_frame(bytes([n]) * 4, n, 1000 + n, stream_id=3) for n in range(5)]
    (tmp_path / "ch0.dat").write_bytes(b"".join(frames))
    for end in ("bcsv", "csv", "parquet", "jsonl"):
        report = tapeline.convert(tmp_path / "ch0.dat", tmp_path / f"o.{end}")
        assert report.rows == 5
    assert cells(tmp_path / "o.bcsv")["payload"] == [f"{n:02x}" * 4 for n in range(5)]
    table = pyarrow.parquet.read_table(tmp_path / "o.parquet")
    assert table["payload"].to_pylist() == [bytes([n]) * 4 for n in range(5)]
    assert table["timestamp_ns"].to_pylist() == [1000 + n for n in range(5)]
    tapeline.convert(tmp_path / "ch0.dat", tmp_path / "few.csv", columns=["sequence"], start=3)
    assert (tmp_path / "few.csv").read_text() == "sequence\n3\n4\n"


def test_register_packets_become_a_row_per_register(tmp_path):
    packets = [wire.encode_packet([10, 11], [n, 2 * n], timestamp_us=1000 + n, src_id=3, seq=n) for n in range(4)]
    (tmp_path / "rack.pkt").write_bytes(b"".join(packets))
    for end in ("bcsv", "csv", "parquet", "jsonl"):
        assert tapeline.convert(tmp_path / "rack.pkt", tmp_path / f"o.{end}").rows == 8
    found = cells(tmp_path / "o.bcsv")
    assert found["timestamp_us"] == [1000 + n for n in range(4) for _ in range(2)]
    assert found["value"] == [value for n in range(4) for value in (n, 2 * n)]
    assert pyarrow.parquet.read_table(tmp_path / "o.parquet")["offset"].to_pylist() == [10, 11] * 4


def test_a_damaged_file_stops_or_is_reported(tmp_path):
    bcsv.write_table({"n": np.arange(400_000)}, tmp_path / "t.bcsv", file_codec="packet", packet_bytes=65_536)
    data = bytearray((tmp_path / "t.bcsv").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "t.bcsv").write_bytes(data)
    for end in ("csv", "parquet"):
        with pytest.raises(BcsvError):
            tapeline.convert(tmp_path / "t.bcsv", tmp_path / f"t.{end}")
        report = tapeline.convert(tmp_path / "t.bcsv", tmp_path / f"t.{end}", on_corrupt="skip")
        lost = sum(stop - first for first, stop in report.gaps)
        assert (report.rows + lost, lost > 0, report.complete) == (400_000, True, False)
    kept = [int(line) for line in (tmp_path / "t.csv").read_text().split()[1:]]
    assert kept == pyarrow.parquet.read_table(tmp_path / "t.parquet")["n"].to_pylist()


def test_the_output_is_replaced_only_on_request_and_as_a_whole(tmp_path, csv_of):
    source, out = csv_of("a\n1\n"), tmp_path / "t.bcsv"
    out.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        tapeline.convert(source, out)
    with pytest.raises(ConvertError):
        tapeline.convert(csv_of("a,b\n1\n"), out, overwrite=True)
    assert out.read_bytes() == b"old"
    tapeline.convert(csv_of("a\n1\n"), out, overwrite=True)
    assert cells(out) == {"a": [1]}
    with pytest.raises(ConfigError, match="same file"):
        tapeline.convert(source, source, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "t.bcsv"]


def test_progress_reaches_the_total_and_can_stop_the_work(tmp_path, csv_of):
    source = csv_of("a,b\n" + "1,2\n" * 1_500_000)
    seen = []
    tapeline.convert(source, tmp_path / "t.bcsv", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == source.stat().st_size - 4  # all but the header
    assert {total for _, total in seen} == {source.stat().st_size}
    tapeline.convert(tmp_path / "t.bcsv", tmp_path / "o.csv", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1_500_000, 1_500_000)

    def stop(_done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tapeline.convert(source, tmp_path / "u.bcsv", progress=stop)
    assert not list(tmp_path.glob("u.*"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source_format": "xls"}, "source_format is 'xls'"),
        ({"destination_format": "dat"}, "written by the recorder only"),
        ({"delimiter": "ab"}, "one ASCII character"),
        ({"decimal": ";"}, "decimal is ';'"),
        ({"delimiter": ",", "decimal": ","}, "the delimiter is the decimal separator"),
        ({"ragged": "keep"}, "ragged is 'keep'"),
        ({"empty": "zero"}, "empty is 'zero'"),
        ({"types": {"a": "int128"}}, 'no type "int128"'),
        ({"types": {"q": "int8"}}, 'no column "q"'),
        ({"types": ["int8"]}, "1 types are given for 2 columns"),
        ({"columns": ["a", "a"]}, "asked for twice"),
    ],
)
def test_wrong_options_are_configuration_errors(tmp_path, csv_of, options, says):
    with pytest.raises(ConfigError, match=says):
        tapeline.convert(csv_of("a,b\n1,2\n"), tmp_path / "t.bcsv", **options)


def test_unknown_extensions_and_missing_files(tmp_path, csv_of):
    with pytest.raises(ConfigError, match="extension is not known"):
        tapeline.convert(tmp_path / "a.xyz", tmp_path / "b.bcsv")
    with pytest.raises(FileNotFoundError) as error:
        tapeline.convert(tmp_path / "a.csv", tmp_path / "b.bcsv")
    assert error.value.filename == str(tmp_path / "a.csv")
    with pytest.raises(ConvertError, match=r"a\.parquet"):
        tapeline.convert(csv_of("no parquet", "a.parquet"), tmp_path / "b.bcsv")


def test_rows_are_those_of_a_slice(tmp_path):
    table = pa.table({"a": np.arange(10)})
    bcsv.write_table(table, tmp_path / "a.bcsv")
    for start, stop in [(np.int64(2), np.int32(5)), (0, 10**30), (-(10**30), 3), (10**30, None), (-3, None)]:
        for kind in ("csv", "bcsv"):
            out = tmp_path / f"b.{kind}"
            report = tapeline.convert(tmp_path / "a.bcsv", out, start=start, stop=stop, overwrite=True)
            assert report.rows == len(range(10)[start:stop])


@pytest.mark.parametrize(
    "options",
    [
        {"compression_level": 10**30},
        {"packet_bytes": -(10**30)},
        {"header": "no"},
        {"delimiter": (",",)},
        {"delimiter": b","},
    ],
)
def test_options_of_a_wrong_kind_are_named(tmp_path, options):
    (tmp_path / "a.csv").write_text("a\n1\n")
    (name,) = options
    with pytest.raises(ConfigError, match=f"^{name} is "):
        tapeline.convert(tmp_path / "a.csv", tmp_path / "a.bcsv", **options)
    assert not (tmp_path / "a.bcsv").exists()
    if name in ("compression_level", "packet_bytes"):
        for write in (partial(bcsv.write_table, {"a": [1]}), partial(bcsv.Writer, schema=[("a", "int8")])):
            with pytest.raises(ConfigError, match=f"^{name} is "):
                write(path=tmp_path / "a.bcsv", **options)
