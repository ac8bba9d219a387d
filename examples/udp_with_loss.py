"""Record UDP datagrams of which some never arrive, and let the ledger say which part is missing."""

import socket
import tempfile

import tapeline
from tapeline import wire

with tempfile.TemporaryDirectory() as scratch:
    config = {"out": f"{scratch}/run", "count": 90, "streams": {"ch0": "udp://127.0.0.1:0?hold_seconds=0.05"}}
    with tapeline.Recorder(config) as recorder:
        host, _, port = recorder.status().streams["ch0"].addresses[0].removeprefix("udp://").rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as producer:
            for n in range(100):
                if n % 10 != 5:  # one in ten is lost on the way
                    producer.sendto(wire.encode_frame(b"x" * 1000, sequence=n, timestamp_ns=0), (host, int(port)))
        recorder.wait(timeout=30)
    ledger = recorder.ledger()["ch0"]
    print(f"stored {ledger.frames_stored}, lost {ledger.frames_lost} in {ledger.gaps} gaps")
    print(f"dropped by the kernel: {ledger.datagrams_dropped_by_kernel} datagrams")
