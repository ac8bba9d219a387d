"""What `validate` and `repair` say."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a file.

    Attributes:
        text: What is wrong, in one line.
        offset: Byte offset in the file, or None.
        packet: Number of the BCSV packet, from 0, or None.
    """

    text: str
    offset: int | None = None
    packet: int | None = None

    def __str__(self) -> str:
        """The text and the place."""
        place = [f"packet {self.packet}"] if self.packet is not None else []
        place += [f"byte {self.offset}"] if self.offset is not None else []
        return f"{self.text} ({', '.join(place)})" if place else self.text


@dataclass(frozen=True, slots=True)
class Report:
    """The result of checking or repairing a file.

    Attributes:
        ok: True when nothing is wrong with the file (`validate`), or when every row that the source was
            known to hold is in the output (`repair`).
        problems: Every fault found, in file order.
        rows_readable: Rows whose checksums hold; `repair` wrote exactly these.
        gaps: Row ranges `(first, stop)` that cannot be read.
        rows_unverified: Whole rows at a cut end that no checksum covers; never counted as readable.
        path: The file that was checked, or written.
    """

    ok: bool
    problems: list[Problem] = field(default_factory=list)
    rows_readable: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    rows_unverified: int = 0
    path: str = ""

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [f"{self.path}: {'ok' if self.ok else 'not ok'}, {self.rows_readable} rows readable"]
        lines += [f"  {problem}" for problem in self.problems]
        lines += [f"  rows {first} to {stop - 1} are lost" for first, stop in self.gaps]
        if self.rows_unverified:
            lines.append(f"  {self.rows_unverified} whole rows at the end are not covered by a checksum")
        return "\n".join(lines)
