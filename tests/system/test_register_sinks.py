"""Sinks under `tapeline record --config`: a process, a config file, signals, kills, and the command line afterwards."""

import json
import random
import re
import signal
import socket
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from tests.system._processes import Running
from tests.system._processes import tapeline as run

import tapeline
from tapeline import wire

CONFIG = """
out = "{out}"

[streams.rack]
url = "tcp://127.0.0.1:0?wire=packet"
rotate_bytes = "{rotate}"

[[streams.rack.sinks]]
kind = "parquet"

[[streams.rack.sinks]]
kind = "csv"
label = "dumps"
route = {{ cmd = ["full"] }}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "rack.toml"
    path.write_text(CONFIG.format(out=tmp_path / "run", rotate="20KB"))
    return path


def packets(seed, count, registers=8):
    rng = random.Random(seed)
    for n in range(count):
        control, data = ([rng.randrange(65_536) for _ in range(registers)] for _ in range(2))
        yield wire.encode_packet(control, data, timestamp_us=1_700_000_000_000_000 + n, src_id=n % 4, type=2,
                                 cmd=int(n % 20 == 0), seq=n // 4 % 256)  # fmt: skip


def synced(client):
    """Whatever was sent before is in the log."""
    client.sendall(wire.encode_packet(cmd=wire.Command.SYNC))
    decoder = wire.PacketDecoder()
    while not decoder.feed(client.recv(1 << 16)):
        pass


def connect(running):
    client = socket.create_connection(running.address("rack", "tcp"), timeout=30)
    client.settimeout(30)
    return client


def rows_of(data):
    return [
        (p.timestamp_us, p.type, p.src_id, p.cmd, p.seq, *pair)
        for p in wire.PacketDecoder().feed(data)
        if p.cmd < 2
        for pair in p.registers
    ]


def parquet_rows(directory):
    return parquet_rows_of(directory, "parquet")


def parquet_rows_of(directory, extension):
    names = ["UNKNOWN", "SBMU", "RACK", "RTOS"]
    table = pa.concat_tables([pq.read_table(path) for path in sorted(directory.glob(f"*Z.{extension}"))])
    columns = [table["timestamp_us"].cast(pa.int64()).to_pylist(), [names.index(n) for n in table["type"].to_pylist()]]
    return list(zip(*columns, *(table[n].to_pylist() for n in table.column_names[2:]), strict=True))


def csv_rows(directory):
    tables = [pc.read_csv(path) for path in sorted(directory.glob("*.dumps.csv"))]
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


def record(config, data, number=signal.SIGTERM):
    with Running("record", config, "--json") as running:
        with connect(running) as client:
            client.sendall(data)
            synced(client)
        running.signal(number)
        code, out = running.finish()
    return code, json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_every_table_is_there_and_holds_what_was_sent(tmp_path, config, number):
    data = b"".join(packets(1, 2_000))
    code, summary = record(config, data, number)
    assert code == 0
    directory = tmp_path / "run" / "rack"
    assert parquet_rows(directory) == rows_of(data)
    assert csv_rows(directory) == [row for row in rows_of(data) if row[3] == 1]
    assert not list(directory.glob("*.part"))
    [parquet, dumps] = summary["streams"]["rack"]["sinks"]
    assert (parquet["rows"], parquet["error"], dumps["name"], dumps["packets"]) == (16_000, None, "dumps.csv", 100)
    assert parquet["files"] == len(list(directory.glob("*.pkt"))) > 2
    listed = {Path(file).name for file in summary["streams"]["rack"]["files"]}
    assert listed == {
        p.name for p in directory.iterdir() if not p.name.endswith((".touch.bcsv", ".doubts.bcsv", "e.bin"))
    }


@pytest.mark.parametrize("seed", range(3))
def test_after_a_kill_the_next_start_makes_the_missing_tables(tmp_path, config, seed):
    parts = list(packets(seed, 3_000))
    data = b"".join(parts)
    with Running("record", config) as running, connect(running) as client:
        cut = len(parts[0]) * random.Random(seed).randrange(1_500, 3_000)
        client.sendall(data[:cut])
        synced(client)
        client.sendall(data[cut:])
        running.process.kill()
        running.process.wait()
    # nothing is sent to the next one
    with Running("record", config, "--json") as running:
        running.address("rack", "tcp")
        running.signal(signal.SIGTERM)
        code, out = running.finish()
    assert code in {0, 3}
    assert json.loads(out.splitlines()[-1])["streams"]["rack"]["sinks"][0]["error"] is None
    directory = tmp_path / "run" / "rack"
    stored = b"".join(
        segment.path.read_bytes()[segment.keyframe_bytes :]
        for segment in tapeline.open_recording(tmp_path / "run").streams["rack"].logs
    )
    sync = wire.encode_packet(cmd=wire.Command.SYNC)
    assert (data[:cut] + sync + data[cut:]).startswith(stored)
    assert len(stored) >= cut
    assert parquet_rows(directory) == rows_of(stored)
    assert csv_rows(directory) == [row for row in rows_of(stored) if row[3] == 1]
    assert len(list(directory.glob("*.parquet"))) == len(list(directory.glob("*.pkt")))
    assert not list(directory.glob("*.parquet.part"))


def test_a_table_that_a_kill_cut_short_is_replaced(tmp_path, config):
    data = b"".join(packets(5, 400))
    record(config, data)
    directory = tmp_path / "run" / "rack"
    victim = min(directory.glob("*.parquet"))
    victim.with_name(victim.name + ".part").write_bytes(victim.read_bytes()[:100])
    victim.unlink()
    code, _ = record(config, b"")
    assert code == 0
    assert parquet_rows(directory) == rows_of(data)
    assert not list(directory.glob("*.part"))


def test_the_commands_read_a_recording_with_sinks(tmp_path, config):
    data = b"".join(packets(7, 600))
    record(config, data)
    out, copy = tmp_path / "run", tmp_path / "copy"
    verified = run("verify", out, "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads(verified.stdout)["ok"]
    facts = run("info", out, "--json")
    assert facts.returncode == 0
    assert '"rack"' in facts.stdout
    printed = run("cat", out, "--rows", "--json")
    lines = [tuple(json.loads(line).values()) for line in printed.stdout.splitlines()]
    assert lines == rows_of(data)
    [log] = sorted((out / "rack").glob("*.pkt"))[:1]
    for extension in ("parquet", "csv", "bcsv", "jsonl"):
        target = tmp_path / f"one.{extension}"
        done = run("convert", log, target)
        assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "one.parquet").equals(pq.read_table(log.with_suffix(".parquet")))
    image = run("registers", "image", out, "--json")
    expected = wire.RegisterImage()
    expected.apply_bytes(data)
    assert json.loads(image.stdout) == _as_dict(expected)
    # sent again to a second recorder it makes the same rows
    config.write_text(CONFIG.format(out=copy, rotate="1MB"))
    with Running("record", config) as running:
        host, port = running.address("rack", "tcp")
        replayed = run("replay", out, "--to", f"tcp://{host}:{port}", "--speed", "max")
        assert replayed.returncode == 0, replayed.stderr
        running.signal(signal.SIGTERM)
        assert running.finish()[0] == 0
    assert parquet_rows(copy / "rack") == rows_of(data)


def _as_dict(image):
    return {
        "sources": [
            {"type": kind, "src_id": src_id, "registers": [list(pair) for pair in image.registers(kind, src_id)]}
            for kind, src_id in image.sources
        ]
    }


def test_forward_reconnects_to_a_recorder_that_was_restarted(tmp_path):
    far_config, near_config = tmp_path / "far.toml", tmp_path / "near.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    far_config.write_text(f'out = "{tmp_path}/far"\n[streams.rack]\nurl = "tcp://127.0.0.1:{port}?wire=packet"\n')
    near_config.write_text(
        f'out = "{tmp_path}/near"\n[streams.rack]\nurl = "tcp://127.0.0.1:0?wire=packet"\n'
        f'[[streams.rack.sinks]]\nkind = "forward"\nurl = "tcp://127.0.0.1:{port}"\n'
        "connect_backoff_seconds = [0.01, 0.05]\n"
    )
    first, second = b"".join(packets(1, 500)), b"".join(packets(2, 500))
    with Running("record", near_config, "--json") as near, connect(near) as client:
        # nobody listens yet: the log is the spool
        client.sendall(first)
        synced(client)
        for part in (b"", second):
            with Running("record", far_config, "--json") as far:
                far.address("rack", "tcp")
                client.sendall(part)
                synced(client)
                # the far side has everything once it has answered for the newest packet
                _await_newest(port, part or first)
                far.signal(signal.SIGTERM)
                assert far.finish()[0] == 0
        near.signal(signal.SIGTERM)
        code, out = near.finish()
    [sink] = json.loads(out.splitlines()[-1])["streams"]["rack"]["sinks"]
    assert sink["connects"] >= 2
    assert code in {0, 3}
    got = b"".join(path.read_bytes() for path in sorted((tmp_path / "far" / "rack").glob("*.pkt")))
    known = {
        p.bytes if hasattr(p, "bytes") else (p.timestamp_us, p.src_id, p.seq) for p in wire.PacketDecoder().feed(got)
    }
    sent = [
        p.bytes if hasattr(p, "bytes") else (p.timestamp_us, p.src_id, p.seq)
        for p in wire.PacketDecoder().feed(first + second)
    ]
    assert [p for p in sent if p not in known] == []


def test_the_configuration_of_the_manual_runs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "registers.md").read_text(encoding="utf-8")
    [text] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    far = tapeline.Recorder({"out": str(tmp_path / "far"), "streams": {"rack": "tcp://127.0.0.1:0?wire=packet"}})
    with far:
        url = far.status().streams["rack"].addresses[0]
        assert "tcp://127.0.0.1:9000" in text
        assert "tcp://127.0.0.1:9100" in text
        config = tmp_path / "rack.toml"
        config.write_text(
            text.replace("tcp://127.0.0.1:9000", "tcp://127.0.0.1:0")
            .replace("tcp://127.0.0.1:9100", url)
            .replace('out = "run"', f'out = "{tmp_path}/run"')
        )
        data = b"".join(packets(3, 500))
        code, summary = record(config, data)
    assert code == 0
    assert parquet_rows_of(tmp_path / "run" / "rack", "dumps.parquet") == [r for r in rows_of(data) if r[3] == 1]
    assert len(summary["streams"]["rack"]["sinks"]) == 3
    assert far.ledger()["rack"].packets_stored == 475


def _await_newest(port, data):
    """Ask the recorder at a port until it has the value that the last packet of some data set."""
    last = wire.PacketDecoder().feed(data)[-1]
    offset, value = last.registers[-1]
    tries = threading.Event()
    for _ in range(600):
        image = tapeline.registers.query("127.0.0.1", port, last.type, last.src_id, [offset])
        if image.get(last.type, last.src_id, offset) == value:
            return
        tries.wait(0.05)
    pytest.fail("the newest packet did not arrive")
