"""What the simulations share: they run in compiled threads, are watched, stopped, and give an account."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol, Self

from tapeline.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

_POLL_S = 0.1  # how often a wait comes up for signals; the compiled wait sleeps in between


class _Native(Protocol):
    def wait(self, timeout_s: float) -> bool: ...
    def stop(self) -> None: ...
    def bytes_sent(self) -> int: ...
    def finish(self) -> str: ...


class SendError(ConnectionError):
    """A destination took no more.

    Attributes:
        truth: The account so far; the last part of it may not have been sent.
    """

    def __init__(self, text: str, truth: dict[str, Any]) -> None:
        """Keep the account beside the text."""
        super().__init__(text)
        self.truth = truth


class Simulation:
    """A simulation in the background; its kinds differ in their options and their account.

    As a context manager it waits for the end on leaving, or stops when an exception passes through.
    """

    def __init__(self, native: _Native, senders: str) -> None:
        """Watch `native`; the entries of the account under `senders` have `url` and `error`."""
        self._native = native
        self._senders = senders
        self._truth: dict[str, Any] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything is sent.

        Args:
            timeout: Seconds; None waits for the end.

        Returns:
            True when everything is sent.
        """
        if self._truth is not None:
            return True
        left = float("inf") if timeout is None else timeout
        while not self._native.wait(min(left, _POLL_S)):
            left -= _POLL_S
            if left <= 0:
                return False
        return True

    def stop(self) -> None:
        """Ask the senders to end after what they are sending now."""
        if self._truth is None:
            self._native.stop()

    def bytes_sent(self) -> int:
        """Bytes given to the operating system so far."""
        return self._native.bytes_sent() if self._truth is None else int(self._truth["total"]["bytes_sent"])

    def truth(self) -> dict[str, Any]:
        """Wait for the end and return the account.

        Raises:
            ConnectionError: A destination failed; `truth` of the exception is the account so far.
        """
        self.wait()
        if self._truth is None:
            self._truth = json.loads(self._native.finish())
        failed = [sender for sender in self._truth[self._senders] if sender["error"] is not None]
        if failed:
            # many clients of one server fail alike
            texts = dict.fromkeys(f"{sender['url']}: {sender['error']}" for sender in failed)
            raise SendError("; ".join(texts), self._truth)
        return self._truth

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


def options_json(options: dict[str, Any]) -> str:
    """The text the compiled simulations take.

    Raises:
        ConfigError: A number is not finite.
    """
    try:
        return json.dumps(options, allow_nan=False)
    except ValueError:
        raise ConfigError("a rate, probability or time is not a finite number") from None


def whole(name: str, value: object, least: int, most: int = (1 << 64) - 1) -> int:
    """Check a whole number.

    Raises:
        ConfigError: It is none, or out of its range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
    return value
