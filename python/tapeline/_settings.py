"""Settings as data: what kind each is, how text becomes a value, which bounds hold, what it says in the docs.

A setting is a dataclass field made by `setting`; its metadata is the only place that knows its kind, bounds
and text. `config.py` declares them, `describe` lists them for the documentation.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from tapeline.errors import ConfigError
from tapeline.quantities import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["size", "duration", "count", "flag", "choice", "text", "assembly", "sync", "backoff", "magic", "sinks"]

_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_TYPES = {
    "size": "size",
    "duration": "time",
    "count": "integer",
    "flag": "true or false",
    "choice": "one of",
    "text": "text",
    "assembly": '"none", "markers" or "count:N"',
    "sync": '"segment", "batch" or "interval:SECONDS"',
    "backoff": "[first, longest]",
    "magic": "16 hexadecimal digits",
    "sinks": "list of sinks, see below",
}
_UNITS = {"size": "bytes", "duration": "seconds", "backoff": "seconds"}


@dataclass(frozen=True, slots=True)
class Rule:
    """Kind, bounds and text of one setting."""

    kind: Kind
    doc: str
    low: float | None = None
    high: float | None = None
    optional: bool = False
    choices: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One row of the configuration reference.

    Attributes:
        key: Dotted name, with NAME for a stream's name.
        type: What may be written.
        default: The value without it, as it would be written.
        unit: Unit of a bare number; empty when there is none.
        doc: What it does.
    """

    key: str
    type: str
    default: str
    unit: str
    doc: str


def setting(default: Any, kind: Kind, doc: str, **bounds: Any) -> Any:
    """Declare a dataclass field as a setting; `bounds` are those of `Rule`."""
    rule = Rule(kind, doc, optional=bounds.pop("optional", default is None), **bounds)
    return field(default=default, metadata={"rule": rule})


def rules(config_class: type) -> dict[str, Rule]:
    """Name to rule of every field made by `setting`."""
    return {f.name: f.metadata["rule"] for f in fields(config_class) if "rule" in f.metadata}


def describe(config_class: type, prefix: str) -> list[SettingInfo]:
    """List the settings of a class for the documentation."""
    rows = []
    for f in fields(config_class):
        rule = f.metadata.get("rule")
        if rule is None:
            continue
        kind = _TYPES[rule.kind]
        if rule.kind == "choice":
            kind = "one of " + ", ".join(_written(choice) for choice in rule.choices)
        if rule.low is not None or rule.high is not None:
            kind += f", {_bounds(rule)}"
        if rule.optional:
            kind += ', or "none"'
        default = _written(f.default, sized=rule.kind == "size")
        rows.append(SettingInfo(prefix + f.name, kind, default, _UNITS.get(rule.kind, ""), rule.doc))
    return rows


def unknown_key(key: str, allowed: Iterable[str], where: str) -> ConfigError:
    """The error for a key that does not exist: names the nearest one, the place and what is allowed."""
    names = sorted(allowed)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return ConfigError(f"{where}: unknown key {key!r}{hint} allowed: {', '.join(names)}")


def convert(rule: Rule, value: object, where: str) -> Any:
    """Check a raw value and bring it into its type.

    Args:
        rule: The setting's rule.
        value: As TOML, Python or text gave it; text works for every kind.
        where: Place and key, for the error.

    Returns:
        int for sizes and counts, float for times, bool, str, or a pair of floats.

    Raises:
        ConfigError: The value is not of the kind or out of bounds.
    """
    if rule.optional and (value is None or (isinstance(value, str) and value.lower() in {"", "none"})):
        return None
    try:
        result = _convert(rule, value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if isinstance(result, (int, float)) and not isinstance(result, bool):
        too_low = rule.low is not None and result < rule.low
        if too_low or (rule.high is not None and result > rule.high):
            raise ConfigError(f"{where}: {value!r} is out of range; allowed: {_bounds(rule)}")
    return result


def _convert(rule: Rule, value: object) -> Any:
    match rule.kind:
        case "size":
            return parse_size(value)
        case "duration":
            return parse_duration(value)
        case "count":
            return _count(value)
        case "flag":
            return _flag(value)
        case "choice":
            return _choice(rule, value)
        case "assembly":
            return _assembly(value)
        case "sync":
            return _sync(value)
        case "backoff":
            return _backoff(value)
        case "magic":
            return _magic(value)
        case "sinks":
            from tapeline._sink_settings import parse_sinks

            return parse_sinks(value)
        case "text":
            if not isinstance(value, str) or not value or "\0" in value:
                raise ValueError(f"{value!r} is not a text")
            return value


def _count(value: object) -> int:
    if isinstance(value, str) and value.strip().replace("_", "").isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is not an integer")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    raise ValueError(f"{value!r} is neither true nor false")


def _choice(rule: Rule, value: object) -> str | int:
    for choice in rule.choices:
        if not isinstance(value, bool) and (value == choice or (isinstance(value, str) and value == str(choice))):
            return choice
    raise ValueError(f"{value!r} is not allowed; allowed: {', '.join(str(c) for c in rule.choices)}")


def _assembly(value: object) -> str:
    if value in {"none", "markers"}:
        return str(value)
    if isinstance(value, str) and value.startswith("count:") and value[6:].isdecimal():
        count = int(value[6:])
        if 1 <= count <= 2**32 - 1:
            return f"count:{count}"
    raise ValueError(f"{value!r} is not allowed; allowed: none, markers, count:N with N in 1..4294967295")


def _sync(value: object) -> str:
    if value in {"segment", "batch"}:
        return str(value)
    if isinstance(value, str) and value.startswith("interval:"):
        seconds = parse_duration(value.removeprefix("interval:"))
        if 0.01 <= seconds <= 3600:
            return f"interval:{seconds:g}"
    raise ValueError(f"{value!r} is not allowed; allowed: segment, batch, interval:SECONDS with 0.01..3600")


def _backoff(value: object) -> tuple[float, float]:
    parts = value.strip("[]").split(",") if isinstance(value, str) else value
    if isinstance(parts, (list, tuple)) and len(parts) == 2:
        first, longest = (parse_duration(part) for part in parts)
        if 0.001 <= first <= longest <= 3600:
            return first, longest
    raise ValueError(f"{value!r} is not allowed; allowed: two times, 0.001 <= first <= longest <= 3600 s")


def _magic(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(digits := text.replace(" ", "").lower()) != 16:
        raise ValueError(f"{value!r} is not a magic; allowed: 8 bytes as 16 hexadecimal digits")
    try:
        bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"{value!r} is not a magic; allowed: 8 bytes as 16 hexadecimal digits") from None
    return digits


def _written(value: object, *, sized: bool = False) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_written(part) for part in value)}]"
    if sized and isinstance(value, int) and value >= 1024 and value % 1024 == 0:
        for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
            if value % 1024**power == 0:
                return f'"{value // 1024**power}{unit}"'
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bounds(rule: Rule) -> str:
    low = "" if rule.low is None else f"{rule.low:,.15g}"
    high = "" if rule.high is None or math.isinf(rule.high) else f"{rule.high:,.15g}"
    if not high:
        return f"at least {low}"
    return f"{low} to {high}" if low else f"at most {high}"
