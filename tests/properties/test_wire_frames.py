"""The decoder yields what the slow twin yields, for any stream and any chunking."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from _twins import frames as twin
from _twins.frame_faults import chunks_of, layouts, streams
from tapeline import wire

EXAMPLES = int(os.environ.get("TAPELINE_TEST_EXAMPLES", "60"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def native(layout: twin.Layout) -> wire.FrameLayout:
    return wire.FrameLayout(
        layout.magic, layout.version_flags, layout.length_bytes, layout.header_crc, layout.max_payload
    )


def decode(decoder: wire.FrameDecoder, chunks) -> list[wire.Frame]:
    frames = []
    for chunk in chunks:
        frames += decoder.feed(chunk)
        ledger = decoder.ledger
        decided = ledger.bytes_discarded + decoder.pending_bytes
        assert decided <= ledger.bytes_received
    return frames + decoder.finish()


def key(frame) -> tuple:
    return (frame.offset, frame.sequence, frame.timestamp_ns, frame.stream_id, frame.flags, frame.payload)


@many
@given(data=st.data(), case=streams())
def test_decoder_equals_twin(data, case):
    layout, stream = case
    want = twin.Decoder(layout, stream)
    decoder = wire.FrameDecoder(native(layout), keep_duplicates=True)
    frames = decode(decoder, data.draw(chunks_of(stream)))
    assert [key(f) for f in frames] == [key(f) for f in want.frames]
    ledger, counters = decoder.ledger, want.counters
    for reason, count in ledger.as_dict()["frames_corrupt"].items():
        assert count == getattr(counters, reason), reason
    assert ledger.resyncs == counters.resyncs
    assert ledger.bytes_discarded == counters.bytes_discarded
    assert ledger.bytes_stored == counters.valid_bytes
    assert ledger.bytes_received == len(stream) == counters.valid_bytes + counters.bytes_discarded
    assert ledger.frames_received == ledger.frames_stored == len(frames)
    assert decoder.pending_bytes == 0


@many
@given(case=streams(), window=st.sampled_from((1, 2, 3, 64, 65, 1000, 65_536)))
def test_duplicates_are_dropped_and_sequences_counted(case, window):
    layout, stream = case
    want = twin.Decoder(layout, stream)
    sequences: dict[int, twin.Sequence] = {}
    kept = [
        key(frame)
        for frame in want.frames
        if not sequences.setdefault(frame.stream_id, twin.Sequence(window)).observe(frame.sequence)
    ]
    decoder = wire.FrameDecoder(native(layout), reorder_window=window)
    frames = decode(decoder, [stream])
    assert [key(f) for f in frames] == kept
    ledger = decoder.ledger
    totals = {
        "gaps": sum(s.gaps for s in sequences.values()),
        "frames_lost": sum(s.lost for s in sequences.values()),
        "frames_duplicate": sum(s.duplicate for s in sequences.values()),
        "frames_reordered": sum(s.reordered for s in sequences.values()),
        "restarts": sum(s.restarts for s in sequences.values()),
    }
    if totals["frames_lost"] >= 1 << 64:  # numbers at both ends of 64 bits in turn: the counter stays at its end
        totals["frames_lost"] = ledger.frames_lost
    assert {name: getattr(ledger, name) for name in totals} == totals
    assert ledger.frames_received == ledger.frames_stored + ledger.frames_duplicate
    assert ledger.frames_stored == len(frames)


@many
@given(
    numbers=st.lists(st.integers(0, 300) | st.integers(1 << 50, (1 << 50) + 40), max_size=200),
    window=st.sampled_from((1, 5, 63, 64, 100, 128, 65_536)),
)
def test_sequence_counts_equal_a_set(numbers, window):
    sequence = twin.Sequence(window)
    for number in numbers:
        sequence.observe(number)
    decoder = wire.FrameDecoder(reorder_window=window)
    decoder.feed(b"".join(wire.encode_frame(b"x", number) for number in numbers))
    ledger = decoder.ledger
    got = (ledger.gaps, ledger.frames_duplicate, ledger.frames_reordered, ledger.restarts)
    assert got == (sequence.gaps, sequence.duplicate, sequence.reordered, sequence.restarts)
    assert ledger.frames_lost == sequence.lost


@many
@given(
    layout=layouts(),
    payload=st.binary(min_size=1, max_size=100),
    numbers=st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)),
    stream_id=st.integers(0, 65_535),
    flags=st.integers(0, 255),
)
def test_encoder_equals_twin(layout, payload, numbers, stream_id, flags):
    fields = {"sequence": numbers[0], "timestamp_ns": numbers[1], "flags": flags}
    fields["stream_id"] = stream_id if layout.version_flags == 4 else 0
    if len(payload) > layout.max_payload:
        with pytest.raises(wire.WireError, match="payload"):
            wire.encode_frame(payload, **fields, layout=native(layout))
        return
    frame = wire.encode_frame(payload, **fields, layout=native(layout))
    assert frame == layout.encode(payload, **fields)
