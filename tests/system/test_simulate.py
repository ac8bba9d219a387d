"""`tapeline simulate radar` as a process: its account against the bytes it sent and against the recorder."""

import json
import signal
import socket
import subprocess

import pytest
from tests.system._processes import COMMAND, ENVIRONMENT, Running, tapeline
from tests.system._sending import Receiver, ledger_of, recorded, summary

from tapeline import wire
from tapeline.simulate import simulate_radar

FAULTS = ["--drop", 0.02, "--duplicate", 0.02, "--reorder", 0.02, "--corrupt", 0.02, "--garbage", 0.02]
URLS = [f"ch{i}=tcp://127.0.0.1:0" for i in range(4)]


def differences(expected, ledger):
    """Fields in which a ledger differs from what the producer expects."""
    found = ledger.as_dict()
    return {name: (value, found[name]) for name, value in expected.items() if found[name] != value}


def decode(data):
    decoder = wire.FrameDecoder()
    frames = decoder.feed(data) + decoder.finish()
    return frames, decoder.ledger


def test_a_decoder_finds_exactly_what_the_account_expects():
    with Receiver() as receiver:
        done = tapeline("simulate", "radar", "--to", receiver.url, "--frames", 3000, *FAULTS, "--seed", 5, "--json")
    assert done.returncode == 0, done.stderr
    truth = json.loads(done.stdout)
    frames, ledger = decode(receiver.data)
    assert truth["total"]["bytes_sent"] == len(receiver.data)
    assert differences(truth["total"]["expected"], ledger) == {}
    assert {frame.stream_id for frame in frames} == {0, 1, 2, 3}
    assert all(truth["total"][f"frames_{fault}"] > 0 for fault in ("dropped", "duplicated", "reordered", "corrupted"))


def test_the_recorder_agrees_exactly_over_four_connections(tmp_path):
    streams = [word for url in URLS for word in ("--stream", url)]
    with Running("record", *streams, "--out", tmp_path / "run", "--json") as run:
        urls = ["tcp://{}:{}".format(*run.address(f"ch{i}", "tcp")) for i in range(4)]
        sent = tapeline("simulate", "radar", "--to", *urls, "--frames", 2000, *FAULTS, "--json")
        run.signal(signal.SIGTERM)
        _, out = run.finish()
    truth = json.loads(sent.stdout)
    assert sent.returncode == 0, sent.stderr
    assert [s["url"] for s in truth["streams"]] == urls
    for stream in truth["streams"]:
        assert differences(stream["expected"], ledger_of(out, stream["name"])) == {}
        assert len(recorded(tmp_path / "run", stream["name"])) == stream["expected"]["bytes_stored"]


def test_udp_differs_only_by_what_the_kernel_dropped(tmp_path):
    with Running("record", "--stream", "ch0=udp://127.0.0.1:0", "--out", tmp_path / "run", "--json") as run:
        url = "udp://{}:{}".format(*run.address("ch0", "udp"))
        sent = tapeline("simulate", "radar", "--to", url, "--frames", 3000, "--streams", 1, "--rate", 10000, "--json")
        run.signal(signal.SIGTERM)
        _, out = run.finish()
    truth = json.loads(sent.stdout)["destinations"][0]
    ledger = ledger_of(out)
    assert truth["datagrams_sent"] == ledger.datagrams_received + ledger.datagrams_dropped_by_kernel
    assert ledger.frames_received == truth["frames_sent"] - ledger.datagrams_dropped_by_kernel
    assert summary(out)["ch0"]["files"]


def test_a_file_and_standard_output_hold_the_same_frames(tmp_path):
    path = tmp_path / "capture.dat"
    common = {"frames": 50, "streams": 2, "payload_bytes": 100, "seed": 3, "start_ns": 10**18}
    truth = simulate_radar(f"file://{path}", **common)
    frames, ledger = decode(path.read_bytes())
    assert differences(truth["total"]["expected"], ledger) == {}
    assert frames[0].timestamp_ns == 10**18
    words = ["simulate", "radar", "--to", "-", "--frames", "7", "--streams", "1"]
    done = subprocess.run([*COMMAND, *words], capture_output=True, check=True, env=ENVIRONMENT, timeout=60)
    assert [frame.sequence for frame in decode(done.stdout)[0]] == list(range(7))
    again = tmp_path / "again.dat"
    simulate_radar(f"file://{again}", **common)
    assert again.read_bytes() == path.read_bytes()


def test_periodics_are_marked():
    with Receiver() as receiver:
        simulate_radar(receiver.url, frames=20, streams=1, periodic=5)
    flags = [frame.flags for frame in decode(receiver.data)[0]]
    assert flags == [1, 0, 0, 0, 2] * 4


def test_a_signal_ends_it_with_an_account_of_what_was_sent():
    with Receiver() as receiver:
        words = ["simulate", "radar", "--to", receiver.url, "--frames", 10**9, "--rate", 1000, "--json"]
        with Running(*words) as run:
            assert receiver.some.wait(30)
            run.signal(signal.SIGTERM)
            code, out = run.finish()
    assert code == 0
    truth = json.loads(out)
    assert differences(truth["total"]["expected"], decode(receiver.data)[1]) == {}


def test_the_table_is_for_people():
    with Receiver() as receiver:
        done = tapeline("simulate", "radar", "--to", receiver.url, "--frames", 10, "--streams", 1)
    assert done.returncode == 0
    assert "ch0" in done.stdout
    assert "total" in done.stdout


def test_nobody_listening_is_one_line_and_exit_code_1():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        words = ["simulate", "radar", "--to", url, "--connect-timeout", "0.1s", "--json"]
        done = tapeline(*words)
    assert done.returncode == 1
    assert url in done.stderr
    assert json.loads(done.stdout)["total"]["bytes_sent"] == 0


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--to", "nowhere"], "nowhere"),
        (["--to", "tcp://127.0.0.1:9", "--payload", "lots"], "--payload"),
        (["--to", "udp://127.0.0.1:9", "--payload", "64KiB"], "datagram"),
        (["--to", "tcp://127.0.0.1:9", "--drop", "2"], "--drop"),
        (["--to", "tcp://127.0.0.1:9", "tcp://127.0.0.1:8", "--streams", "1"], "streams"),
        ([], "--to"),
    ],
)
def test_wrong_options_are_exit_code_2_and_named(words, names):
    done = tapeline("simulate", "radar", *words)
    assert done.returncode == 2
    assert names in done.stderr
    assert done.stdout == ""


def test_help_shows_examples():
    done = tapeline("simulate", "radar", "--help")
    assert done.returncode == 0
    assert done.stdout.count("tapeline simulate radar --to") >= 2
