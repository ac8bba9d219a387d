"""Moments of the producer's clock, as everything that reads recordings takes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np

Time = int | str | datetime | np.datetime64
"""A moment of the producer's clock: ns since the UNIX epoch, ISO 8601 text (UTC unless it says otherwise),
`datetime` (UTC unless it says otherwise) or `datetime64`."""


def parse_time(value: Time) -> int:
    """Nanoseconds since the UNIX epoch; text is read to the nanosecond.

    >>> parse_time("1970-01-01T00:00:01.000000001Z")
    1000000001

    Raises:
        ValueError: It is no time.
    """
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[ns]").astype(np.int64))
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    extra = 0
    if isinstance(value, str):
        # `fromisoformat` drops what is below a microsecond
        match = re.search(r"[.,]\d{6}(\d{1,3})", value)
        extra = int(match[1].ljust(3, "0")) if match else 0
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is not a time")  # noqa: TRY004 - what is no time is a wrong value, whatever it is
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    since = value - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return microseconds * 1_000 + extra + int(getattr(value, "nanosecond", 0))
