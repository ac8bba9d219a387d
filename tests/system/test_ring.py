"""`tapeline ring stat` and `ring cat` as processes."""

import json
import os
import struct
import subprocess
import sys

import pytest
from tests.system._processes import tapeline

from tapeline import ring

PACKET = struct.Struct("<Q5BI")


def packet(number, count=3):
    head = PACKET.pack(1_700_000_000_000_000 + number, 4, 1, 2, number % 256, 0, count)
    return head + struct.pack(f"<{2 * count}H", *range(2 * count))


@pytest.fixture
def name(tmp_path):
    name = tmp_path / "ring"
    with ring.Writer(name, capacity=1 << 16) as writer:
        for number in range(20):
            writer.write(packet(number), timestamp_us=number)
        writer.write(b"no packet", timestamp_us=20)
    return name


def test_stat_says_what_is_there(name):
    done = tapeline("ring", "stat", name, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["records"], facts["payload_bytes"], facts["corrupt_records"]) == (21, 20 * 29 + 9, 0)
    assert (facts["first_timestamp_us"], facts["last_timestamp_us"]) == (0, 20)
    assert (facts["closed"], facts["has_producer"], facts["producer_pid"]) == (True, False, os.getpid())
    assert facts["readable_bytes"] == facts["write_position"] == 20 * 48 + 32
    text = tapeline("ring", "stat", name)
    assert text.returncode == 0
    assert "closed" in text.stdout
    assert "records: 21" in text.stdout


def test_cat_prints_packets_in_each_form(name):
    lines = tapeline("ring", "cat", name).stdout.splitlines()
    assert len(lines) == 21
    assert lines[7].endswith("RACK 4 FULL seq 7 count 3")
    records = [json.loads(line) for line in tapeline("ring", "cat", name, "--json", "--limit", 2).stdout.splitlines()]
    assert [bytes.fromhex(record["payload"]) for record in records] == [packet(0), packet(1)]
    assert records[1]["packet"] == {
        "timestamp_us": 1_700_000_000_000_001, "type": 2, "src_id": 4, "cmd": 1, "seq": 1, "count": 3,
    }  # fmt: skip
    raw = subprocess.run(
        [sys.executable, "-m", "tapeline", "ring", "cat", str(name), "--packets"], capture_output=True, check=True
    ).stdout
    assert raw.startswith(b"".join(struct.pack("<I", 29) + packet(n) for n in range(20)))
    assert tapeline("ring", "cat", name, "--newest", "--follow").stdout == ""


def test_cat_follows_until_the_producer_closes(tmp_path):
    name = tmp_path / "ring"
    with ring.Writer(name, capacity=1 << 16) as writer:
        writer.write(packet(0), timestamp_us=0)
        following = subprocess.Popen(
            [sys.executable, "-u", "-m", "tapeline", "ring", "cat", str(name), "--follow"],
            stdout=subprocess.PIPE,
            text=True,
        )
        first = following.stdout.readline()
        writer.write(packet(1), timestamp_us=1)
        second = following.stdout.readline()
    rest = following.stdout.read()
    following.stdout.close()
    assert following.wait(30) == 0
    assert ("seq 0" in first, "seq 1" in second, rest) == (True, True, "")


def test_damage_is_exit_code_3_and_a_missing_ring_1(name, tmp_path):
    data = bytearray(name.read_bytes())
    data[4096 + 48 + 20] ^= 1
    name.write_bytes(data)
    done = tapeline("ring", "cat", name)
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 20
    assert "1 records were damaged" in done.stderr
    for command in ("stat", "cat"):
        missing = tapeline("ring", command, tmp_path / "none")
        assert missing.returncode == 1
        assert "No such file" in missing.stderr
    assert tapeline("ring", "cat", name, "--json", "--payloads").returncode == 2
