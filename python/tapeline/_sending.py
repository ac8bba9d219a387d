"""What runs in compiled threads and sends: simulations and replays. It is watched, stopped, and gives an account."""

from __future__ import annotations

import json
import math
import operator
from typing import TYPE_CHECKING, Any, Protocol, Self

from tapeline.errors import ConfigError
from tapeline.urls import Destination, parse_destination

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_SHOWN_BITS = 256
_SHOWN_CHARACTERS = 80
_LEAST_RATE_HZ = 1e-9
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


def whole(name: str, value: object, least: int, most: int = (1 << 64) - 1) -> int:
    """Check a whole number; numbers of NumPy count, bool does not.

    Raises:
        ConfigError: It is none, or out of its range.
    """
    number = None if isinstance(value, (bool, float)) else _index(value)
    if number is None or not least <= number <= most:
        raise ConfigError(f"{name} is {_short(value)}; it must be a whole number from {least} to {most}")
    return number


def amount(name: str, value: object, most: float = math.inf) -> float:
    """Check a number that is 0 or more and finite: a rate, a time or a probability.

    Raises:
        ConfigError: It is none, or out of its range.
    """
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and 0 <= number <= most):
        limit = "a finite number, 0 or more" if math.isinf(most) else f"a number from 0 to {most:g}"
        raise ConfigError(f"{name} is {_short(value)}; it must be {limit}")
    return number


def rate(name: str, value: object) -> float:
    """Check a rate in Hz: 0 is no limit, and what is slower than once in thirty years is a mistake.

    Raises:
        ConfigError: It is none, or out of its range.
    """
    number = amount(name, value)
    if 0 < number < _LEAST_RATE_HZ:
        raise ConfigError(f"{name} is {_short(value)}; it must be 0 (no limit), or {_LEAST_RATE_HZ:g} or more")
    return number


def flag(name: str, value: object) -> bool:
    """Check a switch.

    Raises:
        ConfigError: It is neither True nor False.
    """
    if value is not True and value is not False:
        raise ConfigError(f"{name} is {_short(value)}; it must be True or False")
    return value


def _index(value: object) -> int | None:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _short(value: object) -> str:
    """The value for a message; Python refuses to write out numbers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


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
