"""`Reader`: one open file, read by row, by range, by batch, or followed while it is written."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, overload

import pyarrow as pa

from tapeline import _native, _numbers
from tapeline.bcsv._schema import arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

OnCorrupt = Literal["raise", "skip"]
Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Row = tuple[Any, ...]


class Version(NamedTuple):
    """A format version; prints as `1.5.22`."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        """With dots."""
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a file says.

    Attributes:
        version: Format version that the writer stamped.
        created: When the file was begun (UTC, whole seconds); None if not known.
        row_codec: `flat`, `zoh` or `delta`.
        file_codec: `stream`, `stream-lz4`, `packet`, `packet-lz4` or `packet-lz4-batch`.
        compression_level: 0 (none) to 9.
        packet_bytes: Bytes after which the writer closed a packet.
        index: False if the writer was told to leave the index out of the footer.
        flags: The flag bits as stored.
        size: Bytes of the header, with the column tables.
    """

    version: Version
    created: datetime | None
    row_codec: str
    file_codec: str
    compression_level: int
    packet_bytes: int
    index: bool
    flags: int
    size: int


class PacketInfo(NamedTuple):
    """One packet of a file: where it is and which rows it holds. Sizes in bytes."""

    offset: int
    first_row: int
    rows: int
    size: int


class Reader:
    """An open BCSV file.

    Opening reads the header and the footer, nothing else; where there is no usable footer, packet headers are
    searched for instead, once, when rows are first counted or reached by number. A packet's checksum is
    verified before its first row is given out. Reading in order takes one packet per thread, whatever the file's
    size; packets from which single rows were asked for stay as well, up to 256 MiB of them. Rows are tuples;
    `string` values are `str`.

    The reader is an Arrow stream (`__arrow_c_stream__`) that can be scanned again and again, so
    `polars.DataFrame(reader)`, `pyarrow.table(reader)` and `duckdb.sql("from reader")` work.

    Example:
        >>> with Reader("log.bcsv") as r:
        ...     print(r.num_rows, r[0], r[-1])
        ...     for batch in r.iter_batches(["speed"]):
        ...         print(batch.num_rows)
    """

    def __init__(
        self, path: Path, *, on_corrupt: OnCorrupt = "raise", follow: bool = False, threads: int | None = None
    ) -> None:
        """Open a file.

        Args:
            path: File to read; anything `os.fspath` accepts.
            on_corrupt: `raise` stops at the first damaged packet with `CorruptError`; `skip` goes on behind
                it, and `gaps` lists the rows that are missing.
            follow: The file may still grow. Rows appear when the writer flushes; iterating stops at the last
                one so far and goes on there the next time; `wait` waits for more.
            threads: Threads that decode batches and ranges; one per core if None.

        Raises:
            CorruptError: This is no BCSV file, or its header is damaged.
            UnsupportedError: A version or flag that this release does not know.
            ConfigError: `threads` is neither None nor 1 or more.
            OSError: As the operating system gave it.
        """
        self._path = os.fsdecode(path)
        self._native = _native.BcsvReader(self._path, on_corrupt, follow, _numbers.threads(threads))
        self._follow = follow
        self._schema = arrow_schema(self._native.columns())
        self._position = 0

    @property
    def path(self) -> str:
        """The path as given."""
        return self._path

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, as Arrow types."""
        return self._schema

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Names and types of the columns, in the words of the format."""
        return self._native.columns()

    @property
    def header(self) -> Header:
        """What the header says."""
        version, created, row_codec, file_codec, level, packet_bytes, index, flags, size = self._native.header()
        return Header(
            Version(*version), _instant(created), row_codec, file_codec, level, packet_bytes, index, flags, size
        )

    @property
    def num_rows(self) -> int:
        """Rows of the file: readable ones with `on_corrupt="raise"`, numbered ones (gaps included) with `skip`.

        With `follow`, the number of rows flushed so far.
        """
        return self._native.num_rows()

    @property
    def packets(self) -> list[PacketInfo]:
        """The packets, in file order; empty for stream files."""
        return [PacketInfo(*packet) for packet in self._native.packets()]

    @property
    def complete(self) -> bool | None:
        """Whether the file was closed by its writer and is whole.

        True: it ends with a footer that agrees with its packets. False: it is cut, or was never closed, or is still
        being written. None: the codec (`stream`, `stream-lz4`) has no mark for the end, so nobody can tell.
        """
        return self._native.complete()

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Row ranges `(first, stop)` that were found to be unreadable so far, with `on_corrupt="skip"`."""
        return self._native.gaps()

    def __len__(self) -> int:
        """`num_rows`."""
        return self.num_rows

    def __iter__(self) -> Iterator[Row]:
        """The rows in order, as tuples.

        Every iteration starts at row 0; with `follow`, where the one before stopped.

        Raises:
            CorruptError: A packet is damaged (`on_corrupt="raise"`); every row before it was given.
        """
        if not self._follow:
            return iter(self._native.rows(0, None))
        return self._tail()

    def _tail(self) -> Iterator[Row]:
        self._native.refresh()
        for row in self._native.rows(self._position, None):
            self._position += 1
            yield row

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> pa.Table: ...
    def __getitem__(self, key: int | slice) -> Row | pa.Table:
        """One row as a tuple, or a range of rows as a table; negative numbers count from the end.

        Only the packets concerned are read. Those of single rows stay in memory, verified, up to 256 MiB of them, with
        places to start decoding from: the next row of such a packet takes some 0.1 ms. Those used longest ago leave
        first.

        Raises:
            IndexError: There is no such row.
            TypeError: The key is neither an integer nor a slice of them.
            ValueError: A slice with a step.
            CorruptError: The packet is damaged: a row in a gap has no value to give, `skip` or not.
        """
        if isinstance(key, slice):
            if key.step not in (None, 1):
                raise ValueError("a slice of a Reader has no step")
            return self.read_table(start=key.start or 0, stop=key.stop)
        number = operator.index(key)
        if _place(number) != number:
            raise IndexError(f"row {number} does not exist, the file has {self.num_rows}")
        return self._native.row(number)

    def read_table(self, columns: Sequence[str] | None = None, *, start: int = 0, stop: int | None = None) -> pa.Table:
        """Rows `start` to `stop` as a table.

        Args:
            columns: Names, in the order wanted. All columns if None.
            start: First row, from 0; negative counts from the end.
            stop: Row after the last one; the end if None.

        Returns:
            A table; `pa.Table.combine_chunks` makes one chunk of it.

        Raises:
            CorruptError: A packet in the range is damaged (`on_corrupt="raise"`).
            SchemaError: A name is not a column of the file.
        """
        return pa.table(self._native.read(_names(columns), _place(start), None if stop is None else _place(stop)))

    def iter_batches(
        self,
        columns: Sequence[str] | None = None,
        batch_rows: int = 65536,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows in batches of at most `batch_rows`; memory stays flat.

        Args:
            columns: Names, in the order wanted. All columns if None.
            batch_rows: Most rows per batch; no batch is empty.
            start: First row, from 0; negative counts from the end.
            stop: Row after the last one; the end if None.

        Raises:
            CorruptError: A packet is damaged (`on_corrupt="raise"`); every row before it was given.
            SchemaError: A name is not a column of the file.
            ValueError: `batch_rows` is below 1.
        """
        limit = None if stop is None else _place(stop)
        stream = self._native.stream(_names(columns), _place(start), limit, min(batch_rows, _LAST_PLACE))
        return map(pa.record_batch, stream)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """All rows as an Arrow C stream; every call starts again at row 0."""
        return self._native.stream(None, 0, None, 65536).__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """The schema as an Arrow C schema."""
        return self._schema.__arrow_c_schema__()

    def refresh(self) -> bool:
        """Look for rows flushed since the last look; True if there are any. Only with `follow`."""
        return self._native.refresh()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until rows appear that were not there yet.

        Args:
            timeout: Seconds; None waits until the writer closes the file.

        Returns:
            True when there are new rows; False when the writer closed the file or the time is over
            (`complete` tells which).
        """
        return self._native.wait(timeout)

    def close(self) -> None:
        """Let go of the file; everything but `path` and `schema` then raises ValueError."""
        self._native.close()

    def __enter__(self) -> Self:
        """The reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Path and codecs."""
        return f"<Reader {self._path!r}, {len(self._schema)} columns>"


_LAST_PLACE = (1 << 63) - 1
"""The largest row number that the core takes; no file has that many rows."""


def _place(row: int) -> int:
    """A row number that the core takes: far beyond either end is as good as the end, as in slices of a list."""
    return max(-_LAST_PLACE - 1, min(operator.index(row), _LAST_PLACE))


def _names(columns: Sequence[str] | None) -> list[str] | None:
    if isinstance(columns, str):
        raise TypeError("columns is a list of names, not one name")
    return None if columns is None else list(columns)


def _instant(seconds: int | None) -> datetime | None:
    if not seconds:  # 0: not known (format 2.1)
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):  # an absurd clock is no reason to refuse a file
        return None
