"""Frames to send, and what a recording of them holds."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

from tapeline import wire
from tapeline.ledger import Ledger


def frame(sequence, payload=None, flags=0, stream_id=0):
    body = payload if payload is not None else (b"%08d" % sequence) * 16
    return wire.encode_frame(body, sequence=sequence, timestamp_ns=10**18 + sequence, stream_id=stream_id, flags=flags)


def frames(count, first=0):
    return [frame(n) for n in range(first, first + count)]


def send_tcp(address, data):
    """Send over one connection and wait until the other side has taken it all."""
    with socket.create_connection(address, timeout=30) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)


def send_udp(address, datagrams):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for datagram in datagrams:
            s.sendto(datagram, address)


def summary(out):
    """The last line of `record --json`."""
    return json.loads(out.splitlines()[-1])["streams"]


def ledger_of(out, name="ch0"):
    """A stream's ledger from the summary; the conservation laws must hold in it."""
    ledger = Ledger.from_dict(summary(out)[name]["ledger"])
    assert ledger.broken_laws() == []
    return ledger


def dat_files(directory, name="ch0"):
    return sorted(Path(directory, name).glob("*.dat"))


def recorded(directory, name="ch0"):
    """The bytes of a stream's finished segments, in order; nothing unfinished may be left."""
    assert list(Path(directory).rglob("*.part")) == []
    return b"".join(path.read_bytes() for path in dat_files(directory, name))


class Receiver:
    """Takes one TCP connection on a port of its own and keeps what comes."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.data = b""
        self.some = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        connection, _ = self._listener.accept()
        parts = []
        with connection:
            while part := connection.recv(1 << 20):
                parts.append(part)
                self.some.set()
        self.data = b"".join(parts)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(60)
        self._listener.close()
