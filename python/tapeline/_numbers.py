"""Numbers and paths that callers give, checked: errors name the argument and what it must be."""

from __future__ import annotations

import math
import operator

from tapeline.errors import ConfigError

_MOST_BITS = 62
_SHOWN_BITS = 256
_SHOWN_CHARACTERS = 80
_LEAST_RATE_HZ = 1e-9
# the compiled side stops earlier, at what the machine can use
_MOST_THREADS = 1 << 16


def whole(name: str, value: object, least: int, most: int = (1 << 64) - 1) -> int:
    """Check a whole number; numbers of NumPy count, bool does not.

    Raises:
        ConfigError: It is none, or out of its range.
    """
    number = None if isinstance(value, (bool, float)) else _index(value)
    if number is None or not least <= number <= most:
        raise ConfigError(f"{name} is {_short(value)}; it must be a whole number from {least} to {most}")
    return number


def index(name: str, value: object) -> int:
    """Check a whole number of any sign, whose range is checked elsewhere; what needs more than 64 bits is out of all.

    Raises:
        ConfigError: It has more bits.
        TypeError: It is no whole number.
    """
    number = operator.index(value)  # type: ignore[arg-type]
    if number.bit_length() > _MOST_BITS:
        raise ConfigError(f"{name} is {_short(value)}; it must be a number of at most {_MOST_BITS} bits")
    return number


def row(value: object) -> int:
    """A row as a slice takes it: any whole number; what is beyond all files stands for the end.

    Raises:
        TypeError: It is no whole number.
    """
    return max(-(1 << _MOST_BITS), min(operator.index(value), 1 << _MOST_BITS))  # type: ignore[arg-type]


def amount(name: str, value: object, most: float = math.inf) -> float:
    """Check a number that is 0 or more and finite: a rate, a time or a probability.

    Raises:
        ConfigError: It is none, or out of its range.
    """
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and 0 <= number <= most):
        limit = "a finite number, 0 or more" if math.isinf(most) else f"a number from 0 to {most:g}"
        raise ConfigError(f"{name} is {_short(value)}; it must be {limit}")
    return number


def rate(name: str, value: object) -> float:
    """Check a rate in Hz: 0 is no limit, and what is slower than once in thirty years is a mistake.

    Raises:
        ConfigError: It is none, or out of its range.
    """
    number = amount(name, value)
    if 0 < number < _LEAST_RATE_HZ:
        raise ConfigError(f"{name} is {_short(value)}; it must be 0 (no limit), or {_LEAST_RATE_HZ:g} or more")
    return number


def threads(value: object) -> int | None:
    """Check a number of threads; more than a machine can use are asked for in vain.

    Raises:
        ConfigError: It is neither None nor a whole number above 0.
    """
    if value is None:
        return None
    number = None if isinstance(value, (bool, float)) else _index(value)
    if number is None or number < 1:
        raise ConfigError(f"threads is {_short(value)}; it must be 1 or more, or None: one per core")
    return min(number, _MOST_THREADS)


def flag(name: str, value: object) -> bool:
    """Check a switch.

    Raises:
        ConfigError: It is neither True nor False.
    """
    if value is not True and value is not False:
        raise ConfigError(f"{name} is {_short(value)}; it must be True or False")
    return value


def check_utf8(name: str, path: str) -> None:
    """Check that a path can be handed to the compiled side as text.

    Raises:
        ConfigError: It holds bytes that are no UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} is {path!r}; it must be UTF-8, so the file or directory has to be renamed") from None


def _index(value: object) -> int | None:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _short(value: object) -> str:
    """The value for a message; Python refuses to write out numbers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
