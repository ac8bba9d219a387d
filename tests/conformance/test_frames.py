"""The vectors of `vectors/wire`, for every chunking: frames, order, counters, sequences."""

import hashlib
import json
import random
from pathlib import Path

import pytest

from _twins import frames as twin
from tapeline import wire

VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "wire").glob("*.json"))
CHUNKINGS = ("whole", "64 KiB", "1", "0..7", "0..100", "0..5000")


def cut(stream: bytes, chunking: str) -> list[bytes]:
    fixed = {"whole": max(len(stream), 1), "64 KiB": 1 << 16, "1": 1}.get(chunking)
    if fixed:
        return [stream[i : i + fixed] for i in range(0, len(stream), fixed)]
    largest = int(chunking.split("..")[1])
    rng = random.Random(len(stream))
    chunks, at = [], 0
    while at < len(stream):
        n = rng.randint(0, largest)
        chunks.append(stream[at : at + n])
        at += n
    return chunks


def test_the_vectors_are_there():
    assert len(VECTORS) >= 24


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path, chunking):
    want = json.loads(path.read_text())
    stream = path.with_suffix(".bin").read_bytes()
    decoder = wire.FrameDecoder(wire.FrameLayout(max_payload=want["max_payload"]), keep_duplicates=True)
    frames = [frame for chunk in cut(stream, chunking) for frame in decoder.feed(chunk)] + decoder.finish()
    got = [
        {
            "stream_id": f.stream_id,
            "flags": f.flags,
            "sequence": f.sequence,
            "timestamp_ns": f.timestamp_ns,
            "length": len(f.payload),
            "sha256": hashlib.sha256(f.payload).hexdigest(),
        }
        for f in frames
    ]
    assert got == want["frames"]
    ledger = decoder.ledger
    counters = {
        "frames_received": ledger.frames_received,
        **ledger.as_dict()["frames_corrupt"],
        "bytes_of_valid_frames": ledger.bytes_stored,
        "bytes_discarded": ledger.bytes_discarded,
    }
    assert counters == want["counters"]
    assert ledger.bytes_received == len(stream) == ledger.bytes_stored + ledger.bytes_discarded
    sums = [sum(s[name] for s in want["sequences"].values()) for name in ("duplicates", "reordered", "missing")]
    assert [ledger.frames_duplicate, ledger.frames_reordered, ledger.frames_lost] == sums
    for f in frames:
        assert stream[f.offset : f.offset + 8] == twin.MAGIC


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_the_twin_agrees_with_the_vector(path):
    want = json.loads(path.read_text())
    decoder = twin.Decoder(twin.Layout(max_payload=want["max_payload"]), path.with_suffix(".bin").read_bytes())
    counters = vars(decoder.counters)
    assert [(f.stream_id, f.sequence) for f in decoder.frames] == [
        (f["stream_id"], f["sequence"]) for f in want["frames"]
    ]
    for name in ("header_crc", "payload_crc", "bad_version", "bad_length", "truncated", "bytes_discarded"):
        assert counters[name] == want["counters"][name], name
    for stream_id, numbers in want["sequences"].items():
        sequence = twin.Sequence()
        for f in decoder.frames:
            if str(f.stream_id) == stream_id:
                sequence.observe(f.sequence)
        assert (sequence.duplicate, sequence.reordered, sequence.lost) == tuple(numbers.values())
