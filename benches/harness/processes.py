"""Child processes: their CPU time, their memory, the sockets they wait on.

CPU time is read from the process's own clock (as `clock_getcpuclockid` would name it), so that what a child
spent before the measurement began, above all the start of an interpreter, can be taken off.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_POLL_S = 0.002


class BenchError(Exception):
    """A run that cannot count: a process failed, or a result is not what was sent."""


class Child:
    """A process whose output goes to files, never into a pipe that someone must empty."""

    def __init__(self, command: list[str | Path], **environment: str) -> None:
        self.command = [str(word) for word in command]
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the child
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            self.command, stdout=self._out, stderr=self._err, env={**os.environ, **environment}
        )
        self.pid = self._process.pid
        self.started_ns = time.time_ns()
        self._cpu_mark = 0.0
        self.status: int | None = None
        self.cpu_seconds = 0.0
        self.peak_bytes = 0

    def mark_cpu(self) -> None:
        """Count CPU time from here on."""
        self._cpu_mark = time.clock_gettime((~self.pid << 3) | 2)

    def running(self) -> bool:
        """Whether the process has not ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def resident_bytes(self) -> int:
        """Memory that is the process's own: anonymous and shared, without mapped files."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines())
        return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024

    def wait(self, timeout_s: float = 120.0) -> dict[str, Any]:
        """Wait for the end; return the last line of the output as JSON.

        Raises:
            BenchError: The process failed or did not end in time.
        """
        deadline = time.monotonic() + timeout_s
        while self.running():
            if time.monotonic() > deadline:
                self.kill()
                raise BenchError(f"{' '.join(self.command)}: still running after {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        self._reap()
        # 3: finished, but data was lost; the caller compares the ledger.
        if self.status not in {0, 3}:
            raise BenchError(f"{' '.join(self.command)}: status {self.status}: {self._text(self._err)[-2000:]}")
        lines = [line for line in self._text(self._out).splitlines() if line.startswith("{")]
        if not lines:
            raise BenchError(f"{' '.join(self.command)}: no JSON: {self._text(self._err)[-2000:]}")
        return json.loads(lines[-1])

    def terminate(self) -> None:
        """Ask the process to finish."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process; harmless when it has ended."""
        if self.status is None:
            self._process.kill()
            self._reap()

    def _reap(self) -> None:
        _, status, usage = os.wait4(self.pid, 0)
        self.status = self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime - self._cpu_mark
        self.peak_bytes = usage.ru_maxrss * 1024

    @staticmethod
    def _text(file: Any) -> str:
        file.seek(0)
        return file.read()


def free_ports(count: int, *, udp: bool = False) -> list[int]:
    """Ports that nobody has at this moment."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_for_ports(child: Child, ports: list[int], *, udp: bool = False, timeout_s: float = 20.0) -> None:
    """Wait until the child has bound every port.

    Raises:
        BenchError: It ended, or took too long.
    """
    deadline = time.monotonic() + timeout_s
    while not all(port in _bound(udp=udp) for port in ports):
        if not child.running():
            child.wait()
            raise BenchError(f"{' '.join(child.command)}: ended before it listened")
        if time.monotonic() > deadline:
            raise BenchError(f"{' '.join(child.command)}: does not listen on {ports} after {timeout_s:.0f} s")
        time.sleep(_POLL_S)


def wait_until_read(port: int, timeout_s: float = 5.0) -> None:
    """Wait until the UDP socket on a port holds no datagram that is not read.

    Raises:
        BenchError: It took too long.
    """
    deadline = time.monotonic() + timeout_s
    while _bound(udp=True).get(port, 0) > 0:
        if time.monotonic() > deadline:
            raise BenchError(f"udp port {port}: not read to the end after {timeout_s:.0f} s")
        time.sleep(_POLL_S)


def _bound(*, udp: bool) -> dict[int, int]:
    """Local port to bytes in the receive queue, of UDP sockets or of TCP listeners."""
    result = {}
    for name in ("udp", "udp6") if udp else ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if udp or fields[3] == "0A":  # TCP_LISTEN
                result[int(fields[1].rsplit(":", 1)[1], 16)] = int(fields[4].split(":")[1], 16)
    return result
