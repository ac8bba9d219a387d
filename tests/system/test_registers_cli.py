"""`registers`, `info`, `cat` and `verify` on register recordings, through the command line."""

import csv
import json

import pyarrow.parquet as pq
import pytest

import tapeline
from _support.register_server import answering, connect, receive
from _support.registers import REPLY, T0, Log, Packet, rows_of
from tapeline import wire
from tapeline.cli.main import main
from tapeline.registers import scan_schema

WIRES = {"pkt": "packet", "spkt": "simple"}


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


def test_registers_asked_for_are_none_that_were_sent(tmp_path, capsys):
    """A QUERY is logged and has rows as any packet, but sets nothing: ledger, info and verify agree on that."""
    config = {"out": str(tmp_path), "streams": {"rack": {"url": "tcp://127.0.0.1:0?wire=packet", "sinks": ["parquet"]}}}
    with tapeline.Recorder(config) as recorder, connect(recorder) as client:
        client.sendall(wire.encode_packet([1, 2], [3, 4], src_id=1, type=2))
        client.sendall(wire.encode_packet([1, 2, 5], cmd=wire.Command.QUERY, src_id=1, type=2))
        assert receive(client)[0].registers == [(1, 3), (2, 4)]
    assert recorder.ledger()["rack"].registers_received == 2
    assert answer(capsys, "verify", tmp_path) == (0, {"ok": True, "frames": 2, "bytes": 62, "segments": 1,
                                                      "problems": []})  # fmt: skip
    assert answer(capsys, "info", tmp_path)[1]["streams"]["rack"]["registers"] == 2


def test_head_and_tail_print_rows_of_a_recording_or_a_log(run, sent, capfd):
    last = max((run / "rack").glob("*.pkt"))
    rows = [pair for packet in sent for pair in packet.registers]
    for words, expected in (
        (["head", run, "-n", "3"], rows[:3]),
        (["tail", run, "-n", "3"], rows[-3:]),
        (["tail", run, "-n", "25"], rows[-25:]),
        (["tail", run, "-n", "100"], rows),
        (["tail", run, "-n", "0"], []),
        (["head", last, "-n", "2"], rows[40:42]),
        (["tail", last, "-n", "1000"], rows[40:]),
        (["head", run, "--stream", "rack"], rows[:10]),
    ):
        assert main([*map(str, words), "--columns", "offset,value", "--csv"]) == 0
        header, *lines = csv.reader(capfd.readouterr().out.splitlines())
        assert header == ["offset", "value"]
        assert [tuple(map(int, line)) for line in lines] == expected
    assert main(["head", str(run), "--stream", "ch0"]) == 2
    assert "no stream 'ch0'" in capfd.readouterr().err


def test_a_log_that_was_cut_is_told_by_every_command(run, capfd):
    log = max((run / "rack").glob("*.pkt"))
    log.write_bytes(log.read_bytes()[:-1])
    said = f"{log}: no packet at byte {log.stat().st_size - 28}: not whole, 28 bytes are there"
    for words in (["cat", run], ["tail", run]):
        assert main([*map(str, words)]) == 1
        out, err = capfd.readouterr()
        assert out.count("\n") >= 1
        assert said in err
    assert main(["info", str(log), "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    (one,) = facts["streams"].values()
    assert (one["packets"], one["damage"]) == (9, said)
    log.rename(f"{log}.part")  # still being written: nothing is wrong
    assert main(["cat", f"{log}.part"]) == 0
    assert capfd.readouterr().out.count("\n") == 9


@pytest.mark.parametrize("damage", ["value", "length", "cut"])
def test_convert_stops_at_damage_or_leaves_its_block_out(tmp_path, run, sent, damage, capsys):
    """No checksum is in the packets: those of the index tell."""
    log = sorted((run / "rack").glob("*.pkt"))[1]
    data = bytearray(log.read_bytes())
    (block, *_) = [
        b for b in tapeline.open_recording(run).streams["rack"].logs[1].blocks().to_pylist() if not b["keyframe"]
    ]
    start, length = block["offset"], block["length"]
    match damage:
        case "value":
            data[start + 40] ^= 1
        case "length":
            data[start : start + 4] = b"\xff" * 4
        case "cut":
            del data[-1:]
    log.write_bytes(data)
    out = tmp_path / "out.parquet"
    assert main(["convert", str(run), str(out)]) == 1
    assert "--skip-damage" in capsys.readouterr().err
    assert not out.exists()
    code, report = answer(capsys, "convert", run, out, "--skip-damage")
    # blocks of the index hold eight packets here, the last one two; that of a log which ends too early is none
    lost = sent[18:20] if damage == "cut" else sent[10:18]
    assert (code, report["complete"]) == (3, False)
    kept = [packet for packet in sent if packet not in lost]
    if damage == "cut":
        kept, length = [packet for packet in sent if packet is not sent[19]], 28
    assert report["bytes_skipped"] == length
    assert pq.read_table(out)["value"].to_pylist() == [row[-1] for row in rows_of(kept)]


@pytest.mark.parametrize("end", ["parquet", "bcsv", "csv", "jsonl", "arrow"])
@pytest.mark.parametrize("extension", ["pkt", "spkt"])
def test_a_log_without_packets_becomes_a_table_without_rows(tmp_path, extension, end, capsys):
    (tmp_path / f"rack.{extension}").touch()
    code, report = answer(capsys, "convert", tmp_path / f"rack.{extension}", tmp_path / f"out.{end}")
    assert (code, report["rows"], report["complete"]) == (0, 0, True)
    assert [column["name"] for column in report["columns"]] == scan_schema(WIRES[extension]).names


def test_query_and_watch_ask_a_server(capsys):
    replies = [Packet(T0, src_id=3, cmd=REPLY, registers=((9, value),)).data() for value in (7, 7, 8)]
    with answering(replies) as address:
        code, image = answer(capsys, "registers", "query", address, "--type", "rack", "--src-id", 3, 9)
        assert (code, image["sources"][0]["registers"]) == (0, [[9, 7]])
        words = ["registers", "watch", address, "--type", "2", "--src-id", "3", "9", "--count", "2"]
        assert main([*words, "--interval", "1ms", "--json"]) == 0
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
