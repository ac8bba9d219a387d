"""The root of every error of the package; each part has its own branch below it.

Operating-system errors stay `OSError`; `KeyError`, `IndexError` and `MemoryError` stay themselves.
"""


class TapelineError(Exception):
    """Root of the package's own errors."""


class ConfigError(TapelineError, ValueError):
    """A setting is unknown or out of range; the text names the key, the value and what is allowed."""


class RecorderError(TapelineError, RuntimeError):
    """A source or a sink failed; the cause is chained.

    Attributes:
        stream: Name of the stream concerned, or None.
        path: File or directory concerned, or None.
    """

    def __init__(self, message: str, *, stream: str | None = None, path: str | None = None) -> None:
        """Keep what failed beside the text."""
        super().__init__(message)
        self.stream = stream
        self.path = path


class ConvertError(TapelineError, ValueError):
    """A text file could not be converted as it is.

    Attributes:
        path: The file, or None.
        line: Line of the text, from 1, or None.
        column: Name of the column, or None.
    """

    def __init__(
        self, message: str, *, path: str | None = None, line: int | None = None, column: str | None = None
    ) -> None:
        """Keep the place beside the text."""
        super().__init__(message)
        self.path = path
        self.line = line
        self.column = column


class WireError(TapelineError, ValueError):
    """Encoding was asked for something the wire cannot carry; decoding counts, it does not raise."""


class RingError(TapelineError, ValueError):
    """A file is no ring, a ring is damaged, or it cannot take what was given."""


class BcsvError(TapelineError, ValueError):
    """A BCSV file or schema is wrong."""


class CorruptError(BcsvError):
    """Bytes of a BCSV file are wrong.

    Attributes:
        offset: Byte offset in the file where the fault was found, or None.
        packet: Number of the BCSV packet, from 0, or None.
        rows_before: Rows that come before the fault and are good.
    """

    def __init__(
        self, message: str, *, offset: int | None = None, packet: int | None = None, rows_before: int | None = None
    ) -> None:
        """Keep the place beside the text."""
        super().__init__(message)
        self.offset = offset
        self.packet = packet
        self.rows_before = rows_before


class UnsupportedError(BcsvError):
    """A BCSV file is well formed, but of a version or codec this release does not know."""


class SchemaError(BcsvError):
    """The caller's columns or values do not fit the schema."""
