"""What `simulate` and `replay` share: several URLs after one `--to`, signals, quantities."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from tapeline.cli._output import note, progress
from tapeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapeline._sending import Sending

_LOOK_S = 0.25
T = TypeVar("T")
S = TypeVar("S", bound="Sending")


class ManyUrls(click.Command):
    """A command whose `--to` may be followed by several URLs: `--to A B` means `--to A --to B`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat `--to` before every further URL."""
        spread: list[str] = []
        after_to = False
        for word in args:
            is_url = word == "-" or "://" in word
            if after_to and is_url and spread[-1] != "--to":
                spread.append("--to")
            spread.append(word)
            after_to = word == "--to" or word.startswith("--to=") or (after_to and is_url)
        return super().parse_args(ctx, spread)


def quantity(option: str, parse: Callable[[object], T], text: str) -> T:
    """Read a size or time of an option.

    Raises:
        ConfigError: It is none; the text names the option.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `stop`, the second one forces the end."""
    came = 0

    def handle(_number: int, _frame: object) -> None:
        nonlocal came
        came += 1
        if came > 1:
            raise click.Abort
        stop()

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def sending(start: Callable[[], S]) -> Iterator[S]:
    """Start to send; the first SIGINT or SIGTERM stops it, the second one forces the end.

    A signal counts from before the start: who sees the first byte may end what sends it.
    """
    came = False
    running: S | None = None

    def stop() -> None:
        nonlocal came
        came = True
        if running is not None:
            running.stop()

    with stopping(stop):
        running = start()
        if came:
            running.stop()
        yield running


def finished(running: Sending) -> None:
    """Wait for the end, with progress while a person watches; a pipe that nobody reads is told."""
    with progress("sending") as advance:
        while not running.wait(_LOOK_S):
            advance(running.bytes_sent())
            for url in running.take_unread():
                note(f"tapeline: waiting for a reader of {url}")
