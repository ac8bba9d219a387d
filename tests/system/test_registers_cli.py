"""`registers`, `info`, `cat` and `verify` on register recordings, through the command line."""

import csv
import json
import socket
import struct
import threading

import pytest

from _support.registers import REPLY, T0, Log, Packet, rows_of
from tapeline.cli.main import main


@pytest.fixture
def sent():
    return [Packet(T0 + 1_000_000 * n, seq=n, registers=((n, n), (100, n))) for n in range(30)]


@pytest.fixture
def run(tmp_path, sent):
    root = tmp_path / "run"
    root.mkdir()
    log = Log(root / "rack")
    for start in (0, 10, 20):
        log.write(sent[start : start + 10])
    return log.manifest(root)


def answer(capsys, *words):
    code = main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_image_at_a_moment(run, capsys):
    code, newest = answer(capsys, "registers", "image", run)
    assert code == 0
    assert newest == {"sources": [{"type": 2, "src_id": 1, "registers": [[n, n] for n in range(30)] + [[100, 29]]}]}
    for at in (T0 + 5_000_000, "2026-09-21T14:13:25Z", (T0 + 5_000_000) / 1e6):
        _, then = answer(capsys, "registers", "image", run, "--at", at)
        assert then["sources"][0]["registers"] == [[n, n] for n in range(6)] + [[100, 5]]


def test_image_for_people(run, capsys):
    assert main(["registers", "image", str(run), "--at", str(T0)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["rack", "1", "100", "0"]


def test_history(run, capsys):
    code, facts = answer(capsys, "registers", "history", run, "--type", "rack", "--src-id", 1, "--offset", 100)
    assert code == 0
    assert facts["changes"] == [[T0 + 1_000_000 * n, n] for n in range(30)]
    assert answer(capsys, "registers", "history", run, "2", "1", "100")[1] == facts


def test_cat_prints_packets_or_rows(run, sent, capsys):
    assert main(["cat", str(run), "--limit", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "rack 2026-09-21T14:13:21.000000Z DIFF RACK 1 seq 1 2 registers"
    assert main(["cat", str(run), "--rows", "--json"]) == 0
    lines = [tuple(json.loads(line).values()) for line in capsys.readouterr().out.splitlines()]
    assert lines == rows_of(sent)
    assert main(["cat", str(run), "--rows", "--format", "csv", "--start", str(T0 + 28_000_000)]) == 0
    header, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert header[0] == "timestamp_us"
    assert [tuple(map(int, row)) for row in rows] == rows_of(sent[28:])


def test_info_and_verify(run, capsys):
    code, facts = answer(capsys, "info", run)
    one = facts["streams"]["rack"]
    assert (code, facts["complete"], one["packets"], one["registers"], one["segments"]) == (0, True, 30, 60, 3)
    assert one["sources"] == [{"type": "RACK", "src_id": 1}]
    assert answer(capsys, "verify", run)[0] == 0
    (log, *_) = sorted((run / "rack").glob("*.pkt"))
    log.write_bytes(log.read_bytes()[:-1])
    code, report = answer(capsys, "verify", run)
    assert (code, report["ok"]) == (1, False)


def test_query_and_watch_ask_a_server(capsys):
    values = iter([7, 7, 8])

    def serve(listener):
        for value in values:
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(21, socket.MSG_WAITALL)
                connection.recv(4 * struct.unpack_from("<I", head, 17)[0], socket.MSG_WAITALL)
                connection.sendall(Packet(T0, src_id=3, cmd=REPLY, registers=((9, value),)).data())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        code, image = answer(capsys, "registers", "query", address, "--type", "rack", "--src-id", 3, 9)
        assert (code, image["sources"][0]["registers"]) == (0, [[9, 7]])
        words = ["registers", "watch", address, "--type", "2", "--src-id", "3", "9", "--count", "2"]
        assert main([*words, "--interval", "1ms", "--json"]) == 0
        thread.join()
    assert [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()] == [7, 8]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["registers", "image", ".", "--at", "soon"], "--at soon: expected ISO 8601"),
        (["registers", "history", ".", "rock", "1", "1"], "not a source type"),
        (["registers", "history", "."], "--type, --src-id and --offset are needed"),
        (["registers", "query", "nowhere", "--type", "1", "--src-id", "1"], "expected HOST:PORT"),
    ],
)
def test_wrong_usage(words, says, capsys):
    assert main(words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("wire", ["packet", "simple"])
def test_replay_sends_the_keyframe_of_the_oldest_log_and_then_every_packet(tmp_path, capsys, wire):
    packets = [Packet(T0 + 1000 * n, seq=n, registers=((n, n), (100, n))) for n in range(60)]
    root = tmp_path / "run"
    root.mkdir()
    log = Log(root / "rack", wire=wire)
    for start in (0, 20, 40):
        log.write(packets[start : start + 20])
    log.manifest(root)
    # the oldest segment was evicted
    log.path(0).unlink()
    copy = tmp_path / "copy.bin"
    code, summary = answer(capsys, "replay", root, "--to", f"file://{copy}", "--speed", "max")
    assert code == 0
    keyframe = log.path(1).read_bytes()[: log.segments[1]["keyframe_bytes"]]
    assert len(keyframe) > 0
    assert copy.read_bytes() == keyframe + b"".join(p.bytes(wire) for p in packets[20:])
    assert summary["streams"][0]["frames_sent"] == 41
    assert summary["streams"][0]["bytes_skipped"] == 0


def test_replay_keeps_the_pace_of_the_producer(tmp_path, capsys):
    packets = [Packet(T0 + 20_000 * n, seq=n, registers=((n, n),)) for n in range(10)]
    (tmp_path / "run").mkdir()
    log = Log(tmp_path / "run" / "rack")
    log.write(packets[:5])
    log.write(packets[5:])
    log.manifest(tmp_path / "run")
    _, summary = answer(capsys, "replay", tmp_path / "run", "--to", f"file://{tmp_path / 'copy'}", "--speed", "2")
    assert summary["elapsed_s"] >= 0.09
    assert summary["streams"][0]["frames_sent"] == 10
