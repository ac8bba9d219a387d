"""What else ran on the machine during a measurement.

A benchmark on two cores measures its neighbours too. What other processes of this system used, and what the hypervisor
took, is in `/proc/stat`; both sides of a comparison are held to the same limit.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_TICKS = os.sysconf("SC_CLK_TCK")
# Columns of the first line: user, nice, system, idle, iowait, irq, softirq, steal.
_USED = (0, 1, 2, 5, 6, 7)


class Watch:
    """CPU used by others, from its making on; children count as ours once they have been waited for."""

    def __init__(self) -> None:
        self._others, self._started = _others(), time.monotonic()

    def share(self) -> float:
        """CPU seconds of others for each second that passed."""
        return max(0.0, _others() - self._others) / (time.monotonic() - self._started)


def _others() -> float:
    if not _STAT.exists():
        return 0.0
    fields = _STAT.read_text().split("\n", 1)[0].split()[1:]
    ours = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        ours += usage.ru_utime + usage.ru_stime
    return sum(int(fields[column]) for column in _USED) / _TICKS - ours
