"""`tapeline doctor`: what this machine allows, and what to do where it allows too little."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import click

from tapeline.cli._output import Outcome, emit, emit_json, progress, size, table
from tapeline.cli._sending import quantity
from tapeline.quantities import parse_size

_EXAMPLES = """\b
Examples:
  tapeline doctor
  tapeline doctor --out /data --disk-bytes 1GiB --json
"""
# What the recorder asks for (receive_buffer_bytes), and the least free space it keeps by default (min_free_bytes)
_BUFFER = "32MiB"
_LEAST_FREE_BYTES = 1 << 30
# Clients that a register server takes by default (max_clients), and what it needs besides
_CLIENTS = 1024
_LEAST_FILES = _CLIENTS + 64
# Below this the disk is what loses data first: one stream at full rate
_SLOW_DISK_BYTES_PER_S = 200e6


@click.command(epilog=_EXAMPLES)
@click.option("--out", default=".", metavar="DIR", help="Where recordings would go (the current directory).")
@click.option(
    "--disk-bytes", default="256MiB", show_default=True, metavar="SIZE", help="Written to measure, then removed."
)
@click.option("--buffer", default=_BUFFER, show_default=True, metavar="SIZE", help="UDP receive buffer to ask for.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def doctor(*, out: str, disk_bytes: str, buffer: str, as_json: bool) -> Outcome:
    """Say what this machine allows: socket buffers, offloads, disk, checksums, compression.

    Takes a second or two on an idle machine; a busy one gives lower figures. Advice is given where a limit of the
    system costs data or speed. The exit code is 0 whatever is found, 1 when DIR cannot be written.
    """
    from tapeline import _native

    with progress("measuring", 3) as advance:
        found: dict[str, Any] = {"system": _system()}
        found["sockets"] = json.loads(_native.doctor_sockets(quantity("--buffer", parse_size, buffer)))
        advance(1)
        found["speeds"] = json.loads(_native.doctor_speeds())
        advance(2)
        written = quantity("--disk-bytes", parse_size, disk_bytes)
        found["disk"] = {"out": out, **json.loads(_native.doctor_disk(out, written))}
    found["advice"] = _advice(found)
    emit_json(found) if as_json else emit(_text(found))
    return Outcome.DONE


def _system() -> dict[str, Any]:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "usable_cores": affinity,
        "rmem_max_bytes": _number("/proc/sys/net/core/rmem_max"),
        "wmem_max_bytes": _number("/proc/sys/net/core/wmem_max"),
        "open_files": _open_files(),
        "somaxconn": _number("/proc/sys/net/core/somaxconn"),
        "transparent_huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
    }


def _open_files() -> int | None:
    """The most that a recorder may have open: it raises its own limit to this."""
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if limit == resource.RLIM_INFINITY else limit


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return None


def _number(path: str) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.isdigit() else None


def _chosen(path: str) -> str | None:
    """The word in brackets, as in `always [madvise] never`."""
    text = _read(path)
    return None if text is None or "[" not in text else text.partition("[")[2].partition("]")[0]


def _advice(found: dict[str, Any]) -> list[str]:
    sockets, disk, system = found["sockets"], found["disk"], found["system"]
    advice = []
    asked = sockets["udp_receive_buffer_asked_bytes"]
    granted = sockets["udp_receive_buffer_granted_bytes"]
    if granted < asked:
        advice.append(
            f"UDP receive buffers end at {size(granted)}, and bursts longer than that are lost: "
            f"sysctl -w net.core.rmem_max={asked}, or give the recorder CAP_NET_ADMIN"
        )
    if not sockets["udp_gro"]:
        advice.append("the kernel has no GRO for UDP (Linux 5.0 or later): small datagrams cost more")
    if system["transparent_huge_pages"] == "never":
        advice.append("huge pages are off: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled")
    if disk["free_bytes"] < _LEAST_FREE_BYTES:
        advice.append(f"{disk['out']} has {size(disk['free_bytes'])} left, less than a recorder keeps free by default")
    if disk["durable_bytes_per_s"] < _SLOW_DISK_BYTES_PER_S:
        advice.append(f"{disk['out']} takes {size(disk['durable_bytes_per_s'])}/s for good: faster streams will stall")
    files = system["open_files"]
    if files is not None and files < _LEAST_FILES:
        advice.append(f"{files} open files are too few for {_CLIENTS} clients of a register server: ulimit -Hn 4096")
    if (system["usable_cores"] or 1) < 2:
        advice.append("one core only: receiving and writing take turns")
    return advice


def _text(found: dict[str, Any]) -> str:
    system, sockets, speeds, disk = found["system"], found["sockets"], found["speeds"], found["disk"]
    granted, asked = sockets["udp_receive_buffer_granted_bytes"], sockets["udp_receive_buffer_asked_bytes"]
    rows = [
        ("kernel", f"{system['kernel']} {system['machine']}"),
        ("cores", f"{system['usable_cores']} of {system['cores']}"),
        ("huge pages", system["transparent_huge_pages"]),
        ("open files", "no limit" if system["open_files"] is None else f"{system['open_files']:,}"),
        ("UDP receive buffer", f"{size(granted)} granted of {size(asked)} asked"),
        ("UDP GRO, GSO", f"{_yes(sockets['udp_gro'])}, {_yes(sockets['udp_gso'])}"),
        *(
            (title, f"{size(speeds[key])}/s")
            for title, key in (
                ("CRC32C", "crc32c_bytes_per_s"),
                ("XXH3-128", "xxh3_128_bytes_per_s"),
                ("XXH64", "xxh64_bytes_per_s"),
                ("LZ4 compress", "lz4_compress_bytes_per_s"),
                ("LZ4 decompress", "lz4_decompress_bytes_per_s"),
            )
        ),
        ("free space", f"{size(disk['free_bytes'])} of {size(disk['total_bytes'])} at {disk['out']}"),
        ("disk write", f"{size(disk['write_bytes_per_s'])}/s, durable {size(disk['durable_bytes_per_s'])}/s"),
        ("disk sync", f"{disk['sync_s'] * 1e3:.3g} ms"),
    ]
    lines = [table(["what", "found"], rows, left=2)]
    lines += [f"advice: {line}" for line in found["advice"]]
    return "\n".join(lines)


def _yes(value: bool) -> str:  # noqa: FBT001 - the value to be shown
    return "yes" if value else "no"
