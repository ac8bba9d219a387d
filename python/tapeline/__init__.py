"""Record high-rate binary telemetry with nothing lost silently, and read it back fast.

Importing this module loads nothing heavy: the names below are imported when they are first used.
"""

from __future__ import annotations

from tapeline.errors import ConfigError, ConvertError, RecorderError, TapelineError

TYPE_CHECKING = False  # importing `typing` for it would take longer than all the rest of this module
if TYPE_CHECKING:
    from typing import Any

    from tapeline._native import __version__
    from tapeline.config import RecorderConfig
    from tapeline.conversion import ConvertReport, convert
    from tapeline.recorder import Recorder
    from tapeline.recording import Recording, open_recording
    from tapeline.registers import history, image_at

__all__ = [
    "ConfigError",
    "ConvertError",
    "ConvertReport",
    "Recorder",
    "RecorderConfig",
    "RecorderError",
    "Recording",
    "TapelineError",
    "__version__",
    "convert",
    "history",
    "image_at",
    "open_recording",
]

_LAZY = {
    "__version__": "tapeline._native",
    "ConvertReport": "tapeline.conversion",
    "Recorder": "tapeline.recorder",
    "RecorderConfig": "tapeline.config",
    "Recording": "tapeline.recording",
    "convert": "tapeline.conversion",
    "history": "tapeline.registers",
    "image_at": "tapeline.registers",
    "open_recording": "tapeline.recording",
}
_MODULES = {
    *("bcsv", "config", "conversion", "errors", "recorder", "recording", "registers", "replay", "ring", "simulate"),
    *("sinks", "urls", "wire"),
}


def __getattr__(name: str) -> Any:
    """Import a public name, or a public module, at its first use."""
    import importlib

    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"tapeline.{name}")
    else:
        raise AttributeError(f"module 'tapeline' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names and modules, imported or not."""
    return sorted({*__all__, *_MODULES})
