"""Frames as bytes: encode a few, damage one, and see what the decoder makes of it."""

from tapeline import wire

stream = [wire.encode_frame(bytes([n]) * 100, sequence=n, timestamp_ns=n * 1_000_000) for n in range(5)]
damaged = bytearray(b"".join(stream))
damaged[len(stream[0]) + 60] ^= 0x80  # one bit in the payload of the second frame

decoder = wire.FrameDecoder()
frames = []
for start in range(0, len(damaged), 64):  # any chunking gives the same frames
    frames += decoder.feed(bytes(damaged[start : start + 64]))
frames += decoder.finish()

print("sequences:", [frame.sequence for frame in frames])
print("payload checksums that were wrong:", decoder.ledger.frames_corrupt.payload_crc)
print("lost:", decoder.ledger.frames_lost, "bytes discarded:", decoder.ledger.bytes_discarded)
