"""The vectors of `vectors/register`, for every chunking: counts, sums, images."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest

from _twins import registers as twin
from tapeline import wire

FOLDER = Path(__file__).parents[2] / "vectors" / "register"
VECTORS = [("packet", "packet"), ("packet_malformed", "packet"), ("simple", "simple")]
CHUNKINGS = (1 << 30, 1 << 16, 1, 7, 100, 5000)


def chunks(stream, largest):
    if largest in {1, 1 << 16, 1 << 30}:
        return [stream[i : i + largest] for i in range(0, len(stream), largest)]
    rng, at, cut = random.Random(len(stream)), 0, []
    while at < len(stream):
        n = rng.randint(0, largest)
        cut.append(stream[at : at + n])
        at += n
    return cut


@pytest.mark.parametrize("largest", CHUNKINGS)
@pytest.mark.parametrize(("name", "kind"), VECTORS)
def test_vector(name, kind, largest):
    want = json.loads((FOLDER / f"{name}.json").read_text())
    stream = (FOLDER / f"{name}.bin").read_bytes()
    decoder = wire.PacketDecoder(kind)
    packets = [p for chunk in chunks(stream, largest) for p in decoder.feed(chunk)] + decoder.finish()
    ledger = decoder.ledger
    assert not ledger.broken_laws()
    assert ledger.packets_received + ledger.packets_invalid.total == want["packets"]
    assert ledger.packets_invalid.length_mismatch == want["malformed"]
    assert ledger.registers_received == want["registers"]
    assert (ledger.queries, ledger.full_packets) == (want["queries"], want["full_packets"])
    setting = [p for p in packets if p.cmd in {wire.Command.DIFF, wire.Command.FULL}]
    assert len(setting) == want["applied_packets"]
    assert sum(sum(p.control) for p in setting) == want["sum_offsets"]
    assert sum(sum(p.data) for p in setting) == want["sum_values"]
    image = wire.RegisterImage()
    for packet in packets:
        image.apply(packet)
    whole = wire.RegisterImage()
    assert whole.apply_bytes(stream, kind=kind) == len(stream)
    assert whole.digest() == image.digest()
    for source in want["sources"]:
        src_id = source.get("src_id", source.get("rack"))
        kind_of = source["type"] if kind == "packet" else wire.SourceType.RACK
        registers = np.zeros(65_536, "<u2")
        offsets, values, times = image.arrays(kind_of, src_id)
        registers[offsets] = values
        assert hashlib.sha256(registers.tobytes()).hexdigest() == source["image_sha256"]
        assert times.max() <= source["last_ts_us"]
        mine = [p for p in setting if p.src_id == src_id]
        assert len(mine) == source["packets"]
        assert mine[-1].timestamp_us == source["last_ts_us"]


@pytest.mark.parametrize(("name", "kind"), VECTORS)
def test_the_twin_agrees(name, kind):
    stream = (FOLDER / f"{name}.bin").read_bytes()
    model, image = twin.Decoder(kind, stream), twin.Image()
    ours = wire.RegisterImage()
    ours.apply_bytes(stream, kind=kind)
    for packet in model.packets:
        image.apply(packet)
    assert ours.as_dict() == image.as_dict()
