"""`tapeline doctor` as a process."""

import json

from tests.system._processes import tapeline


def test_everything_is_measured_and_nothing_is_left(tmp_path):
    done = tapeline("doctor", "--out", tmp_path, "--disk-bytes", "2MiB", "--buffer", "64KiB", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"system", "sockets", "speeds", "disk", "advice"}
    assert found["sockets"]["udp_receive_buffer_asked_bytes"] == 65536
    assert found["disk"]["written_bytes"] == 2 << 20
    assert 0 < found["disk"]["free_bytes"] <= found["disk"]["total_bytes"]
    assert all(value > 0 for value in found["speeds"].values())
    assert list(tmp_path.iterdir()) == []


def test_a_buffer_that_cannot_be_had_is_advised_about(tmp_path):
    done = tapeline("doctor", "--out", tmp_path, "--disk-bytes", "1MiB", "--buffer", "1000GiB", "--json")
    assert done.returncode == 0, done.stderr
    assert any("net.core.rmem_max" in line for line in json.loads(done.stdout)["advice"])


def test_the_table_is_for_people(tmp_path):
    done = tapeline("doctor", "--out", tmp_path, "--disk-bytes", "1MiB")
    assert done.returncode == 0, done.stderr
    for word in ("kernel", "UDP receive buffer", "CRC32C", "LZ4", "disk write", "free space"):
        assert word in done.stdout


def test_a_directory_that_is_not_there_is_one_line_and_exit_code_1(tmp_path):
    done = tapeline("doctor", "--out", tmp_path / "none", "--json")
    assert done.returncode == 1
    assert str(tmp_path / "none") in done.stderr
    assert done.stdout == ""


def test_wrong_sizes_are_exit_code_2_and_named():
    done = tapeline("doctor", "--disk-bytes", "huge")
    assert done.returncode == 2
    assert "--disk-bytes" in done.stderr


def test_help_shows_examples():
    done = tapeline("doctor", "--help")
    assert done.returncode == 0
    assert done.stdout.count("  tapeline doctor") >= 2
