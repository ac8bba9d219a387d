"""Convert tables and recordings between file formats, without changing a value silently.

`convert` chooses the way: CSV to BCSV and BCSV to text run wholly in the compiled core; everything else flows as Arrow
batches of bounded size. The output gets its name when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tapeline import _native, _numbers
from tapeline._job import FORMATS, ColumnReport, Format, Job, csv_options, import_facts, text_options
from tapeline._special import is_special
from tapeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tapeline.bcsv._schema import TypeName
    from tapeline.bcsv._writer import FileCodec, RowCodec

EXTENSIONS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".bcsv": "bcsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".dat": "dat",
    ".pkt": "pkt",
    ".spkt": "pkt",
}
_READ_ONLY = ("dat", "pkt")


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did.

    Attributes:
        source: The path read; `-` for stdin.
        destination: The path written; `-` for stdout.
        source_format: One of `FORMATS`.
        destination_format: One of `FORMATS`.
        rows: Rows written.
        rows_skipped: Records left out because of their number of fields (`ragged="skip"`).
        rows_padded: Records that were filled with empty cells (`ragged="pad"`).
        blank_lines: Empty lines of a CSV file with several columns, which are no records.
        columns: A `ColumnReport` for each column.
        renamed: Column names that had to change, as (found, made).
        delimiter: Of the CSV file read; None for other formats.
        decimal: Decimal separator of the CSV file read; None for other formats.
        gaps: Damaged rows of a BCSV file that were left out, as (first, stop).
        bytes_skipped: Damaged bytes of a .dat or a log of register packets that were left out.
        unfinished: The source is a BCSV file that was cut, or that its writer has not closed: its end may be missing.
        passes: Times that the source was read.
        bytes_read: Size of the source.
        bytes_written: Size of the output.
        seconds: Time taken.
    """

    source: str
    destination: str
    source_format: str
    destination_format: str
    rows: int = 0
    rows_skipped: int = 0
    rows_padded: int = 0
    blank_lines: int = 0
    columns: tuple[ColumnReport, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    delimiter: str | None = None
    decimal: str | None = None
    gaps: tuple[tuple[int, int], ...] = ()
    bytes_skipped: int = 0
    unfinished: bool = False
    passes: int = 1
    bytes_read: int = 0
    bytes_written: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """True when every row of the source that was asked for is in the output."""
        return not self.rows_skipped and not self.gaps and not self.bytes_skipped

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, `complete` included; what `tapeline convert --json` prints."""
        return {**asdict(self), "complete": self.complete}

    def __str__(self) -> str:
        """Some lines for people."""
        lines = [
            (
                f"{self.destination}: {self.rows:,} rows, {len(self.columns)} columns, {self.bytes_written:,} bytes"
                f" from {self.bytes_read:,} in {self.seconds:.2f} s"
            )
        ]
        lines += [f"column {old!r} is now {new!r}" for old, new in self.renamed]
        for column in self.columns:
            if column.widened_from:
                lines.append(f"column {column.name!r}: widened from {column.widened_from} to {column.type}")
            if column.empty_cells:
                lines.append(f"column {column.name!r}: {column.empty_cells:,} empty cells")
            if column.rounded_cells:
                lines.append(f"column {column.name!r}: {column.rounded_cells:,} cells rounded to {column.type}")
        if self.rows_padded:
            lines.append(f"{self.rows_padded:,} short records filled with empty cells")
        if self.rows_skipped:
            lines.append(f"{self.rows_skipped:,} records left out for their number of fields")
        lines += [f"rows {first:,} to {stop - 1:,} are damaged and left out" for first, stop in self.gaps]
        if self.bytes_skipped:
            lines.append(f"{self.bytes_skipped:,} bytes of the recording are damaged and left out")
        if self.unfinished:
            lines.append(f"{self.source} has no end: it was cut, or its writer has not closed it")
        return "\n".join(lines)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    source_format: Format | None = None,
    destination_format: Format | None = None,
    columns: Sequence[str] | None = None,
    start: int = 0,
    stop: int | None = None,
    types: Mapping[str, TypeName] | Sequence[TypeName | None] | None = None,
    names: Sequence[str] | None = None,
    header: bool = True,
    delimiter: str | None = None,
    decimal: Literal[".", ","] | None = None,
    empty: Literal["nan", "string", "stop"] = "nan",
    nulls: Sequence[str] = (),
    nan: str = "nan",
    ragged: Literal["stop", "skip", "pad"] = "stop",
    on_corrupt: Literal["raise", "skip"] = "raise",
    stream: str | None = None,
    row_codec: RowCodec = "delta",
    file_codec: FileCodec = "packet-lz4-batch",
    compression_level: int = 1,
    packet_bytes: int = 8 << 20,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> ConvertReport:
    r"""Convert a file from one format into another.

    Formats go by extension: csv (.csv .tsv .txt), bcsv, parquet (.parquet .pq), arrow (.arrow .feather .ipc .arrows),
    jsonl (.jsonl .ndjson); dat (frames) and pkt (register packets) can only be read. Memory is bounded by some chunks
    of a few MB per thread, whatever the size of the file.

    No value changes silently. A CSV column gets the smallest type that holds each of its cells without loss; a cell
    that does not fit widens its column in a second pass, or stops the conversion if the type was given. See
    docs/howto/convert.md for the rules.

    Args:
        source: File to read, or `-` for stdin, which is kept in a temporary file, as a pipe is. A recording's directory
            works too.
        destination: File to write, or `-` for stdout. It gets its name when it is complete.
        source_format: One of `FORMATS`, if the extension does not say it.
        destination_format: Likewise for the output.
        columns: Names of the columns wanted, in this order; all if None.
        start: First row wanted, from 0. Negative counts from the end, for BCSV, Parquet and Arrow files.
        stop: Row after the last one wanted; the end if None.
        types: Types of columns by name, or of all columns in order (None: to be found out). Cells must fit, but for
            floats, which take the nearest value; blanks around numbers, a plus sign and leading zeros are then allowed.
        names: Names for the columns of a CSV file, in place of its own.
        header: The first record of a CSV file, read or written, has the names.
        delimiter: Between cells of a CSV file, read or written. Reading finds it out if None; writing takes `,`, a tab
            for .tsv, or `;` where the decimal separator is a comma.
        decimal: Decimal separator of a CSV file, read or written. Reading finds it out if None; writing takes `.`.
        empty: Empty cells in CSV columns of numbers: `nan` makes the column one of floats, `string` one of strings,
            `stop` is an error.
        nulls: Texts that count as empty in columns of numbers, such as `NA`.
        nan: What NaN is written as in CSV.
        ragged: CSV records with another number of fields than the table: `stop`; `skip` leaves them out; `pad` fills
            short ones with empty cells, and stops at long ones.
        on_corrupt: Damaged rows of a BCSV file, damaged bytes of a .dat, damaged blocks of a log of register packets:
            `raise`, or `skip` and report.
        stream: Which stream of a recording, if it has several.
        row_codec: Of a BCSV file written, as the following two; see `bcsv.Writer`.
        file_codec: See `bcsv.Writer`.
        compression_level: See `bcsv.Writer`.
        packet_bytes: See `bcsv.Writer`.
        overwrite: Replace a file that exists.
        threads: Threads; one per core if None.
        progress: Called about ten times a second with the work done and its total (None: unknown), in any unit.

    Returns:
        A `ConvertReport`.

    Raises:
        ConvertError: The text cannot be converted; `.path`, `.line` and `.column` say where.
        ConfigError: Options contradict each other or the file.
        TapelineError: There is no such stream in the recording, or its log is damaged.
        BcsvError: The BCSV file is damaged, or a value does not fit the format.
        FileExistsError: The output exists, and `overwrite` is false.
        OSError: As the operating system gave it.

    Example:
        >>> import tapeline
        >>> from pathlib import Path
        >>> _ = Path("t.csv").write_text("time,temp\n1,20.5\n2,21.0\n")
        >>> report = tapeline.convert("t.csv", "t.bcsv")
        >>> [(column.name, column.type) for column in report.columns]
        [('time', 'uint8'), ('temp', 'float')]
    """
    began = time.perf_counter()
    source, destination = os.fspath(source), os.fspath(destination)
    job = Job(
        source=source,
        destination=destination,
        source_format=_format(source, source_format, "source_format"),
        destination_format=_format(destination, destination_format, "destination_format"),
        path=source,
        options={
            "columns": None if columns is None else list(columns),
            "start": _numbers.row(start),
            "stop": None if stop is None else _numbers.row(stop),
            "types": dict(types) if isinstance(types, Mapping) else types and list(types),
            "names": None if names is None else list(names),
            "header": _numbers.flag("header", header),
            "delimiter": _character("delimiter", delimiter),
            "decimal": _one_of("decimal", decimal, (None, ".", ",")),
            "empty": _one_of("empty", empty, ("nan", "string", "stop")),
            "nulls": list(nulls),
            "nan": nan,
            "ragged": _one_of("ragged", ragged, ("stop", "skip", "pad")),
            "on_corrupt": _one_of("on_corrupt", on_corrupt, ("raise", "skip")),
            "stream": stream,
            "threads": _numbers.threads(threads),
            "write": {
                "row_codec": row_codec,
                "file_codec": file_codec,
                "compression_level": _numbers.index("compression_level", compression_level),
                "packet_bytes": _numbers.index("packet_bytes", packet_bytes),
            },
        },
    )
    if job.destination_format in _READ_ONLY:
        raise ConfigError(f"{job.destination_format} files are written by the recorder only; choose another format")
    with _input(job) as path:
        job.path = path
        total = _size(path)
        if progress is not None:
            job.tick = _ticker(progress, job, total)
        with _output(job, overwrite=overwrite) as part:
            _run(job, part)
            written = 0 if part is None else _size(part)
        facts = job.facts
        facts.setdefault("bytes_written", written)
        if job.source_format == "bcsv":
            facts["unfinished"] = _native.BcsvReader(job.path, "skip", False, 1).complete() is False
        return ConvertReport(
            source=source,
            destination=destination,
            source_format=job.source_format,
            destination_format=job.destination_format,
            bytes_read=total,
            seconds=time.perf_counter() - began,
            **facts,
        )


def _run(job: Job, part: str | None) -> None:
    """Choose the way and go it; what was done is put into `job.facts`."""
    way = (job.source_format, job.destination_format)
    if way == ("csv", "bcsv") and part is not None:
        options = json.dumps(csv_options(job))
        write = job.options["write"]
        codec = (write["row_codec"], write["file_codec"], write["compression_level"], write["packet_bytes"])
        done = _native.csv_import(job.path, part, options, (*codec, True, "1.5", job.options["threads"]), job.tick)
        job.facts.update(import_facts(json.loads(done)))
        return
    if way[0] == "bcsv" and way[1] in ("csv", "jsonl") and not job.options["types"]:
        _export(job, part)
        return
    from tapeline import _tables

    _tables.convert_batches(job, part)


def _export(job: Job, part: str | None) -> None:
    """BCSV to CSV or JSON lines, wholly in the compiled core."""
    options = job.options
    start, stop = _row_range(job)
    rest = {"columns": options["columns"], "threads": options["threads"], "start": start, "stop": stop}
    rest["skip_damage"] = options["on_corrupt"] == "skip"
    done = json.loads(_native.text_export(job.path, part, json.dumps({**text_options(job), **rest}), job.tick))
    job.facts.update(
        rows=done["rows"],
        gaps=tuple((first, after) for first, after in done["gaps"]),
        columns=tuple(ColumnReport(name, kind) for name, kind in done["columns"]),
        bytes_written=done["bytes"],
    )


def _row_range(job: Job) -> tuple[int, int | None]:
    """The rows wanted of a BCSV file, counted from its start."""
    start, stop = job.options["start"], job.options["stop"]
    if start < 0 or (stop or 0) < 0:
        reader = _native.BcsvReader(job.path, job.options["on_corrupt"], False, None)
        start, stop, _ = slice(start, stop).indices(reader.num_rows())
        stop = max(start, stop)
        reader.close()
    return start, stop


# ---------------------------------------------------------------- files


@contextlib.contextmanager
def _input(job: Job) -> Iterator[str]:
    """The path to read from: for stdin or a pipe a temporary file, because a text may have to be read twice."""
    stdin = job.source == "-"
    if not stdin and not Path(job.source).is_fifo():
        yield job.source
        return
    # recordings are known by their extension
    suffix = f".{job.source_format}" if job.source_format in _READ_ONLY else ".stdin"
    import shutil
    import tempfile

    with tempfile.NamedTemporaryFile(dir=job.temporary, prefix=".tapeline-", suffix=suffix) as spool:
        with contextlib.nullcontext(sys.stdin.buffer) if stdin else Path(job.source).open("rb") as stream:
            shutil.copyfileobj(stream, spool, 1 << 20)
        spool.flush()
        yield spool.name


@contextlib.contextmanager
def _output(job: Job, *, overwrite: bool) -> Iterator[str | None]:
    """The path to write to: a name of its own until all is written; None where text goes straight to stdout.

    A device or a pipe is written to, never replaced.
    """
    final = Path(job.destination)
    stdout = job.destination in ("-", "/dev/stdout", "/dev/fd/1")
    if stdout or is_special(final):
        text = job.destination_format in ("csv", "jsonl")
        if stdout:
            sys.stdout.flush()
        if text:
            yield None if stdout else str(final)
            return
        import shutil
        import tempfile

        with tempfile.TemporaryDirectory(prefix="tapeline-") as folder:
            path = str(Path(folder) / "out")
            yield path
            with (
                Path(path).open("rb") as file,
                contextlib.nullcontext(sys.stdout.buffer) if stdout else final.open("wb") as out,
            ):
                shutil.copyfileobj(file, out, 1 << 20)
        if stdout:
            sys.stdout.flush()
        return
    exists = final.exists()
    if exists and not overwrite:
        raise FileExistsError(17, "exists already; overwrite it if that is right", str(final))
    if exists and job.source != "-" and final.samefile(job.source):
        raise ConfigError(f"{final}: source and output are the same file")
    part = final.with_name(final.name + ".part")
    part.unlink(missing_ok=True)
    try:
        yield str(part)
        if exists:
            # or a power cut could leave neither the old content nor the new
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _size(path: str) -> int:
    place = Path(path)
    return place.stat().st_size if place.is_file() else sum(f.stat().st_size for f in place.rglob("*") if f.is_file())


def _ticker(progress: Callable[[int, int | None], object], job: Job, total: int) -> Callable[[int], object]:
    """Progress in bytes of a CSV file, else in rows."""
    known: int | None = None
    if job.source_format == "csv":
        known = total
    elif job.source_format == "bcsv":
        with contextlib.suppress(Exception):  # what is wrong with the file is said where it is read
            reader = _native.BcsvReader(job.path, "skip", False, None)
            first, last, _ = slice(job.options["start"], job.options["stop"]).indices(reader.num_rows())
            known = max(last - first, 0)
            reader.close()
    return lambda done: progress(done, known)


def _format(path: str, given: str | None, key: str) -> Format:
    if given is not None:
        chosen: Format = _one_of(key, given, FORMATS)
        return chosen
    place = Path(path)
    if path != "-" and place.is_dir():
        return "dat"
    try:
        return EXTENSIONS[Path(path.removesuffix(".part")).suffix.lower()]
    except KeyError:
        pass
    what = "stdin or stdout has" if path == "-" else f"{path}: the extension is not known and tells"
    raise ConfigError(f"{what} no format; say which: {', '.join(FORMATS)}")


def _one_of(key: str, value: Any, allowed: Sequence[Any]) -> Any:
    if value not in allowed:
        words = ", ".join(repr(one) for one in allowed if one is not None)
        raise ConfigError(f"{key} is {value!r}; it is one of {words}")
    return value


def _character(key: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in '"\r\n':
        raise ConfigError(f"{key} is {value!r}; it is one ASCII character, and no quote or line end")
    return value
