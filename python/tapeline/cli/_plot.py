"""The picture of `tapeline plot`: three panels over the producer's time, drawn from the indexes.

`series` turns index rows into numbers (tested), `draw` puts them on paper. A row's bytes and missing frames
are spread evenly over the time it covers, so that the bins are right whatever the length of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tapeline.errors import TapelineError

if TYPE_CHECKING:
    from tapeline.recording import Stream

# Points across the picture: about one per pixel column of a panel.
_BINS = 400
_COMPLETE, _LATE = 0, 2
# Missing and late are red and orange in every view of the project; streams take the other colours.
_MISSING_COLOUR, _LATE_COLOUR = "#c62828", "#ef8e19"
_STREAM_COLOURS = ["#1f5fa8", "#2e8b57", "#7b4ba0", "#5b6770", "#008b9a", "#8a6d1c"]


@dataclass(frozen=True)
class Series:
    """One stream, binned.

    Attributes:
        name: Of the stream.
        edges_s: Shape (bins + 1,), seconds since `begin_ns`.
        begin_ns: Producer's time of the first frame, ns since the UNIX epoch.
        bytes_per_second: Shape (bins,).
        missing: Frames missing, shape (bins,).
        late: Frames that came late, shape (bins,).
        completeness: Frames present of those expected in the rows of the bin, 0 to 1; NaN without rows.
        rows: Index rows, by status.
    """

    name: str
    begin_ns: int
    edges_s: npt.NDArray[np.float64]
    bytes_per_second: npt.NDArray[np.float64]
    missing: npt.NDArray[np.float64]
    late: npt.NDArray[np.float64]
    completeness: npt.NDArray[np.float64]
    rows: tuple[int, int, int]

    def as_dict(self) -> dict[str, Any]:
        """Totals, for JSON."""
        return {
            "seconds": float(self.edges_s[-1]),
            "frames_missing": round(float(self.missing.sum())),
            "frames_late": round(float(self.late.sum())),
            "periodics_complete": self.rows[0],
            "periodics_incomplete": self.rows[1],
        }


def series(stream: Stream, bins: int = _BINS) -> Series:
    """Bin the index of a stream.

    Raises:
        OSError: As the operating system gave it.
    """
    table = stream.periodics()

    def column(name: str) -> npt.NDArray[Any]:
        return np.asarray(table[name].to_numpy())

    status = column("status")
    begin_ns = int(column("first_timestamp_ns").min()) if len(status) else 0

    def seconds(name: str) -> npt.NDArray[np.float64]:
        # subtract first: a float does not hold ns since 1970
        return np.asarray((column(name) - np.uint64(begin_ns)).astype(np.float64) / 1e9)

    first, last = seconds("first_timestamp_ns"), seconds("last_timestamp_ns")
    span = float(last.max()) if len(last) and last.max() > 0 else 1.0
    edges = np.linspace(0.0, span, bins + 1)
    present = column("frames_present").astype(np.float64)
    on_time = status != _LATE
    absent = np.where(on_time, column("frames_expected").astype(np.float64) - present, 0.0)
    absent += _between_rows(column("first_sequence"), column("last_sequence"), on_time, stream.assembly)
    frames = _spread(first, last, np.where(on_time, present, 0.0), edges)
    gone = _spread(first, last, absent, edges)
    with np.errstate(invalid="ignore"):
        completeness = np.where(frames + gone > 0, frames / (frames + gone), np.nan)
    return Series(
        name=stream.name,
        begin_ns=begin_ns,
        edges_s=edges,
        bytes_per_second=_spread(first, last, column("length").astype(np.float64), edges) / (span / bins),
        missing=gone,
        late=_spread(first, last, np.where(on_time, 0.0, present), edges),
        completeness=completeness,
        rows=(int((status == _COMPLETE).sum()), int((on_time & (status != _COMPLETE)).sum()), int((~on_time).sum())),
    )


def draw(streams: list[Series], output: str, *, title: str) -> None:
    """Write the picture; its kind follows from the name's ending.

    Raises:
        TapelineError: matplotlib is not installed, or does not know the ending.
        OSError: As the operating system gave it.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise TapelineError("plot needs matplotlib: pip install 'tapeline[plot]'") from None
    if not streams:
        raise TapelineError("there is no stream to draw")
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    rate, loss, whole = figure.subplots(3, 1, sharex=True, height_ratios=[3, 2, 2])
    origin = min(one.begin_ns for one in streams)
    for n, one in enumerate(streams):
        colour = _STREAM_COLOURS[n % len(_STREAM_COLOURS)]
        edges = one.edges_s + (one.begin_ns - origin) / 1e9
        rate.stairs(one.bytes_per_second / 1e6, edges, baseline=None, label=one.name, color=colour, linewidth=1.2)
        whole.stairs(one.completeness * 100, edges, baseline=None, color=colour, linewidth=1.2)
    edges, missing = _summed([one.missing for one in streams], streams, origin)
    _, late = _summed([one.late for one in streams], streams, origin)
    loss.stairs(missing, edges, fill=True, color=_MISSING_COLOUR, label=f"missing at close: {missing.sum():,.0f}")
    loss.stairs(late, edges, fill=True, color=_LATE_COLOUR, alpha=0.8, label=f"late: {late.sum():,.0f}")
    rate.set(ylabel="MB/s", ylim=(0, None))
    rate.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, title="stream")
    loss.set(ylabel="frames", ylim=(0, max(1.0, 1.1 * float((missing + late).max()))))
    loss.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    lowest = min((float(np.nanmin(one.completeness)) for one in streams if _any(one.completeness)), default=1.0)
    room = max(0.02, (1 - lowest) * 1.15) * 100
    whole.set(ylabel="frames present, %", ylim=(max(0.0, 100 - room), 100 + room * 0.05))
    whole.set_xlabel("producer's time, s since " + _text_of(origin))
    for axis in (rate, loss, whole):
        axis.grid(visible=True, alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.ticklabel_format(useOffset=False)
    figure.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", fontsize=11)
    try:
        figure.savefig(output, dpi=120)
    except ValueError as error:
        raise TapelineError(f"{output}: {error}") from None


def _spread(
    first: npt.NDArray[np.float64],
    last: npt.NDArray[np.float64],
    amount: npt.NDArray[np.float64],
    edges: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Spread each amount evenly from `first` to `last` and add up per bin."""
    bins = len(edges) - 1
    width = edges[1] - edges[0]
    begin = np.clip(np.floor(first / width).astype(np.int64), 0, bins - 1)
    end = np.clip(np.floor(last / width).astype(np.int64), 0, bins - 1)
    total = np.zeros(bins)
    inside = begin == end
    np.add.at(total, begin[inside], amount[inside])
    for a, b, start, stop, value in zip(
        begin[~inside].tolist(), end[~inside].tolist(), first[~inside], last[~inside], amount[~inside], strict=True
    ):
        low = np.maximum(edges[a : b + 1], start)
        high = np.minimum(edges[a + 1 : b + 2], stop)
        total[a : b + 1] += value * (high - low) / (stop - start)
    return total


def _between_rows(
    first: npt.NDArray[np.uint64], last: npt.NDArray[np.uint64], on_time: npt.NDArray[np.bool_], assembly: str | None
) -> npt.NDArray[np.float64]:
    """Sequences that lie between one row and the one before it.

    With rule `count` a periodic that is missing as a whole is in no row either. Known only where the rows are
    those of one stream id and one epoch, which is to say that they ascend.
    """
    jumps = np.zeros(len(first))
    at = np.flatnonzero(on_time)
    starts, stops = first[at], last[at]
    if len(at) < 2 or bool((starts[1:] <= stops[:-1]).any()):
        return jumps
    if assembly and assembly.startswith("count:"):
        n = np.uint64(int(assembly.removeprefix("count:")))
        starts, stops = starts // n * n, stops // n * n + (n - np.uint64(1))
    jumps[at[1:]] = (starts[1:] - stops[:-1]).astype(np.float64) - 1
    return jumps


def _summed(
    values: list[npt.NDArray[np.float64]], streams: list[Series], origin: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Counts of all streams in common bins."""
    starts = [one.edges_s + (one.begin_ns - origin) / 1e9 for one in streams]
    edges = np.linspace(0.0, max(float(one[-1]) for one in starts), _BINS + 1)
    total = np.zeros(_BINS)
    for one, value in zip(starts, values, strict=True):
        middle = (one[1:] + one[:-1]) / 2
        total += np.histogram(middle, edges, weights=value)[0]
    return edges, total


def _any(values: npt.NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).any())


def _text_of(timestamp_ns: int) -> str:
    return str(np.datetime64(timestamp_ns, "ns")) + "Z" if timestamp_ns < 1 << 63 else str(timestamp_ns)
