"""Arbitrary CSV: each cell comes back as it was, or the conversion stops. Python's csv module is the judge."""

import csv
import decimal
import io
import math
import os
import re
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tapeline
from tapeline import bcsv
from tapeline.errors import ConvertError

EXAMPLES = int(os.environ.get("TAPELINE_TEST_EXAMPLES", "100"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
SPECIAL = dict.fromkeys(("nan", "NaN", "NAN"), "nan")
SPECIAL |= dict.fromkeys(("inf", "Inf", "INF", "Infinity", "infinity"), "inf")
INTS = {f"{sign}int{bits}": bits for sign in ("u", "") for bits in (8, 16, 32, 64)}

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
tricky = st.sampled_from(
    ["", "007", "+5", "1e400", "1e-400", "1_000", "1 ", " 1", "-0", "-", ".", ".5", "5.", "1e5", "0x1", "true", "True",
     "false", "nan", "-nan", "inf", "-inf", "Infinity", "NA", "18446744073709551615", "18446744073709551616",
     "-9223372036854775808", "-9223372036854775809", "9007199254740993", "16777217", "0.1", "0.10000000000000001",
     "0.123456789012345678901", "3.4028236e38", "1e-46", "5e-324", "a,b", 'q"q', '"', "l\nm", "l\r\nm", "\r", "\ufeff",
     "1,5", "1;5", "\x1b"]
)  # fmt: skip
numbers = st.one_of(
    st.integers(-300, 300).map(str),
    st.integers(-(2**65), 2**65).map(str),
    st.floats().map(repr),
    st.floats(width=32).map(lambda v: str(np.float32(v))),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map("{:.17g}".format),
)
# Columns tend to be of one kind, with a stranger now and then.
kinds = [st.just("1"), st.integers(0, 255).map(str), st.sampled_from(["true", "false"]), numbers, tricky, words]


@st.composite
def tables(draw):
    width = draw(st.integers(1, 4))
    columns = [draw(st.sampled_from(kinds)) for _ in range(width)]
    height = draw(st.integers(0, 12))
    stranger = st.one_of(tricky, words, numbers)
    odd = st.integers(0, 9).map(lambda n: n == 0)
    return [[draw(stranger) if draw(odd) else draw(cell) for cell in columns] for _ in range(height)]


def written(rows, width, delimiter, quoting):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator="\r\n")
    writer.writerow([f"c{i}" for i in range(width)])
    writer.writerows(rows)
    return text.getvalue()


def keeps(text, exact, shortest):
    """Whether printing the exact value with the digits of the text gives the text's number."""
    wanted = Decimal(text)
    if Decimal(shortest) == wanted:
        return True  # its shortest digits, which may not be the nearest of as many, as at powers of two
    digits = len("".join(map(str, wanted.normalize().as_tuple().digits)).strip("0")) or 1
    return decimal.Context(prec=digits, Emin=-9999, Emax=9999).create_decimal(exact) == wanted


def holds(kind, text):
    """Whether a type holds a cell without loss: the rule of docs/howto/convert.md, said another way."""
    if kind == "string":
        return True
    if kind == "bool":
        return text in ("true", "false")
    whole = re.fullmatch(r"0|-?[1-9][0-9]*", text)
    if kind in INTS:
        unsigned, bits = kind.startswith("u"), INTS[kind]
        low, high = (0, 2**bits) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        return bool(whole) and low <= int(text) < high
    if text == "" or (text.removeprefix("-") in SPECIAL and text not in ("-nan", "-NaN", "-NAN")):
        return True
    if not NUMBER.fullmatch(text):
        return False
    value = float(text) if kind == "double" else float(np.float32(text))
    if math.isinf(value):
        return False
    if whole:
        return -(2**63) <= int(text) < 2**64 and value == int(text)
    # A binary32 has shortest digits of its own: those of the same value as a double may be longer.
    return keeps(text, value, repr(value) if kind == "double" else str(np.float32(text)))


def smallest(cells):
    """The first type, from small to large, that holds all cells."""
    if not cells or not any(cells):
        return "string"
    unsigned = [f"uint{b}" for b in (8, 16, 32, 64)]
    for kind in ("bool", *unsigned, "int8", "int16", "int32", "int64", "float", "double"):
        if all(holds(kind, cell) for cell in cells):
            return kind
    return "string"


def same(kind, text, value):
    if kind == "string":
        return value == text
    if kind == "bool":
        return value == (text == "true")
    if kind in INTS:
        return value == int(text)
    name = text.removeprefix("-")
    if text == "" or SPECIAL.get(name) == "nan":
        return math.isnan(value)
    expected = float("inf") * (-1 if text.startswith("-") else 1) if name in SPECIAL else float(text)
    if kind == "float" and math.isfinite(expected):
        expected = float(np.float32(text))
    return value == expected and math.copysign(1, value) == math.copysign(1, expected)


@many
@given(tables(), st.sampled_from(",;\t|"), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.booleans())
def test_every_cell_is_kept_in_the_smallest_type(rows, delimiter, quoting, mark):
    width = len(rows[0]) if rows else 1
    text = written(rows, width, delimiter, quoting)
    judged = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    assert judged[1:] == rows
    with np.errstate(over="ignore", under="ignore"), tempfile.TemporaryDirectory() as folder:
        source, made, back = Path(folder) / "t.csv", Path(folder) / "t.bcsv", Path(folder) / "back.csv"
        source.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
        report = tapeline.convert(source, made, delimiter=delimiter, decimal=".", compression_level=1)
        found = bcsv.read_table(made)
        assert report.rows == found.num_rows == len(rows)
        for number, column in enumerate(report.columns):
            cells = [row[number] for row in rows]
            assert column.type == smallest(cells), cells
            values = found.column(number).to_pylist()
            assert [same(column.type, t, v) for t, v in zip(cells, values, strict=True)] == [True] * len(rows), cells
        tapeline.convert(made, back)
        again = list(csv.reader(io.StringIO(back.read_bytes().decode(), newline="")))
        assert [len(row) for row in again] == [width] * (len(rows) + 1)
        for number, column in enumerate(report.columns):
            for row, cells in zip(again[1:], rows, strict=True):
                assert column.type in ("float", "double") or row[number] == cells[number]
        once_more = tapeline.convert(back, made, delimiter=",", overwrite=True)
        tapeline.convert(made, source, overwrite=True)
        # What we write is canonical. A double can have the digits of a float, though (3.402823466e+38, the largest one
        # to ten digits), and its column then becomes one of floats.
        if [column.type for column in once_more.columns] == [column.type for column in report.columns]:
            assert source.read_bytes() == back.read_bytes()


@many
@given(st.binary(max_size=60), st.sampled_from([None, ",", ";"]), st.sampled_from(["stop", "skip", "pad"]))
def test_any_bytes_are_a_table_or_an_error_with_a_place(data, delimiter, ragged):
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "t.csv", Path(folder) / "t.bcsv"
        source.write_bytes(data)
        try:
            report = tapeline.convert(source, made, delimiter=delimiter, ragged=ragged)
        except ConvertError as error:
            assert str(source) in str(error)  # noqa: PT017 - either outcome is right
            assert not made.exists()
            assert error.line is None or 1 <= error.line <= data.count(b"\n") + 1  # noqa: PT017 - as above
        else:
            with bcsv.Reader(made) as reader:
                assert reader.num_rows == report.rows


@many
@given(st.lists(st.floats(), min_size=1, max_size=20), st.booleans())
def test_floats_are_written_as_python_writes_them(values, narrow):
    with tempfile.TemporaryDirectory() as folder:
        made, back = Path(folder) / "t.bcsv", Path(folder) / "t.csv"
        with np.errstate(over="ignore"):
            array = np.array(values, np.float32 if narrow else np.float64)
        bcsv.write_table({"x": array}, made)
        tapeline.convert(made, back)
        lines = back.read_text().splitlines()[1:]
        if narrow:
            assert np.array_equal(np.array(lines, np.float32), array, equal_nan=True)
        else:
            assert lines == [repr(value) for value in values]


@settings(many, max_examples=max(EXAMPLES // 20, 1))
@given(st.data())
def test_records_across_the_blocks_of_the_parallel_parser(data):
    """A quoted cell with line ends, quotes and delimiters around each place where a block of 2 MiB may end."""
    block = 2 << 20
    nasty = 'x,"\n\r\n,""'
    filler = "1,abcdefgh\n"
    text, rows = ["k,s\n"], []
    size = len(text[0])
    for number in (1, 2, 3):
        before = data.draw(st.integers(0, 64))
        count = (number * block - size - before) // len(filler)
        text.append(filler * count)
        rows += [(1, "abcdefgh")] * count
        size += count * len(filler)
        cell = "".join(data.draw(st.lists(st.sampled_from(nasty), max_size=80)))
        line = f'2,"{cell.replace(chr(34), chr(34) * 2)}"\n'
        text.append(line)
        rows.append((2, cell))
        size += len(line)
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "t.csv", Path(folder) / "t.bcsv"
        source.write_bytes("".join(text).encode())
        tapeline.convert(source, made, compression_level=1, threads=4)
        found = bcsv.read_table(made)
        assert found.column("k").to_pylist() == [k for k, _ in rows]
        assert found.column("s").to_pylist() == [s for _, s in rows]
