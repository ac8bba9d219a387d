"""`sql`: DuckDB over BCSV files, named in the query like any file that it reads by itself.

A name in the query that ends in `.bcsv` becomes a view over a `BcsvDataset`. DuckDB asks it for the columns that
it needs and for the filter that it can push down, once per scan, so joins with itself and several scans work.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from tapeline import bcsv
from tapeline.bcsv._interop import require
from tapeline.errors import TapelineError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

# A name in single or double quotes; a doubled quote stands for itself
_QUOTED = re.compile(r"'((?:[^']|'')*)'|\"((?:[^\"]|\"\")*)\"|--[^\n]*|/\*.*?\*/", re.DOTALL)


class SqlError(TapelineError, ValueError):
    """DuckDB refused a query, or failed at it; the text is its own."""


class BcsvDataset(ds.Dataset):  # type: ignore[misc]
    """A BCSV file as a `pyarrow.dataset.Dataset`: re-scannable, columns and filters pushed down.

    Example:
        >>> log = BcsvDataset("log.bcsv")
        >>> duckdb.sql("select max(speed) from log where time > 5")
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:  # pylint: disable=W0231
        """Open the header.

        Raises:
            BcsvError: This is no BCSV file.
            OSError: As the operating system gave it.
        """
        # The base class has no constructor of its own; everything it would need is overridden here.
        self._path = path
        self._threads = threads
        with bcsv.Reader(path, threads=threads) as reader:
            self._schema = reader.schema

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._schema

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None, **_options: Any) -> _Scan:
        """A scan of some columns and of the rows that a filter keeps; only what these need is decoded."""
        wanted = self._schema.names if columns is None else list(columns)
        # An expression does not tell its columns; its text names them all, and one too many does no harm.
        text = "" if filter is None else str(filter)
        needed = [name for name in self._schema.names if name in wanted or (text and name in text)]
        if not needed:  # a count needs rows, and any column has them
            needed = self._schema.names[:1]
        return _Scan(bcsv.Reader(self._path, threads=self._threads), needed, wanted, filter)


class _Scan:
    """What DuckDB needs of a scanner. pyarrow's own reads ahead on threads, on which a scan that is given up hangs."""

    def __init__(self, reader: bcsv.Reader, needed: list[str], wanted: list[str], where: Any) -> None:
        self._reader = reader
        self._needed = needed
        self._wanted = wanted
        self._where = where
        self.projected_schema = pa.schema([reader.schema.field(name) for name in wanted])

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows as a stream; every call starts again."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._reader.iter_batches(self._needed):
            table = pa.Table.from_batches([batch])
            if self._where is not None:
                table = table.filter(self._where)
            yield from table.select(self._wanted).to_batches()


def query(text: str) -> pa.Table:
    """Run a query and return its result as a table.

    Args:
        text: SQL of DuckDB; tables are file names in quotes: .bcsv, .parquet, .csv, and what DuckDB reads.

    Raises:
        SqlError: DuckDB refused the query, or failed at it because a row is damaged.
        BcsvError: The header of a BCSV file is damaged.
        ImportError: The extra `duckdb` is not installed.

    Example:
        >>> query("select max(speed) from 'log.bcsv' where time > 5")
    """
    stream = run(text)
    return stream.read_all()


def run(text: str) -> pa.RecordBatchReader:
    """`query`, as a stream of batches; the result, not the input, is held in memory.

    Raises:
        SqlError: DuckDB refused the query, or failed at it.
    """
    duckdb = require("duckdb")
    connection = duckdb.connect()
    try:
        if not text.isascii():
            _check_utf8(text)
        for name in names(text):
            connection.register(name, BcsvDataset(name))
        relation = connection.sql(text)
        if relation is None:  # a statement without a result, such as COPY
            return pa.RecordBatchReader.from_batches(pa.schema([]), [])
        # Taken whole: a result that is still streaming when the process ends waits for threads of DuckDB for ever.
        result: pa.Table = relation.to_arrow_table()
    except duckdb.Error as error:
        # pyarrow puts the whole traceback of a reader's error behind its text
        raise SqlError(str(error).partition(". Detail: Python exception")[0]) from error
    finally:
        connection.close()
    return result.to_reader(65536)


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SqlError("the query is not UTF-8, and DuckDB takes no other names of files; rename the file") from None


def names(text: str) -> list[str]:
    r"""The names of BCSV files in a query, in order.

    >>> names("select 'x' from 'a.bcsv' join "b.bcsv" using (t) -- not 'c.bcsv'")
    ['a.bcsv', 'b.bcsv']
    """
    found: dict[str, None] = {}
    for match in _QUOTED.finditer(text):
        single, double = match.group(1), match.group(2)
        name = (single or "").replace("''", "'") or (double or "").replace('""', '"')
        if name.lower().endswith(".bcsv"):
            found.setdefault(name)
    return list(found)
