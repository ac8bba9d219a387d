"""A producer with its own magic, without stream id and header CRC: a layout instead of code."""

from tapeline import wire

layout = wire.FrameLayout(magic=b"RADAR001", version_flags=2, header_crc=False, max_payload=64 * 1024)
data = b"".join(wire.encode_frame(b"echo" * 10, sequence=n, timestamp_ns=0, layout=layout) for n in range(3))

decoder = wire.FrameDecoder(layout)
print("header bytes:", layout.header_bytes)
print("frames:", len(decoder.feed(data)))
