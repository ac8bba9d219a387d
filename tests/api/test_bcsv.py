"""`tapeline.bcsv` as users meet it: types, options, errors, ranges, other libraries."""

import inspect
import math
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tapeline
from tapeline import bcsv
from tapeline.errors import ConfigError

COLUMNS = [
    ("flag", "bool"), ("u1", "uint8"), ("u2", "uint16"), ("u4", "uint32"), ("u8", "uint64"), ("i1", "int8"),
    ("i2", "int16"), ("i4", "int32"), ("i8", "int64"), ("f4", "float"), ("f8", "double"), ("text", "string"),
]  # fmt: skip
ROW = (True, 255, 65535, 2**32 - 1, 2**64 - 1, -128, -32768, -(2**31), -(2**63), 0.5, -1e300, "é\x00ü")


@pytest.fixture
def table():
    rows = 1000
    rng = np.random.default_rng(3)
    return pa.table(
        {
            "time": np.arange(rows, dtype=np.uint64),
            "value": rng.normal(size=rows),
            "state": rng.integers(0, 4, rows).astype(np.int8),
            "on": rng.random(rows) < 0.5,
            "label": pa.array([f"label {k % 17}" for k in range(rows)]),
        }
    )


@pytest.fixture
def path(tmp_path, table):
    """A file of several packets."""
    path = tmp_path / "several.bcsv"
    with bcsv.Writer(path, table.schema) as writer:
        for start in range(0, 1000, 130):
            writer.write_table(table.slice(start, 130))
            writer.flush()
    return path


def test_rows_of_all_types(tmp_path):
    path = tmp_path / "rows.bcsv"
    zeros = (False, *(0,) * 8, 0.0, 0.0, "")
    with bcsv.Writer(path, COLUMNS) as writer:
        writer.write_row(ROW)
        writer.write_row(list(zeros))
        writer.write_rows(iter([ROW, zeros]))
        assert writer.rows_written == 4
    with bcsv.Reader(path) as reader:
        assert reader.columns == COLUMNS
        assert list(reader) == [ROW, zeros] * 2
        assert reader[0] == ROW
        assert reader[-1] == zeros
        assert reader[1:3].to_pylist() == [dict(zip(dict(COLUMNS), row, strict=True)) for row in (zeros, ROW)]
        assert [type(v) for v in reader[0]] == [type(v) for v in ROW]
        assert reader.complete is True


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("flag", 1), ("flag", "yes"), ("u1", 256), ("u1", -1), ("u8", 2**64), ("i1", 128), ("i8", 2**63), ("i4", 1.5),
        ("i4", "7"), ("f4", 1e39), ("f4", "1"), ("f8", "1"), ("f8", 2**53 + 1), ("text", 5), ("text", b"bytes"),
        ("text", "\ud800"), ("text", "x" * 65536), *((name, None) for name, _ in COLUMNS),
    ],
)  # fmt: skip
def test_a_refused_row_leaves_no_trace(tmp_path, column, value):
    path = tmp_path / "refused.bcsv"
    at = [name for name, _ in COLUMNS].index(column)
    with bcsv.Writer(path, COLUMNS) as writer:
        writer.write_row(ROW)
        with pytest.raises(bcsv.SchemaError, match=column):
            writer.write_row((*ROW[:at], value, *ROW[at + 1 :]))
        with pytest.raises(bcsv.SchemaError, match="11"):
            writer.write_row(ROW[:-1])
        assert writer.rows_written == 1
        writer.write_row(ROW)
    assert list(bcsv.Reader(path)) == [ROW, ROW]


def test_numpy_scalars_are_values(tmp_path):
    path = tmp_path / "scalars.bcsv"
    row = (np.bool_(True), np.uint8(1), np.int64(2), np.uint32(3), np.uint64(4), np.int8(5), np.int16(6), np.int32(7),
           np.int64(8), np.float32(0.25), np.float64(0.1), np.str_("s"))  # fmt: skip
    with bcsv.Writer(path, COLUMNS) as writer:
        writer.write_row(row)
    assert list(bcsv.Reader(path)) == [tuple(v.item() for v in row)]


def test_packed_rows(tmp_path):
    path = tmp_path / "packed.bcsv"
    columns = [column for column in COLUMNS if column[1] != "string"]
    with bcsv.Writer(path, columns) as writer:
        rows = np.zeros(3, writer.packed_dtype)
        rows["i8"] = [1, -2, 3]
        rows["flag"] = [True, False, True]
        rows["f4"] = [0.5, np.nan, np.inf]
        writer.write_packed(rows)
        writer.write_packed(rows[1].tobytes())
        with pytest.raises(bcsv.SchemaError):
            writer.write_packed(b"12345")
        assert writer.rows_written == 4
    back = bcsv.read_numpy(path)
    assert back["i8"].tolist() == [1, -2, 3, -2]
    assert back["flag"].tolist() == [True, False, True, False]
    assert back["f4"].view(np.uint32).tolist() == rows["f4"].view(np.uint32)[[0, 1, 2, 1]].tolist()
    with bcsv.Writer(tmp_path / "text.bcsv", COLUMNS) as writer, pytest.raises(bcsv.SchemaError):
        writer.packed_dtype  # noqa: B018


def test_modes(tmp_path):
    path = tmp_path / "modes.bcsv"
    bcsv.write_table({"a": [1, 2]}, path)
    with pytest.raises(FileExistsError) as caught:
        bcsv.Writer(path, [("a", "int64")])
    assert caught.value.filename == str(path)
    with pytest.raises(FileExistsError):
        bcsv.write_table({"a": [3]}, path)
    bcsv.write_table({"a": [3]}, path, overwrite=True)
    with bcsv.Writer(path, mode="a") as writer:
        assert writer.columns == [("a", "int64")]
        assert writer.rows_written == 1
        writer.write_row((4,))
    assert bcsv.read_numpy(path)["a"].tolist() == [3, 4]
    with pytest.raises(bcsv.SchemaError):
        bcsv.Writer(path, [("b", "int64")], mode="a")
    with pytest.raises(FileNotFoundError):
        bcsv.Reader(tmp_path / "none.bcsv")
    with pytest.raises(FileNotFoundError):
        bcsv.write_table({"a": [1]}, tmp_path / "no" / "such" / "folder.bcsv")


@pytest.mark.parametrize(
    "option",
    [{"row_codec": "x"}, {"file_codec": "x"}, {"compression_level": 0}, {"compression_level": 10}, {"packet_bytes": 1},
     {"mode": "r"}, {"format_version": "2"}, {"max_loss_s": -1}],
)  # fmt: skip
def test_options_out_of_range(tmp_path, option):
    with pytest.raises(ValueError, match=r"it is|negative"):
        bcsv.Writer(tmp_path / "o.bcsv", COLUMNS, **option)
    assert not (tmp_path / "o.bcsv").exists()


@pytest.mark.parametrize("row_codec", ["flat", "zoh", "delta"])
@pytest.mark.parametrize("file_codec", ["stream", "stream-lz4", "packet", "packet-lz4", "packet-lz4-batch"])
@pytest.mark.parametrize("index", [True, False])
def test_every_codec_pair(tmp_path, table, row_codec, file_codec, index):
    path = tmp_path / "pair.bcsv"
    bcsv.write_table(table, path, row_codec=row_codec, file_codec=file_codec, packet_bytes=65536, index=index)
    assert bcsv.read_table(path).equals(table)
    with bcsv.Reader(path) as reader:
        assert (reader.header.row_codec, reader.header.file_codec) == (row_codec, file_codec)
        assert reader.header.index == (index and file_codec.startswith("packet"))
        assert reader.num_rows == 1000
        assert reader[777] == tuple(table.slice(777, 1).to_pylist()[0].values())


def test_old_format_on_request(tmp_path, table):
    path = tmp_path / "old.bcsv"
    bcsv.write_table(table, path, row_codec="zoh", file_codec="packet-lz4", format_version="1.3")
    assert path.read_bytes()[4:7] == b"\x01\x03\x00"
    assert bcsv.read_table(path).equals(table)
    assert bcsv.Reader(path).header.created is None
    with pytest.raises(bcsv.UnsupportedError):
        bcsv.write_table(table, tmp_path / "no.bcsv", format_version="1.3")


def test_ranges_and_projection(path, table):
    assert bcsv.read_table(path).equals(table)
    assert bcsv.read_table(path, columns=["label", "time"]).equals(table.select(["label", "time"]))
    assert bcsv.read_table(path, columns=[]).num_rows == 1000
    for start, stop in [
        (0, 0),
        (0, 1),
        (129, 131),
        (500, None),
        (-10, None),
        (-10, -3),
        (0, 5000),
        (5000, None),
        (7, 3),
    ]:
        expected = table.slice(0, 1000)[slice(start, stop)] if start < 1000 else table.slice(0, 0)
        assert bcsv.read_table(path, start=start, stop=stop).equals(expected), (start, stop)
    with bcsv.Reader(path) as reader:
        assert reader[10:20].equals(table.slice(10, 10))
        assert [b.num_rows for b in reader.iter_batches(batch_rows=300)] != []
        assert pa.Table.from_batches(reader.iter_batches(["value"], 77)).equals(table.select(["value"]))
        assert all(b.num_rows <= 77 for b in reader.iter_batches(batch_rows=77))
        assert len(reader.packets) == 8
        assert [p.first_row for p in reader.packets] == list(range(0, 1000, 130))
        assert sum(p.rows for p in reader.packets) == len(reader) == 1000
        with pytest.raises(IndexError):
            reader[1000]
        with pytest.raises(IndexError):
            reader[-1001]
        with pytest.raises(ValueError, match="step"):
            reader[::2]
        with pytest.raises(bcsv.SchemaError, match="nothing"):
            reader.read_table(["nothing"])
        with pytest.raises(bcsv.SchemaError):
            reader.iter_batches(["nothing"])
    with pytest.raises(ValueError, match="closed"):
        reader.num_rows  # noqa: B018


def test_numpy_and_pandas(path, table):
    arrays = bcsv.read_numpy(path)
    for name in ("time", "value", "state", "on"):
        assert arrays[name].dtype == table[name].to_numpy().dtype
        assert np.array_equal(arrays[name], table[name].to_numpy())
    assert arrays["label"].dtype == object
    assert arrays["label"].tolist() == table["label"].to_pylist()
    frame = bcsv.read_pandas(path)
    pd.testing.assert_frame_equal(frame, table.to_pandas())


def test_polars_scan(path, table):
    lazy = bcsv.scan(path)
    frame = pl.from_arrow(table)
    assert lazy.collect_schema() == frame.schema
    assert lazy.collect().equals(frame)
    assert lazy.select("label", "value").head(7).collect().equals(frame.select("label", "value").head(7))
    query = (pl.col("value") > 0.5) & pl.col("on")
    assert lazy.filter(query).select("time").collect().equals(frame.filter(query).select("time"))
    assert lazy.filter(query).head(3).collect().equals(frame.filter(query).head(3))
    assert lazy.slice(10, 5).collect().equals(frame.slice(10, 5))
    assert lazy.select(pl.len()).collect().item() == 1000
    assert lazy.group_by("state").agg(pl.col("value").sum()).collect().height == 4
    plan = lazy.filter(query).select("time").explain()
    assert "PROJECT" in plan
    assert lazy.collect(engine="streaming").equals(frame)


def test_duckdb_scans_a_reader_again_and_again(path, table):
    with bcsv.Reader(path) as reader:
        for _ in range(2):
            total = duckdb.sql("select sum(time), count(*) from reader").fetchall()[0]
            assert total == (sum(range(1000)), 1000)
        assert pa.table(reader).equals(table)
        assert pl.DataFrame(reader).equals(pl.from_arrow(table))


@pytest.mark.parametrize(
    "make",
    [lambda t: t, lambda t: t.to_batches(max_chunksize=100)[3], lambda t: t.to_reader(max_chunksize=99), pl.from_arrow,
     lambda t: t.to_pandas(), duckdb.from_arrow, lambda t: t.slice(123, 456),
     lambda t: {name: t[name].to_numpy() for name in t.column_names}, lambda t: pa.concat_tables([t, t.slice(5)])],
)  # fmt: skip
def test_tables_of_many_libraries(tmp_path, table, make):
    given = make(table)
    path = tmp_path / "given.bcsv"
    bcsv.write_table(given, path)
    if isinstance(given, pa.RecordBatch):
        expected = pa.Table.from_batches([given])
    else:
        expected = given if isinstance(given, pa.Table) else table
    assert bcsv.read_table(path).to_pylist() == expected.to_pylist()


def test_other_spellings_of_the_types(tmp_path):
    words = ["a", "b", "", "a"]
    given = pa.table(
        {
            "large": pa.array(words, pa.large_string()),
            "view": pa.array(words, pa.string_view()),
            "dictionary": pa.array(words).dictionary_encode(),
            "half": pa.array([0.5, -0.0, 1.0, 2.0], pa.float16()),
        }
    )
    path = tmp_path / "spelled.bcsv"
    bcsv.write_table(given, path)
    back = bcsv.read_table(path)
    assert back.schema.types == [pa.string()] * 3 + [pa.float32()]
    assert back.to_pydict() == {**dict.fromkeys(["large", "view", "dictionary"], words), "half": [0.5, -0.0, 1.0, 2.0]}
    categories = pl.DataFrame({"c": pl.Series(words, dtype=pl.Categorical)})
    bcsv.write_table(categories, path, overwrite=True)
    assert bcsv.read_table(path)["c"].to_pylist() == words


def test_nan_stays_itself_on_every_way_in(tmp_path):
    bits = np.array([0x7FF8000000000001, 0x7FF0000000000001, 1 << 63, 0xFFF8123400000000], np.uint64)
    for number, given in enumerate(
        [
            pa.table({"x": bits.view(np.float64)}),
            pd.DataFrame({"x": bits.view(np.float64)}),
            {"x": bits.view(np.float64)},
        ]
    ):
        path = tmp_path / f"{number}.bcsv"
        bcsv.write_table(given, path)
        assert bcsv.read_numpy(path)["x"].view(np.uint64).tolist() == bits.tolist()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (pa.table({"when": pa.array([0], pa.timestamp("us"))}), "when.*int64"),
        (pa.table({"d": pa.array([None], pa.decimal128(5))}), "d.*double"),
        (pa.table({"n": pa.array([None, None])}), "n.*null"),
        (pa.table({"b": pa.array([b"x"])}), "b.*binary"),
        (pa.table({"l": pa.array([[1]])}), "l.*list"),
        (pa.table({"ok": [1, 2, 3], "gap": pa.array([1, None, 3])}), "gap.*row 1"),
        (pa.chunked_array([[{"gap": 1}], [{"gap": None}]]), "gap.*row 1|table"),
        ({"a": [1, 2], "b": [1]}, "length"),
        ({"a": [object()]}, "a"),
        ({"a": np.zeros((2, 2))}, "a"),
        ({1: [1]}, "1"),
        (5, "int"),
        (pa.table([[1], [2]], names=["same", "same"]), "same|duplicate|name"),
        (pa.table([[1]], names=[""]), "name|column"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, given, text):
    path = tmp_path / "refused.bcsv"
    with pytest.raises(bcsv.SchemaError, match=text):
        bcsv.write_table(given, path)
    assert not path.exists(), "nothing is left behind"


def test_schemas(tmp_path):
    for number, schema in enumerate([COLUMNS, iter(COLUMNS), pa.schema([("a", pa.int8())]), [("a", pa.string())]]):
        with bcsv.Writer(tmp_path / f"{number}.bcsv", schema):
            pass
    for bad in ([("a", "float64")], [("a",)], ["a"], [(1, "bool")], [("a", pa.date32())]):
        with pytest.raises(bcsv.SchemaError):
            bcsv.Writer(tmp_path / "bad.bcsv", bad)
    with pytest.raises(TypeError):
        bcsv.Writer(tmp_path / "bad.bcsv")


def test_a_table_must_match_the_file(tmp_path):
    with bcsv.Writer(tmp_path / "m.bcsv", [("a", "int64"), ("b", "string")]) as writer:
        writer.write_table({"a": [1], "b": ["x"]})
        for wrong in ({"b": ["x"], "a": [1]}, {"a": [1]}, {"a": [1.0], "b": ["x"]}):
            with pytest.raises(bcsv.SchemaError):
                writer.write_table(wrong)
        assert writer.rows_written == 1


def test_no_rows(tmp_path):
    path = tmp_path / "none.bcsv"
    bcsv.write_table({"a": np.zeros(0), "b": []}, path)
    table = bcsv.read_table(path)
    assert table.schema.types == [pa.float64(), pa.string()]
    assert (table.num_rows, list(bcsv.Reader(path)), bcsv.Reader(path).num_rows) == (0, [], 0)
    assert [len(array) for array in bcsv.read_numpy(path).values()] == [0, 0]
    assert bcsv.scan(path).collect().shape == (0, 2)
    assert bcsv.Reader(path).complete is True


def test_closing(tmp_path):
    writer = bcsv.Writer(tmp_path / "c.bcsv", [("a", "int64")])
    writer.write_row((1,))
    writer.close()
    writer.close()
    table = {"a": [1]}
    works = (
        lambda: writer.write_row((2,)),
        lambda: writer.write_rows([]),
        writer.flush,
        lambda: writer.write_table(table),
    )
    for work in works:
        with pytest.raises(ValueError, match="closed"):
            work()
    assert bcsv.read_numpy(tmp_path / "c.bcsv")["a"].tolist() == [1]


@pytest.mark.parametrize("old", [None, 7])
def test_giving_up_keeps_what_was_flushed(tmp_path, old):
    path = tmp_path / "kept.bcsv"
    if old is not None:
        bcsv.write_table({"a": [old]}, path)

    def write(*, flush):
        with bcsv.Writer(path, [("a", "int64")], mode="w") as writer:
            writer.write_row((1,))
            if flush:
                writer.flush()
            writer.write_row((2,))
            raise KeyError

    with pytest.raises(KeyError):
        write(flush=False)
    assert path.exists() is (old is not None)
    if old is not None:
        assert bcsv.read_numpy(path)["a"].tolist() == [old]
    with pytest.raises(KeyError):
        write(flush=True)
    assert bcsv.read_numpy(path)["a"].tolist() == [1, 2]
    assert bcsv.Reader(path).complete is False


def test_numbers_out_of_range(path, table):
    with bcsv.Reader(path) as reader:
        for key in (1.5, "a", None, [1]):
            with pytest.raises(TypeError):
                reader[key]
        for key in (1000, -1001, 2**70, -(2**70)):
            with pytest.raises(IndexError, match=str(key)):
                reader[key]
        assert reader[-(2**70) : 2**70].equals(table)
        assert sum(batch.num_rows for batch in reader.iter_batches(batch_rows=2**70, stop=2**70)) == 1000
        for rows in (0, -1):
            with pytest.raises(ValueError, match=f"batch_rows is {rows}"):
                reader.iter_batches(batch_rows=rows)


NO_THREADS = [-1, 0, 1.5, "2", True, -(10**30), [], math.nan]


@pytest.mark.parametrize("threads", NO_THREADS)
def test_threads_are_none_or_one_or_more_everywhere(tmp_path, threads):
    path, new = tmp_path / "a.bcsv", tmp_path / "b.bcsv"
    bcsv.write_table({"a": np.arange(10)}, path)
    (tmp_path / "a.csv").write_text("a\n1\n")
    calls = [
        partial(read, path) for read in (bcsv.read_table, bcsv.read_numpy, bcsv.read_pandas, bcsv.scan, bcsv.Reader)
    ]
    calls += [partial(bcsv.write_table, {"a": np.arange(10)}, new), partial(bcsv.Writer, new, [("a", "int64")])]
    calls += [partial(tapeline.convert, path, tmp_path / f"b.{kind}") for kind in ("csv", "jsonl", "parquet", "arrow")]
    calls += [partial(tapeline.convert, tmp_path / "a.csv", tmp_path / f"b.{kind}") for kind in ("bcsv", "parquet")]
    for call in calls:
        with pytest.raises(ConfigError, match=r"^threads is .*; it must be 1 or more, or None"):
            call(threads=threads)
    assert {item.name for item in tmp_path.iterdir()} == {"a.bcsv", "a.csv"}


def test_absurd_numbers_of_threads_do_no_harm(tmp_path):
    table = pa.table({"a": np.arange(300_000), "b": np.arange(300_000) * 0.5})
    for threads in (10**9, 10**30):
        path, text, again = (tmp_path / f"{threads}.{end}" for end in ("bcsv", "csv", "again.bcsv"))
        bcsv.write_table(table, path, packet_bytes=65_536, threads=threads)
        assert bcsv.read_table(path, threads=threads).equals(table)
        tapeline.convert(path, text, threads=threads)
        tapeline.convert(text, again, types=["int64", "double"], threads=threads)
        assert bcsv.read_table(again).equals(table)


def test_one_string_is_no_column(tmp_path):
    with pytest.raises(bcsv.SchemaError, match="one string"):
        bcsv.write_table({"a": "abc"}, tmp_path / "a.bcsv")


def test_os_errors_name_the_file_and_say_it_once(tmp_path):
    source, taken = tmp_path / "a.bcsv", tmp_path / "b.bcsv"
    bcsv.write_table({"a": [1]}, source)
    taken.write_bytes(b"")
    with pytest.raises(FileExistsError) as caught:
        bcsv.repair(source, taken)
    assert caught.value.filename == str(taken)
    assert str(caught.value) == f"[Errno 17] File exists: {str(taken)!r}"


def test_errors_are_one_family():
    assert issubclass(bcsv.BcsvError, tapeline.TapelineError)
    assert issubclass(bcsv.BcsvError, ValueError)
    for kind in (bcsv.CorruptError, bcsv.UnsupportedError, bcsv.SchemaError):
        assert issubclass(kind, bcsv.BcsvError)
    assert vars(bcsv.CorruptError("x"))["offset"] is None


def test_the_contract_of_names():
    """The names and defaults of the public design."""
    write = inspect.signature(bcsv.write_table).parameters
    assert {name: p.default for name, p in write.items() if p.kind is p.KEYWORD_ONLY}.items() >= {
        "row_codec": "delta", "file_codec": "packet-lz4-batch", "compression_level": 1, "packet_bytes": 8 << 20,
        "index": True, "overwrite": False, "threads": None,
    }.items()  # fmt: skip
    read = inspect.signature(bcsv.read_table).parameters
    assert list(read)[:6] == ["path", "columns", "start", "stop", "on_corrupt", "threads"]
    for name in (
        "write_table",
        "read_table",
        "read_numpy",
        "scan",
        "read_pandas",
        "Writer",
        "Reader",
        "validate",
        "repair",
    ):
        assert inspect.getdoc(getattr(bcsv, name))


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bcsv.write_table({"a": [1]}, "plain.bcsv")
    assert bcsv.read_table(Path("plain.bcsv")).num_rows == 1
    assert bcsv.read_table(b"plain.bcsv").num_rows == 1
    assert bcsv.validate("plain.bcsv").ok
    assert "plain.bcsv" in repr(bcsv.Reader("plain.bcsv"))
