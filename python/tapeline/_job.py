"""One conversion: what the ways of converting share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tapeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Format = Literal["csv", "bcsv", "parquet", "arrow", "jsonl", "dat", "pkt"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class ColumnReport:
    """What became of one column.

    Attributes:
        name: Its name in the output.
        type: Its type: one of the twelve of BCSV, or an Arrow type's name.
        widened_from: The type that a first look at a CSV file suggested, if a later cell needed more; else None.
        empty_cells: Empty cells, or nulls, that became NaN (in strings: empty strings).
        rounded_cells: Cells of a column with a given float type that became the nearest value.
    """

    name: str
    type: str
    widened_from: str | None = None
    empty_cells: int = 0
    rounded_cells: int = 0


@dataclass
class Job:
    """One conversion: where from, where to, and the options of `convert`; used by the format modules."""

    source: str
    destination: str
    source_format: Format
    destination_format: Format
    path: str
    options: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    empties: dict[str, int] = field(default_factory=dict)
    tick: Callable[[int], object] | None = None
    failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Keep the first error of a batch; Arrow passes on only its text."""
        if self.failure is None:
            self.failure = error

    @property
    def temporary(self) -> str | None:
        """Folder for temporary files: that of the output, where there is room for it."""
        return None if self.destination == "-" else str(Path(self.destination).absolute().parent)


def csv_options(job: Job) -> dict[str, Any]:
    """Options for reading the CSV file of a job.

    Raises:
        ConfigError: Rows are counted from the end.
    """
    options = job.options
    if options["start"] < 0 or (options["stop"] or 0) < 0:
        raise ConfigError(f"rows {options['start']}:{options['stop']}: a text has no end to count from")
    keys = ("columns", "start", "stop", "types", "names", "header", "delimiter", "decimal", "empty", "nulls", "ragged")
    return {key: options[key] for key in (*keys, "threads")}


def import_facts(report: dict[str, Any]) -> dict[str, Any]:
    """Fields of `ConvertReport` from the report of the compiled core."""
    report["columns"] = tuple(ColumnReport(**column) for column in report["columns"])
    report["renamed"] = tuple((old, new) for old, new in report["renamed"])
    return report


def text_options(job: Job) -> dict[str, Any]:
    """Options for writing the CSV or JSON lines of a job."""
    if job.destination_format == "jsonl":
        return {"json": True}
    decimal = job.options["decimal"] or "."
    delimiter = job.options["delimiter"]
    if delimiter is None:
        tabs = Path(job.destination).suffix.lower() == ".tsv"
        delimiter = "\t" if tabs else ";" if decimal == "," else ","
    header, nan = job.options["header"], job.options["nan"]
    return {"json": False, "delimiter": delimiter, "decimal": decimal, "header": header, "nan": nan}
