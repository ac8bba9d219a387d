"""XXH32 and XXH64 with seed 0, from the published algorithm, one step per line."""

M32 = 0xFFFFFFFF
M64 = 0xFFFFFFFFFFFFFFFF
P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def _rotl(value: int, bits: int, width: int) -> int:
    mask = (1 << width) - 1
    return ((value << bits) | (value >> (width - bits))) & mask


def xxh32(data: bytes) -> int:
    """The 32-bit hash."""
    p1, p2, p3, p4, p5 = P32
    n, i = len(data), 0
    if n >= 16:
        lanes = [(p1 + p2) & M32, p2, 0, (-p1) & M32]
        while i + 16 <= n:
            for k in range(4):
                word = int.from_bytes(data[i + 4 * k : i + 4 * k + 4], "little")
                lanes[k] = _rotl((lanes[k] + word * p2) & M32, 13, 32) * p1 & M32
            i += 16
        h = sum(_rotl(lane, bits, 32) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & M32
    else:
        h = p5
    h = (h + n) & M32
    while i + 4 <= n:
        h = _rotl((h + int.from_bytes(data[i : i + 4], "little") * p3) & M32, 17, 32) * p4 & M32
        i += 4
    for byte in data[i:]:
        h = _rotl((h + byte * p5) & M32, 11, 32) * p1 & M32
    h = (h ^ (h >> 15)) * p2 & M32
    h = (h ^ (h >> 13)) * p3 & M32
    return h ^ (h >> 16)


def _round64(lane: int, word: int) -> int:
    return _rotl((lane + word * P64[1]) & M64, 31, 64) * P64[0] & M64


def xxh64(data: bytes) -> int:
    """The 64-bit hash."""
    p1, p2, p3, p4, p5 = P64
    n, i = len(data), 0
    if n >= 32:
        lanes = [(p1 + p2) & M64, p2, 0, (-p1) & M64]
        while i + 32 <= n:
            for k in range(4):
                lanes[k] = _round64(lanes[k], int.from_bytes(data[i + 8 * k : i + 8 * k + 8], "little"))
            i += 32
        h = sum(_rotl(lane, bits, 64) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & M64
        for lane in lanes:
            h = ((h ^ _round64(0, lane)) * p1 + p4) & M64
    else:
        h = p5
    h = (h + n) & M64
    while i + 8 <= n:
        h = (_rotl(h ^ _round64(0, int.from_bytes(data[i : i + 8], "little")), 27, 64) * p1 + p4) & M64
        i += 8
    if i + 4 <= n:
        h = (_rotl(h ^ int.from_bytes(data[i : i + 4], "little") * p1 & M64, 23, 64) * p2 + p3) & M64
        i += 4
    for byte in data[i:]:
        h = _rotl(h ^ byte * p5 & M64, 11, 64) * p1 & M64
    h = (h ^ (h >> 33)) * p2 & M64
    h = (h ^ (h >> 29)) * p3 & M64
    return h ^ (h >> 32)
