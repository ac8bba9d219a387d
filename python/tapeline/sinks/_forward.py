"""`forward`: the packets of a route to another host, over TCP, with reconnects.

What the other side's kernel has not acknowledged (SIOCOUTQ) is kept and sent again over the next connection, so a break
of the connection loses nothing that this side can know of; the other side may see some packets twice, which their `seq`
tells. The spool is the log itself.
"""

from __future__ import annotations

import collections
import fcntl
import os
import select
import socket
import struct
import termios
import time
from typing import TYPE_CHECKING

from tapeline import _native
from tapeline.sinks._consumers import Stopped, Work, _Plain
from tapeline.urls import parse_destination

if TYPE_CHECKING:
    import threading

    from tapeline._sink_settings import SinkConfig

_SEND_BYTES = 1 << 20
_BUFFER_BYTES = 4 << 20
_WAIT_S = 0.2  # how often a stuck connection is looked at
_GOODBYE_S = 1.0  # how long the other side may take to close
_DRAIN_S = 5.0  # how long it may take to acknowledge the rest


class Forward(_Plain):
    """A connection to another host."""

    repeatable = False
    makes_files = 0
    least_bytes = 1
    linger_s = 0.0

    def __init__(self, sink: SinkConfig, wire: str, quit_event: threading.Event) -> None:
        """Nothing is dialled before the first packet."""
        self._wire = wire
        self._quit = quit_event
        self._target = parse_destination(str(sink.url))
        self._backoff_s = sink.connect_backoff_seconds
        self._socket: socket.socket | None = None
        # packets and bytes that the other side's kernel may not have; the bytes sent of the first are counted from
        # `_base`
        self._unacked: collections.deque[tuple[int, bytes]] = collections.deque()
        self._sent = 0
        self._base = 0
        self.route = sink.route.lists

    def take(self, log: str, start: int, stop: int, read_bytes: int) -> Work:
        """Send the packets of a part of the log; returns when the kernel has them."""
        size = min(read_bytes, _SEND_BYTES)
        data, following, packets, broken = _native.register_filter(log, self._wire, start, stop, size, self.route)
        if data:
            self._send(packets, data)
        return Work(following, packets, 0, len(data), broken)

    def _send(self, packets: int, data: bytes) -> None:
        self._unacked.append((packets, data))
        todo = data
        while True:
            try:
                # a new connection gets all that the last one's kernel did not deliver, the new chunk behind it
                todo = self._dialled(unsent=1) or todo
                self._push(memoryview(todo))
                self._forget()
            except OSError as error:
                self.trouble = f"{self._target.url}: {error.strerror or error}"
                self._disconnect()
                continue
            self.trouble = None
            return

    def _dialled(self, unsent: int) -> bytes:
        """Connect unless connected; the bytes to send again, and with them the `unsent` newest chunks."""
        if self._socket is not None:
            return b""
        self._connect()
        again = list(self._unacked)
        self._sent = self._base = 0
        self.resent_packets += sum(count for count, _ in again[: len(again) - unsent])
        return b"".join(chunk for _, chunk in again)

    def _push(self, view: memoryview) -> None:
        sock = self._socket
        while sock is not None and len(view):
            self._check()
            try:
                sent = sock.send(view)
            except BlockingIOError:
                self._drain_input(sock)
                poll = select.poll()
                poll.register(sock, select.POLLOUT)
                poll.poll(_WAIT_S * 1000)
                continue
            self._sent += sent
            view = view[sent:]
        if sock is not None:
            self._drain_input(sock)

    def _forget(self) -> None:
        """Drop the chunks that the other side's kernel has."""
        if self._socket is None:
            return
        acknowledged = self._sent - self._queued(self._socket)
        while self._unacked and self._base + len(self._unacked[0][1]) <= acknowledged:
            self._base += len(self._unacked.popleft()[1])

    @staticmethod
    def _queued(sock: socket.socket) -> int:
        queued = int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
        # a reset empties the queue: nothing of it was acknowledged
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        return queued

    @staticmethod
    def _drain_input(sock: socket.socket) -> None:
        """Read what the other side says: unread bytes would turn our close into a reset."""
        try:
            while True:
                if not sock.recv(65536):
                    raise ConnectionResetError(None, "the other side closed the connection")
        except BlockingIOError:
            pass

    def _connect(self) -> None:
        pause_s, longest_s = self._backoff_s
        while True:
            self._check()
            try:
                address = (self._target.host, self._target.port)
                sock = socket.create_connection(address, timeout=_WAIT_S * 10)
            except OSError as error:
                self.trouble = f"{self._target.url}: {error.strerror or error}"
                if self._quit.wait(pause_s):
                    raise Stopped from None
                pause_s = min(longest_s, pause_s * 2)
                continue
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._socket = sock
            self.connects += 1
            return

    def _check(self) -> None:
        if self._quit.is_set():
            raise Stopped
        if self.deadline_s is not None and time.monotonic() > self.deadline_s:
            raise ConnectionAbortedError(None, f"{self._target.url}: not reached before the end")

    def _hang_up(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _disconnect(self) -> None:
        self._hang_up()
        self._quit.wait(self._backoff_s[0])
        self._check()

    def close(self) -> None:
        """Wait until the other side's kernel has everything, over a new connection if need be, and say goodbye."""
        if self.deadline_s is None:
            self.deadline_s = time.monotonic() + _DRAIN_S
        while self._unacked:
            try:
                again = self._dialled(unsent=0)
                self._push(memoryview(again))
                self._forget()
                self.trouble = None
                self._check()
            except ConnectionAbortedError:
                self.trouble = f"{self._target.url}: {sum(n for n, _ in self._unacked)} packets are not acknowledged"
                break
            except OSError as error:
                self.trouble = f"{self._target.url}: {error.strerror or error}"
                self._hang_up()
            if self._unacked:
                self._quit.wait(0.005)
        self.abandon()

    def abandon(self) -> None:
        """Close the connection."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        try:
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(_GOODBYE_S)
            while sock.recv(65536):
                pass
        except OSError:
            # it is closed in any case
            pass
        finally:
            sock.close()
