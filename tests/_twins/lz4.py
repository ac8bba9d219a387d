"""Raw LZ4 blocks with history, in plain Python, from the published block format."""

WINDOW = 65535  # farthest match
MIN_MATCH = 4
LAST_LITERALS = 5  # the last bytes of a block are literals
MATCH_LIMIT = 12  # no match starts in the last 12 bytes


class Lz4Error(ValueError):
    """The block is not valid."""


def decompress(block: bytes, limit: int, history: bytes = b"") -> bytes:
    """Plain bytes of one block; at most `limit` of them."""
    out = bytearray(history)
    base, i, n = len(history), 0, len(block)
    while True:
        if i >= n:
            raise Lz4Error("block ends without a last literal run")
        token = block[i]
        i += 1
        literals, i = _length(block, i, token >> 4)
        if i + literals > n:
            raise Lz4Error("literals pass the end")
        out += block[i : i + literals]
        i += literals
        if len(out) - base > limit:
            raise Lz4Error("more bytes than allowed")
        if i == n:
            return bytes(out[base:])
        if i + 2 > n:
            raise Lz4Error("offset cut")
        offset = block[i] | block[i + 1] << 8
        length, i = _length(block, i + 2, token & 15)
        length += MIN_MATCH
        if offset == 0 or offset > len(out):
            raise Lz4Error("offset outside of the history")
        if len(out) - base + length > limit:
            raise Lz4Error("more bytes than allowed")
        start = len(out) - offset
        for k in range(length):  # byte by byte: a match may overlap itself
            out.append(out[start + k])


def _length(block: bytes, i: int, nibble: int) -> tuple[int, int]:
    if nibble < 15:
        return nibble, i
    total = 15
    while True:
        if i >= len(block):
            raise Lz4Error("length cut")
        byte = block[i]
        i += 1
        total += byte
        if byte != 255:
            return total, i


def compress(data: bytes, history: bytes = b"") -> bytes:
    """One block; greedy, remembers the last place of every 4 bytes."""
    history = history[-WINDOW:]
    text = history + data
    seen = {text[k : k + 4]: k for k in range(max(len(history) - 3, 0))}
    out = bytearray()
    anchor = i = len(history)
    while i + MATCH_LIMIT <= len(text):
        key = text[i : i + 4]
        at = seen.get(key)
        seen[key] = i
        if at is None or i - at > WINDOW:
            i += 1
            continue
        length = MIN_MATCH
        while i + length < len(text) - LAST_LITERALS and text[at + length] == text[i + length]:
            length += 1
        _sequence(out, text[anchor:i], i - at, length)
        i += length
        anchor = i
    _sequence(out, text[anchor:], 0, 0)
    return bytes(out)


def _sequence(out: bytearray, literals: bytes, offset: int, length: int) -> None:
    extra = length - MIN_MATCH if length else 0
    out.append(min(len(literals), 15) << 4 | min(extra, 15))
    _put_length(out, len(literals))
    out += literals
    if length:
        out += offset.to_bytes(2, "little")
        _put_length(out, extra)


def _put_length(out: bytearray, value: int) -> None:
    if value >= 15:
        value -= 15
        out += b"\xff" * (value // 255) + bytes([value % 255])
