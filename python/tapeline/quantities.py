"""Sizes and times as people write them: "256MiB", "10s", "1h30m".

Sizes: kB, MB, GB, TB are powers of 1,000; KiB, MiB, GiB, TiB and the bare letters K, M, G, T powers of 1,024.
Times: ns, us, ms, s, m or min, h, d, and sums of them. `m` is minutes and `M` is MiB, so nothing is ambiguous.
"""

from __future__ import annotations

import math
import re

_SIZE = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    **{f"{p}B": 1000**n for n, p in enumerate("kMGT", 1)},
    "KB": 1000,
    **{f"{p}iB": 1024**n for n, p in enumerate("KMGT", 1)},
    **{p: 1024**n for n, p in enumerate("KMGT", 1)},
}
_TIME = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")
_TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(value: object) -> int:
    """Turn a size into bytes.

    >>> parse_size("256MiB"), parse_size("1.5 kB"), parse_size(4096)
    (268435456, 1500, 4096)

    Args:
        value: An integer of bytes, or text such as "64KiB".

    Returns:
        Bytes, not negative.

    Raises:
        ValueError: It is no size, is negative, or is not a whole number of bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError(f"{value!r} is not a size; write bytes or a number with KiB, MiB, GiB, kB, MB or GB")
    number, factor = match[1].replace("_", ""), _SIZE_UNITS[match[2]]
    amount = int(number) * factor if number.isdigit() else float(number) * factor
    if amount != int(amount):
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return int(amount)


def parse_duration(value: object) -> float:
    """Turn a time into seconds.

    >>> parse_duration("10s"), parse_duration("1h30m"), parse_duration(2.5), parse_duration("250ms")
    (10.0, 5400.0, 2.5, 0.25)

    Args:
        value: Seconds as a number or as text, or text such as "250ms" or "1h30m".

    Returns:
        Seconds, finite and not negative.

    Raises:
        ValueError: It is no time, is negative or is not finite.
    """
    seconds = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        seconds = _duration_text(value.strip())
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{value!r} is not a time; write seconds or a number with ms, s, min, h or d")
    return seconds


def _duration_text(text: str) -> float:
    if re.fullmatch(r"[0-9][0-9_]*(\.[0-9]+)?", text):
        return float(text)
    total, position = 0.0, 0
    while position < len(text):
        match = _TIME.match(text, position)
        if match is None or match[2] not in _TIME_UNITS:
            return math.nan
        total += float(match[1]) * _TIME_UNITS[match[2]]
        position = match.end()
    return total if position else math.nan


def parse_rotation(text: str) -> tuple[str, float]:
    """Tell a size from a time: the value of `record --rotate`.

    >>> parse_rotation("256MiB"), parse_rotation("10m"), parse_rotation("4096")
    (('rotate_bytes', 268435456), ('rotate_seconds', 600.0), ('rotate_bytes', 4096))

    Args:
        text: A size or a time; a bare number is bytes.

    Returns:
        Name of the setting and its value.

    Raises:
        ValueError: It is neither.
    """
    try:
        return "rotate_bytes", parse_size(text)
    except ValueError:
        pass
    try:
        return "rotate_seconds", parse_duration(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a size (256MiB) nor a time (10min)") from None
