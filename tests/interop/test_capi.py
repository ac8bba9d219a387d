"""The C interface: its header, wrong calls, and files that the reference implementation agrees with, both ways."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from _twins import peer
from _twins.bcsv_rows import CODECS
from _twins.tables import to_rows

ROOT = Path(__file__).parents[2]
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g"]
LANGUAGES = {"c99": ["gcc", "-x", "c", "-std=c99"], "c++17": ["g++", "-x", "c++", "-std=c++17"]}
FILE_CODECS = ["stream", "stream-lz4", "packet", "packet-lz4", "packet-lz4-batch"]


@pytest.fixture(scope="session")
def library():
    """The folder of the shared library, built as `make test-rust` builds it."""
    subprocess.run(["cargo", "build", "--quiet", "-p", "tapeline-capi"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"


@pytest.fixture(scope="session", params=LANGUAGES)
def compiled(request, library, tmp_path_factory):
    """Compile a source of this repository, as C and as C++: source -> program."""
    folder = tmp_path_factory.mktemp("capi")

    def compiled(source):
        program = folder / Path(source).stem
        if not program.exists():
            flags = [*STRICT, f"-I{ROOT / 'include'}", str(ROOT / source), "-x", "none"]
            link = [f"-L{library}", f"-Wl,-rpath,{library}", "-ltapeline_bcsv_c"]
            subprocess.run([*LANGUAGES[request.param], *flags, "-o", str(program), *link], check=True)
        return program

    return compiled


def a_table(rows=700):
    columns = {
        "flag": pa.array([i % 3 == 0 for i in range(rows)]),
        "text": pa.array(["" if i % 4 else f"Größe {i // 50}" for i in range(rows)]),
        "f": pa.array([i / 8 if i % 5 else -0.0 for i in range(rows)], pa.float32()),
        "d": pa.array([float("inf") if i % 97 == 0 else i / 3 for i in range(rows)], pa.float64()),
    }
    for bits in (8, 16, 32, 64):
        columns[f"u{bits}"] = pa.array([(i * 31) % 2**bits for i in range(rows)], f"uint{bits}")
        columns[f"i{bits}"] = pa.array([(i * 31) % 2**bits - 2 ** (bits - 1) for i in range(rows)], f"int{bits}")
    return pa.table(columns)


def test_the_header_is_what_the_crate_says():
    subprocess.run([sys.executable, str(ROOT / "crates/capi/generate_header.py"), "--check"], check=True)


def test_the_header_declares_every_exported_function():
    sources = "".join(path.read_text() for path in (ROOT / "crates/capi/src").glob("*.rs"))
    exported = set(re.findall(r"(?:fn |setter!\()(tlb_\w+)", sources))
    declared = set(re.findall(r"(tlb_\w+)\(", (ROOT / "include/tapeline_bcsv.h").read_text()))
    assert exported == declared
    assert len(declared) > 40


def test_wrong_calls_are_refused(compiled, tmp_path):
    subprocess.run([compiled("tests/interop/c/misuse.c"), tmp_path / "file.bcsv"], check=True, timeout=60)


def test_the_wrapper_throws_and_salvages(library, tmp_path):
    source, program, damaged = ROOT / "tests/interop/c/wrapper.cpp", tmp_path / "wrapper", tmp_path / "damaged.bcsv"
    flags = ["-std=c++17", *STRICT, f"-I{ROOT / 'include'}", str(source), f"-L{library}", f"-Wl,-rpath,{library}"]
    subprocess.run(["g++", *flags, "-ltapeline_bcsv_c", "-o", str(program)], check=True)
    peer.write(a_table(9000), damaged, row_codec="flat", file_codec="packet")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    subprocess.run([program, tmp_path / "new.bcsv", damaged], check=True, timeout=60)


@pytest.mark.parametrize("mode", ["rows", "columns"])
@pytest.mark.parametrize(("row_codec", "file_codec"), list(itertools.product(CODECS, FILE_CODECS)))
def test_c_reads_the_peers_files_and_the_peer_reads_those_of_c(compiled, tmp_path, row_codec, file_codec, mode):
    table, theirs, ours = a_table(), tmp_path / "theirs.bcsv", tmp_path / "ours.bcsv"
    peer.write(table, theirs, row_codec=row_codec, file_codec=file_codec)
    program = compiled("examples/c/copy.c")
    done = subprocess.run(
        [program, mode, theirs, ours, row_codec, file_codec], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout == "700 rows\n"
    back = peer.read(ours, file_codec)
    assert back.schema.names == table.schema.names
    assert to_rows(back) == to_rows(table)
