"""A writer killed at any instant, or out of space: every row that was acknowledged is readable, by every route."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from _twins.damage import PAIRS
from tapeline import bcsv

# Kills of each codec pair; a long campaign: 200 (make kill).
ROUNDS = int(os.environ.get("TAPELINE_BCSV_KILLS", "1"))
SCHEMA = [("k", "uint64"), ("x", "double"), ("s", "string"), ("odd", "bool")]

WRITER = f"""
import sys
from tapeline import bcsv
path, row_codec, file_codec, seed = sys.argv[1:5]
import random
rng = random.Random(int(seed))
with bcsv.Writer(path, {SCHEMA}, row_codec=row_codec, file_codec=file_codec, packet_bytes=65536) as w:
    k = 0
    while True:
        for _ in range(rng.randrange(1, 400)):
            w.write_row((k, k / 4, f"row {{k}}", k % 2 == 1))
            k += 1
        w.flush()
        print(k, flush=True)  # acknowledged
"""

WRITER_AFTER_FULL = f"""
import re, resource, sys
from tapeline import bcsv
path, row_codec, file_codec = sys.argv[1:4]
limit = 200_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
w = bcsv.Writer(path, {SCHEMA}, row_codec=row_codec, file_codec=file_codec, packet_bytes=65536)
k = acknowledged = 0
failed = False
while not failed:
    try:
        for _ in range(100):
            w.write_row((k, k / 4, f"row {{k}}", k % 2 == 1))
            k += 1
        w.flush()
        acknowledged = k
    except OSError as error:
        failed = True
        kept = int(re.search(r"(\\d+) rows", str(error)).group(1))
        assert acknowledged <= kept <= k, (acknowledged, kept, k)
assert acknowledged > 1000, acknowledged
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
before = w.rows_written
for extra in range(500):
    k = 1_000_000 + extra
    w.write_row((k, k / 4, f"row {{k}}", k % 2 == 1))
w.close()
print(acknowledged)
"""


def right(row) -> bool:
    k, x, s, odd = row
    return (x, s, odd) == (k / 4, f"row {k}", k % 2 == 1)


@pytest.mark.parametrize(("row_codec", "file_codec"), PAIRS)
@pytest.mark.parametrize("turn", range(ROUNDS))
def test_kill_while_writing(tmp_path, row_codec, file_codec, turn):
    path = tmp_path / "killed.bcsv"
    command = [sys.executable, "-c", WRITER, str(path), row_codec, file_codec, str(turn)]
    after = random.Random(turn).randrange(1, 12)  # acknowledgements to wait for
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        acknowledged = 0
        for line in child.stdout:
            acknowledged = int(line)
            after -= 1
            if after <= 0:
                child.send_signal(signal.SIGKILL)
                rest = child.stdout.read().splitlines(keepends=True)
                acknowledged = max([acknowledged, *(int(line) for line in rest if line.endswith("\n"))])
                break
    with bcsv.Reader(path) as reader:
        assert reader.complete in ((None, False) if file_codec.startswith("stream") else (False,))
        rows = list(reader)
        assert len(rows) == reader.num_rows
        assert len(rows) >= acknowledged > 0
        assert [row[0] for row in rows] == list(range(len(rows)))
        assert all(map(right, rows))
        assert reader[acknowledged - 1] == rows[acknowledged - 1]
    assert bcsv.read_table(path).num_rows == len(rows)
    assert len(bcsv.read_pandas(path)) == len(rows)
    assert bcsv.scan(path).collect().height == len(rows)
    assert len(bcsv.read_numpy(path)["k"]) == len(rows)
    with bcsv.Writer(path, SCHEMA, mode="a") as writer:  # and it goes on where it stopped
        assert writer.rows_written == len(rows)
        k = len(rows)
        writer.write_row((k, k / 4, f"row {k}", k % 2 == 1))
    with bcsv.Reader(path) as reader:
        again = list(reader)
        assert reader.complete is (None if file_codec.startswith("stream") else True)
    assert again[:-1] == rows
    assert right(again[-1])


@pytest.mark.parametrize(("row_codec", "file_codec"), PAIRS)
def test_no_space(tmp_path, row_codec, file_codec):
    path = tmp_path / "full.bcsv"
    command = [sys.executable, "-c", WRITER_AFTER_FULL, str(path), row_codec, file_codec]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    acknowledged = int(done.stdout)
    rows = list(bcsv.Reader(path))
    numbers = [row[0] for row in rows]
    assert numbers[:acknowledged] == list(range(acknowledged))
    assert numbers[-500:] == [1_000_000 + k for k in range(500)]
    assert numbers == sorted(set(numbers)), "a row twice, or out of order"
    assert all(map(right, rows))


def test_an_old_file_stays_until_there_is_a_new_one(tmp_path: Path):
    """Mode `w`: the new file takes the name at its first flush, or when it is closed."""
    path = tmp_path / "replaced.bcsv"
    bcsv.write_table({"k": [1, 2, 3]}, path)
    with bcsv.Writer(path, [("k", "int64")], mode="w") as writer:
        writer.write_row((9,))
        assert bcsv.read_numpy(path)["k"].tolist() == [1, 2, 3]
        writer.flush()
        assert bcsv.read_numpy(path)["k"].tolist() == [9]
    assert bcsv.read_numpy(path)["k"].tolist() == [9]

    def give_up():
        with bcsv.Writer(path, [("k", "int64")], mode="w") as writer:
            writer.write_row((10,))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        give_up()
    assert bcsv.read_numpy(path)["k"].tolist() == [9]
    assert [p.name for p in tmp_path.iterdir()] == ["replaced.bcsv"]
