"""Any clients in any interleaving, on both wires: the log is what they sent, and the image what the log says."""

import contextlib
import itertools
import json
import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _support.register_server import connect, segments, stored, until_closed, wait_until
from _twins import registers as twin
from tapeline import _native, wire
from tapeline.config import RecorderConfig
from tapeline.ledger import RegisterLedger

EXAMPLES = int(os.environ.get("TAPELINE_TEST_EXAMPLES", "20"))
DIFF, FULL, QUERY, REPLY, SYNC, SYNCED = range(6)
u16 = st.integers(0, 5) | st.integers(0, 65_535)
pairs = st.lists(st.tuples(u16, u16), max_size=12) | st.integers(500, 3000).map(
    lambda n: [(i, i * n % 65_536) for i in range(n)]
)
chunks = st.lists(st.integers(1, 40) | st.integers(1, 20_000), min_size=1, max_size=6)
commands = st.sampled_from([DIFF, DIFF, DIFF, FULL, QUERY, REPLY, SYNC, SYNCED])


@st.composite
def data_packet(draw, stamp):
    control, data = zip(*drawn, strict=True) if (drawn := draw(pairs)) else ((), ())
    cmd = draw(commands)
    if cmd == QUERY:
        control, data = control[:20], data[:20]
    fields = {"src_id": draw(st.integers(0, 2)), "type": draw(st.integers(1, 3)), "seq": draw(st.integers(0, 255))}
    packet = bytearray(wire.encode_packet(control, data, timestamp_us=stamp, cmd=cmd, **fields))
    match draw(st.integers(0, 15)):
        case 0:
            packet[13] = draw(st.integers(6, 255))  # cmd
        case 1:
            packet[14] = draw(st.integers(4, 255))  # type
        case 2:
            packet[17] ^= 1  # count
    return bytes(packet)


@st.composite
def simple_packet(draw, stamp):
    control, data = zip(*drawn, strict=True) if (drawn := draw(pairs)) else ((), ())
    return wire.encode_packet(control, data, kind="simple", time=float(stamp), rack=draw(st.integers(-2, 2)))


@st.composite
def client(draw, kind, number):
    """The bytes of one connection, and the sizes of the pieces in which they go out."""
    make = data_packet if kind == "packet" else simple_packet
    parts = [draw(make(stamp=(number << 32) + n)) for n in range(draw(st.integers(0, 8)))]
    end = draw(st.sampled_from(["whole", "whole", "half", "garbage"]))
    if end == "half" and parts:
        parts[-1] = parts[-1][: draw(st.integers(1, len(parts[-1]) - 1))]
    elif end == "garbage":
        length = st.sampled_from([0, 16, 17 + 4 * 65_536 + 1, 0xFFFF_FFFF])
        head = draw(length).to_bytes(4, "little") if kind == "packet" else b"\0" * 12 + b"\xff" * 4
        parts.append(head + draw(st.binary(max_size=50)))
    return b"".join(parts), draw(chunks)


@st.composite
def traffic(draw, kind):
    clients = [draw(client(kind=kind, number=n)) for n in range(draw(st.integers(1, 4)))]
    return clients, draw(st.randoms(use_true_random=False))


class Server:
    """A recorder without its Python half: an example starts and stops two of them."""

    def __init__(self, out, kind):
        stream = {"url": f"tcp://127.0.0.1:0?wire={kind}", "rotate_bytes": 30_000, "max_buffer_bytes": 65_536}
        config = RecorderConfig.from_dict({"out": str(out), "streams": {"rack": stream}})
        self.native = _native.Recorder(config.to_json())
        self.native.start()
        host, port = self.status()["addresses"][0].removeprefix("tcp://").rsplit(":", 1)
        self.address = (host, int(port))

    def status(self):
        return json.loads(self.native.status())["streams"]["rack"]

    def finish(self):
        """Stop as SIGTERM does; the final account."""
        self.native.stop()
        assert self.native.wait(30)
        summary = json.loads(self.native.summary())["streams"]["rack"]
        assert summary["error"] is None
        return RegisterLedger.from_dict(summary["ledger"])


def send(address, clients, chance):
    """Send all in pieces, in any order; returns what each client was answered, None where that cannot be told."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(address)) for _ in clients]
        at = [0] * len(clients)
        turn = [itertools.cycle(sizes) for _, sizes in clients]
        going = [n for n, (data, _) in enumerate(clients) if data]
        while going:
            n = chance.choice(going)
            data = clients[n][0]
            piece = data[at[n] : at[n] + next(turn[n])]
            at[n] += len(piece)
            try:
                sockets[n].sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                at[n] = len(data)  # its framing was lost before this
            if at[n] >= len(data):
                going.remove(n)
        return [answers(connection) for connection in sockets]


def answers(connection):
    try:
        connection.shutdown(socket.SHUT_WR)
        return until_closed(connection)
    except OSError:
        return None  # closed with bytes on their way


# Not `tmp_path`: that is one directory for all examples.
@settings(deadline=None, max_examples=EXAMPLES)
@given(st.data())
@pytest.mark.parametrize("kind", ["packet", "simple"])
def test_the_log_is_what_was_sent_and_the_image_is_what_the_log_says(kind, data):
    image, packets = twin.Image(), 0
    with tempfile.TemporaryDirectory() as out:
        for _ in range(data.draw(st.integers(1, 2))):
            clients, chance = data.draw(traffic(kind=kind))
            models = [twin.Decoder(kind, sent) for sent, _ in clients]
            server = Server(out, kind)
            answered = send(server.address, clients, chance)
            expected = sum(len(model.packets) for model in models)
            wait_until(lambda s=server, n=expected: s.status()["ledger"]["packets_stored"] == n)
            ledger = server.finish()

            log = twin.Decoder(kind, stored(out))
            assert (log.invalid, log.discarded) == (0, 0)
            fresh = log.packets[packets:]
            packets = len(log.packets)
            check_order(kind, models, fresh)
            check_ledger(models, fresh, ledger)
            check_answers(models, answered)
            for packet in fresh:
                image.apply(packet)
            check_image(out, kind, image)


def check_order(kind, models, log):
    """Each client's packets, whole and in the order sent; between clients any order."""
    stamp = "timestamp_us" if kind == "packet" else "time"
    assert len(log) == sum(len(model.packets) for model in models)
    for number, model in enumerate(models):
        own = [{**p, "offset": 0} for p in log if int(p[stamp]) >> 32 == number]
        assert own == [{**p, "offset": 0} for p in model.packets]


def check_ledger(models, log, ledger):
    assert not ledger.broken_laws()
    assert ledger.packets_received == ledger.packets_stored == len(log)
    assert ledger.bytes_stored == ledger.bytes_valid == sum(m.valid for m in models)
    assert ledger.bytes_invalid == sum(m.invalid for m in models)
    lost = sum(m.lost_at is not None for m in models)
    assert ledger.framing_lost == ledger.clients_closed.framing_lost == lost
    discarded = sum(m.discarded for m in models)
    # Bytes that a client sends behind a lost framing may be read, or go with the connection.
    assert ledger.bytes_discarded == discarded or (lost and ledger.bytes_discarded <= discarded)
    assert (ledger.queries, ledger.syncs) == tuple(sum(p["cmd"] == cmd for p in log) for cmd in (QUERY, SYNC))
    assert ledger.clients_accepted == len(models)
    for reason, count in ledger.as_dict()["packets_invalid"].items():
        assert count == sum(m.reasons[reason] for m in models), reason


def check_answers(models, answers):
    for model, got in zip(models, answers, strict=True):
        if model.lost_at is None and got is not None:
            for asked, answered in ((QUERY, REPLY), (SYNC, SYNCED)):
                wanted = [p["seq"] for p in model.packets if p["cmd"] == asked]
                assert [p.seq for p in got if p.cmd == answered] == wanted


def check_image(out, kind, model):
    file = Path(out, "rack", "image.bin")
    if not model.as_dict()["sources"]:
        return
    assert wire.RegisterImage.load(file).as_dict() == model.as_dict()
    # A keyframe at the start of each segment but those before anything is known; each segment stands alone.
    replayed = wire.RegisterImage()
    for entry in segments(out):
        content = Path(out, "rack", entry["name"]).read_bytes()
        alone = wire.RegisterImage()
        keyframes = content[: entry["keyframe_bytes"]]
        alone.apply_bytes(keyframes, kind=kind)
        assert alone.digest() == replayed.digest()
        replayed.apply_bytes(content[len(keyframes) :], kind=kind)
    assert replayed.as_dict() == model.as_dict()
