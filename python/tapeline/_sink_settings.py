"""Settings of the sinks of a register stream: which tables to write, where to forward, and which packets go there.

In a configuration file:

    [[streams.rack.sinks]]
    kind = "parquet"
    compression = "zstd"
    route = { cmd = ["full"], type = ["rack"], src_id = [1, 2] }

Short, where only the kind matters: `sinks = ["parquet", "csv"]`, in a URL `?sinks=parquet,csv`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tapeline._settings import SettingInfo, convert, describe, rules, setting, unknown_key
from tapeline.errors import ConfigError

COMMANDS = ("diff", "full", "query", "reply", "sync", "synced")
TYPES = ("unknown", "sbmu", "rack", "rtos")
TABLE_KINDS = ("parquet", "bcsv", "csv", "jsonl")
KINDS = (*TABLE_KINDS, "forward", "python")
_LABEL = re.compile(r"[A-Za-z0-9-]{1,32}", re.ASCII)
_MAX_SINKS = 32


@dataclass(frozen=True, slots=True)
class Route:
    """Which packets a sink takes; all three must allow a packet, and None allows all.

    Attributes:
        cmd: Commands by number: 0 DIFF, 1 FULL, 2 QUERY, 3 REPLY, 4 SYNC, 5 SYNCED; names are accepted too.
        type: Source types by number: 0 UNKNOWN, 1 SBMU, 2 RACK, 3 RTOS; names are accepted too.
        src_id: Source ids; of simple packets the rack.
    """

    cmd: tuple[int, ...] | None = None
    type: tuple[int, ...] | None = None
    src_id: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check every list."""
        object.__setattr__(self, "cmd", _numbers(self.cmd, "route.cmd", COMMANDS))
        object.__setattr__(self, "type", _numbers(self.type, "route.type", TYPES))
        object.__setattr__(self, "src_id", _numbers(self.src_id, "route.src_id", None))

    @classmethod
    def from_value(cls, value: Any, where: str) -> Route:
        """Read a table of lists; a single name or number stands for a list of it.

        Raises:
            ConfigError: A key or value is wrong; the text begins with `where`.
        """
        if isinstance(value, Route):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {value!r} is not a table; allowed keys: cmd, type, src_id")
        known = [f.name for f in fields(cls)]
        for key in value:
            if key not in known:
                raise unknown_key(str(key), known, where)
        try:
            return cls(**value)
        except ConfigError as error:
            raise ConfigError(f"{where.removesuffix('route')}{error}") from None

    @property
    def lists(self) -> tuple[list[int] | None, list[int] | None, list[int] | None]:
        """The form the compiled functions take."""
        cmd, kind, src_id = (None if part is None else list(part) for part in (self.cmd, self.type, self.src_id))
        return cmd, kind, src_id

    def as_dict(self) -> dict[str, list[int]]:
        """What is restricted, JSON-ready."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: list(part) for name, part in parts.items() if part is not None}


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """One sink of a register stream.

    Attributes:
        route: Which packets it takes; all unless said otherwise.
        call: For kind "python": called with each `pyarrow.RecordBatch`, in a thread of its own.
    """

    kind: str = setting("parquet", "choice", "Format of the table, `forward` or `python`.", choices=KINDS)
    label: str | None = setting(
        None, "text", "Part of the file names, to tell two sinks of one kind apart: `[A-Za-z0-9-]{1,32}`."
    )
    priority: str = setting(
        "archive",
        "choice",
        "`archive` takes everything, however late; `live` skips what lies too far behind, and counts it.",
        choices=("archive", "live"),
    )
    compression: str = setting(
        "zstd", "choice", "Compression of Parquet.", choices=("none", "snappy", "gzip", "zstd", "lz4")
    )
    row_group_rows: int = setting(1 << 20, "count", "Rows of a Parquet row group.", low=1, high=1 << 26)
    row_codec: str = setting("delta", "choice", "Row codec of BCSV.", choices=("flat", "zoh", "delta"))
    file_codec: str = setting(
        "packet-lz4-batch",
        "choice",
        "File codec of BCSV.",
        choices=("stream", "stream-lz4", "packet", "packet-lz4", "packet-lz4-batch"),
    )
    url: str | None = setting(None, "text", "Where `forward` sends to, `tcp://HOST:PORT`.")
    max_lag_bytes: int = setting(
        256 << 20, "size", "A live sink further behind than this skips to the newest.", low=1 << 16, high=1 << 40
    )
    connect_backoff_seconds: tuple[float, float] = setting(
        (0.1, 5.0), "backoff", "First and longest pause between dials of `forward`."
    )
    route: Route = field(default_factory=Route)
    call: Callable[[Any], object] | None = None

    def __post_init__(self) -> None:
        """Check every value and what must hold between them."""
        for name, rule in rules(SinkConfig).items():
            object.__setattr__(self, name, convert(rule, getattr(self, name), name))
        object.__setattr__(self, "route", Route.from_value(self.route, "route"))
        if self.label is not None and not _LABEL.fullmatch(self.label):
            raise ConfigError(f"label: {self.label!r} is not allowed; allowed: [A-Za-z0-9-]{{1,32}}")
        if (self.kind == "forward") != (self.url is not None):
            raise ConfigError('url: goes with kind = "forward", and that needs it, as in tcp://127.0.0.1:9100')
        if self.kind == "forward":
            object.__setattr__(self, "priority", "live")
            _check_url(str(self.url))
        if (self.kind == "python") != callable(self.call):
            raise ConfigError('call: goes with kind = "python", and that needs it: a function of one record batch')
        if self.priority == "live" and self.kind in TABLE_KINDS:
            raise ConfigError(f"priority: a {self.kind} sink writes an archive; live is for forward and python")

    @property
    def name(self) -> str:
        """What ledger and errors call it: the extension of its files, the kind or the URL."""
        if self.kind in TABLE_KINDS:
            return self.extension
        return self.label or (f"forward {self.url}" if self.kind == "forward" else self.kind)

    @property
    def extension(self) -> str:
        """What its files have in place of the log's extension."""
        return self.kind if self.label is None else f"{self.label}.{self.kind}"

    def as_dict(self) -> dict[str, Any]:
        """What it was told, JSON-ready: the kind, and what differs from the defaults."""
        result: dict[str, Any] = {"kind": self.kind}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in {"route", "call"} or value == f.default:
                continue
            result[f.name] = list(value) if isinstance(value, tuple) else value
        if self.route != Route():
            result["route"] = self.route.as_dict()
        return result


def parse_sinks(value: object) -> tuple[SinkConfig, ...]:
    """Read the sinks of a stream.

    Args:
        value: A list of tables, kinds or `SinkConfig`s; a text with kinds between commas; a single one.

    Raises:
        ValueError: Something in it is wrong; the text says which entry.
    """
    if isinstance(value, str):
        value = [kind.strip() for kind in value.split(",") if kind.strip()]
    elif isinstance(value, (Mapping, SinkConfig)):
        value = [value]
    if not isinstance(value, (list, tuple)) or len(value) > _MAX_SINKS:
        raise ValueError(f"{value!r} is not a list of up to {_MAX_SINKS} sinks")
    sinks = tuple(_sink(entry, f"[{number}]") for number, entry in enumerate(value))
    names = [sink.name for sink in sinks]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(f"[{number}]: a second sink {name!r}; give it a label")
    return sinks


def describe_sinks(prefix: str) -> list[SettingInfo]:
    """The settings of a sink, for the documentation."""
    return [
        *describe(SinkConfig, prefix),
        SettingInfo(f"{prefix}route.cmd", "list of commands", "", "", "Only these: diff, full, query, ... or 0 to 5."),
        SettingInfo(f"{prefix}route.type", "list of types", "", "", "Only these: unknown, sbmu, rack, rtos or 0 to 3."),
        SettingInfo(f"{prefix}route.src_id", "list of integers", "", "", "Only sources (or racks) with these numbers."),
    ]


def _sink(value: object, where: str) -> SinkConfig:
    if isinstance(value, SinkConfig):
        return value
    if isinstance(value, str):
        value = {"kind": value}
    if callable(value):
        value = {"kind": "python", "call": value}
    if not isinstance(value, Mapping):
        text = f"{where}: {value!r} is neither a table nor one of {', '.join(KINDS)}"
        raise ValueError(text)  # noqa: TRY004 - as `convert` wants it
    known = [f.name for f in fields(SinkConfig)]
    for key in value:
        if key not in known:
            raise ValueError(unknown_key(str(key), known, where))
    settings = dict(value)
    if "kind" not in settings:
        raise ValueError(f"{where}: kind is missing; allowed: {', '.join(KINDS)}")
    try:
        if "route" in settings:
            settings["route"] = Route.from_value(settings["route"], "route")
        return SinkConfig(**settings)
    except ConfigError as error:
        raise ValueError(f"{where}.{error}") from None


def _numbers(value: object, where: str, names: tuple[str, ...] | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    items = [value] if isinstance(value, (str, int)) else value
    if not isinstance(items, (list, tuple)) or not items:
        raise ConfigError(f"{where}: {value!r} is not a list of {'integers' if names is None else 'names or numbers'}")
    numbers = []
    for item in items:
        number = names.index(item.lower()) if names and isinstance(item, str) and item.lower() in names else item
        high = 2**31 - 1 if names is None else len(names) - 1
        low = -(2**31) if names is None else 0
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            allowed = f"{low} to {high}" + (f", {', '.join(names)}" if names else "")
            raise ConfigError(f"{where}: {item!r} is not allowed; allowed: {allowed}")
        numbers.append(number)
    return tuple(sorted(set(numbers)))


def _check_url(url: str) -> None:
    if not re.fullmatch(r"tcp(\+connect)?://[^/?#]*:[0-9]{1,5}", url):
        raise ConfigError(f"url: {url!r} is not allowed; allowed: tcp://HOST:PORT")
