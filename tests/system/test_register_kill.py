"""`kill -9` and SIGTERM of a register server: what the kernel had is there, what was acknowledged is durable."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading

import pytest
from tests.system._processes import COMMAND, ENVIRONMENT, Running, tapeline

from _support.register_server import connect, receive, segments, stored
from _twins import registers as twin
from tapeline import wire
from tapeline.ledger import RegisterLedger

# A long campaign: TAPELINE_REGISTER_KILLS=200 (make kill).
KILLS = int(os.environ.get("TAPELINE_REGISTER_KILLS", "4"))
CLIENTS = 3
DIFF, FULL, QUERY, REPLY, SYNC, SYNCED = range(6)
RACK = 2


class Client(threading.Thread):
    """Sends packets of its own source and now and then a SYNC, until the connection breaks."""

    def __init__(self, address, number, chance, seq):
        super().__init__()
        self._address, self._seed = address, chance.random()
        self.number = number
        self.seq = seq
        self.sent = b""
        self.handed_over = 0
        self.acknowledged = 0
        self.some = threading.Event()

    def run(self):
        chance = random.Random(self._seed)
        with contextlib.suppress(OSError, AssertionError), connect(self._address) as connection:
            while True:
                part = b"".join(self._packet(chance) for _ in range(chance.randrange(1, 60)))
                sync = chance.random() < 0.3
                if sync:
                    part += wire.encode_packet(cmd=SYNC, src_id=self.number, type=RACK, seq=self.seq)
                self.sent += part
                connection.sendall(part)
                self.handed_over = len(self.sent)
                if sync:
                    [answer] = receive(connection)
                    assert (answer.cmd, answer.seq) == (SYNCED, self.seq)
                    self.acknowledged = len(self.sent)
                if self.handed_over > 20_000:
                    self.some.set()

    def _packet(self, chance):
        self.seq = (self.seq + 1) % 256
        count = chance.choice([0, 1, 3, 3, 40, 500])
        control = [chance.randrange(3000) for _ in range(count)]
        cmd = FULL if chance.random() < 0.05 else DIFF
        return wire.encode_packet(control, [c * 7 % 65_536 for c in control], timestamp_us=self.seq, seq=self.seq,
                                  src_id=self.number, type=RACK, cmd=cmd)  # fmt: skip


def record(directory, *words):
    url = "rack=tcp://127.0.0.1:0?wire=packet"
    return Running("record", "--stream", url, "--out", directory, "--json", *words)


def image_of(data):
    image = twin.Image()
    for packet in twin.Decoder("packet", data).packets:
        image.apply(packet)
    return image


def own(data, number):
    """A client's packets out of a log."""
    packets = twin.Decoder("packet", data).packets
    starts = [p["offset"] for p in packets] + [len(data)]
    whole = zip(packets, starts, starts[1:], strict=False)
    return b"".join(data[start:end] for p, start, end in whole if p["src_id"] == number)


def check_answers(address, image):
    """Every source, asked from a running server; the questions, which then are in the log."""
    asked = b""
    with connect(address) as connection:
        for number in range(CLIENTS):
            query = wire.encode_packet(cmd=QUERY, type=RACK, src_id=number)
            connection.sendall(query)
            asked += query
            [reply] = receive(connection)
            assert reply.registers == sorted(image.sources.get((RACK, number), {}).items())
        # A kill from now on finds the questions in the log; an answer alone does not promise that.
        sync = wire.encode_packet(cmd=SYNC, type=RACK, src_id=0)
        connection.sendall(sync)
        [answer] = receive(connection)
        assert answer.cmd == SYNCED
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    return asked + sync


def raw(directory):
    """Bytes of every log file, finished or not, by its name; with what was put aside of it."""
    found = {}
    for path in sorted(directory.glob("rack/*.pkt*")):  # the tail comes last
        name = path.name.removesuffix(".part").removesuffix(".tail")
        found[name] = found.get(name, b"") + path.read_bytes()
    return found


@pytest.mark.timeout(60 + 10 * KILLS)
def test_after_a_kill_nothing_passed_to_the_kernel_is_missing_and_the_image_goes_on(tmp_path):
    chance = random.Random(f"registers {KILLS}")
    for first in range(0, KILLS, 10):
        kill_again_and_again(tmp_path / f"run{first}", chance, min(10, KILLS - first))


def kill_again_and_again(directory, chance, kills):
    """Recorders in one directory, one after the other."""
    log, seqs = b"", [0] * CLIENTS
    for _ in range(kills):
        # Small segments: most kills come near a border, and so near keyframes.
        words = ("--set", f"rotate_bytes={chance.choice([5_000, 20_000, 100_000])}", "--set", "image_seconds=0.05")
        with record(directory, *words) as run:
            address = run.address("rack", "tcp")
            log += check_answers(address, image_of(log))
            clients = [Client(address, n, chance, seqs[n]) for n in range(CLIENTS)]
            for client in clients:
                client.start()
            assert clients[0].some.wait(30)
            reached = clients[1].handed_over + chance.randrange(300_000)
            while clients[1].handed_over < reached and clients[1].is_alive():
                clients[1].join(0.0005)
            run.process.kill()
            run.process.wait(30)
            for client in clients:
                client.join(30)
        before = raw(directory)
        repaired = tapeline("repair", directory)
        assert repaired.returncode in {0, 3}, repaired.stdout + repaired.stderr
        after, whole = raw(directory), stored(directory)
        check_files(directory, before, after)
        assert whole.startswith(log)
        fresh = whole[len(log) :]
        for client in clients:
            got = own(fresh, client.number)
            assert client.sent.startswith(got)
            assert len(got) >= client.acknowledged
            seqs[client.number] = client.seq
        log = whole
    with record(directory) as run:
        log += check_answers(run.address("rack", "tcp"), image_of(log))
        run.signal(signal.SIGTERM)
        code, _ = run.finish()
    assert code == 0
    check_end(directory, log)


def check_files(directory, before, after):
    """Recovery keeps every byte, but for segments that hold nothing yet but the recorder's own keyframes."""
    for name, was in before.items():
        if name in after:
            assert after[name] == was, name
        else:
            packets = twin.Decoder("packet", was).packets
            assert all(p["cmd"] == FULL for p in packets), name
            sources = [p["src_id"] for p in packets]
            assert sources == sorted(set(sources)), name
    assert not list(directory.rglob("*.pkt.part")) + list(directory.rglob("*.idx.bcsv.part"))


def check_end(directory, log):
    assert stored(directory) == log
    image = wire.RegisterImage.load(directory / "rack" / "image.bin")
    assert image.as_dict() == image_of(log).as_dict()
    manifest = json.loads((directory / "recording.json").read_text())
    ledger = RegisterLedger.from_dict(manifest["streams"]["rack"]["ledger"])
    assert not ledger.broken_laws()
    assert (ledger.packets_stored, ledger.bytes_stored) == (len(twin.Decoder("packet", log).packets), len(log))
    numbers = [s["number"] for s in segments(directory)]
    assert numbers == sorted(set(numbers))
    verified = tapeline("verify", directory)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_what_clients_handed_over_before_sigterm_is_recorded_and_the_exit_code_is_0(tmp_path):
    """SIGTERM comes while all of them are sending: what was with the kernel by then must be there, to the last byte."""
    chance, directory = random.Random(5), tmp_path / "run"
    with record(directory, "--set", "rotate_bytes=50000") as run:
        address = run.address("rack", "tcp")
        clients = [Client(address, n, chance, 0) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            assert client.some.wait(30)
        handed_over = [client.handed_over for client in clients]
        run.signal(signal.SIGTERM)
        code, out = run.finish()
        for client in clients:
            client.join(30)
    assert code == 0
    log = stored(directory)
    for client, before in zip(clients, handed_over, strict=True):
        got = own(log, client.number)
        assert client.sent.startswith(got)
        assert len(got) >= max(before, client.acknowledged)
    ledger = RegisterLedger.from_dict(json.loads(out.splitlines()[-1])["streams"]["rack"]["ledger"])
    assert not ledger.broken_laws()
    assert ledger.clients_closed.stopped + ledger.clients_closed.ended + ledger.clients_closed.broken == CLIENTS
    check_end(directory, log)


def test_sigterm_ends_a_recorder_whose_standard_input_stays_open(tmp_path):
    directory, sent = tmp_path / "run", b"".join(wire.encode_packet([n], [n], src_id=1, type=RACK) for n in range(500))
    words = [*COMMAND, "record", "--stream", "rack=-?wire=packet", "--out", str(directory)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=ENVIRONMENT, **streams) as process:
        process.stdin.write(sent + sent[:10])
        process.stdin.flush()
        assert b"reading" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert stored(directory) == sent


def test_a_disk_that_takes_no_more_ends_with_one_line_and_the_log_goes_on_later(tmp_path):
    """A limit on the size of a file stands in for a full disk: the write fails in the middle of a block."""
    directory = tmp_path / "run"
    sent = b"".join(wire.encode_packet(range(1000), range(1000), src_id=n % 3, type=RACK) for n in range(3000))
    (tmp_path / "in.pkt").write_bytes(sent)
    words = ["record", "--stream", f"rack=file://{tmp_path / 'in.pkt'}?wire=packet", "--out", str(directory)]
    program = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000,) * 2)
from tapeline.cli.main import main
sys.exit(main({words!r}))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=60)
    assert done.returncode == 1
    [line] = [text for text in done.stderr.splitlines() if "error" in text.lower()]
    assert "rack" in line
    assert "too large" in line
    with record(directory) as run:
        address = run.address("rack", "tcp")
        log = stored(directory)
        assert sent.startswith(log)
        assert 5_000_000 - len(sent) // 3000 < len(log) <= 5_000_000
        log += check_answers(address, image_of(log))
        run.signal(signal.SIGTERM)
        assert run.finish()[0] == 0
    check_end(directory, log)


def test_sigusr2_in_mid_stream_begins_segments_and_loses_nothing(tmp_path):
    directory, sent = tmp_path / "run", b""
    with record(directory) as run, connect(run.address("rack", "tcp")) as connection:
        for n in range(4):
            part = b"".join(wire.encode_packet([n, m], [m, n], src_id=m % 3, type=RACK, seq=n) for m in range(100))
            part += wire.encode_packet(cmd=SYNC)
            connection.sendall(part)
            receive(connection)
            sent += part
            run.signal(signal.SIGUSR2)
            while len(list(directory.glob("rack/*.pkt"))) <= n:  # the next one is begun by the next packet
                assert run.process.poll() is None
        run.signal(signal.SIGTERM)
        code, _ = run.finish()
    assert code == 0
    assert stored(directory) == sent
    assert [e["packets"] for e in segments(directory)] == [101] * 4
    assert [bool(e["keyframe_bytes"]) for e in segments(directory)] == [False, True, True, True]
    check_end(directory, sent)


def test_an_address_in_use_and_a_directory_that_cannot_be_written_end_with_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}?wire=packet"
        done = tapeline("record", "--stream", f"rack={url}", "--out", tmp_path / "run")
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert "rack" in line
    assert url in line
    assert "in use" in line
    assert not list((tmp_path / "run").rglob("*.pkt*"))
    (tmp_path / "file").write_text("")
    done = tapeline("record", "--stream", "rack=tcp://127.0.0.1:0?wire=packet", "--out", tmp_path / "file" / "run")
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert str(tmp_path / "file") in line
