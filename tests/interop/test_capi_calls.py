"""The C interface called from Python: whole files, followed files, packed rows, the static library, and wrong calls."""

import ctypes as c
import os
import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tapeline import bcsv

ROOT = Path(__file__).parents[2]
OK, SCHEMA, IO, CLOSED, MISUSE = 0, -3, -4, -6, -7
DOUBLE, INT32 = 10, 7


@pytest.fixture(scope="module")
def folder():
    subprocess.run(["cargo", "build", "--quiet", "-p", "tapeline-capi"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"


@pytest.fixture(scope="module")
def lib(folder):
    lib = c.CDLL(str(folder / "libtapeline_bcsv_c.so"))
    lib.tlb_last_error.restype = lib.tlb_version.restype = c.c_char_p
    return lib


def text(lib):
    return lib.tlb_last_error().decode()


def opened(lib, path, columns=((b"n", INT32), (b"x", DOUBLE))):
    names = (c.c_char_p * len(columns))(*(name for name, _ in columns))
    types = (c.c_int32 * len(columns))(*(kind for _, kind in columns))
    writer = c.c_void_p()
    status = lib.tlb_writer_open(str(path).encode(), 0, names, types, len(columns), None, c.byref(writer))
    assert status == OK, text(lib)
    return writer


class ReadOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint64), ("skip_corrupt", c.c_int32), ("follow", c.c_int32)]


def declared():
    """Name and number of parameters of each function of the header, and which of them are pointers."""
    header = (ROOT / "include/tapeline_bcsv.h").read_text()
    for name, parameters in re.findall(r"^int32_t (tlb_\w+)\(([^)]*)\);", header, re.MULTILINE):
        yield name, ["*" in one for one in parameters.split(",")]


@pytest.mark.parametrize(("name", "pointers"), list(declared()), ids=[name for name, _ in declared()])
def test_null_is_an_error_everywhere(lib, name, pointers):
    arguments = [None if pointer else c.c_uint64(0) for pointer in pointers]
    status = getattr(lib, name)(*arguments)
    if name.endswith("_free"):
        assert status == OK, "freeing nothing is allowed"
    else:
        assert status == MISUSE
        assert text(lib)


def test_packed_rows_flush_and_follow(lib, tmp_path):
    path = tmp_path / "a.bcsv"
    writer = opened(lib, path)
    # the columns in order, without gaps
    rows = b"".join(struct.pack("<id", k, k / 4) for k in range(100))
    assert lib.tlb_writer_write_packed(writer, rows[:-1], c.c_size_t(len(rows) - 1)) == SCHEMA
    assert text(lib)
    assert lib.tlb_writer_write_packed(writer, rows, c.c_size_t(len(rows))) == OK
    assert lib.tlb_writer_flush(writer, 0) == OK
    reader, options = c.c_void_p(), ReadOptions(c.sizeof(ReadOptions), 0, 1)
    assert lib.tlb_reader_open(str(path).encode(), c.byref(options), c.byref(reader)) == OK, text(lib)
    new, closed = c.c_uint64(), c.c_int32()
    total = 0
    for more, last in ((0, False), (50, False), (0, True)):
        if more:
            assert lib.tlb_writer_write_packed(writer, rows[: 12 * more], c.c_size_t(12 * more)) == OK
            assert lib.tlb_writer_flush(writer, 0) == OK
        if last:
            assert lib.tlb_writer_finish(writer, 0) == OK
        assert lib.tlb_reader_poll(reader, c.byref(new), c.byref(closed)) == OK
        total += new.value
        assert closed.value == last
    count = c.c_uint64()
    assert lib.tlb_reader_rows(reader, c.byref(count)) == OK
    assert count.value == 150
    assert total in (50, 150), "the rows that were there when it was opened count once, or not as new"
    assert lib.tlb_writer_set_int32(writer, c.c_size_t(0), 1) in (OK, CLOSED)
    assert lib.tlb_writer_write_row(writer) == CLOSED
    assert lib.tlb_writer_write_packed(writer, rows, c.c_size_t(len(rows))) == CLOSED
    assert lib.tlb_writer_free(writer) == lib.tlb_reader_free(reader) == OK
    assert bcsv.read_table(path)["n"].to_pylist() == [*range(100), *range(50)]


def test_discarding_leaves_no_file(lib, tmp_path):
    writer = opened(lib, tmp_path / "a.bcsv")
    assert lib.tlb_writer_set_int32(writer, c.c_size_t(0), 1) == OK
    assert lib.tlb_writer_write_row(writer) == OK
    assert lib.tlb_writer_discard(writer) == OK
    assert lib.tlb_writer_write_row(writer) == CLOSED
    assert lib.tlb_writer_free(writer) == OK
    assert list(tmp_path.iterdir()) == []


def test_discarding_keeps_rows_that_others_may_rely_on(lib, tmp_path):
    path = tmp_path / "a.bcsv"
    bcsv.write_table({"n": np.arange(3, dtype=np.int32), "x": np.zeros(3)}, path)
    names, types, writer = (c.c_char_p * 2)(b"n", b"x"), (c.c_int32 * 2)(INT32, DOUBLE), c.c_void_p()
    assert lib.tlb_writer_open(str(path).encode(), 2, names, types, 2, None, c.byref(writer)) == OK, text(lib)
    assert lib.tlb_writer_set_int32(writer, c.c_size_t(0), 3) == OK
    assert lib.tlb_writer_write_row(writer) == OK
    assert lib.tlb_writer_flush(writer, 0) == OK
    assert lib.tlb_writer_discard(writer) == OK
    assert lib.tlb_writer_write_row(writer) == CLOSED
    assert lib.tlb_writer_free(writer) == OK
    assert bcsv.read_numpy(path)["n"].tolist() == [0, 1, 2, 3]


def test_validate_and_repair(lib, tmp_path):
    path, out = tmp_path / "a.bcsv", tmp_path / "b.bcsv"
    table = {"x": np.random.default_rng(1).random(40_000)}
    bcsv.write_table(table, path, row_codec="flat", file_codec="packet", packet_bytes=64 << 10)
    ok, rows = c.c_int32(-1), c.c_uint64()
    assert lib.tlb_validate(str(path).encode(), c.byref(ok), c.byref(rows)) == OK
    assert (ok.value, rows.value) == (1, 40_000)
    packets = bcsv.Reader(path).packets
    damaged = bytearray(path.read_bytes())
    damaged[packets[1].offset + 99] ^= 4
    path.write_bytes(damaged)
    assert lib.tlb_validate(str(path).encode(), c.byref(ok), c.byref(rows)) == OK
    assert (ok.value, rows.value) == (0, 40_000 - packets[1].rows)
    assert lib.tlb_repair(str(path).encode(), str(out).encode(), c.byref(rows)) == OK
    assert rows.value == 40_000 - packets[1].rows
    kept = np.delete(table["x"], slice(packets[1].first_row, packets[2].first_row))
    assert np.array_equal(bcsv.read_numpy(out)["x"], kept)
    assert lib.tlb_repair(str(path).encode(), str(out).encode(), c.byref(rows)) == IO, "a file that is there stays"
    missing = str(tmp_path / "none").encode()
    assert lib.tlb_validate(missing, c.byref(ok), c.byref(rows)) == IO
    assert lib.tlb_repair(missing, str(tmp_path / "c").encode(), c.byref(rows)) == IO


@pytest.mark.parametrize("static", [False, True])
def test_the_cmake_example(folder, tmp_path, static):
    source, copied, build = tmp_path / "a.bcsv", tmp_path / "b.bcsv", tmp_path / "build"
    bcsv.write_table({"x": np.arange(1000), "s": [f"s{k}" for k in range(1000)]}, source)
    options = [f"-DTAPELINE_LIBRARIES={folder}", f"-DTAPELINE_STATIC={'ON' if static else 'OFF'}"]
    subprocess.run(["cmake", "-S", ROOT / "examples/c", "-B", build, *options], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build], check=True, capture_output=True)
    words = ["columns", source, copied, "zoh", "packet-lz4"]
    done = subprocess.run([build / "copy", *words], check=True, capture_output=True, text=True)
    assert done.stdout == "1000 rows\n"
    assert bcsv.read_table(copied).equals(bcsv.read_table(source))
    loaded = subprocess.run(["ldd", build / "copy"], check=True, capture_output=True, text=True).stdout
    assert ("tapeline_bcsv_c" in loaded) is not static
