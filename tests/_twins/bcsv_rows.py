"""The three BCSV row codecs in plain Python (spec/bcsv-format.md 8).

A row is a tuple: bool, int, float and double as the *int of their bits* (so that every NaN stays
itself), string as bytes. Codecs are made anew for every packet or stream file.
"""

import ctypes
import struct

TYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float", "double", "string",
)  # fmt: skip
WIDTH = dict(zip(TYPES, (0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 0), strict=True))
CODE_BITS = {1: 2, 2: 2, 4: 3, 8: 4}
MAX_STRING = 65535


class RowError(ValueError):
    """Row bytes that no writer may produce."""


class Cursor:
    """Bytes read from the front; reading past the end is an error."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise RowError("row too short")
        self.at += count
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def finish(self) -> None:
        if self.at != len(self.data):
            raise RowError("surplus bytes in row")


class Codec:
    """What the three have in common: the columns in layout and in grouped order."""

    def __init__(self, types: list[str]) -> None:
        self.types = types
        self.bools = [i for i, t in enumerate(types) if t == "bool"]
        self.strings = [i for i, t in enumerate(types) if t == "string"]
        self.scalars = [i for i, t in enumerate(types) if t not in ("bool", "string")]
        self.grouped = sorted(self.scalars, key=lambda i: (TYPES.index(types[i]), i))

    def scalar(self, column: int, bits: int) -> int:
        """The value of a row from the bits of a column."""
        kind, width = self.types[column], 8 * WIDTH[self.types[column]]
        return bits - (1 << width) if kind.startswith("int") and bits >> (width - 1) else bits

    def bits(self, column: int, value: int) -> int:
        return value & ((1 << 8 * WIDTH[self.types[column]]) - 1)

    def native(self, column: int, value: int) -> bytes:
        return self.bits(column, value).to_bytes(WIDTH[self.types[column]], "little")


def _pack_bits(bits: list[int]) -> bytes:
    out = bytearray((len(bits) + 7) // 8)
    for i, bit in enumerate(bits):
        out[i // 8] |= bit << (i % 8)
    return bytes(out)


def _unpack_bits(data: bytes, count: int) -> list[int]:
    return [data[i // 8] >> (i % 8) & 1 for i in range(count)]


def _string(value: bytes) -> bytes:
    if len(value) > MAX_STRING:
        raise RowError("string too long")
    return len(value).to_bytes(2, "little") + value


class Flat(Codec):
    """8.1: bools, scalars in layout order, string lengths, string bytes."""

    def encode(self, row: tuple) -> bytes:
        out = _pack_bits([int(row[i]) for i in self.bools])
        out += b"".join(self.native(i, row[i]) for i in self.scalars)
        if any(len(row[i]) > MAX_STRING for i in self.strings):
            raise RowError("string too long")
        out += b"".join(len(row[i]).to_bytes(2, "little") for i in self.strings)
        return out + b"".join(row[i] for i in self.strings)

    def decode(self, data: bytes) -> tuple:
        if not data and self.types:
            raise RowError("empty row")
        src, row = Cursor(data), [None] * len(self.types)
        bits = _unpack_bits(src.take((len(self.bools) + 7) // 8), len(self.bools))
        for i, bit in zip(self.bools, bits, strict=True):
            row[i] = bool(bit)
        for i in self.scalars:
            row[i] = self.scalar(i, src.number(WIDTH[self.types[i]]))
        lengths = [src.number(2) for _ in self.strings]
        for i, length in zip(self.strings, lengths, strict=True):
            row[i] = src.take(length)
        src.finish()
        return tuple(row)


class Zoh(Codec):
    """8.2: change flags and changed values; an unchanged row is empty."""

    def __init__(self, types: list[str]) -> None:
        super().__init__(types)
        self.previous: tuple | None = None
        self.order = self.grouped + self.strings

    def encode(self, row: tuple) -> bytes:
        previous, self.previous = self.previous, row
        if previous == row:
            return b""
        flags = [int(previous is None or previous[i] != row[i]) for i in self.order]
        out = _pack_bits([int(row[i]) for i in self.bools] + flags)
        for i, flag in zip(self.order, flags, strict=True):
            if flag:
                out += _string(row[i]) if self.types[i] == "string" else self.native(i, row[i])
        return out

    def decode(self, data: bytes) -> tuple:
        if not data:
            if self.previous is None and self.types:
                raise RowError("repeat as first row")
            return self.previous or ()
        src = Cursor(data)
        bits = _unpack_bits(src.take((len(self.types) + 7) // 8), len(self.types))
        flags = bits[len(self.bools) :]
        if self.previous is None and not all(flags):
            raise RowError("first row is not full")
        row = list(self.previous or [None] * len(self.types))
        for i, bit in zip(self.bools, bits, strict=False):
            row[i] = bool(bit)
        for i, flag in zip(self.order, flags, strict=True):
            if flag and self.types[i] == "string":
                row[i] = src.take(src.number(2))
            elif flag:
                row[i] = self.scalar(i, src.number(WIDTH[self.types[i]]))
        src.finish()
        self.previous = tuple(row)
        return self.previous


class Delta(Codec):
    """8.3: hold, predict or difference per number."""

    def __init__(self, types: list[str]) -> None:
        super().__init__(types)
        self.prev = dict.fromkeys(self.scalars, 0)  # bits
        self.grad = dict.fromkeys(self.scalars, 0)  # bits
        self.text: dict[int, bytes] | None = None
        self.seen = 0

    def encode(self, row: tuple) -> bytes:
        bits = [int(row[i]) for i in self.bools]
        data = b""
        for i in self.grouped:
            width = WIDTH[self.types[i]]
            code, piece = self._code(i, self.bits(i, row[i]))
            bits += [code >> k & 1 for k in range(CODE_BITS[width])]
            data += piece
        for i in self.strings:
            changed = self.text is None or self.text[i] != row[i]
            bits.append(int(changed))
            data += _string(row[i]) if changed else b""
        self.text = {i: row[i] for i in self.strings}
        self.seen += 1
        return _pack_bits(bits) + data

    def _code(self, i: int, value: int) -> tuple[int, bytes]:
        prev, width = self.prev[i], WIDTH[self.types[i]]
        if value == prev:
            self.grad[i] = 0
            return 0, b""
        predicted, is_nan = self._add(i, prev, self.grad[i])
        if self.seen >= 2 and predicted == value and not is_nan:
            self.prev[i] = value
            return 1, b""
        if self._is_float(i):
            stored = value ^ prev
        else:
            step, top = (value - prev) % (1 << 8 * width), 1 << (8 * width - 1)
            stored = (step << 1) % (1 << 8 * width) ^ ((1 << 8 * width) - 1 if step & top else 0)
        self._move(i, value)
        count = (stored.bit_length() + 7) // 8
        return count + 1, stored.to_bytes(count, "little")

    def decode(self, data: bytes) -> tuple:
        if not data and self.types:
            raise RowError("empty row")
        codes = sum(CODE_BITS[WIDTH[self.types[i]]] for i in self.grouped)
        src = Cursor(data)
        count = len(self.bools) + codes + len(self.strings)
        bits = iter(_unpack_bits(src.take((count + 7) // 8), count))
        row = [None] * len(self.types)
        for i in self.bools:
            row[i] = bool(next(bits))
        todo = [(i, sum(next(bits) << k for k in range(CODE_BITS[WIDTH[self.types[i]]]))) for i in self.grouped]
        flags = [next(bits) for _ in self.strings]
        for i, code in todo:
            row[i] = self.scalar(i, self._value(i, code, src))
        if self.text is None and not all(flags):
            raise RowError("first row lacks strings")
        text = dict(self.text or {})
        for i, flag in zip(self.strings, flags, strict=True):
            if flag:
                text[i] = src.take(src.number(2))
            row[i] = text[i]
        self.text = text
        src.finish()
        return tuple(row)

    def _value(self, i: int, code: int, src: Cursor) -> int:
        prev, width = self.prev[i], WIDTH[self.types[i]]
        if code == 0:
            self.grad[i] = 0
        elif code == 1:
            self.prev[i] = self._add(i, prev, self.grad[i])[0]
        elif code > width + 1:
            raise RowError("no such delta code")
        else:
            stored = src.number(code - 1)
            if self._is_float(i):
                value = prev ^ stored
            else:
                step = (stored >> 1) ^ (-(stored & 1))
                value = (prev + step) % (1 << 8 * width)
            self._move(i, value)
        return self.prev[i]

    def _is_float(self, i: int) -> bool:
        return self.types[i] in ("float", "double")

    def _move(self, i: int, value: int) -> None:
        prev, width = self.prev[i], WIDTH[self.types[i]]
        if self._is_float(i):
            self.grad[i] = _float_bits(width, _float(width, value) - _float(width, prev))
        else:
            self.grad[i] = (value - prev) % (1 << 8 * width)
        self.prev[i] = value

    def _add(self, i: int, a: int, b: int) -> tuple[int, bool]:
        width = WIDTH[self.types[i]]
        if not self._is_float(i):
            return (a + b) % (1 << 8 * width), False
        total = _float(width, a) + _float(width, b)
        return _float_bits(width, total), total != total  # only a NaN differs from itself


def _float(width: int, bits: int) -> float:
    return struct.unpack("<f" if width == 4 else "<d", bits.to_bytes(width, "little"))[0]


def _float_bits(width: int, value: float) -> int:
    # A sum of two binary32 is exact enough in binary64 that rounding it again gives the binary32 sum.
    # c_float rounds to infinity where struct would raise.
    if width == 4:
        return int.from_bytes(bytes(ctypes.c_float(value)), "little")
    return int.from_bytes(struct.pack("<d", value), "little")


CODECS = {"flat": Flat, "zoh": Zoh, "delta": Delta}
