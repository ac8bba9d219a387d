"""The recorder's configuration: frozen, checked as a whole before anything is opened.

It comes in layers, each over the one before: defaults, TOML file, environment (`TAPELINE_…`), flags. Every
layer is checked against the same declarations below, so an error names the file, variable or flag it came
from. Trap: settings after the `?` of a URL belong to that URL and go when a later layer replaces it.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapeline import _settings
from tapeline._numbers import check_utf8
from tapeline._settings import Rule, SettingInfo, convert, rules, setting, unknown_key
from tapeline._sink_settings import SinkConfig, describe_sinks
from tapeline.errors import ConfigError
from tapeline.urls import Source, parse_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ENVIRONMENT_PREFIX = "TAPELINE_"
_NOT_SETTINGS = "TAPELINE_TEST_"  # knobs of the project's own tests
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_MANIFEST = "recording.json"
_MAX_STREAMS = 256
_REGISTER_ROTATE_BYTES = 50_000_000  # spec/register-packets.md 3: default 50 MB of received bytes
_UNBOUNDED = 1 << 62  # no file gets this long


@dataclass(frozen=True, slots=True)
class LayoutConfig:
    """The frame layout of a stream (spec/frame-stream.md 1)."""

    magic: str = setting("d1c64f93a7b25e8c", "magic", "Sync marker at the head of every frame.")
    version_flags: int = setting(
        4, "choice", "Bytes of version, flags and stream id: 4 with a stream id, 2 without.", choices=(2, 4)
    )
    length_bytes: int = setting(4, "choice", "Width of the payload length.", choices=(4, 8))
    header_crc: bool = setting(True, "flag", "Whether the header ends in a CRC32C of itself.")
    max_payload: int = setting(
        1 << 20, "size", "Longest payload that is taken for one; longer claims are garbage.", low=1, high=1 << 30
    )

    def __post_init__(self) -> None:
        """Check every value."""
        _convert_fields(self, "layout")

    @property
    def header_bytes(self) -> int:
        """Length of the header: 34 to 44 bytes."""
        return 8 + self.version_flags + 8 + 8 + self.length_bytes + (4 if self.header_crc else 0) + 4


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """One stream: its sources, wire, assembly, buffers and files.

    Attributes:
        name: Names the directory and files; `[A-Za-z0-9._-]{1,64}` with a few exceptions.
        sources: One source, or a real-time (udp) and an archival one that are merged by sequence. URLs are
            accepted and parsed.
        layout: The frame layout.
    """

    name: str
    sources: tuple[Source, ...]
    wire: str = setting("frame", "choice", "What the bytes are.", choices=("frame", "packet", "simple"))
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    assembly: str = setting("none", "assembly", "How frames form periodics (see the frame format).")
    max_open: int = setting(4, "count", "Periodics that may be open at once; then the oldest closes.", low=1, high=1024)
    max_periodic_bytes: int = setting(
        64 << 20, "size", "Bytes an open periodic may hold; then it closes as incomplete.", low=1, high=1 << 34
    )
    reorder_window: int = setting(
        65_536, "count", "Frames a late one may lie behind before it means a restart.", low=64, high=1 << 24
    )
    hold_seconds: float = setting(
        1.0, "duration", "Longest time that a gap holds back the frames behind it.", low=0, high=60
    )
    keep_duplicates: bool = setting(False, "flag", "Store frames seen before instead of only counting them.")
    split_by_stream_id: bool = setting(False, "flag", "Give each stream id of the stream its own set of segments.")
    ring_bytes: int = setting(
        64 << 20,
        "size",
        "Ring between receiver and writer of a source; at least four blocks of 1 MiB and a largest frame.",
        low=1 << 22,
        high=1 << 36,
    )
    receive_buffer_bytes: int = setting(
        32 << 20,
        "size",
        "Socket receive buffer asked of the kernel; status tells what it gave.",
        low=4096,
        high=1 << 30,
    )
    gro: bool = setting(True, "flag", "Let the kernel join UDP datagrams where it can.")
    rotate_bytes: int | None = setting(
        256 << 20, "size", "A segment ends at the first periodic boundary past this.", low=256, optional=True
    )
    rotate_seconds: float | None = setting(None, "duration", "A segment ends once this old.", low=0.05)
    keep_bytes: int | None = setting(None, "size", "Evict the stream's oldest finished segments past this.", low=1)
    keep_seconds: float | None = setting(None, "duration", "Evict its finished segments older than this.", low=1)
    keep_segments: int | None = setting(None, "count", "Finished segments to keep of the stream.", low=1)
    min_free_bytes: int | None = setting(
        None, "size", "Floor of free space at which this stream gives way; only the recording's without it.", low=0
    )
    on_low_disk: str | None = setting(
        None,
        "choice",
        "At that floor: evict this stream's segments or stop; as for the recording without it.",
        choices=("stop", "evict"),
    )
    sync: str = setting("interval:1", "sync", "When data is forced to the disk.")
    idle_timeout_seconds: float | None = setting(
        None, "duration", "A TCP connection silent for this long is closed.", low=0.01
    )
    connect_backoff_seconds: tuple[float, float] = setting(
        (0.1, 5.0), "backoff", "First and longest pause between dials of tcp+connect."
    )
    max_clients: int = setting(1024, "count", "Connections a register server holds at once.", low=1, high=1 << 20)
    max_buffer_bytes: int = setting(
        4 << 20, "size", "Answers that may wait for one client of a register server.", low=1 << 16, high=1 << 32
    )
    image_seconds: float = setting(10.0, "duration", "How often image.bin is written.", low=0.05)
    sinks: tuple[SinkConfig, ...] = setting(
        (), "sinks", "Tables written, forwarding and Python functions beside the log of a register stream."
    )

    def __post_init__(self) -> None:
        """Check every value and what must hold between them."""
        check_stream_name(self.name)
        given = (self.sources,) if isinstance(self.sources, (str, Source)) else self.sources
        sources = tuple(s if isinstance(s, Source) else _plain_source(s) for s in given)
        # the real-time path first, which is the order the merge relies on
        object.__setattr__(self, "sources", tuple(sorted(sources, key=lambda s: s.kind != "udp")))
        where = f"streams.{self.name}"
        _convert_fields(self, where)
        _check_sources(sources, where, self.wire)
        if self.sinks and self.wire == "frame":
            raise ConfigError(f"{where}.sinks: only register streams have sinks; set wire to packet or simple")
        frame_bytes = self.layout.header_bytes + self.layout.max_payload
        # four blocks of the ring; the rule of `ring_blocks` in crates/capture/src/config.rs
        least = 4 * -(-(frame_bytes + (1 << 20)) // (1 << 16)) * (1 << 16)
        if self.ring_bytes < least:
            raise ConfigError(
                f"{where}.ring_bytes: {self.ring_bytes} is too small; with layout.max_payload = "
                f"{self.layout.max_payload} it must be at least {least}"
            )
        if self.max_periodic_bytes < frame_bytes:
            raise ConfigError(
                f"{where}.max_periodic_bytes: {self.max_periodic_bytes} is less than one frame, {frame_bytes}"
            )
        if self.split_by_stream_id and len(self.name) > 58:
            raise ConfigError(f"{where}: with split_by_stream_id a name has at most 58 characters")

    def as_dict(self) -> dict[str, Any]:
        """The form the compiled recorder takes, JSON-ready."""
        result = {f.name: getattr(self, f.name) for f in fields(self)}
        result["sources"] = [source.as_dict() for source in self.sources]
        result["sinks"] = [sink.as_dict() for sink in self.sinks]
        result["layout"] = {f.name: getattr(self.layout, f.name) for f in fields(self.layout)}
        result["connect_backoff_seconds"] = list(self.connect_backoff_seconds)
        return result


@dataclass(frozen=True, slots=True)
class RecorderConfig:
    """Everything a recorder needs to know. Make one with `load` or `from_dict`.

    Attributes:
        out: Directory of the recording; made when missing.
        streams: The streams, at least one.
    """

    out: Path
    streams: tuple[StreamConfig, ...]
    min_free_bytes: int | None = setting(
        None, "size", "Free space that stays free; without it 1 GiB, or 5 % of a disk smaller than 20 GiB.", low=0
    )
    on_low_disk: str = setting(
        "stop",
        "choice",
        "At that floor: stop with an error, or evict the oldest finished segments.",
        choices=("stop", "evict"),
    )
    keep_bytes: int | None = setting(
        None, "size", "Evict the oldest finished segments of all streams past this total.", low=1
    )
    keep_seconds: float | None = setting(None, "duration", "Evict finished segments older than this.", low=1)
    keep_segments: int | None = setting(None, "count", "Finished segments to keep of all streams together.", low=1)
    count: int | None = setting(None, "count", "Stop after this many frames stored in all streams together.", low=1)
    duration_seconds: float | None = setting(None, "duration", "Stop after this time.", low=0.001)
    start_timeout_seconds: float | None = setting(
        None, "duration", "Fail when a stream has received nothing for this long after the start.", low=0.001
    )
    allow_insecure_bind: bool = setting(
        False, "flag", "Allow listening beyond this machine although nothing authenticates senders."
    )

    def __post_init__(self) -> None:
        """Check every value and what must hold between streams."""
        object.__setattr__(self, "out", _out(self.out, "out"))
        object.__setattr__(self, "streams", tuple(self.streams))
        _convert_fields(self, "")
        _check_streams(self.streams)
        for stream in self.streams:
            for source in stream.sources:
                if source.beyond_loopback and not self.allow_insecure_bind:
                    raise ConfigError(
                        f"streams.{stream.name}: {source.url} listens beyond this machine and nothing authenticates "
                        "senders; use 127.0.0.1, or allow it with allow_insecure_bind = true (--allow-insecure-bind)"
                    )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RecorderConfig:
        """Make a configuration of a dict with the keys of the TOML file; the environment has no part in it.

        >>> config = RecorderConfig.from_dict({"out": "run", "streams": {"ch0": "tcp://127.0.0.1:0"}})
        >>> config.streams[0].sources[0].address
        '127.0.0.1:0'

        Args:
            values: `out`, `streams` (name to URL, list of URLs, or table of settings), `defaults` (settings of
                every stream) and the settings of `docs/reference/configuration.md`.

        Raises:
            ConfigError: A key is unknown or a value not allowed.
        """
        return _build([_Layer("config", values)], {})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
        stream_flags: Mapping[str, Any] | None = None,
    ) -> RecorderConfig:
        """Read a TOML file, then the environment, then flags; each wins over the one before.

        Args:
            path: TOML file; only environment and flags if None.
            environ: Variables; `os.environ` if None. `TAPELINE_STREAMS__CH0__ROTATE_BYTES` is
                `streams.ch0.rotate_bytes`.
            flags: Like the argument of `from_dict`.
            stream_flags: Settings put over those of every stream.

        Raises:
            ConfigError: A key is unknown, a value not allowed, or the file no TOML.
            OSError: The file cannot be read.
        """
        layers = []
        if path is not None:
            shown = os.fspath(path)
            try:
                layers.append(_Layer(shown, tomllib.loads(Path(path).read_bytes().decode())))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{shown}: not a TOML file: {error}") from error
        flag_layer = _Layer("flags", flags or {})
        known = {name for layer in [*layers, flag_layer] for name in layer.streams}
        layers += _environment(os.environ if environ is None else environ, known)
        over = {k: _converted(_STREAM_RULES, k, v, f"flags: {k}") for k, v in (stream_flags or {}).items()}
        return _build([*layers, flag_layer], over)

    def as_dict(self) -> dict[str, Any]:
        """All settings, JSON-ready."""
        result = {f.name: getattr(self, f.name) for f in fields(self)}
        result["out"] = str(self.out)
        result["streams"] = [stream.as_dict() for stream in self.streams]
        return result

    def to_json(self) -> str:
        """The configuration for the compiled recorder, without what only Python knows; sinks go into its manifest."""
        result = self.as_dict()
        for name in ("duration_seconds", "start_timeout_seconds", "allow_insecure_bind"):
            del result[name]
        for stream in result["streams"]:
            if not stream["sinks"]:
                del stream["sinks"]
            stream["rotate_bytes"] = _UNBOUNDED if stream["rotate_bytes"] is None else stream["rotate_bytes"]
        return json.dumps(result)

    @staticmethod
    def describe() -> list[SettingInfo]:
        """List every setting with type, default, unit and text; the configuration page is made of it."""
        return [
            SettingInfo("out", "path", "", "", "Directory of the recording; made when missing."),
            *_settings.describe(RecorderConfig, ""),
            SettingInfo("streams.NAME.url", "URL", "", "", "The stream's source, when it has one."),
            SettingInfo("streams.NAME.sources", "list of URLs", "", "", "One source, or a real-time and an archival."),
            *_settings.describe(StreamConfig, "streams.NAME."),
            *_settings.describe(LayoutConfig, "streams.NAME.layout."),
            *describe_sinks("streams.NAME.sinks."),
        ]


def check_stream_name(name: str) -> None:
    """Refuse a name that is not safe as a directory and file name on every system.

    Raises:
        ConfigError: It is not `[A-Za-z0-9._-]{1,64}`, begins or ends with a dot, or is reserved.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"streams: {str(name)[:80]!r} is not a stream name; allowed: [A-Za-z0-9._-]{{1,64}} without a leading dot"
        )
    if name.endswith(".") or name.split(".", maxsplit=1)[0].lower() in _RESERVED or name.lower() == _MANIFEST:
        raise ConfigError(f"streams: the name {name!r} is reserved or ends in a dot, which some systems do not allow")


_LAYOUT_RULES = {f"layout.{name}": rule for name, rule in rules(LayoutConfig).items()}
_STREAM_RULES = {**rules(StreamConfig), **_LAYOUT_RULES}
_TOP_RULES = rules(RecorderConfig)
_SOURCE_KEYS = ("url", "sources")


def _convert_fields(config: object, prefix: str) -> None:
    for name, rule in rules(type(config)).items():
        where = f"{prefix}.{name}" if prefix else name
        object.__setattr__(config, name, convert(rule, getattr(config, name), where))


def _plain_source(url: str) -> Source:
    source, settings = parse_source(url)
    if settings:
        raise ConfigError(f"{url}: settings after '?' are read by RecorderConfig.from_dict and load only")
    return source


def _out(value: object, where: str) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or "\0" in str(value):
        raise ConfigError(f"{where}: {value!r} is not a path")
    path = os.fsdecode(value)
    check_utf8(where, path)
    return Path(path)


def _check_sources(sources: tuple[Source, ...], where: str, wire: str) -> None:
    kinds = [source.kind for source in sources]
    if not kinds:
        raise ConfigError(f"{where}: a stream needs a source; set url or sources")
    if "shm" in kinds and wire != "packet":
        raise ConfigError(f"{where}: a ring carries data packets; set wire to packet, as in shm://NAME?wire=packet")
    if len(kinds) > 1 and wire != "frame":
        raise ConfigError(f"{where}: a register stream has one source")
    if len(kinds) > 1 and (len(kinds) != 2 or kinds.count("udp") != 1 or "stdin" in kinds):
        raise ConfigError(
            f"{where}: {', '.join(kinds)} cannot be merged; allowed: one source, or udp and one of tcp, "
            "tcp+connect, file"
        )


def _check_streams(streams: tuple[StreamConfig, ...]) -> None:
    if not 1 <= len(streams) <= _MAX_STREAMS:
        raise ConfigError(f"streams: {len(streams)} streams; allowed: 1 to {_MAX_STREAMS} (--stream NAME=URL)")
    taken: dict[object, str] = {}
    for stream in streams:
        claims: list[object] = [("name", stream.name.lower())]
        claims += [("stdin",) for source in stream.sources if source.kind == "stdin"]
        for source in stream.sources:
            if source.listens and source.group is None and source.address and not source.address.endswith(":0"):
                claims.append((source.kind, source.address))
        for claim in claims:
            if claim in taken:
                raise ConfigError(f"streams: {taken[claim]!r} and {stream.name!r} share one {_claim_text(claim)}")
            taken[claim] = stream.name
    for split in (s.name for s in streams if s.split_by_stream_id):
        clash = [s.name for s in streams if re.fullmatch(re.escape(split) + r"\.[0-9]+", s.name)]
        if clash:
            raise ConfigError(f"streams: {clash[0]!r} is a name that split_by_stream_id of {split!r} may need")


def _claim_text(claim: Any) -> str:
    if claim[0] == "name":
        return "name (upper and lower case are one on some disks)"
    return "standard input" if claim[0] == "stdin" else f"address, {claim[0]}://{claim[1]}"


class _Layer:
    """One place settings come from, its keys checked and its values converted."""

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where = where
        self.top: dict[str, Any] = {}
        self.defaults: dict[str, Any] = {}
        self.streams: dict[str, _StreamLayer] = {}
        for key, value in values.items():
            if key == "streams":
                for name, settings in _stream_items(value, where):
                    check_stream_name(name)
                    if name in self.streams:
                        raise ConfigError(f"{where}: streams: {name!r} is given twice")
                    self.streams[name] = _StreamLayer(f"{where}: streams.{name}", settings)
            elif key == "defaults":
                self.defaults = _flat(value, f"{where}: defaults", _STREAM_RULES)
            elif key == "out":
                self.top["out"] = _out(value, f"{where}: out")
            else:
                self.top[key] = _converted(
                    _TOP_RULES, key, value, f"{where}: {key}", [*_TOP_RULES, "out", "streams", "defaults"]
                )


class _StreamLayer:
    """What one layer says about one stream."""

    def __init__(self, where: str, value: Any) -> None:
        if isinstance(value, (str, list, tuple)):
            value = {"sources": value}
        settings = dict(_mapping(value, where))
        given = [key for key in _SOURCE_KEYS if key in settings]
        if len(given) == 2:
            raise ConfigError(f"{where}: set either url or sources, not both")
        self.sources: tuple[Source, ...] | None = None
        self.url_settings: dict[str, Any] = {}
        if given:
            self._read_sources(settings.pop(given[0]), f"{where}.{given[0]}")
        self.settings = _flat(settings, where, _STREAM_RULES, [*_SOURCE_KEYS])
        both = sorted(set(self.settings) & set(self.url_settings))
        if both:
            raise ConfigError(f"{where}.{both[0]}: set here and in the URL; keep one")

    def _read_sources(self, value: Any, where: str) -> None:
        urls = value.split() if isinstance(value, str) else value
        if not isinstance(urls, (list, tuple)) or not urls or not all(isinstance(u, (str, Source)) for u in urls):
            raise ConfigError(f"{where}: {value!r} is neither a URL nor a list of URLs")
        sources = []
        for url in urls:
            if isinstance(url, Source):
                sources.append(url)
                continue
            try:
                source, settings = parse_source(url)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            sources.append(source)
            for key, text in settings.items():
                # `?magic=` is short for `?layout.magic=`
                name = f"layout.{key}" if f"layout.{key}" in _LAYOUT_RULES else key
                converted = _converted(
                    _STREAM_RULES, name, text, f"{where}: {url}: {key}", [*_STREAM_RULES, "interface"]
                )
                if self.url_settings.setdefault(name, converted) != converted:
                    raise ConfigError(f"{where}: the URLs of one stream disagree about {key!r}")
        self.sources = tuple(sources)


def _stream_items(value: Any, where: str) -> list[tuple[str, Any]]:
    if isinstance(value, (list, tuple)):
        items = []
        for entry in value:
            table = dict(_mapping(entry, f"{where}: streams"))
            if "name" not in table:
                raise ConfigError(f"{where}: streams: an entry of the list has no name")
            items.append((table.pop("name"), table))
        return items
    return list(_mapping(value, f"{where}: streams").items())


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not hasattr(value, "items"):
        raise ConfigError(f"{where}: {value!r} is not a table")
    result: Mapping[str, Any] = value
    return result


def _flat(value: Any, where: str, known: Mapping[str, Rule], extra: Iterable[str] = ()) -> dict[str, Any]:
    """Convert a table of stream settings; `layout = {...}` becomes `layout.…` keys."""
    result: dict[str, Any] = {}
    for key, entry in _mapping(value, where).items():
        if key == "layout":
            for name, part in _mapping(entry, f"{where}.layout").items():
                names = list(rules(LayoutConfig))
                if name not in names:
                    raise unknown_key(name, names, f"{where}.layout")
                full = f"layout.{name}"
                result[full] = convert(known[full], part, f"{where}.{full}")
        else:
            result[key] = _converted(known, key, entry, f"{where}.{key}", [*known, "layout", *extra])
    return result


def _converted(
    known: Mapping[str, Rule], key: str, value: Any, where: str, allowed: Iterable[str] | None = None
) -> Any:
    if key not in known:
        place = where.removesuffix(key).rstrip(".: ")
        raise unknown_key(key, known if allowed is None else allowed, place)
    return convert(known[key], value, where)


def _environment(environ: Mapping[str, str], known_streams: Iterable[str]) -> list[_Layer]:
    """One layer for each variable, so that an error names it."""
    by_variable = {re.sub("[^A-Z0-9]", "_", name.upper()): name for name in known_streams}
    layers = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(_ENVIRONMENT_PREFIX) or variable.startswith(_NOT_SETTINGS):
            continue
        parts = variable.removeprefix(_ENVIRONMENT_PREFIX).split("__")
        keys = [part.lower() for part in parts]
        if keys[0] == "streams" and len(keys) > 1:
            keys[1] = by_variable.get(parts[1], keys[1])
        values: Any = text
        for key in reversed(keys):
            values = {key: values}
        layers.append(_Layer(f"environment variable {variable}", values))
    return layers


def _build(layers: list[_Layer], over: Mapping[str, Any]) -> RecorderConfig:
    """Put the layers over each other; a later one wins."""
    top: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    sources: dict[str, tuple[Source, ...]] = {}
    plain: dict[str, dict[str, Any]] = {}
    from_url: dict[str, dict[str, Any]] = {}
    for layer in layers:
        top |= layer.top
        defaults |= layer.defaults
        for name, stream in layer.streams.items():
            settings = plain.setdefault(name, {})
            if stream.sources is not None:
                sources[name], from_url[name] = stream.sources, {}
            url_settings = from_url.setdefault(name, {})
            for key in stream.settings:
                url_settings.pop(key, None)
            settings |= stream.settings
            url_settings |= stream.url_settings
    if "out" not in top:
        raise ConfigError('out: missing; say where to record (out = "DIR", TAPELINE_OUT or --out DIR)')
    streams = []
    for name, settings in plain.items():
        merged = {**defaults, **settings, **from_url[name], **over}
        if merged.get("wire", "frame") != "frame":
            merged.setdefault("rotate_bytes", _REGISTER_ROTATE_BYTES)
        layout = {key.removeprefix("layout."): value for key, value in merged.items() if key.startswith("layout.")}
        rest = {key: value for key, value in merged.items() if not key.startswith("layout.")}
        streams.append(StreamConfig(name, sources.get(name, ()), layout=LayoutConfig(**layout), **rest))
    return RecorderConfig(streams=tuple(streams), **top)
