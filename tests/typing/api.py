"""The programs of the README and the reference, for the type checker; never run."""

from pathlib import Path
from typing import assert_type

import tapeline
from tapeline import wire
from tapeline.ledger import Ledger


def record(directory: Path) -> dict[str, Ledger]:
    config = tapeline.RecorderConfig.from_dict({"out": directory, "streams": {"ch0": "tcp://127.0.0.1:0"}})
    with tapeline.Recorder(config) as recorder:
        assert_type(recorder.wait(timeout=1.5), bool)
        assert_type(recorder.status().streams["ch0"].addresses, tuple[str, ...])
        recorder.rotate()
    return recorder.ledger()


def record_from(path: str) -> int:
    try:
        recorder = tapeline.Recorder(path).start()
    except tapeline.ConfigError as error:
        assert_type(str(error), str)
        return 2
    recorder.stop()
    return recorder.ledger()["ch0"].frames_corrupt.header_crc


def decode(data: bytes) -> list[bytes]:
    layout = wire.FrameLayout(magic=bytes(8), version_flags=2, length_bytes=8, header_crc=False, max_payload=1 << 16)
    decoder = wire.FrameDecoder(layout, keep_duplicates=True, reorder_window=1024)
    frames = decoder.feed(data) + decoder.finish()
    return [frame.payload for frame in frames]


def encode(payload: bytearray) -> bytes:
    return wire.encode_frame(payload, sequence=7, timestamp_ns=0, stream_id=1, flags=wire.PERIOD_START)
