"""`shm://` as a source: a producer in C, with `include/tapeline_ring.h`, feeds a live recorder."""

import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
from tests.system._processes import Running

import tapeline
from tapeline import ring, wire
from tapeline.errors import ConfigError

REGISTERS = 3
RECORD_BYTES = 48
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "ring_packets"
    source = ROOT / "tests/system/c/ring_packets.c"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "include"]
    subprocess.run(["gcc", *flags, source, "-o", path], check=True)
    return path


class Producer:
    """The C program on a ring; `first` is the number of its first packet."""

    def __init__(self, program, name, *, capacity=1 << 16, first=0):
        words = [program, name, str(capacity), str(first)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(self, packets):
        self.process.stdin.write(f"{packets}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait(30)
        self.process.stdin.close()
        self.process.stdout.close()


def packet(number):
    control = [(number * REGISTERS + k) % 2000 for k in range(REGISTERS)]
    data = [(number * 7 + k) & 0xFFFF for k in range(REGISTERS)]
    return wire.encode_packet(control, data, timestamp_us=1000 + number, src_id=1, cmd=0, type=2, seq=number % 256)


def config(out, name):
    return {"out": str(out), "streams": {"rack": {"url": f"shm://{name}?wire=packet"}}}


def until(holds):
    """Wait until something holds, for half a minute at most."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def logged(out):
    return b"".join(path.read_bytes() for path in sorted((Path(out) / "rack").glob("*.pkt*")))


def test_a_producer_in_c_feeds_a_live_recorder_and_another_follows_it(tmp_path, program):
    name, out = tmp_path / "battery", tmp_path / "out"
    with tapeline.Recorder(config(out, name)) as recorder:

        def ledger():
            return recorder.ledger()["rack"]

        # the recorder is there before the ring; what one producer leaves when it dies is read
        first = Producer(program, name)
        for total in (1000, 1700):
            assert first.write(total - ledger().packets_received) == total
            until(lambda: ledger().packets_received == total)  # noqa: B023
        first.kill()
        until(lambda: ledger().clients_closed.broken == 1)
        second = Producer(program, name, first=1700)
        second.write(1000)
        until(lambda: ledger().packets_stored == 2700)
        second.close()
        until(lambda: ledger().clients_closed.ended == 1)
        # a new file of that name
        name.unlink()
        third = Producer(program, name, first=2700)
        third.write(300)
        third.close()
        until(lambda: ledger().packets_stored == 3000)
    sent = b"".join(packet(number) for number in range(3000))
    assert logged(out) == sent
    end = ledger()
    assert not end.broken_laws()
    assert not end.lost_anything
    assert (end.bytes_received, end.bytes_valid, end.registers_received) == (len(sent), len(sent), 9000)
    assert (end.clients_accepted, end.clients_closed.ended, end.clients_closed.broken, end.gaps) == (3, 2, 1, 0)
    image = wire.RegisterImage()
    image.apply_bytes(sent)
    assert tapeline.image_at(out).digest == image.digest()


def test_overtaken_bytes_are_counted_and_the_recording_says_that_it_lost_something(tmp_path, program):
    name, out = tmp_path / "battery", tmp_path / "out"
    producer = Producer(program, name)
    assert producer.write(100) == 100
    words = ("record", "--stream", f"rack=shm://{name}?wire=packet", "--out", out, "--json")
    with Running(*words) as run:
        until(lambda: logged(out) == b"".join(packet(n) for n in range(100)))
        run.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, run.process.pid, os.WSTOPPED | os.WNOWAIT)
        assert producer.write(5000) == 5100
        run.signal(signal.SIGCONT)
        run.signal(signal.SIGTERM)
        code, text = run.finish()
    ledger = json.loads(text.splitlines()[-1])["streams"]["rack"]["ledger"]
    assert code == 3
    assert ledger["shm_overtakes"] >= 1
    assert 100 < ledger["packets_stored"] <= 100 + (1 << 16) // RECORD_BYTES
    # Every byte of the ring was read or overtaken.
    unread = ring.stat(name).write_position - ledger["packets_stored"] * RECORD_BYTES - ledger["shm_overtaken_bytes"]
    assert 0 <= unread < 2 * RECORD_BYTES  # fillings of laps that were read
    numbers = [p.timestamp_us - 1000 for p in wire.PacketDecoder().feed(logged(out))]
    assert numbers[:100] == list(range(100))
    assert numbers[100:] == list(range(5100 - len(numbers[100:]), 5100))
    producer.close()


def test_what_is_no_packet_is_counted_and_the_rest_is_kept(tmp_path):
    name, out = tmp_path / "battery", tmp_path / "out"
    good = [packet(number) for number in range(4)]
    odd = good[0][4:-2]  # its count says more
    with ring.Writer(name, capacity=1 << 16) as writer:
        for payload in (good[0][4:], b"", good[1][4:], b"no packet", odd, good[2][4:], bytes(30_000), good[3][4:]):
            writer.write(payload)
    data = bytearray(name.read_bytes())
    data[4096 + 16 + 20] ^= 1  # in the first record's payload
    name.write_bytes(data)
    with tapeline.Recorder(config(out, name)) as recorder:
        until(lambda: recorder.ledger()["rack"].packets_stored == 3)
    ledger = recorder.ledger()["rack"]
    assert not ledger.broken_laws()
    assert ledger.lost_anything
    assert logged(out) == b"".join(good[1:])
    assert (ledger.packets_invalid.length_mismatch, ledger.framing_lost) == (4, 0)
    assert (ledger.shm_records_corrupt, ledger.shm_bytes_corrupt) == (1, RECORD_BYTES)
    assert ledger.bytes_invalid == sum(4 + n for n in (0, 9, len(odd), 30_000))


def test_a_ring_needs_the_packet_wire_and_must_be_one(tmp_path):
    for url in ("shm://battery", "shm://battery?wire=simple"):
        with pytest.raises(ConfigError, match="a ring carries data packets"):
            tapeline.Recorder({"out": str(tmp_path / "out"), "streams": {"rack": url}})
    path = tmp_path / "text"
    path.write_bytes(struct.pack("<Q", 1) * 1024)
    recorder = tapeline.Recorder(config(tmp_path / "out", path))
    with pytest.raises(tapeline.TapelineError, match="text"), recorder:
        recorder.wait(timeout=30)
