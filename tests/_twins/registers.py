"""Register packets and their image, slow and plain: written from spec/register-packets.md 1, 2 and 4 alone."""

import struct

MAX_COUNT = 65_536
HEADER = struct.Struct("<IQBBBBBI")
SIMPLE = struct.Struct("<diI")


class Decoder:
    """All packets of `stream`, and what became of every byte."""

    def __init__(self, kind, stream):
        self.packets = []
        self.valid = self.invalid = self.discarded = 0
        self.reasons = {"length_mismatch": 0, "unknown_command": 0, "unknown_type": 0, "truncated": 0}
        self.lost_at = None
        at = 0
        while at < len(stream):
            size = self.size(kind, stream, at)
            if size is None:
                self.lost_at = at
            elif at + size > len(stream):
                self.reasons["truncated"] += 1
            else:
                self.take(kind, stream[at : at + size], at)
                at += size
                continue
            self.discarded = len(stream) - at
            break

    @staticmethod
    def size(kind, stream, at):
        """Bytes of the packet at `at` (more than there are, if that is not known yet); None if no packet can be."""
        if kind == "simple":
            if len(stream) - at < SIMPLE.size:
                return SIMPLE.size
            count = SIMPLE.unpack_from(stream, at)[2]
            return SIMPLE.size + 4 * count if count <= MAX_COUNT else None
        if len(stream) - at < 4:
            return 4
        length = int.from_bytes(stream[at : at + 4], "little")
        return 4 + length if 17 <= length <= 17 + 4 * MAX_COUNT else None

    def take(self, kind, packet, at):
        if kind == "simple":
            time, rack, count = SIMPLE.unpack_from(packet)
            fields = {"time": time, "src_id": rack, "cmd": 0, "type": 2, "seq": 0}
            body = packet[SIMPLE.size :]
        else:
            length, us, src_id, cmd, type_, seq, _reserved, count = HEADER.unpack_from(packet)
            fields = {"timestamp_us": us, "src_id": src_id, "cmd": cmd, "type": type_, "seq": seq}
            body = packet[HEADER.size :]
            reason = None
            if cmd > 5:
                reason = "unknown_command"
            elif type_ > 3:
                reason = "unknown_type"
            elif length != 17 + 4 * count:
                reason = "length_mismatch"
            if reason:
                self.reasons[reason] += 1
                self.invalid += len(packet)
                return
        words = struct.unpack(f"<{2 * count}H", body)
        self.valid += len(packet)
        self.packets.append({**fields, "control": list(words[:count]), "data": list(words[count:]), "offset": at})


class Image:
    """Register by register."""

    def __init__(self):
        self.sources = {}

    def apply(self, packet):
        if packet["cmd"] > 1:
            return
        registers = self.sources.setdefault((packet["type"], packet["src_id"]), {})
        if packet["cmd"] == 1:
            for offset in registers.keys() - set(packet["control"]):
                del registers[offset]
        registers.update(zip(packet["control"], packet["data"], strict=True))

    def as_dict(self):
        return {
            "sources": [
                {"type": t, "src_id": s, "registers": [list(r) for r in sorted(registers.items())]}
                for (t, s), registers in sorted(self.sources.items())
                if registers
            ]
        }
