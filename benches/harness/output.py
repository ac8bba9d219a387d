"""Where the receivers write: memory-backed if possible, and memory that this machine has touched before.

In a virtual machine the first touch of a page asks the hypervisor for it (0.4 GB/s where this was written, against
13 GB/s for pages in use), and memory left free goes back to it, here in passes that begin two seconds after something
was freed. So a reservoir file of the size that a run needs is kept filled between runs and deleted at the moment a run
begins, when no pass is due: the receiver's pages are those, and a run shorter than two seconds keeps them. The kernel's
socket memory is touched the same way, by a transfer that nobody measures.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = bytes(1 << 20)
# Counts the passes that give free memory back, where the kernel tells.
_PASSES = Path("/sys/module/page_reporting/parameters/passes")
_PASS_DELAY_S = 2.5
_WARM_BYTES = 128 << 20
_MOUNT_OPTIONS = "huge=always,size=75%"


class Output:
    """A scratch directory and the reservoir in it.

    Takes, in this order: the directory given; a tmpfs of huge pages of its own (needs root; 13 GB/s); /dev/shm
    (2.8 GB/s: small pages); the directory for temporary files.
    """

    def __init__(self, given: Path | None = None, *, settle: bool = True) -> None:
        self._settle = settle
        self.given = given
        self._mounted: Path | None = None
        if given is not None:
            given.mkdir(parents=True, exist_ok=True)
            self.kind = f"directory {_file_system(given)}"
            self.directory = Path(tempfile.mkdtemp(prefix="tapeline-bench-", dir=given))
        elif mounted := _mount():
            self._mounted = self.directory = mounted
            self.kind = f"tmpfs {_MOUNT_OPTIONS.split(',', maxsplit=1)[0]}"
        else:
            shm = Path("/dev/shm")
            parent = shm if os.access(shm, os.W_OK) else None
            self.kind = "tmpfs" if parent else "temporary directory"
            self.directory = Path(tempfile.mkdtemp(prefix="tapeline-bench-", dir=parent))
        self._reservoir = self.directory / "reservoir"

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove everything."""
        if self._mounted:
            subprocess.run(["umount", "--lazy", self._mounted], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def fresh(self, name: str = "run") -> Path:
        """An empty directory for one run."""
        path = self.directory / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def fill_reservoir(self, size: int) -> None:
        """Hold memory back for the next run; the last run's output is deleted for it."""
        shutil.rmtree(self.directory / "run", ignore_errors=True)
        with self._reservoir.open("ab", buffering=0) as file:
            size = min(size, shutil.disk_usage(self.directory).free * 3 // 4 + file.tell())
            if file.tell() > size:
                file.truncate(size)
            while file.tell() < size:
                file.write(_CHUNK)

        if self._settle:
            _wait_for_pass()

    def release_reservoir(self) -> None:
        """Give it to the run that begins now."""
        self._reservoir.unlink(missing_ok=True)
        _warm_sockets()


def _wait_for_pass() -> None:
    if not _PASSES.exists():
        return
    before, deadline = _PASSES.read_text(), time.monotonic() + _PASS_DELAY_S
    while _PASSES.read_text() == before and time.monotonic() < deadline:
        time.sleep(0.01)


def _warm_sockets() -> None:
    """Let a connection's queues grow as far as they do, and read them."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            feeder = threading.Thread(target=_feed, args=(sender,))
            feeder.start()
            time.sleep(0.01)  # the queue grows while nobody reads
            left, buffer = _WARM_BYTES, bytearray(1 << 20)
            while left > 0:
                left -= receiver.recv_into(buffer)
            feeder.join()


def _feed(sender: socket.socket) -> None:
    for _ in range(_WARM_BYTES // len(_CHUNK)):
        sender.sendall(_CHUNK)


def _mount() -> Path | None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return None
    path = Path(tempfile.mkdtemp(prefix="tapeline-bench-"))
    command = ["mount", "-t", "tmpfs", "-o", _MOUNT_OPTIONS, "tapeline-bench", path]
    if subprocess.run(command, check=False, capture_output=True).returncode == 0:
        return path
    path.rmdir()
    return None


def _file_system(path: Path) -> str:
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        if len(mount) > len(best) and path.resolve().is_relative_to(mount):
            best, kind = mount, name
    return kind
