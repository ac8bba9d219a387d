"""What `validate` and `repair` say."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a file.

    Attributes:
        text: What is wrong, in one line.
        offset: Byte offset in the file, or None.
        rows: The rows `(first, stop)` that it costs; None if it costs none or nobody knows which.
    """

    text: str
    offset: int | None = None
    rows: tuple[int, int] | None = None

    def __str__(self) -> str:
        """The text, the place and the loss."""
        place = f" (byte {self.offset})" if self.offset is not None else ""
        lost = f": rows {self.rows[0]} to {self.rows[1] - 1} are lost" if self.rows is not None else ""
        return f"{self.text}{place}{lost}"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of checking or repairing a file.

    Attributes:
        ok: True when nothing is wrong with the file that was read.
        complete: As `Reader.complete`.
        problems: Every fault found, in file order.
        rows_readable: Rows whose checksums hold; `repair` wrote exactly these.
        rows_expected: Rows that the file should have, as far as it says.
        rows_unverified: Whole rows at a cut end that no checksum covers; never counted as readable.
        path: The file that was checked, or written.
    """

    ok: bool
    complete: bool | None = None
    problems: list[Problem] = field(default_factory=list)
    rows_readable: int = 0
    rows_expected: int = 0
    rows_unverified: int = 0
    path: str = ""

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Row ranges `(first, stop)` that are lost."""
        return [problem.rows for problem in self.problems if problem.rows is not None]

    def __str__(self) -> str:
        """A few lines for people."""
        verdict = "ok" if self.ok else "damaged or unfinished"
        lines = [f"{self.path}: {verdict}, {self.rows_readable} of {self.rows_expected} rows readable"]
        lines += [f"  {problem}" for problem in self.problems]
        if self.rows_unverified:
            lines.append(f"  {self.rows_unverified} whole rows at the end are not covered by a checksum")
        return "\n".join(lines)
