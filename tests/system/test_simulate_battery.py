"""`tapeline simulate battery` as a process: its account against the bytes it sent."""

import json
import signal

import pytest
from tests.system._processes import Running, tapeline
from tests.system._sending import Receiver

import tapeline as package
from tapeline import wire
from tapeline.errors import ConfigError
from tapeline.simulate import BatterySimulation, battery


def received(data, kind="packet"):
    """Packets and image of the bytes of one client."""
    decoder = wire.PacketDecoder(kind=kind)
    packets = decoder.feed(data)
    decoder.finish()
    image = wire.RegisterImage()
    for packet in packets:
        image.apply(packet)
    return packets, image


@pytest.mark.parametrize("kind", ["packet", "simple"])
def test_a_decoder_finds_what_the_account_says(kind):
    with Receiver() as receiver:
        done = tapeline(
            "simulate", "battery", "--to", receiver.url, "--packets", 2000, "--count", "1:50", "--full-every", 500,
            "--wire", kind, "--json", "--image",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    truth = json.loads(done.stdout)
    packets, image = received(receiver.data, kind)
    assert truth["total"]["packets_sent"] == len(packets) == 2000
    assert truth["total"]["bytes_sent"] == len(receiver.data)
    assert truth["total"]["full_packets"] == (4 if kind == "packet" else 0)
    assert truth["image_digest"] == image.digest()
    (source,) = truth["image"]["sources"]
    assert (source["type"], source["src_id"], len(source["registers"])) == (2, 0, 1024)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("packet", ["--count", 3]),
        ("packet", ["--count", "1:40", "--full-every", 100]),
        ("packet", ["--count", "0:300", "--random", "--rate", 20_000]),
        ("packet", ["--count", 7, "--delay", "0.1ms"]),
        ("simple", ["--count", 3]),
        ("simple", ["--count", "0:300", "--random"]),
    ],
)
def test_the_server_has_what_the_account_says(tmp_path, kind, options):
    config = {"out": str(tmp_path), "streams": {"rack": {"url": f"tcp://127.0.0.1:0?wire={kind}"}}}
    with package.Recorder(config) as recorder:
        [url] = recorder.status().streams["rack"].addresses
        done = tapeline(
            "simulate", "battery", "--to", url, "--clients", 3, "--packets", 1000, "--wire", kind, *options, "--json",
            "--image",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    truth = json.loads(done.stdout)
    total, ledger = truth["total"], recorder.ledger()["rack"]
    assert (ledger.clients_accepted, ledger.packets_stored, ledger.bytes_stored, ledger.registers_received) == (
        3, total["packets_sent"], total["bytes_sent"], total["registers_sent"],
    )  # fmt: skip
    assert (ledger.gaps, ledger.packets_duplicate, ledger.full_packets) == (0, 0, total["full_packets"])
    assert wire.RegisterImage.load(tmp_path / "rack" / "image.bin").digest() == truth["image_digest"]
    shown = tapeline("registers", "image", tmp_path, "--json")
    assert json.loads(shown.stdout) == truth["image"]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    urls = [f"file://{tmp_path}/{n}" for n in range(4)]
    for first in (0, 2):
        done = tapeline(
            "simulate", "battery", "--to", *urls[first : first + 2], "--packets", 300, "--seed", 9, "--random"
        )
        assert done.returncode == 0, done.stderr
    a, b, c, d = ((tmp_path / str(n)).read_bytes() for n in range(4))
    assert (a, b) == (c, d)
    assert a != b


def test_clients_share_a_file_in_whole_packets(tmp_path):
    path = tmp_path / "x.pkt"
    truth = battery(f"file://{path}", clients=4, packets=5000, count=20)
    assert truth["total"]["bytes_sent"] == path.stat().st_size
    packets, image = received(path.read_bytes())
    assert len(packets) == 20_000
    assert image.digest() == truth["image_digest"]


def test_a_signal_ends_it_and_the_account_is_of_what_was_sent(tmp_path):
    path = tmp_path / "x.pkt"
    with Running("simulate", "battery", "--to", f"file://{path}", "--duration", "60s", "--rate", 1000, "--json") as run:
        while not path.exists() or path.stat().st_size == 0:
            assert run.process.poll() is None
        run.signal(signal.SIGTERM)
        code, out = run.finish()
    truth = json.loads(out)
    assert code == 0
    assert truth["total"]["bytes_sent"] == path.stat().st_size
    assert truth["image_digest"] == received(path.read_bytes())[1].digest()


def test_options_out_of_range_are_named(tmp_path):
    url = f"file://{tmp_path}/x"
    for options, name in [
        ({"count": (5, 4)}, "count"),
        ({"count": 100, "registers": 99}, "count"),
        ({"clients": 1025}, "clients"),
        ({"delay_s": -1.0}, "delay"),
        ({"delay_s": 1.0, "rate_hz": 1.0}, "rate"),
        ({"rate_hz": float("nan")}, "rate"),
        ({"wire": "frame"}, "wire"),
        ({"packets": -1}, "packets"),
    ]:
        with pytest.raises(ConfigError, match=name):
            battery(url, **options)
    for words in (["--count", "x"], ["--count", "3:2"], ["--clients", "0"], ["--wire", "x"], ["--delay", "x"]):
        assert tapeline("simulate", "battery", "--to", url, *words).returncode == 2


def test_nobody_there_is_a_failure_with_an_account(tmp_path):
    simulation = BatterySimulation(f"file://{tmp_path}/no/such/file", clients=3)
    with pytest.raises(ConnectionError) as caught:
        simulation.truth()
    assert caught.value.truth["total"]["bytes_sent"] == 0
    assert str(caught.value).count("No such file") == 1


def test_what_the_table_says():
    with Receiver() as receiver:
        done = tapeline("simulate", "battery", "--to", receiver.url, "--packets", 10, "--count", 2)
    assert done.stdout.startswith("1 clients: 10 packets (0 FULL) with 20 registers, 290 B")
