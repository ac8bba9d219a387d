"""Sinks of register streams: Parquet, BCSV, CSV and JSON lines, Python functions, another host.

**The log is the spool.** A sink follows the log of its stream with a cursor of its own and reads the packets back
from the page cache, at its own pace. So memory stays bounded, nothing is lost, and the log never waits for a sink.
A table file holds exactly the rows of one log segment: it is a pure function of it, and has its name with another
extension. It is written as `.part`, synced, and renamed when the segment is finished and all of it is there; what a
crash leaves undone is made again from the log at the next start.

    tapeline.Recorder({"out": "run", "streams": {"rack": {
        "url": "tcp://127.0.0.1:9000?wire=packet",
        "sinks": ["parquet", {"kind": "python", "call": print}],
    }}})
"""

from typing import TYPE_CHECKING, Any

from tapeline.sinks._follow import Follower, LogPosition, SinkStatus
from tapeline.sinks._manager import LogSource, SinkSet

if TYPE_CHECKING:
    from tapeline.sinks._tables import json_lines, plain_batch, table_columns, table_writer

__all__ = [
    "Follower",
    "LogPosition",
    "LogSource",
    "SinkSet",
    "SinkStatus",
    "json_lines",
    "plain_batch",
    "table_columns",
    "table_writer",
]


def __getattr__(name: str) -> Any:
    # tables need pyarrow, whose import a recorder without tables does not wait for
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tapeline.sinks import _tables

    return getattr(_tables, name)
