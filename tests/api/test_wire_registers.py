"""Register packets in Python: what is refused, how packets and images look."""

import numpy as np
import pytest

from tapeline import wire


def test_arrays_and_lists_encode_alike():
    want = wire.encode_packet([1, 65_535], [2, 0], timestamp_us=9, src_id=3, cmd=1, type=2, seq=255)
    arrays = wire.encode_packet(
        np.array([1, 65_535], "u2"), np.array([2, 0], "u2"), timestamp_us=9, src_id=3, cmd=1, type=2, seq=255
    )
    assert arrays == want
    assert wire.encode_packet(np.array([1, 65_535]), (2, 0), timestamp_us=9, src_id=3, cmd=1, type=2, seq=255) == want
    assert wire.encode_packet([5], cmd=wire.Command.QUERY) == wire.encode_packet([5], [0], cmd=2)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"src_id": 256}, "src_id is 256; it must be 0 to 255"),
        ({"cmd": 6}, "cmd is 6; it must be 0 to 5"),
        ({"type": 4}, "type is 4; it must be 0 to 3"),
        ({"seq": -1}, "seq is -1; it must be 0 to 255"),
        ({"timestamp_us": 1 << 64}, "timestamp_us is 18446744073709551616"),
        ({"kind": "frame"}, 'must be "packet" or "simple"'),
        ({"kind": "simple", "rack": 1 << 31}, "rack is 2147483648"),
        ({"type": "battery"}, "type is 'battery'; it must be one of unknown, sbmu, rack, rtos"),
        ({"cmd": "erase"}, "cmd is 'erase'; it must be one of diff, full"),
        ({"data": [1]}, "control has 2 offsets and data 1 values"),
        ({"data": [1, 65_536]}, "data holds a number"),
    ],
)
def test_what_does_not_fit_is_refused(fields, text):
    with pytest.raises(wire.WireError, match=text):
        wire.encode_packet(**{"control": [1, 2], "data": [3, 4], **fields})


def test_commands_and_types_go_by_name_too():
    for cmd in wire.Command:
        for kind in wire.SourceType:
            expected = wire.encode_packet([1], [2], cmd=cmd, type=kind)
            assert wire.encode_packet([1], [2], cmd=cmd.name.lower(), type=kind.name) == expected


def test_too_many_registers_are_refused():
    most = wire.encode_packet(range(65_536))
    assert len(most) == wire.packet_bytes(65_536)
    with pytest.raises(wire.WireError, match="at most 65536"):
        wire.encode_packet([0] * 65_537)
    with pytest.raises(wire.WireError, match="65537"):
        wire.packet_bytes(65_537)


def test_a_packet_shows_itself():
    stream = wire.encode_packet([7], [8], timestamp_us=1_700_000_000_000_100, src_id=7, type=1, seq=12, cmd=1)
    [packet] = wire.PacketDecoder().feed(stream)
    assert packet.summary() == str(packet) == "FULL SBMU 7 seq 12, 1 register, 25 bytes, at 1700000000.000100 s"
    assert repr(packet).startswith("Packet(timestamp_us=1700000000000100, src_id=7, cmd=1, type=1, seq=12, count=1")
    assert packet == wire.PacketDecoder().feed(stream)[0]
    assert packet != wire.PacketDecoder().feed(stream + stream)[1]
    [simple] = wire.PacketDecoder("simple").feed(wire.encode_packet([7], [8], kind="simple", time=1.5, rack=-2))
    assert (simple.time, simple.rack, simple.timestamp_us, simple.cmd) == (1.5, -2, 1_500_000, 0)
    assert str(simple) == "DIFF RACK -2, 1 register, 20 bytes, at 1.500000 s"


def test_lost_framing_is_told_and_counted():
    good = wire.encode_packet([7], [8])
    decoder = wire.PacketDecoder()
    assert len(decoder.feed(good + b"\x00\x00\x00\x00" + good)) == 1
    assert decoder.framing_lost == "framing lost at byte 25: length is 0, must be at least 17"
    assert decoder.ledger.framing_lost == 1
    assert decoder.ledger.bytes_discarded == 29
    decoder.finish()
    assert decoder.framing_lost is None
    assert len(decoder.feed(good)) == 1


def test_an_image_is_saved_and_loaded(tmp_path):
    image = wire.RegisterImage()
    image.apply_bytes(wire.encode_packet([1, 40_000], [10, 20], timestamp_us=5, src_id=4, type=2))
    image.apply_bytes(wire.encode_packet([1], [11], timestamp_us=6, src_id=4, type=2, seq=2))
    path = tmp_path / "image.bin"
    path.write_bytes(image.to_bytes())
    loaded = wire.RegisterImage.load(path)
    assert (
        loaded.as_dict()
        == image.as_dict()
        == {"sources": [{"type": 2, "src_id": 4, "registers": [[1, 11], [40_000, 20]]}]}
    )
    assert loaded.digest() == image.digest()
    assert [loaded.changed_us(2, 4, o) for o in (1, 2, 40_000)] == [6, None, 5]
    assert [loaded.unknown_since_us(2, 4, o) for o in (1, 40_000)] == [None, 5]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(wire.WireError, match="checksum"):
        wire.RegisterImage.load(path)


def test_an_image_that_is_no_file_or_not_there_is_refused(tmp_path):
    with pytest.raises(wire.WireError, match="not a register image"):
        wire.RegisterImage.load("/dev/zero")
    with pytest.raises(FileNotFoundError) as refused:
        wire.RegisterImage.load(tmp_path / "none.bin")
    assert refused.value.filename == str(tmp_path / "none.bin")
