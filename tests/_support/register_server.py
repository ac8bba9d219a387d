"""A register recorder that is spoken to: connections, answers, and the log as its files have it."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from tapeline import wire

PATIENCE_S = 30
HEADER_BYTES = 21
"""Of a data packet; the count is its last four bytes."""


def address_of(recorder, stream="rack"):
    url = recorder.status().streams[stream].addresses[0]
    host, port = url.partition("://")[2].rsplit(":", 1)
    return host, int(port)


def connect(address):
    """A connection; `address` is (host, port), or a recorder."""
    where = address if isinstance(address, tuple) else address_of(address)
    connection = socket.create_connection(where, timeout=PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection, count=1):
    """The next `count` packets."""
    decoder, packets = wire.PacketDecoder(), []
    while len(packets) < count:
        chunk = connection.recv(1 << 20)
        assert chunk, "closed"
        packets += decoder.feed(chunk)
    return packets


def until_closed(connection):
    """All packets until the other side closes."""
    decoder, packets = wire.PacketDecoder(), []
    while chunk := connection.recv(1 << 20):
        packets += decoder.feed(chunk)
    return packets


def synced(connection, seq=9):
    """Everything before on this connection is durable when this returns."""
    connection.sendall(wire.encode_packet(cmd=wire.Command.SYNC, seq=seq))
    [answer] = receive(connection)
    assert (answer.cmd, answer.seq) == (wire.Command.SYNCED, seq)


def wait_until(true):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def segments(out, stream="rack"):
    """The finished segments as the manifest lists them."""
    return json.loads((Path(out) / "recording.json").read_text())["streams"][stream]["segments"]


def stored(out, stream="rack"):
    """What the finished segments hold of received packets, in order."""
    directory = Path(out) / stream
    return b"".join((directory / e["name"]).read_bytes()[e["keyframe_bytes"] :] for e in segments(out, stream))


class LogFollower:
    """The received bytes of a running recorder's log, as followers get them."""

    def __init__(self, recorder, stream="rack"):
        self._position = lambda after: recorder._native.log_position(stream, after, 0.0)
        self._at = (0, 0)

    def read(self):
        """What came since the last time."""
        parts = []
        while True:
            number, path, size, keyframe_bytes, finished, _ended = self._position(self._at)
            if not path:
                return b"".join(parts)
            start = max(self._at[1], keyframe_bytes)
            if size > start:
                parts.append(self._bytes(Path(path), start, size))
            self._at = (number, max(start, size))
            if not finished:
                return b"".join(parts)
            self._at = (number + 1, 0)

    @staticmethod
    def _bytes(path, start, stop):
        while True:
            for place in (path.with_name(path.name + ".part"), path):
                try:
                    with place.open("rb") as file:
                        file.seek(start)
                        return file.read(stop - start)
                except FileNotFoundError:  # it has just got its name
                    continue


@contextmanager
def answering(replies):
    """The address of a server that answers the QUERY of each connection in turn with the next of `replies`."""

    def serve(listener):
        for reply in replies:
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(HEADER_BYTES, socket.MSG_WAITALL)
                connection.recv(4 * int.from_bytes(head[-4:], "little"), socket.MSG_WAITALL)
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()
