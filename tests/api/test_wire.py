"""The names and promises of `tapeline.wire` in design/api.md."""

import array
import pickle
import threading

import numpy as np
import pytest

import tapeline
from tapeline import wire


def stream_of(numbers, **fields):
    return b"".join(wire.encode_frame(b"payload %d" % n, sequence=n, **fields) for n in numbers)


def test_layout_defaults_are_the_specification():
    layout = wire.FrameLayout()
    assert layout.magic == bytes.fromhex("d1c64f93a7b25e8c")
    assert (layout.version_flags, layout.length_bytes, layout.header_crc) == (4, 4, True)
    assert (layout.max_payload, layout.header_bytes) == (1 << 20, 40)
    assert wire.FrameLayout(version_flags=2, header_crc=False).header_bytes == 34
    assert wire.FrameLayout(length_bytes=8).header_bytes == 44


def test_layout_is_a_value():
    layout = wire.FrameLayout(magic=b"12345678", version_flags=2, length_bytes=8, header_crc=False, max_payload=9)
    assert pickle.loads(pickle.dumps(layout)) == layout
    assert len({layout, wire.FrameLayout(b"12345678", 2, 8, False, 9), wire.FrameLayout()}) == 2
    assert eval(repr(layout), {"FrameLayout": wire.FrameLayout}) == layout
    with pytest.raises(AttributeError):
        layout.magic = b"87654321"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"magic": b"short"}, "magic has 5 bytes"),
        ({"version_flags": 3}, "version_flags is 3"),
        ({"version_flags": -1}, "version_flags is -1"),
        ({"length_bytes": 300}, "length_bytes is 300"),
        ({"max_payload": 0}, "max_payload is 0"),
        ({"max_payload": -5}, "max_payload is -5"),
        ({"max_payload": 1 << 32}, "max_payload is 4294967296"),
    ],
)
def test_impossible_layouts_are_refused(settings, text):
    with pytest.raises(wire.WireError, match=text):
        wire.FrameLayout(**settings)


@pytest.mark.parametrize(
    ("payload", "fields", "text"),
    [
        (b"", {}, "payload is empty"),
        (b"x" * 11, {}, "payload has 11 bytes; the layout allows 10"),
        (b"x", {"sequence": -1}, "sequence is -1"),
        (b"x", {"sequence": 1 << 64}, "sequence is"),
        (b"x", {"timestamp_ns": 1 << 64}, "timestamp_ns is"),
        (b"x", {"stream_id": 1 << 16}, "stream_id is 65536"),
        (b"x", {"flags": 256}, "flags is 256"),
        (b"x", {"stream_id": 1, "layout": wire.FrameLayout(version_flags=2)}, "stream_id is 1"),
    ],
)
def test_impossible_frames_are_refused(payload, fields, text):
    given = {"sequence": 0, "timestamp_ns": 0, "layout": wire.FrameLayout(max_payload=10), **fields}
    with pytest.raises(wire.WireError, match=text) as error:
        wire.encode_frame(payload, **given)
    assert isinstance(error.value, tapeline.TapelineError)
    assert isinstance(error.value, ValueError)


def test_frame_has_the_fields_that_were_sent():
    sent = {"sequence": (1 << 64) - 1, "timestamp_ns": 123, "stream_id": 65_535, "flags": 3}
    (frame,) = wire.FrameDecoder().feed(wire.encode_frame(b"abc", **sent))
    assert {name: getattr(frame, name) for name in sent} == sent
    assert (frame.payload, frame.offset) == (b"abc", 0)
    assert repr(frame).startswith("Frame(sequence=18446744073709551615, ")
    with pytest.raises(AttributeError):
        frame.sequence = 1


@pytest.mark.parametrize(
    "chunk",
    [
        bytearray(stream_of(range(3))),
        memoryview(stream_of(range(3))),
        np.frombuffer(stream_of(range(3)), np.uint8),
        array.array("B", stream_of(range(3))),
    ],
    ids=lambda c: type(c).__name__,
)
def test_any_buffer_is_taken(chunk):
    assert [f.sequence for f in wire.FrameDecoder().feed(chunk)] == [0, 1, 2]


def test_payload_may_be_an_array():
    samples = np.arange(5, dtype=np.float64)
    (frame,) = wire.FrameDecoder().feed(wire.encode_frame(samples, sequence=0, timestamp_ns=0))
    assert np.array_equal(np.frombuffer(frame.payload), samples)


def test_what_is_no_buffer_is_a_type_error():
    with pytest.raises(TypeError):
        wire.FrameDecoder().feed("text")
    with pytest.raises(BufferError):
        wire.FrameDecoder().feed(np.zeros(10, np.uint8)[::2])


def test_duplicates_are_dropped_unless_kept():
    stream = stream_of([0, 1, 1, 2])
    decoder, keeper = wire.FrameDecoder(), wire.FrameDecoder(keep_duplicates=True)
    assert [f.sequence for f in decoder.feed(stream)] == [0, 1, 2]
    assert [f.sequence for f in keeper.feed(stream)] == [0, 1, 1, 2]
    assert (decoder.ledger.frames_duplicate, decoder.ledger.frames_stored) == (1, 3)
    assert (keeper.ledger.frames_duplicate, keeper.ledger.frames_stored) == (1, 4)
    for law in (decoder.ledger.broken_laws(), keeper.ledger.broken_laws()):
        assert law == []


def test_more_stream_ids_than_are_followed_lose_no_frame():
    stream = b"".join(wire.encode_frame(b"x", sequence=9, timestamp_ns=0, stream_id=i) for i in range(1500))
    decoder = wire.FrameDecoder()
    assert len(decoder.feed(stream)) == 1500
    assert decoder.ledger.frames_duplicate == 0


def test_offsets_count_from_the_start_of_the_stream():
    stream = b"noise" + stream_of(range(200))
    decoder = wire.FrameDecoder()
    frames = [f for i in range(0, len(stream), 7) for f in decoder.feed(stream[i : i + 7])]
    assert [f.offset for f in frames] == [5 + i for i in _starts(stream[5:])]
    assert frames == wire.FrameDecoder().feed(stream)


def _starts(stream):
    magic, at, found = wire.FrameLayout().magic, 0, []
    while (at := stream.find(magic, at)) >= 0:
        found.append(at)
        at += 1
    return found


def test_ledger_is_a_snapshot_with_the_names_of_the_specification():
    decoder = wire.FrameDecoder()
    before = decoder.ledger
    decoder.feed(b"garbage" + stream_of([1, 5]))
    ledger = decoder.ledger
    assert before.frames_received == 0
    assert (ledger.frames_received, ledger.bytes_discarded, ledger.resyncs) == (2, 7, 1)
    assert (ledger.gaps, ledger.frames_lost) == (1, 3)
    counts = ledger.as_dict()
    assert list(counts) == [
        "bytes_received",
        "frames_received",
        "frames_stored",
        "bytes_stored",
        "frames_corrupt",
        "resyncs",
        "bytes_discarded",
        "gaps",
        "frames_lost",
        "frames_duplicate",
        "frames_reordered",
        "frames_late",
        "restarts",
        "datagrams_received",
        "datagrams_dropped_by_kernel",
        "ring_high_water_bytes",
        "backpressure_ns",
        "periodics_complete",
        "periodics_incomplete",
        "frames_repaired",
    ]
    assert counts["frames_corrupt"] == dict.fromkeys(
        ("header_crc", "payload_crc", "bad_version", "bad_length", "truncated"), 0
    )
    assert ledger.frames_corrupt.header_crc == 0


def test_truncated_frame_keeps_the_next_one():
    frames = [wire.encode_frame(bytes(100), sequence=n, timestamp_ns=0) for n in range(3)]
    decoder = wire.FrameDecoder()
    got = decoder.feed(frames[0][:90] + frames[1] + frames[2]) + decoder.finish()
    assert [f.sequence for f in got] == [1, 2]
    assert decoder.ledger.frames_corrupt.payload_crc == 1
    assert decoder.ledger.bytes_discarded == 90


def test_end_inside_a_frame_is_counted_and_what_is_inside_is_found():
    inner = wire.encode_frame(b"inner", sequence=1, timestamp_ns=0)
    outer = wire.encode_frame(inner + bytes(100), sequence=0, timestamp_ns=0)
    decoder = wire.FrameDecoder()
    assert decoder.feed(outer[:-1]) == []
    assert decoder.pending_bytes == len(outer) - 1
    assert [f.sequence for f in decoder.finish()] == [1]
    assert decoder.ledger.frames_corrupt.truncated == 1
    assert decoder.pending_bytes == 0


def test_a_decoder_goes_on_after_finish():
    decoder = wire.FrameDecoder()
    stream = stream_of([0, 1])
    decoder.feed(stream[:-1])
    decoder.finish()
    assert [f.sequence for f in decoder.feed(stream_of([2]))] == [2]
    assert decoder.ledger.bytes_received == len(stream) - 1 + len(stream_of([2]))


@pytest.mark.parametrize("value", [np.int64(3), 3, "text", None, [1]])
def test_what_is_no_bytes_is_a_type_error(value):
    for call in (wire.FrameDecoder().feed, wire.PacketDecoder().feed, lambda v: wire.encode_frame(v, sequence=1)):
        with pytest.raises(TypeError):
            call(value)


def test_threads_with_a_decoder_each_agree():
    stream = stream_of(range(20_000))
    results = []

    def run():
        decoder = wire.FrameDecoder()
        results.append(
            [f.offset for i in range(0, len(stream), 1 << 17) for f in decoder.feed(stream[i : i + (1 << 17)])]
        )

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(len(r) == 20_000 and r == results[0] for r in results)


@pytest.mark.parametrize("window", [0, -1, 1 << 40])
def test_impossible_windows_are_refused(window):
    with pytest.raises(wire.WireError, match="reorder_window"):
        wire.FrameDecoder(reorder_window=window)
