"""Send a recording again: the same frames or register packets, bit for bit, at their own pace or another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from tapeline import _native
from tapeline._sending import Sending
from tapeline.errors import ConfigError
from tapeline.recording import open_recording
from tapeline.urls import parse_destination
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
        targets = [parse_destination(url) for url in ([to] if isinstance(to, str) else to)]
        found = open_recording(path).streams
        names = list(found) if streams is None else list(streams)
        for name in names:
            if name not in found:
                raise ConfigError(f"no stream {name!r} in {path}; there are: {', '.join(found)}")
        if len(targets) not in {1, len(names)}:
            raise ConfigError(f"{len(targets)} destinations for {len(names)} streams; give one, or one for each")
        options = {
            "to": [target.as_dict() for target in targets],
            "streams": [_stream(found[name], i if len(targets) > 1 else 0) for i, name in enumerate(names)],
            "speed": None if speed == "max" else speed,
            "datagram_bytes": datagram_bytes,
            "gso": gso,
            "connect_timeout_s": connect_timeout_s,
        }
        try:
            text = json.dumps(options, allow_nan=False)
        except ValueError:
            raise ConfigError(f"speed is {speed!r}; it must be a number above 0, or 'max'") from None
        super().__init__(_native.Replay(text))

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
            order of their names: `tcp://HOST:PORT` (connects), `udp://HOST:PORT`, `file://PATH`, `-`.
        speed: 1.0 keeps the producer's pace (by the timestamps in the frames), 2.0 is twice as fast; "max" is as
            fast as the destination takes it.
        streams: Names of the streams to send; all if None.
        datagram_bytes: Over UDP, put as many frames into a datagram as fit this size; None: one.
        gso: Over UDP, let the kernel cut datagrams out of larger messages: several times cheaper.
        connect_timeout_s: How long to wait for a listener.

    Returns:
        dict with `elapsed_s`, `streams` (`name`, `url`, `frames_sent`, `bytes_sent`, and `bytes_skipped`: bytes of
        the files that belong to no valid frame) and `destinations` (`url`, `datagrams_sent`, ...).

    Raises:
        ConfigError: A URL, name or number is wrong.
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
