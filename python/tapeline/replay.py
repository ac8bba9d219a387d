"""Send a recording again: the same frames or register packets, bit for bit, at their own pace or another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from tapeline import _native
from tapeline._numbers import amount, check_utf8, flag, whole
from tapeline._sending import Sending, destinations
from tapeline.errors import ConfigError
from tapeline.recording import open_recording
from tapeline.wire import FrameLayout

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from tapeline.recording import Stream

__all__ = ["Replay", "ReplayError", "replay"]


class ReplayError(ConnectionError):
    """A destination took no more, or a file could not be read.

    Attributes:
        summary: What was sent until then.
    """

    def __init__(self, text: str, summary: dict[str, Any]) -> None:
        """Keep the summary beside the text."""
        super().__init__(text)
        self.summary = summary

    def __reduce__(self) -> tuple[type[ReplayError], tuple[str, dict[str, Any]]]:
        """Pickle it with its summary, as process pools do with every error."""
        return type(self), (str(self), self.summary)


class Replay(Sending):
    """A replay in the background. Arguments and errors are those of `replay`.

    As a context manager it waits for the end on leaving, or stops when an exception passes through.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        to: str | Sequence[str],
        *,
        speed: float | Literal["max"] = 1.0,
        streams: Sequence[str] | None = None,
        datagram_bytes: int | None = None,
        gso: bool = False,
        connect_timeout_s: float = 10.0,
    ) -> None:
        """Open the recording and start sending."""
        targets = destinations(to)
        chosen = _chosen(path, streams)
        if len(targets) not in {1, len(chosen)}:
            raise ConfigError(f"{len(targets)} destinations for {len(chosen)} streams; give one, or one for each")
        places = list(range(len(chosen))) if len(targets) > 1 else [0] * len(chosen)
        _one_wire_each(chosen, [targets[place].url for place in places])
        options: dict[str, Any] = {
            "to": [target.as_dict() for target in targets],
            "streams": [_stream(stream, place) for stream, place in zip(chosen, places, strict=True)],
            "speed": None if speed == "max" else _speed(speed),
            "datagram_bytes": None if datagram_bytes is None else whole("datagram_bytes", datagram_bytes, 1),
            "gso": flag("gso", gso),
            "connect_timeout_s": amount("connect_timeout_s", connect_timeout_s),
        }
        for stream in options["streams"]:
            for file in stream["files"]:
                check_utf8("path", file)
        super().__init__(_native.Replay(json.dumps(options)))

    def _bytes_in(self, account: dict[str, Any]) -> int:
        return sum(stream["bytes_sent"] for stream in account["streams"])

    def summary(self) -> dict[str, Any]:
        """Wait for the end and return what `replay` does.

        Raises:
            ReplayError: A destination failed, or a file could not be read.
        """
        summary = self._finish()
        failed = [d for d in summary["destinations"] if d["error"] is not None]
        if failed:
            raise ReplayError("; ".join(f"{d['url']}: {d['error']}" for d in failed), summary)
        return summary


def replay(
    path: str | os.PathLike[str],
    to: str | Sequence[str],
    *,
    speed: float | Literal["max"] = 1.0,
    streams: Sequence[str] | None = None,
    datagram_bytes: int | None = None,
    gso: bool = False,
    connect_timeout_s: float = 10.0,
) -> dict[str, Any]:
    """Send the frames of a recording again, bit for bit and in the order of the files.

    Args:
        path: Directory of a recording, a `.dat` file or a log of register packets. Of logs the keyframe of the oldest
            one comes first, at once.
        to: One destination, to which all streams go merged by the producer's time, or one for each stream in the
            order of their names: `tcp://HOST:PORT` (connects), `udp://HOST:PORT`, `file://PATH` (a named pipe is
            waited for until someone reads it), `-`.
        speed: 1.0 keeps the producer's pace (by the timestamps in the frames), 2.0 is twice as fast; "max" is as
            fast as the destination takes it.
        streams: Names of the streams to send; all if None. Streams of different wires (frames, register packets,
            simple register packets) or frame layouts cannot share a destination: no receiver could tell them apart.
        datagram_bytes: Over UDP, put as many frames into a datagram as fit this size; None: one.
        gso: Over UDP, let the kernel cut datagrams out of larger messages: several times cheaper.
        connect_timeout_s: How long to wait for a listener.

    Returns:
        dict with `elapsed_s`, `streams` (`name`, `url`, `frames_sent`, `bytes_sent`, and `bytes_skipped`: bytes of
        the files that belong to no valid frame) and `destinations` (`url`, `datagrams_sent`, ...).

    Raises:
        ConfigError: A URL, name or number is wrong, or streams of different wires would share a destination.
        TapelineError: There is no recording.
        ReplayError: A destination could not be reached or went away, or a file could not be read.
        OSError: As the operating system gave it.
    """
    running = Replay(
        path,
        to,
        speed=speed,
        streams=streams,
        datagram_bytes=datagram_bytes,
        gso=gso,
        connect_timeout_s=connect_timeout_s,
    )
    with running:
        return running.summary()


def _speed(speed: object) -> float:
    try:
        factor = amount("speed", speed)
    except ConfigError:
        factor = 0.0
    if factor == 0:
        raise ConfigError(f"speed is {speed!r}; it must be a finite number above 0, or 'max'")
    return factor


def _chosen(path: str | os.PathLike[str], names: Sequence[str] | None) -> list[Stream]:
    found = open_recording(path).streams
    wanted = list(found) if names is None else [names] if isinstance(names, str) else list(names)
    for place, name in enumerate(wanted):
        if name not in found:
            raise ConfigError(f"no stream {name!r} in {path}; there are: {', '.join(found)}")
        if name in wanted[:place]:
            raise ConfigError(f"stream {name!r} is named twice")
    return [found[name] for name in wanted]


def _one_wire_each(streams: Sequence[Stream], urls: Sequence[str]) -> None:
    """Check that what goes to a URL is of one kind: a receiver reads a connection in one way from start to end.

    Raises:
        ConfigError: It is not; the text names two streams that differ.
    """
    first: dict[str, tuple[Stream, tuple[str, str]]] = {}
    for stream, url in zip(streams, urls, strict=True):
        wire = _wire(stream)
        if wire is None:
            continue
        other, before = first.setdefault(url, (stream, wire))
        if wire != before:
            part = 0 if wire[0] != before[0] else 1
            raise ConfigError(
                f"streams {other.name!r} ({before[part]}) and {stream.name!r} ({wire[part]}) cannot share {url}: no "
                "receiver could tell them apart; choose with --stream NAME (streams=), or give one URL for each stream"
            )


def _wire(stream: Stream) -> tuple[str, str] | None:
    """What a receiver must know of a stream: its wire and its layout; None where there is nothing to send."""
    from tapeline._register_stream import RegisterStream

    if isinstance(stream, RegisterStream):
        return (f"wire={stream.wire}", "") if stream.logs else None
    if not stream.segments:
        return None
    layout = stream.layout or FrameLayout()
    fields = f"version_flags={layout.version_flags}, length_bytes={layout.length_bytes}, header_crc={layout.header_crc}"
    return "wire=frame", f"magic {layout.magic.hex()}, {fields.lower()}"


def _stream(stream: Stream, to: int) -> dict[str, Any]:
    from tapeline._register_stream import RegisterStream

    if isinstance(stream, RegisterStream):
        return _frames(stream, to) | {
            "files": [str(log.path) for log in stream.logs],
            "packets": {
                "wire": stream.wire,
                "keyframe_bytes": [log.keyframe_bytes for log in stream.logs],
                "first_us": stream.first_timestamp_us,
            },
        }
    return _frames(stream, to)


def _frames(stream: Stream, to: int) -> dict[str, Any]:
    # a stream that never received anything has no layout, and none is needed
    layout = stream.layout or FrameLayout()
    return {
        "name": stream.name,
        "files": [str(segment.path) for segment in stream.segments],
        "layout": {
            "magic": layout.magic.hex(),
            "version_flags": layout.version_flags,
            "length_bytes": layout.length_bytes,
            "header_crc": layout.header_crc,
            "max_payload": layout.max_payload,
        },
        "to": to,
    }
