"""The register server as a recorder runs it: clients, queries, durability, images, crashes."""

import contextlib
import itertools
import json
import os
import random
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from tests.system._processes import COMMAND, ENVIRONMENT
from tests.system._processes import tapeline as command

import tapeline
from _support.register_server import connect, receive, segments, stored, synced, wait_until
from _twins.frames import crc32c
from tapeline import wire

# The full figure is 10,000 (benches/bench_registers.py).
HOSTILE = int(os.environ.get("TAPELINE_HOSTILE_CONNECTIONS", "300"))


def config(out, *, url="tcp://127.0.0.1:0?wire=packet", **settings):
    return {"out": str(out), "streams": {"rack": {"url": url, **settings}}}


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
        with contextlib.suppress(BlockingIOError):
            while bad.send(query * 1000):
                pass
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
        ask = {"cmd": wire.Command.QUERY, "src_id": 5, "type": 2}
        client.sendall(b"".join(wire.encode_packet(**ask, seq=n % 256) for n in range(count)))
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


def test_a_client_that_dribbles_holds_up_nobody(tmp_path):
    """A byte of it for each thousand packets of another one, and a third that says nothing at all."""
    slow_packet = wire.encode_packet(range(10), range(10), src_id=9, type=2)
    with (
        tapeline.Recorder(config(tmp_path)) as recorder,
        connect(recorder) as slow,
        connect(recorder),
        connect(recorder) as quick,
    ):
        sent = b""
        for n, byte in enumerate(slow_packet):
            slow.sendall(bytes([byte]))
            part = b"".join(packets(n, 1000))
            quick.sendall(part)
            synced(quick)
            sent += part + wire.encode_packet(cmd=4, seq=9)
        synced(slow)
    ledger = recorder.ledger()["rack"]
    assert not ledger.broken_laws()
    assert not ledger.lost_anything
    log = stored(tmp_path)
    place = log.index(slow_packet)
    assert log[:place] + log[place + len(slow_packet) :] == sent + wire.encode_packet(cmd=4, seq=9)


def test_a_silent_client_is_closed_when_that_is_asked_for(tmp_path):
    started = tapeline.Recorder(config(tmp_path, idle_timeout_seconds=0.5))
    with started as recorder, connect(recorder) as silent, connect(recorder) as half:
        half.sendall(wire.encode_packet([1], [1])[:9])
        assert silent.recv(1) == half.recv(1) == b""
    ledger = recorder.ledger()["rack"]
    assert (ledger.clients_closed.idle, ledger.bytes_discarded, ledger.packets_invalid.truncated) == (2, 9, 1)
    assert not ledger.broken_laws()


def hostile(kind, connection):
    """What a bad client sends; whether it stays."""
    good = wire.encode_packet(range(100), range(100), src_id=200, type=3)
    what = {
        "nothing": b"",
        "garbage": random.Random(7).randbytes(3000),
        "oversize": struct.pack("<I", 0xFFFF_FFFF) + good,
        "small": good + struct.pack("<I", 3),
        "half": good[:50],
        "byte": b"\x15",
        "count": good[:17] + struct.pack("<I", 1 << 31) + good[21:],
        "unread": wire.encode_packet(cmd=wire.Command.QUERY, src_id=1, type=2) * 100,
    }[kind]
    with contextlib.suppress(OSError):
        connection.sendall(what)
    return kind in {"half", "byte", "unread", "nothing"}


def test_hostile_connections_cost_a_good_client_nothing(tmp_path):
    """Garbage, half packets, impossible lengths, slow and silent clients, while one client sends and asks."""
    kinds = itertools.cycle(["nothing", "garbage", "oversize", "small", "half", "byte", "count", "unread"])
    with (
        tapeline.Recorder(config(tmp_path)) as recorder,
        connect(recorder) as good,
        contextlib.ExitStack() as kept,
    ):
        sent, staying = b"", 0
        for n in range(HOSTILE):
            bad = connect(recorder)
            if hostile(next(kinds), bad) and staying < 900:
                kept.enter_context(bad)
                staying += 1
            else:
                bad.close()
            part = b"".join(packets(n, 20))
            good.sendall(part)
            sent += part
            if n % 10 == 0:
                synced(good)
                sent += wire.encode_packet(cmd=4, seq=9)
        synced(good)
        sent += wire.encode_packet(cmd=4, seq=9)
    ledger = recorder.ledger()["rack"]
    assert not ledger.broken_laws()
    assert ledger.clients_accepted + ledger.clients_refused == HOSTILE + 1
    assert ledger.clients_accepted == sum(ledger.as_dict()["clients_closed"].values())
    assert ledger.framing_lost == ledger.clients_closed.framing_lost
    mine = [bytes(p) for p in wire.PacketDecoder().feed(stored(tmp_path)) if p.src_id != 200 and p.cmd != 2]
    assert b"".join(mine) == sent
    events = json.loads((tmp_path / "recording.json").read_text())["events"]
    told = [e["text"] for e in events if e["kind"] == "framing_lost"]
    assert 0 < len(told) <= 32
    assert any("length is 4294967295, must be at most" in text for text in told)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "version", "ahead"])
def test_without_a_usable_image_file_the_log_gives_the_image_and_no_sequence_is_counted_twice(tmp_path, damage):
    first = b"".join(packets(1, 400)) + b"".join(packets(2, 400, src_id=2))
    with tapeline.Recorder(config(tmp_path, rotate_bytes=5000)) as recorder, connect(recorder) as client:
        client.sendall(first)
        synced(client)
    file = tmp_path / "rack" / "image.bin"
    before, content = wire.RegisterImage.load(file), bytearray(file.read_bytes())
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[:-100])
    elif damage == "flipped":
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    elif damage == "empty":
        file.touch()
    elif damage == "version":
        content[8:12] = struct.pack("<I", 2)
        file.write_bytes(content)
    elif damage == "ahead":  # the place in the log that it stands for is one that is not there
        content[32:40] = struct.pack("<Q", 1_000)
        content[12:16] = struct.pack("<I", crc32c(bytes(content[16:])))
        file.write_bytes(content)
    with tapeline.Recorder(config(tmp_path)) as recorder, connect(recorder) as client:
        client.sendall(wire.encode_packet([1], [1], src_id=3, type=2))
        for source in (1, 2):
            client.sendall(wire.encode_packet(cmd=wire.Command.QUERY, src_id=source, type=2))
            assert receive(client)[0].registers == before.registers(2, source)
    ledger = recorder.ledger()["rack"]
    assert (ledger.gaps, ledger.packets_duplicate, ledger.packets_reordered) == (0, 0, 0)
    assert tapeline.open_recording(tmp_path).verify().ok


def test_keyframes_after_a_restart_carry_on_the_sequence(tmp_path):
    parts = [wire.encode_packet([7], [n], timestamp_us=n, src_id=1, type=2, seq=n) for n in range(60)]
    for some in (parts[:50], parts[50:]):
        with tapeline.Recorder(config(tmp_path)) as recorder, connect(recorder) as client:
            client.sendall(b"".join(some))
            synced(client)
    entry = segments(tmp_path)[1]
    data = (tmp_path / "rack" / entry["name"]).read_bytes()[: entry["keyframe_bytes"]]
    [keyframe] = wire.PacketDecoder().feed(data)
    assert (keyframe.cmd, keyframe.seq, keyframe.registers) == (wire.Command.FULL, 49, [(7, 49)])
    image = tapeline.image_at(tmp_path, None)
    assert image.as_dict()["sources"] == [{"type": 2, "src_id": 1, "registers": [[7, 59]]}]


def test_datagrams_that_are_no_whole_packets_are_counted(tmp_path):
    good = wire.encode_packet([1, 2], [3, 4], src_id=1, type=2)
    unknown = bytearray(good)
    unknown[13] = 9
    datagrams = [good, good * 3, good[:-1], good + good[:10], bytes(unknown) + good, b"\0" * 30, good]
    with tapeline.Recorder(config(tmp_path, url="udp://127.0.0.1:0?wire=packet")) as recorder:
        host, port = recorder.status().streams["rack"].addresses[0].removeprefix("udp://").rsplit(":", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for datagram in datagrams:
                sender.sendto(datagram, (host, int(port)))
        wait_until(lambda: recorder.ledger()["rack"].datagrams_received == len(datagrams))
    ledger = recorder.ledger()["rack"]
    assert not ledger.broken_laws()
    assert (ledger.packets_stored, ledger.packets_invalid.truncated, ledger.packets_invalid.unknown_command) == (
        7,
        2,
        1,
    )
    assert (ledger.framing_lost, ledger.bytes_discarded) == (1, len(good) - 1 + 10 + 30)
    assert stored(tmp_path) == good * 7


def test_a_gap_between_datagrams_is_a_loss_and_one_on_a_connection_is_not(tmp_path):
    parts = [wire.encode_packet([1], [n], src_id=1, type=2, seq=n) for n in (0, 1, 5)]
    udp = tapeline.Recorder(config(tmp_path / "udp", url="udp://127.0.0.1:0?wire=packet"))
    with udp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        host, port = udp.status().streams["rack"].addresses[0].removeprefix("udp://").rsplit(":", 1)
        for part in parts:
            sender.sendto(part, (host, int(port)))
        wait_until(lambda: udp.ledger()["rack"].datagrams_received == len(parts))
    with tapeline.Recorder(config(tmp_path / "tcp")) as tcp, connect(tcp) as client:
        client.sendall(b"".join(parts))
        synced(client)
    for recorder, lost in ((udp, True), (tcp, False)):
        ledger = recorder.ledger()["rack"]
        assert (ledger.gaps, ledger.packets_lost) == (1, 3)
        assert ledger.lost_anything == recorder.summary()["lost_anything"] == lost


def test_standard_input_and_a_file_are_read_to_their_end(tmp_path):
    sent = b"".join(packets(4, 500))
    (tmp_path / "in.pkt").write_bytes(sent)
    for name, url in (("stdin", "-?wire=packet"), ("file", f"file://{tmp_path / 'in.pkt'}?wire=packet")):
        words = [*COMMAND, "record", "--stream", f"rack={url}", "--out", str(tmp_path / name), "--json"]
        done = subprocess.run(words, input=sent, capture_output=True, env=ENVIRONMENT, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        ledger = json.loads(done.stdout)["streams"]["rack"]["ledger"]
        assert ledger["packets_stored"] == 500
        assert stored(tmp_path / name) == sent


def test_a_running_recorder_is_queried_from_the_command_line(tmp_path):
    with tapeline.Recorder(config(tmp_path)) as recorder, connect(recorder) as client:
        client.sendall(wire.encode_packet([4096, 4097, 5], [1, 2, 3], timestamp_us=7, src_id=1, type=2))
        synced(client)
        host, port = client.getpeername()
        ask = ("registers", "query", f"{host}:{port}", "--type", "rack", "--src-id", "1", "--json")
        some, everything = command(*ask, 4097, 4096, 9), command(*ask)
        nothing = command("registers", "query", f"{host}:{port}", "--type", "sbmu", "--src-id", "1")
    assert (some.returncode, everything.returncode, nothing.returncode) == (0, 0, 1)
    found = [json.loads(r.stdout)["sources"][0]["registers"] for r in (some, everything)]
    assert [sorted(f) for f in found] == [[[4096, 1], [4097, 2]], [[5, 3], [4096, 1], [4097, 2]]]


def test_a_thousand_slow_clients_hold_up_nobody(tmp_path):
    """With 1,024 connections: one works while the others send a byte in its whole life, or never read a reply."""
    every = wire.encode_packet(range(9_000), range(9_000), src_id=5, type=2, cmd=1)
    asks = wire.encode_packet(cmd=wire.Command.QUERY, src_id=5, type=2) * 30
    cut = wire.encode_packet(range(10), range(10), src_id=9, type=2)
    with tapeline.Recorder(config(tmp_path, max_buffer_bytes=65_536)) as recorder, connect(recorder) as good:
        good.sendall(every)
        synced(good)
        slow = [connect(recorder) for _ in range(1023)]
        for client in slow[::2]:
            client.sendall(cut[:1])
        deaf = slow[1::2]
        for client in deaf:
            client.sendall(asks)
        sent = [b"".join(packets(n, 2_000)) for n in range(20)]
        for n, part in enumerate(sent):
            good.sendall(part)
            synced(good)
            for client in slow[::2][n * 25 : n * 25 + 25]:
                client.sendall(cut[1:2])
        wait_until(lambda: recorder.ledger()["rack"].queries == 30 * len(deaf))
        assert recorder.ledger()["rack"].clients_accepted == 1024
        for client in slow:
            client.close()
        good.sendall(wire.encode_packet(cmd=wire.Command.QUERY, src_id=1, type=2))
        assert receive(good)[0].registers == image_of(b"".join(sent)).registers(2, 1)
    ledger = recorder.ledger()["rack"]
    assert not ledger.broken_laws()
    assert ledger.packets_stored == 1 + 21 + 40_000 + 30 * len(deaf) + 1
    assert not ledger.packets_refused
