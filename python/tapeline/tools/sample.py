"""`sample`: filter and project the rows of a table with expressions, streaming.

Expressions may look at neighbouring rows. A row whose neighbours lie beyond the ends of the table is left
out (`edges="drop"`), or the first and last row stand for what lies beyond (`edges="repeat"`). The last rows of a
batch are carried over to the next, so batch borders do not exist for an expression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from tapeline.tools._evaluate import Block, Bound
from tapeline.tools._syntax import Column, ExpressionError, parse, parse_select

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

Edges = Literal["drop", "repeat"]


class Sampler:
    """A filter and a projection, bound to the columns of a table.

    Attributes:
        schema: Names and types of the result.
        columns: Names of the columns that are needed of the source, in its order.
        rows_read: Rows taken so far.
        rows_kept: Rows given so far.

    Example:
        >>> sampler = Sampler(reader.schema, where="temp > 40 and temp[-1] <= 40", select="time, p = u * i")
        >>> for batch in sampler.run(reader.iter_batches(sampler.columns)):
        ...     print(batch.num_rows)
    """

    def __init__(
        self, schema: pa.Schema, where: str | None = None, select: str | None = None, *, edges: Edges = "drop"
    ) -> None:
        """Parse and bind.

        Args:
            schema: Columns of the source.
            where: Which rows to keep; all if None.
            select: Which columns to make; all of the source if None.
            edges: What a row without all its neighbours is: left out, or completed with the first or last row.

        Raises:
            ExpressionError: A text cannot be understood or does not fit the columns; `.column` says where.
        """
        self._edges = edges
        self._where = None if where is None else Bound(parse(where), schema, where)
        if self._where is not None and self._where.kind != "bool":
            raise ExpressionError(f"a filter is true or false, this is a {self._where.kind}", where or "", 0)
        names, bound = [], []
        if select is None:
            select = ", ".join(f"${number}" for number in range(len(schema)))
        for name, node in parse_select(select):
            one = Bound(node, schema, select)
            named = one.name_of(node) if isinstance(node, Column) and name == f"${node.name}" else name
            if named in names:
                raise ExpressionError(f"the name {named!r} comes twice", select, node.at)
            names.append(named)
            bound.append(one)
        self._select = bound
        self.schema = pa.schema([(name, one.type) for name, one in zip(names, bound, strict=True)])
        every = [*bound, *([] if self._where is None else [self._where])]
        used = set().union(*(one.columns for one in every))
        # constants alone: one column still has to say how many rows there are
        self.columns = [name for name in schema.names if name in used] or schema.names[:1]
        self._back = max(one.back for one in every)
        self._ahead = max(one.ahead for one in every)
        self.rows_read = 0
        self.rows_kept = 0

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Filter and project batches that have at least the columns `columns`; memory is a batch and the neighbours.

        Raises:
            EvaluationError: An integer does not fit 64 bits, or is divided by zero.
        """
        carried: pa.Table | None = None
        last: pa.RecordBatch | None = None
        for batch in batches:
            if batch.num_rows == 0:
                continue
            wanted = batch.select(self.columns)
            self.rows_read += batch.num_rows
            fresh = pa.Table.from_batches([wanted])
            if carried is None:
                carried = self._edge(wanted.slice(0, 1), self._back)
            last = wanted.slice(wanted.num_rows - 1)
            carried = yield from self._emit(pa.concat_tables([carried, fresh]))
        if carried is not None and last is not None and self._ahead and self._edges == "repeat":
            yield from self._emit(pa.concat_tables([carried, self._edge(last, self._ahead)]))

    def _edge(self, row: pa.RecordBatch, times: int) -> pa.Table:
        if self._edges == "drop":
            times = 0
        return pa.Table.from_batches([row] * times, schema=row.schema)

    def _emit(self, table: pa.Table) -> Generator[pa.RecordBatch, None, pa.Table]:
        """Give the rows that have all their neighbours; returns the rows that the next ones need."""
        rows = table.num_rows - self._back - self._ahead
        if rows <= 0:
            return table
        arrays = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            joined = column.combine_chunks()
            arrays[name] = joined if isinstance(joined, pa.Array) else joined.chunk(0)
        block = Block(arrays, self._back, rows)
        mask = None if self._where is None else self._where.evaluate(block)
        if mask is None or mask.true_count:
            values = [one.evaluate(block) for one in self._select]
            batch = pa.RecordBatch.from_arrays(values, schema=self.schema)
            if mask is not None:
                batch = batch.filter(mask)
            self.rows_kept += batch.num_rows
            yield batch
        return table.slice(rows)


def sample(table: Any, where: str | None = None, select: str | None = None, *, edges: Edges = "drop") -> pa.Table:
    """Filter and project a table in memory, or anything with `__arrow_c_stream__`, such as a `bcsv.Reader`.

    Args:
        table: The source.
        where: Which rows to keep; all if None.
        select: Which columns to make; all if None.
        edges: As `Sampler`.

    Returns:
        A `pyarrow.Table` of the rows kept.

    Raises:
        ExpressionError: A text cannot be understood or does not fit the columns.
        EvaluationError: An integer does not fit 64 bits, or is divided by zero.

    Example:
        >>> sample(bcsv.Reader("log.bcsv"), "temp > 40 and temp[-1] <= 40", "time, temp")
    """
    stream = pa.RecordBatchReader.from_stream(table)
    sampler = Sampler(stream.schema, where, select, edges=edges)
    return pa.Table.from_batches(sampler.run(stream), schema=sampler.schema)
