"""Register packets against the twin: any bytes, any chunking."""

from hypothesis import given
from hypothesis import strategies as st

from _twins import registers as twin
from tapeline import wire

u16 = st.integers(0, 3) | st.integers(0, 65_535)
registers = st.lists(st.tuples(u16, u16), max_size=20)
packets = st.fixed_dictionaries(
    {
        "timestamp_us": st.integers(0, 2**64 - 1),
        "src_id": st.integers(0, 255),
        "cmd": st.integers(0, 5),
        "type": st.integers(0, 3),
        "seq": st.integers(0, 255),
    }
)


@st.composite
def streams(draw):
    kind = draw(st.sampled_from(["packet", "simple"]))
    parts = []
    for _ in range(draw(st.integers(0, 6))):
        pairs = draw(registers)
        control, data = [r[0] for r in pairs], [r[1] for r in pairs]
        if kind == "packet":
            part = wire.encode_packet(control, data, **draw(packets))
        else:
            time = draw(st.floats(0, 4e9))
            part = wire.encode_packet(
                control, data, kind="simple", time=time, rack=draw(st.integers(-(2**31), 2**31 - 1))
            )
        if draw(st.integers(0, 4)) == 0:
            damaged = bytearray(part)
            damaged[draw(st.integers(0, min(len(part) - 1, 20)))] = draw(st.integers(0, 255))
            part = bytes(damaged)
        parts.append(part)
    stream = b"".join(parts)
    return kind, stream[: draw(st.integers(0, len(stream)))] if draw(st.booleans()) else stream


@given(streams(), st.integers(1, 40))
def test_packets_counters_and_image_are_those_of_the_twin(case, step):
    kind, stream = case
    model, image = twin.Decoder(kind, stream), twin.Image()
    decoder, ours = wire.PacketDecoder(kind), wire.RegisterImage(max_sources=65_536)
    got = [p for i in range(0, len(stream), step) for p in decoder.feed(stream[i : i + step])]
    lost = decoder.framing_lost
    assert decoder.finish() == []
    assert len(got) == len(model.packets)
    for packet, want in zip(got, model.packets, strict=True):
        assert {name: getattr(packet, name) for name in want} == want
        assert stream[packet.offset :].startswith(packet.raw)
        ours.apply(packet)
        image.apply(want)
    ledger = decoder.ledger
    assert not ledger.broken_laws()
    assert (ledger.bytes_valid, ledger.bytes_invalid, ledger.bytes_discarded) == (
        model.valid,
        model.invalid,
        model.discarded,
    )
    assert ledger.as_dict()["packets_invalid"] == model.reasons
    assert (lost is not None) == (model.lost_at is not None)
    assert ledger.framing_lost == (model.lost_at is not None)
    assert ours.as_dict() == image.as_dict()


@given(packets, registers)
def test_a_packet_round_trips(fields, pairs):
    control, data = [r[0] for r in pairs], [r[1] for r in pairs]
    encoded = wire.encode_packet(control, data, **fields)
    assert len(encoded) == wire.packet_bytes(len(pairs))
    [packet] = wire.PacketDecoder().feed(encoded)
    assert {name: getattr(packet, name) for name in fields} == fields
    assert (packet.control, packet.data, packet.registers, bytes(packet)) == (control, data, pairs, encoded)
