"""Record high-rate binary telemetry with nothing lost silently, and read it back fast."""

from tapeline._native import __version__
from tapeline.errors import ConfigError, RecorderError, TapelineError

__all__ = ["ConfigError", "RecorderError", "TapelineError", "__version__"]
