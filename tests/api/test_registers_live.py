"""Past images and histories of what a recorder recorded, against brute force over what was sent."""

import json
import os
import random
import shutil
import socket
import time

import pyarrow as pa
import pytest

import tapeline
from _support.registers import DIFF, FULL, RACK, RTOS, T0, Oracle, Packet
from tapeline.cli.main import main


def some(seed, count):
    """Packets of three sources with clocks that differ a little; some are lost on the way, some come twice."""
    rng = random.Random(seed)
    seqs = [0] * 3
    packets = []
    for n in range(count):
        source = rng.randrange(3)
        seqs[source] += rng.choices([1, 2, 5, 0], [90, 3, 3, 4])[0]
        registers = tuple((rng.randrange(60), rng.randrange(65_536)) for _ in range(rng.randrange(1, 6)))
        cmd = FULL if rng.random() < 0.01 else DIFF
        stamp = T0 + 1000 * n + rng.randrange(-5_000, 5_000)
        # a register twice in one packet has no one value for the oracle of histories
        packets.append(Packet(stamp, 1 + source % 2, (RACK, RACK, RTOS)[source], cmd, seqs[source],
                              tuple(dict(registers).items())))  # fmt: skip
    return packets


def record(out, packets, **settings):
    stream = {"url": "tcp://127.0.0.1:0?wire=packet", "rotate_bytes": 4_000, **settings}
    with tapeline.Recorder({"out": str(out), "streams": {"rack": stream}}) as recorder:
        host, port = recorder.status().streams["rack"].addresses[0].removeprefix("tcp://").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=30) as client:
            # in parts, so that segments end in many places
            for start in range(0, len(packets), 50):
                client.sendall(b"".join(packet.data() for packet in packets[start : start + 50]))
        deadline = time.monotonic() + 30
        while recorder.ledger()["rack"].packets_received < len(packets):
            assert time.monotonic() < deadline
            recorder.wait(timeout=0.01)
    assert not recorder.ledger()["rack"].broken_laws()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A recording of two sessions, and what was sent."""
    out = tmp_path_factory.mktemp("live") / "run"
    sent = some(1, 2200)
    record(out, sent[:1500])
    record(out, sent[1500:])
    return out, sent


def test_images_of_the_past_are_those_of_brute_force(recording):
    out, sent = recording
    assert len(list((out / "rack").glob("*.pkt"))) > 8
    rng = random.Random(3)
    doubted = 0
    for time_us in [T0 - 10_000, *(rng.randrange(T0, T0 + 2_210_000) for _ in range(60)), T0 + 10_000_000]:
        oracle = Oracle()
        for packet in sent:
            if packet.timestamp_us <= time_us:
                oracle.apply(packet)
        image = tapeline.image_at(out, time_us)
        found = image.as_dict()
        since = {
            (source["type"], source["src_id"]): dict(map(tuple, source.pop("unknown_since", [])))
            for source in found["sources"]
        }
        assert found == oracle.as_dict()
        assert since == {key: oracle.since[key] for key in since}
        doubted += sum(map(len, since.values()))
    assert doubted > 0


def test_images_read_the_nearest_keyframe_and_what_follows(recording):
    out, _ = recording
    logs = sum(path.stat().st_size for path in (out / "rack").glob("*.pkt"))
    for at in (T0 + 300_000, T0 + 1_100_000, T0 + 1_900_000):
        assert 0 < tapeline.image_at(out, at).bytes_read < logs / 3


def test_histories_are_those_of_brute_force_and_use_the_touch_indexes(recording):
    out, sent = recording
    for kind, src_id in ((RACK, 1), (RACK, 2), (RTOS, 1)):
        for offset in (0, 17, 59):
            expected, last = [], None
            for packet in sent:
                if (packet.type, packet.src_id) != (kind, src_id):
                    continue
                value = dict(packet.registers).get(offset, None if packet.cmd == FULL else last)
                if value != last:
                    expected.append((packet.timestamp_us, value))
                    last = value
            table = tapeline.history(out, kind, src_id, offset)
            found = zip(table["timestamp_us"].cast(pa.int64()).to_pylist(), table["value"].to_pylist(), strict=True)
            assert list(found) == expected
    assert len(list((out / "rack").glob("*.touch.bcsv"))) == len(list((out / "rack").glob("*.pkt")))


def test_the_newest_image_is_the_one_that_the_server_answers_from(recording):
    out, _ = recording
    stored = tapeline.wire.RegisterImage.load(out / "rack" / "image.bin")
    assert tapeline.image_at(out).digest == stored.digest()


def test_after_a_recording_that_forgets_the_oldest_keyframe_stands_for_what_was_before(tmp_path):
    sent = some(4, 1500)
    stream = {"url": "tcp://127.0.0.1:0?wire=packet", "rotate_bytes": 3_000}
    config = {"out": str(tmp_path / "run"), "keep_segments": 3, "streams": {"rack": stream}}
    with tapeline.Recorder(config) as recorder:
        host, port = recorder.status().streams["rack"].addresses[0].removeprefix("tcp://").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(b"".join(packet.data() for packet in sent))
    oracle = Oracle()
    for packet in sent:
        oracle.apply(packet)
    found = tapeline.image_at(tmp_path / "run").as_dict()
    for source in found["sources"]:
        source.pop("unknown_since", None)
    assert found == oracle.as_dict()
    assert len(list((tmp_path / "run" / "rack").glob("*.pkt"))) <= 3


def lossless(seed, count):
    """Packets of two sources of which none is lost."""
    rng = random.Random(seed)
    seqs = [0, 0]
    packets = []
    for n in range(count):
        source = rng.randrange(2)
        seqs[source] += 1
        first = rng.randrange(65_000)
        offsets = rng.choice([range(first, first + rng.randrange(200)), rng.sample(range(5_000), 7)])
        registers = tuple((offset, rng.randrange(65_536)) for offset in offsets)
        packets.append(Packet(T0 + n, source, RACK, FULL if n % 199 == 150 else DIFF, seqs[source] % 256, registers))
    return packets


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """A recording of which nothing had to be read back to index it."""
    out = tmp_path_factory.mktemp("untouched") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tapeline._native, "register_touch", None)
        record(out, lossless(5, 900), rotate_bytes=60_000)
    return out


def test_the_recorder_itself_says_which_block_touches_what(untouched, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(untouched, copy)
    logs = sorted((copy / "rack").glob("*.pkt"))
    assert len(logs) > 3
    for before, log in zip([None, *logs], logs, strict=False):
        left = {kind: log.with_suffix(f".{kind}.bcsv").read_bytes() for kind in ("touch", "doubts")}
        for kind in left:
            log.with_suffix(f".{kind}.bcsv").unlink()
        tapeline._native.register_touch(str(log), "packet", before and str(before))
        for kind, data in left.items():
            built = log.with_suffix(f".{kind}.bcsv")
            found = tapeline.bcsv.read_table(built)
            built.write_bytes(data)
            assert found.num_rows == 0 or kind == "touch"
            assert tapeline.bcsv.read_table(built).equals(found)


def test_info_reads_indexes_only(untouched, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(untouched, copy)
    facts = []
    for _ in range(2):
        assert main(["info", str(copy), "--json"]) == 0
        facts.append(json.loads(capsys.readouterr().out)["streams"]["rack"])
        for log in (copy / "rack").glob("*.pkt"):
            # as long as it was, and nothing in it that could be read
            size = log.stat().st_size
            log.write_bytes(b"")
            os.truncate(log, size)
    sent = lossless(5, 900)
    assert facts[1] == facts[0]
    assert facts[0]["packets"] == len(sent)
    assert facts[0]["registers"] == sum(len(packet.registers) for packet in sent)
    assert facts[0]["sources"] == [{"type": "RACK", "src_id": 0}, {"type": "RACK", "src_id": 1}]
    assert (facts[0]["first_timestamp_us"], facts[0]["last_timestamp_us"]) == (T0, T0 + len(sent) - 1)
    for beside in (copy / "rack").glob("*.touch.bcsv"):
        beside.unlink()
    assert main(["info", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["streams"]["rack"]["damage"] is not None
