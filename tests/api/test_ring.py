"""`tapeline.ring`: what is written is read, what was missed is counted, what is wrong is an error."""

import errno
import os

import pytest

from tapeline import TapelineError, ring


def test_records_come_in_order_with_time_and_position(tmp_path):
    name = tmp_path / "ring"
    with ring.Writer(name, capacity=1 << 16) as writer, ring.Reader(name) as reader:
        assert reader.read() == []
        positions = [writer.write(bytes([n]) * n, timestamp_us=n) for n in range(50)]
        records = reader.read()
        assert [(r.timestamp_us, r.payload) for r in records] == [(n, bytes([n]) * n) for n in range(50)]
        assert [r.position for r in records] == positions
        assert not reader.closed_by_producer
    assert ring.stat(name).closed


def test_anything_with_bytes_is_a_payload(tmp_path):
    with ring.Writer(tmp_path / "ring", capacity=4096) as writer, ring.Reader(tmp_path / "ring") as reader:
        for payload in (b"abc", bytearray(b"abc"), memoryview(b"xabc")[1:]):
            writer.write(payload)
        assert [r.payload for r in reader.read()] == [b"abc"] * 3


def test_limit_and_iteration_until_closed(tmp_path):
    writer = ring.Writer(tmp_path / "ring", capacity=1 << 16)
    for n in range(100):
        writer.write(b"", timestamp_us=n)
    writer.close()
    writer.close()
    with ring.Reader(tmp_path / "ring") as reader:
        assert [r.timestamp_us for r in reader.read(7)] == list(range(7))
        assert [r.timestamp_us for r in reader] == list(range(7, 100))
        assert reader.closed_by_producer
        assert reader.counters == ring.Counters(100, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"")
    with pytest.raises(ValueError, match="closed"):
        reader.read()


def test_two_readers_at_different_speeds_each_have_their_own_account(tmp_path):
    name = tmp_path / "ring"
    with ring.Writer(name, capacity=4096) as writer, ring.Reader(name) as fast, ring.Reader(name) as slow:
        seen = []
        for n in range(500):
            writer.write(n.to_bytes(40, "little"), timestamp_us=n)
            seen += [r.timestamp_us for r in fast.read()]
        assert seen == list(range(500))
        assert fast.counters.overtaken_bytes == 0
        kept = slow.read()
        assert [r.timestamp_us for r in kept] == list(range(kept[0].timestamp_us, 500))
        assert slow.counters.overtaken_bytes == kept[0].position > 0
        info = slow.info()
        assert info.oldest_position == kept[0].position
        assert (info.has_producer, info.closed, info.producer_pid) == (True, False, os.getpid())
        with ring.Reader(name, start="newest") as late:
            assert late.read() == []


def test_reading_waits_for_the_first_record(tmp_path):
    with ring.Writer(tmp_path / "ring", capacity=4096) as writer, ring.Reader(tmp_path / "ring") as reader:
        assert reader.read(timeout=0.01) == []
        writer.write(b"x", timestamp_us=1)
        assert [r.payload for r in reader.read(timeout=None)] == [b"x"]


def test_a_second_producer_is_refused(tmp_path):
    with ring.Writer(tmp_path / "ring", capacity=4096), pytest.raises(OSError, match="another producer") as caught:
        ring.Writer(tmp_path / "ring", capacity=4096)
    assert caught.value.errno == errno.EBUSY
    with ring.Writer(tmp_path / "ring", capacity=4096) as again:
        assert again.write_position == 0


def test_what_is_wrong_is_said(tmp_path):
    name = tmp_path / "ring"
    for capacity in (0, 1000, 4095, 1 << 41, -4096):
        with pytest.raises(TapelineError, match="capacity"):
            ring.Writer(name, capacity=capacity)
    with pytest.raises(FileNotFoundError):
        ring.Reader(name)
    with ring.Writer(name, capacity=4096) as writer:
        assert writer.max_payload_bytes == 2032
        with pytest.raises(ring.RingError, match="2032"):
            writer.write(bytes(2033))
        with pytest.raises(ring.RingError, match="timestamp_us"):
            writer.write(b"", timestamp_us=-1)
    with pytest.raises(ring.RingError, match="capacity of 4096"):
        ring.Writer(name, capacity=8192)
    name.write_bytes(b"something else")
    with pytest.raises(ring.RingError, match="not a ring"):
        ring.Reader(name)
    with pytest.raises(ring.RingError, match="not a ring"):
        ring.Writer(name, capacity=4096)
    assert name.read_bytes() == b"something else"
    with pytest.raises(TapelineError, match="start"):
        ring.Reader(name, start="middle")


def test_a_cut_file_is_an_error_and_a_flipped_byte_costs_one_record(tmp_path):
    name = tmp_path / "ring"
    with ring.Writer(name, capacity=4096) as writer:
        positions = [writer.write(b"0123456789", timestamp_us=n) for n in range(5)]
    data = bytearray(name.read_bytes())
    data[4096 + positions[2] + 20] ^= 1
    name.write_bytes(data)
    with ring.Reader(name) as reader:
        assert [r.timestamp_us for r in reader] == [0, 1, 3, 4]
        assert reader.counters.corrupt_records == 1
    with ring.Reader(name) as reader:
        os.truncate(name, 4200)
        with pytest.raises(ring.RingError, match="shorter"):
            reader.read()


def test_a_pipe_is_no_ring_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TapelineError, match="not a file"):
        ring.Reader(tmp_path / "pipe")
