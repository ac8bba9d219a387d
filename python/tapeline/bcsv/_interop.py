"""Other table libraries, each imported where it is used; they are extras of the package."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tapeline.bcsv._reader import OnCorrupt, Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import polars as pl

    from tapeline.bcsv._reader import Path

SCAN_BATCH_ROWS = 65536


def require(name: str) -> ModuleType:
    """Import an optional library.

    Raises:
        ImportError: It is not there; the text names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed for this: pip install 'tapeline[{name}]'", name=name) from error


def scan(
    path: Path,
    *,
    on_corrupt: OnCorrupt = "raise",
    threads: int | None = None,
) -> pl.LazyFrame:
    """Scan a BCSV file with polars, lazily. Needs the extra `polars`.

    Only the columns that the query uses are made, a row limit stops reading, and filters are applied
    batch by batch, so memory stays flat as long as the result is small. The file is opened again for every `collect`.

    Args:
        path: File to read; anything `os.fspath` accepts.
        on_corrupt: `skip` leaves out what cannot be read instead of raising.
        threads: Decoding threads; one per core if None.

    Returns:
        A `polars.LazyFrame`.

    Raises:
        CorruptError: This is no BCSV file, or its header is damaged; damage behind it raises in `collect`.
        OSError: As the operating system gave it.

    Example:
        >>> scan("log.bcsv").filter(pl.col("speed") > 10).select("time", "speed").collect()
    """
    polars = require("polars")
    plugins = importlib.import_module("polars.io.plugins")
    with Reader(path, on_corrupt=on_corrupt, threads=threads) as reader:
        schema = dict(polars.from_arrow(reader.schema.empty_table()).schema)

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        with Reader(path, on_corrupt=on_corrupt, threads=threads) as reader:
            for batch in reader.iter_batches(with_columns, batch_size or SCAN_BATCH_ROWS, stop=n_rows):
                frame = polars.from_arrow(batch)
                yield frame if predicate is None else frame.filter(predicate)

    frame: Any = plugins.register_io_source(source, schema=schema, is_pure=True)
    return frame  # type: ignore[no-any-return]
