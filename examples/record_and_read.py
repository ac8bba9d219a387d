"""Record a TCP stream into a directory, watch its ledger, and read the frames back."""

import socket
import tempfile
from pathlib import Path

import tapeline
from tapeline import wire

with tempfile.TemporaryDirectory() as scratch:
    out = Path(scratch) / "run"
    config = {"out": out, "count": 1000, "streams": {"ch0": "tcp://127.0.0.1:0?assembly=count:100"}}
    with tapeline.Recorder(config) as recorder:
        address = recorder.status().streams["ch0"].addresses[0]
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port))) as producer:
            for n in range(1000):
                producer.sendall(wire.encode_frame(b"sample" * 50, sequence=n, timestamp_ns=n * 1_000_000))
        recorder.wait(timeout=30)
    ledger = recorder.ledger()["ch0"]
    print(f"stored {ledger.frames_stored} frames, {ledger.bytes_stored} bytes; lost {ledger.frames_lost}")

    stream = tapeline.open_recording(out).streams["ch0"]
    index = stream.periodics()
    print(f"{index.num_rows} periodics, complete: {set(index['status'].to_pylist()) == {0}}")
