"""The register server as a recorder runs it: clients, queries, durability, images, crashes."""

import json
import random
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tapeline
from tapeline import wire


def config(out, *, url="tcp://127.0.0.1:0?wire=packet", **settings):
    return {"out": str(out), "streams": {"rack": {"url": url, **settings}}}


def connect(recorder):
    url = recorder.status().streams["rack"].addresses[0]
    host, port = url.removeprefix("tcp://").rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.settimeout(20)
    return connection


def receive(connection, count=1):
    decoder, packets = wire.PacketDecoder(), []
    while len(packets) < count:
        chunk = connection.recv(1 << 16)
        assert chunk, "closed"
        packets += decoder.feed(chunk)
    return packets


def synced(connection, seq=9):
    """Everything before on this connection is durable when this returns."""
    connection.sendall(wire.encode_packet(cmd=wire.Command.SYNC, seq=seq))
    [answer] = receive(connection)
    assert (answer.cmd, answer.seq) == (wire.Command.SYNCED, seq)


def wait_until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def packets(seed, count, src_id=1, registers=3):
    rng = random.Random(seed)
    for n in range(count):
        control = [rng.randrange(2000) for _ in range(registers)]
        data = [rng.randrange(65_536) for _ in range(registers)]
        cmd = wire.Command.FULL if n % 40 == 0 else wire.Command.DIFF
        yield wire.encode_packet(control, data, timestamp_us=1_000 + n, src_id=src_id, cmd=cmd, type=2, seq=n % 256)


def logs(out, extension=".pkt"):
    return sorted(p for p in (Path(out) / "rack").iterdir() if extension in p.suffixes)


def image_of(data):
    image = wire.RegisterImage()
    assert image.apply_bytes(data) == len(data)
    return image


def test_packets_are_logged_verbatim_in_order_and_the_image_is_theirs(tmp_path):
    sent = b"".join(packets(1, 500))
    with tapeline.Recorder(config(tmp_path)) as recorder, connect(recorder) as client:
        client.sendall(sent)
        synced(client)
        assert logs(tmp_path)[0].read_bytes().startswith(sent)
    ledger = recorder.ledger()["rack"]
    assert not ledger.broken_laws()
    assert (ledger.packets_received, ledger.packets_stored, ledger.syncs, ledger.synced) == (501, 501, 1, 1)
    [log] = logs(tmp_path)
    assert log.read_bytes() == sent + wire.encode_packet(cmd=4, seq=9)
    assert wire.RegisterImage.load(tmp_path / "rack" / "image.bin").digest() == image_of(sent).digest()
    entry = json.loads((tmp_path / "recording.json").read_text())["streams"]["rack"]
    assert entry["segments"][0]["packets"] == 501
    assert entry["ledger"] == ledger.as_dict()


def test_a_query_sees_what_came_before_it_on_its_connection(tmp_path):
    with tapeline.Recorder(config(tmp_path)) as recorder, connect(recorder) as client:
        for n in range(50):
            client.sendall(wire.encode_packet([7, 9], [n, n + 1], timestamp_us=n, src_id=3, type=1))
            client.sendall(wire.encode_packet([9, 8, 7], cmd=wire.Command.QUERY, src_id=3, type=1, seq=n))
            [reply] = receive(client)
            assert (reply.cmd, reply.type, reply.src_id, reply.seq) == (wire.Command.REPLY, 1, 3, n)
            assert reply.registers == [(9, n + 1), (7, n)]
            assert reply.timestamp_us == n
        client.sendall(wire.encode_packet(cmd=wire.Command.QUERY, src_id=3, type=1))
        assert receive(client)[0].registers == [(7, 49), (9, 50)]
        client.sendall(wire.encode_packet(cmd=wire.Command.QUERY, src_id=99, type=1))
        assert receive(client)[0].count == 0


def test_any_interleaving_of_clients_gives_the_image_of_the_log(tmp_path):
    streams = [b"".join(packets(n, 300, src_id=n)) for n in range(8)]
    rng = random.Random(5)
    with tapeline.Recorder(config(tmp_path)) as recorder:
        clients = [connect(recorder) for _ in streams]
        at = [0] * len(streams)
        while any(a < len(s) for a, s in zip(at, streams, strict=True)):
            n = rng.randrange(len(streams))
            size = rng.choice([1, 7, 30, 1000])
            clients[n].sendall(streams[n][at[n] : at[n] + size])
            at[n] = min(at[n] + size, len(streams[n]))
        for client in clients:
            client.close()
    ledger = recorder.ledger()["rack"]
    assert not ledger.broken_laws()
    assert ledger.packets_stored == 8 * 300
    assert not ledger.lost_anything
    [log] = logs(tmp_path)
    image = wire.RegisterImage.load(tmp_path / "rack" / "image.bin")
    assert image.digest() == image_of(log.read_bytes()).digest() == image_of(b"".join(streams)).digest()


def test_segments_are_rolled_and_each_stands_alone(tmp_path):
    sent = b"".join(packets(3, 3000))
    with tapeline.Recorder(config(tmp_path, rotate_bytes=20_000)) as recorder, connect(recorder) as client:
        client.sendall(sent)
        synced(client)
    entries = json.loads((tmp_path / "recording.json").read_text())["streams"]["rack"]["segments"]
    assert len(entries) >= len(sent) // 20_100
    received = b""
    for entry in entries:
        data = (tmp_path / "rack" / entry["name"]).read_bytes()
        assert entry["bytes"] == len(data)
        keyframes, rest = data[: entry["keyframe_bytes"]], data[entry["keyframe_bytes"] :]
        assert bool(keyframes) == bool(received)
        assert image_of(keyframes).digest() == image_of(received).digest()
        received += rest
        assert len(rest) <= 20_000 + 33 + 64
    assert received[: len(sent)] == sent
    index = tapeline.bcsv.read_table(tmp_path / "rack" / entries[1]["index"]["name"])
    assert index.column_names == [
        "offset", "length", "packets", "first_timestamp_us", "last_timestamp_us", "first_received_ns",
        "xxh64", "keyframe",
    ]  # fmt: skip
    assert index["keyframe"].to_pylist()[0] is True
    assert tapeline.open_recording(tmp_path).verify().ok


def test_a_client_that_loses_the_framing_loses_only_its_own_connection(tmp_path):
    good = wire.encode_packet([1], [2], src_id=1, type=2)
    with tapeline.Recorder(config(tmp_path)) as recorder, connect(recorder) as kept, connect(recorder) as lost:
        lost.sendall(good + b"\xff\xff\xff\xff" + good)
        assert lost.recv(1) == b""
        bad = bytearray(good)
        bad[13] = 77
        kept.sendall(bytes(bad) + good)
        synced(kept)
    ledger = recorder.ledger()["rack"]
    assert (ledger.packets_stored, ledger.framing_lost, ledger.clients_closed.framing_lost) == (3, 1, 1)
    assert ledger.packets_invalid.unknown_command == 1
    assert ledger.bytes_discarded == 4 + len(good)
    assert not ledger.broken_laws()
    assert logs(tmp_path)[0].read_bytes() == good + good + wire.encode_packet(cmd=4, seq=9)


def test_1024_clients_at_once_and_one_more_is_refused(tmp_path):
    with tapeline.Recorder(config(tmp_path)) as recorder:
        clients = [connect(recorder) for _ in range(1024)]
        for n, client in enumerate(clients):
            client.sendall(wire.encode_packet([n], [n], src_id=n % 256, type=n // 256))
        for client in clients[::100]:
            synced(client)
        with connect(recorder) as refused:
            assert refused.recv(1) == b""
        for client in clients:
            client.close()
    ledger = recorder.ledger()["rack"]
    assert ledger.clients_accepted == 1024
    assert ledger.clients_refused == 1
    assert ledger.packets_stored == 1024 + len(clients[::100])


def test_large_packets_in_small_pieces_and_from_half_dead_clients(tmp_path):
    big = wire.encode_packet(range(65_536), range(65_536), src_id=5, type=2, cmd=1)
    with tapeline.Recorder(config(tmp_path)) as recorder, connect(recorder) as slow, connect(recorder) as quick:
        for at in range(0, len(big), 9_999):
            slow.sendall(big[at : at + 9_999])
            quick.sendall(wire.encode_packet([at % 7], [1], src_id=6, type=2))
            synced(quick)
        slow.sendall(big[:100_000])
        synced(quick)
    ledger = recorder.ledger()["rack"]
    assert not ledger.broken_laws()
    assert ledger.packets_invalid.truncated == 1
    assert ledger.bytes_discarded == 100_000
    data = logs(tmp_path)[0].read_bytes()
    assert data.count(big) == 1
    assert len(image_of(data).registers(2, 5)) == 65_536


def test_a_client_that_never_reads_its_answers_is_closed_and_nobody_waits(tmp_path):
    every = wire.encode_packet(range(65_536), range(65_536), src_id=5, type=2, cmd=1)
    query = wire.encode_packet(cmd=wire.Command.QUERY, src_id=5, type=2)
    settings = {"max_buffer_bytes": 1 << 20, "idle_timeout_seconds": 1.5}
    with tapeline.Recorder(config(tmp_path, **settings)) as recorder, connect(recorder) as bad:
        bad.sendall(every)
        bad.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                bad.send(query * 1000)
        wait_until(lambda: recorder.ledger()["rack"].queries > 0)
        while not recorder.ledger()["rack"].clients_closed.not_reading:
            with connect(recorder) as good:
                good.sendall(query)
                assert receive(good)[0].count == 65_536
    ledger = recorder.ledger()["rack"]
    assert ledger.clients_closed.not_reading == 1
    assert ledger.queries > ledger.replies
    assert not ledger.broken_laws()


def test_queries_beyond_the_buffer_are_answered_when_there_is_room(tmp_path):
    every = wire.encode_packet(range(2000), range(2000), src_id=5, type=2, cmd=1)
    started = tapeline.Recorder(config(tmp_path, max_buffer_bytes=65_536))
    with started as recorder, connect(recorder) as client:
        client.sendall(every)
        count = 3000
        queries = b"".join(wire.encode_packet(cmd=wire.Command.QUERY, src_id=5, type=2, seq=n % 256) for n in range(count))
        client.sendall(queries)
        replies = receive(client, count)
        assert [r.seq for r in replies] == [n % 256 for n in range(count)]
        assert {r.count for r in replies} == {2000}
        synced(client)
    ledger = recorder.ledger()["rack"]
    assert (ledger.queries, ledger.replies) == (count, count)
    assert not ledger.lost_anything


def test_a_client_that_has_sent_everything_still_gets_its_answers(tmp_path):
    with tapeline.Recorder(config(tmp_path)) as recorder:
        for seq in range(20):
            with connect(recorder) as client:
                client.sendall(wire.encode_packet([1], [seq], src_id=1, type=2, seq=seq))
                client.sendall(wire.encode_packet(cmd=wire.Command.SYNC, seq=seq))
                client.shutdown(socket.SHUT_WR)
                [answer] = receive(client)
                assert (answer.cmd, answer.seq) == (wire.Command.SYNCED, seq)
                assert client.recv(1) == b""
    assert recorder.ledger()["rack"].clients_closed.ended == 20


def test_a_sync_that_ends_a_segment_is_answered(tmp_path):
    sync = wire.encode_packet(cmd=wire.Command.SYNC)
    settings = {"rotate_bytes": 4096}
    with tapeline.Recorder(config(tmp_path, **settings)) as recorder, connect(recorder) as client:
        for _ in range(600):  # so that some of them are the last of their segment
            client.sendall(sync)
            receive(client)
    assert recorder.ledger()["rack"].synced == 600
    assert len(logs(tmp_path)) > 2


def test_a_recording_goes_on_with_its_image(tmp_path):
    first, second = b"".join(packets(1, 100)), b"".join(packets(2, 30, src_id=2))
    for part in (first, second):
        with tapeline.Recorder(config(tmp_path)) as recorder, connect(recorder) as client:
            if part is second:
                client.sendall(wire.encode_packet(cmd=wire.Command.QUERY, src_id=1, type=2))
                assert receive(client)[0].registers == image_of(first).registers(2, 1)
            client.sendall(part)
            synced(client)
    assert wire.RegisterImage.load(tmp_path / "rack" / "image.bin").digest() == image_of(first + second).digest()
    assert tapeline.open_recording(tmp_path).verify().ok


@pytest.mark.parametrize("kind", ["file", "udp", "connect"])
def test_other_sources(tmp_path, kind):
    parts = list(packets(4, 200))
    listener = socket.create_server(("127.0.0.1", 0))
    capture = tmp_path / "in.pkt"
    capture.write_bytes(b"".join(parts))
    url = {
        "file": f"file://{capture}?wire=packet",
        "udp": "udp://127.0.0.1:0?wire=packet",
        "connect": f"tcp+connect://127.0.0.1:{listener.getsockname()[1]}?wire=packet",
    }[kind]
    out = tmp_path / "out"
    with listener, tapeline.Recorder(config(out, url=url)) as recorder:
        if kind == "connect":
            connection, _ = listener.accept()
            connection.sendall(b"".join(parts))
            connection.close()
        elif kind == "udp":
            host, port = recorder.status().streams["rack"].addresses[0].removeprefix("udp://").rsplit(":", 1)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for part in parts:
                    sender.sendto(part, (host, int(port)))
        wait_until(lambda: recorder.ledger()["rack"].packets_received >= 200)
    assert recorder.ledger()["rack"].packets_stored == 200
    assert logs(out)[0].read_bytes() == b"".join(parts)


def test_simple_packets(tmp_path):
    parts = [wire.encode_packet([n], [n], kind="simple", time=n / 2, rack=-n) for n in range(100)]
    started = tapeline.Recorder(config(tmp_path, url="tcp://127.0.0.1:0?wire=simple"))
    with started as recorder, connect(recorder) as client:
        client.sendall(b"".join(parts) + struct.pack("<diI", 0, 0, 65_537))
        assert client.recv(1) == b""
    ledger = recorder.ledger()["rack"]
    assert (ledger.packets_stored, ledger.framing_lost, ledger.bytes_discarded) == (100, 1, 16)
    assert logs(tmp_path, ".spkt")[0].read_bytes() == b"".join(parts)


_SERVE = """
import sys, tapeline
recorder = tapeline.Recorder({"out": sys.argv[1], "streams": {"rack": {
    "url": "tcp://127.0.0.1:0?wire=packet", "rotate_bytes": 60_000, "image_seconds": 0.05}}}).start()
print(recorder.status().streams["rack"].addresses[0], flush=True)
recorder.wait()
"""


@pytest.mark.parametrize("seed", range(3))
def test_after_kill_nothing_acknowledged_is_missing_and_the_image_is_that_of_the_log(tmp_path, seed):
    server = subprocess.Popen([sys.executable, "-c", _SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    host, port = server.stdout.readline().strip().removeprefix("tcp://").rsplit(":", 1)
    acknowledged = sent = b""
    sync = wire.encode_packet(cmd=wire.Command.SYNC)
    with socket.create_connection((host, int(port)), timeout=20) as client:
        for n in range(20):
            part = b"".join(packets(100 * seed + n, 300)) + sync
            client.sendall(part)
            sent += part
            if n < 15:
                receive(client)
                acknowledged = sent
        server.kill()
        server.wait()
    server.stdout.close()
    with tapeline.Recorder(config(tmp_path)) as recorder, connect(recorder) as client:
        client.sendall(wire.encode_packet(cmd=wire.Command.QUERY, src_id=1, type=2))
        [reply] = receive(client)
    entries = json.loads((tmp_path / "recording.json").read_text())["streams"]["rack"]["segments"]
    stored = b"".join(
        (tmp_path / "rack" / e["name"]).read_bytes()[e["keyframe_bytes"] :] for e in entries
    )  # fmt: skip
    query = wire.encode_packet(cmd=wire.Command.QUERY, src_id=1, type=2)
    stored = stored.removesuffix(query)
    assert stored.startswith(acknowledged)
    assert sent.startswith(stored)
    assert reply.registers == image_of(stored).registers(2, 1)
    ledger = tapeline.open_recording(tmp_path).streams["rack"].ledger
    assert ledger.packets_stored == len(wire.PacketDecoder().feed(stored)) + 1
    assert tapeline.open_recording(tmp_path).verify().ok
