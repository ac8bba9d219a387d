"""The demo: it closes over real sockets, and it notices when one number is off."""

import json
from dataclasses import fields, replace

import pytest
from tests.system._processes import tapeline

from tapeline.cli.demo import Account
from tapeline.ledger import CorruptCounters, Ledger

FRAME = 1040

# what a producer of 100 frames says that dropped 2, corrupted 3 and sent 4 twice and 5 late, with 77 bytes of garbage
EXPECTED = {
    "bytes_received": 102 * FRAME + 77,
    "frames_received": 99,
    "frames_stored": 95,
    "bytes_stored": 95 * FRAME,
    "frames_corrupt": {"header_crc": 1, "payload_crc": 2, "bad_version": 0, "bad_length": 0, "truncated": 0},
    "bytes_discarded": 3 * FRAME + 77,
    "gaps": 5,
    "frames_lost": 5,
    "frames_duplicate": 4,
    "frames_reordered": 5,
    "restarts": 0,
}
SENT = {
    "frames_generated": 100,
    "frames_sent": 102,
    "frames_unique": 95,
    "frames_dropped": 2,
    "frames_duplicated": 4,
    "frames_reordered": 5,
    "frames_corrupted": 3,
    "garbage_bytes": 77,
    "bytes_sent": 102 * FRAME + 77,
    "datagrams_sent": 0,
    "expected": EXPECTED,
}
LEDGER = Ledger.from_dict(EXPECTED)
CHECKED = ["bytes_received", "frames_received", "frames_stored", "bytes_stored", "bytes_discarded", "frames_lost"]
CHECKED += ["frames_duplicate", "frames_reordered"]


def test_an_exact_account_closes():
    assert Account("tcp", SENT, LEDGER, span=100).closes


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("step", [-1, 1])
def test_one_number_off_is_noticed(name, step):
    wrong = replace(LEDGER, **{name: getattr(LEDGER, name) + step})
    assert not Account("tcp", SENT, wrong, span=100).closes


@pytest.mark.parametrize("reason", [f.name for f in fields(CorruptCounters)])
def test_one_corrupt_frame_more_is_noticed(reason):
    counters = replace(LEDGER.frames_corrupt, **{reason: getattr(LEDGER.frames_corrupt, reason) + 1})
    assert not Account("tcp", SENT, replace(LEDGER, frames_corrupt=counters), span=100).closes


def test_a_sequence_too_many_is_noticed():
    assert not Account("tcp", SENT, LEDGER, span=101).closes


def test_kernel_drops_close_by_datagram_and_byte():
    # one datagram with an intact frame was dropped, and the kernel says so
    sent = {**SENT, "datagrams_sent": 103}
    ledger = replace(
        LEDGER, bytes_received=101 * FRAME + 77, frames_received=98, frames_stored=94, bytes_stored=94 * FRAME,
        frames_lost=6, datagrams_received=102, datagrams_dropped_by_kernel=1,
    )  # fmt: skip
    account = Account("udp", sent, ledger, span=100)
    assert account.checks() == dict.fromkeys(account.checks(), True)
    assert (account.kernel_frames, account.kernel_bytes) == (1, FRAME)
    assert not Account("udp", sent, replace(ledger, datagrams_dropped_by_kernel=0), span=100).closes
    assert not Account("udp", sent, replace(ledger, datagrams_dropped_by_kernel=2), span=100).closes


def test_the_demo_closes(tmp_path):
    done = tapeline("demo", "--frames", 3000, "--seed", 5, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stdout
    assert "every frame and byte is accounted for" in done.stdout
    assert (tmp_path / "run" / "recording.json").is_file()


def test_the_demo_as_json_leaves_nothing_behind(tmp_path):
    done = tapeline("demo", "--frames", 500, "--json", env={"TMPDIR": str(tmp_path)})
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert result["closes"] is True
    assert {name: stream["transport"] for name, stream in result["streams"].items()} == {
        "ch0": "tcp",
        "ch1": "tcp",
        "ch2": "udp",
        "ch3": "udp",
    }
    assert list(tmp_path.iterdir()) == []
