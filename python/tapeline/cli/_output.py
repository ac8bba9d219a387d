"""What every command uses to speak: results to stdout, everything else to stderr.

Nothing heavy is imported here; `rich` comes in only where a terminal is really there (`progress`).
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Outcome(Enum):
    """How a command ended; `cli/main.py` alone turns it into an exit code."""

    DONE = "done and nothing lost"
    FAILED = "failed, or the answer is no"
    USAGE = "usage or configuration"
    LOSS = "finished, but data was lost, skipped or clamped"
    FORCED = "a second signal forced the stop"


def emit(text: str) -> None:
    """Write one line (or several) of a result to stdout.

    Raises:
        OSError: The reader has gone away or the device is full.
    """
    sys.stdout.write(text + "\n")


def emit_json(value: Any) -> None:
    """Write a result as one line of JSON to stdout, at once.

    Raises:
        OSError: The reader has gone away or the device is full.
    """
    emit(json.dumps(value, allow_nan=False))
    sys.stdout.flush()


def note(text: str) -> None:
    """Write one line for people to stderr; a closed stderr is no reason to stop."""
    try:
        sys.stderr.write(escape(text) + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def interactive() -> bool:
    """True when a person watches stderr."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def escape(text: str) -> str:
    r"""Make control characters visible, so that no name from outside can steer a terminal.

    >>> escape("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def size(value: float) -> str:
    """Bytes for people, in powers of 1,000.

    >>> size(12_345_678)
    '12.3 MB'
    """
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 999.5:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> str:
    """Lay out a plain table: the first `left` columns to the left, the others to the right.

    Integers get thousands separators; None is a dash.

    Returns:
        The lines, without a newline at the end.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        parts = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(parts).rstrip()

    return "\n".join([line(headers), line(["-" * w for w in widths]), *(line(row) for row in cells)])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return escape(str(value))


@contextmanager
def progress(label: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Show progress of long work on stderr while a person watches; do nothing otherwise.

    Args:
        label: What is being done.
        total: The amount of work in any unit; None when unknown.

    Yields:
        A function that takes the amount done so far.
    """
    if not interactive():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(label), total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def rated_progress(label: str, unit: str) -> Iterator[Callable[[float, float | None], None]]:
    """Like `progress`, with the rate and the time left; the total may become known on the way.

    Args:
        label: What is being done.
        unit: What is counted: "bytes", or a plural noun.

    Yields:
        A function that takes the amount done so far and the total (None: unknown).
    """
    if not interactive():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed or 0.0
            return Text(f"{size(speed)}/s" if unit == "bytes" else f"{speed:,.0f} {unit}/s")

    parts = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), Rate())
    with Progress(*parts, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
