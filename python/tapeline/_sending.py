"""What runs in compiled threads and sends: simulations and replays. It is watched, stopped, and gives an account."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol, Self

from tapeline.errors import ConfigError
from tapeline.urls import Destination, parse_destination

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_POLL_S = 0.1  # how often a wait comes up for signals; the compiled wait sleeps in between


def destinations(to: str | Sequence[str]) -> list[Destination]:
    """Read the URLs of `to`.

    Raises:
        ConfigError: There is none, one is no URL, or a file is named twice: each would overwrite the other.
    """
    urls = [to] if isinstance(to, str) else to
    if not isinstance(urls, (list, tuple)) or not urls or not all(isinstance(url, str) for url in urls):
        raise ConfigError(f"to is {to!r}; it must be a URL or a list of them, such as 'tcp://127.0.0.1:9001'")
    found = [parse_destination(url) for url in urls]
    files = [target.path for target in found if target.path is not None]
    for path in files:
        if files.count(path) > 1:
            raise ConfigError(f"to names {path!r} more than once; each would overwrite the other")
    return found


class Native(Protocol):
    """The compiled side."""

    def wait(self, timeout_s: float) -> bool: ...
    def stop(self) -> None: ...
    def bytes_sent(self) -> int: ...
    def take_unread(self) -> list[str]: ...
    def finish(self) -> str: ...


class Sending:
    """Something that sends in the background.

    As a context manager it waits for the end on leaving, or stops when an exception passes through.
    """

    def __init__(self, native: Native) -> None:
        """Watch `native`, which is sending already."""
        self._native = native
        self._account: dict[str, Any] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything is sent.

        Args:
            timeout: Seconds; None waits for the end.

        Returns:
            True when everything is sent.
        """
        if self._account is not None:
            return True
        left = float("inf") if timeout is None else timeout
        while not self._native.wait(min(left, _POLL_S)):
            left -= _POLL_S
            if left <= 0:
                return False
        return True

    def stop(self) -> None:
        """Ask the senders to end after what they are sending now."""
        if self._account is None:
            self._native.stop()

    def bytes_sent(self) -> int:
        """Bytes given to the operating system so far."""
        return self._native.bytes_sent() if self._account is None else self._bytes_in(self._account)

    def take_unread(self) -> list[str]:
        """URLs of named pipes for which it has begun to wait for a reader, each told once."""
        return self._native.take_unread() if self._account is None else []

    def _bytes_in(self, account: dict[str, Any]) -> int:
        raise NotImplementedError

    def _finish(self) -> dict[str, Any]:
        """Wait for the end; the account."""
        self.wait()
        if self._account is None:
            self._account = json.loads(self._native.finish())
        return self._account

    def __enter__(self) -> Self:
        """Return itself; it is sending already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the end, or stop when an exception passes through."""
        if kind is not None:
            self.stop()
        self.wait()
