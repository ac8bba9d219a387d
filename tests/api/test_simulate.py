"""tapeline.simulate and tapeline.replay as functions: options, errors, and what a run says of itself."""

import math
import pickle
import socket
from functools import partial

import pytest

from tapeline.errors import ConfigError
from tapeline.replay import Replay, ReplayError, replay
from tapeline.simulate import (
    BatterySimulation,
    FaultRates,
    RadarSimulation,
    SendError,
    simulate_battery,
    simulate_radar,
)
from tapeline.tools._syntax import ExpressionError


@pytest.fixture
def nobody():
    """A URL at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{bound.getsockname()[1]}"


def test_an_account_adds_up(tmp_path):
    path = tmp_path / "x.dat"
    truth = simulate_radar(f"file://{path}", streams=3, frames=500, drop=0.1, corrupt=0.1, seed=4)
    assert truth["seed"] == 4
    assert [s["name"] for s in truth["streams"]] == ["ch0", "ch1", "ch2"]
    assert truth["total"]["bytes_sent"] == path.stat().st_size
    for account in [*truth["streams"], truth["total"]]:
        parts = account["frames_unique"] + account["frames_dropped"] + account["frames_corrupted"]
        assert account["frames_generated"] == parts
    for stream in truth["streams"]:
        between = stream["last_sequence"] - stream["first_sequence"] + 1
        assert between == stream["frames_unique"] + stream["expected"]["frames_lost"]


def test_streams_default_to_four_or_one_for_each_destination(tmp_path):
    urls = [f"file://{tmp_path}/{n}" for n in range(5)]
    assert len(simulate_radar(urls, frames=1)["streams"]) == 5
    assert len(simulate_radar(urls[:2], frames=1)["streams"]) == 4


def test_a_failure_carries_the_account(nobody):
    with pytest.raises(ConnectionError) as caught:
        simulate_radar(nobody, frames=1, connect_timeout_s=0.05)
    assert nobody in str(caught.value)
    assert caught.value.truth["total"]["bytes_sent"] == 0


NO_AMOUNTS = [math.inf, -math.inf, math.nan, -1, -0.5, 10**400, "5", b"x", [], True, 1j]
NO_COUNTS = [*NO_AMOUNTS, 0.5, 1 << 64]
AMOUNTS = ["rate_hz", "duration_s", "connect_timeout_s"]
RADAR_COUNTS = [
    "streams",
    "frames",
    "payload_bytes",
    "periodic",
    "seed",
    "first_sequence",
    "start_ns",
    "datagram_bytes",
]
BATTERY_COUNTS = ["clients", "packets", "count", "registers", "full_every", "seed", "start_us", "datagram_bytes"]


@pytest.mark.parametrize(
    ("simulate", "name", "value"),
    [
        *[(simulate_radar, name, value) for name in [*AMOUNTS, "drop", "garbage"] for value in NO_AMOUNTS],
        *[(simulate_battery, name, value) for name in [*AMOUNTS, "delay_s"] for value in NO_AMOUNTS],
        *[(simulate_radar, name, value) for name in RADAR_COUNTS for value in NO_COUNTS],
        *[(simulate_battery, name, value) for name in BATTERY_COUNTS for value in NO_COUNTS],
        *[(simulate, "rate_hz", 5e-324) for simulate in (simulate_radar, simulate_battery)],
        (simulate_radar, "streams", 0),
        (simulate_radar, "payload_bytes", 0),
        (simulate_radar, "payload_bytes", 1 << 21),
        (simulate_radar, "drop", 1.5),
        (simulate_radar, "gso", 1),
        (simulate_battery, "count", (1, 2, 3)),
        (simulate_battery, "image", "no"),
        *[(simulate, "to", value) for simulate in (simulate_radar, simulate_battery) for value in (5, [], [5], None)],
    ],
)
def test_options_out_of_range_are_named(tmp_path, simulate, name, value):
    path = tmp_path / "x"
    with pytest.raises(ConfigError, match=f"^{name} is .*; it must be"):
        simulate(**{"to": f"file://{path}", name: value})
    assert not path.exists()


@pytest.mark.parametrize("speed", [0, "fast", None, *NO_AMOUNTS])
def test_a_speed_out_of_range_is_named(tmp_path, speed):
    simulate_radar(f"file://{tmp_path}/a.dat", frames=1)
    with pytest.raises(ConfigError, match=r"^speed is .*above 0, or 'max'"):
        replay(tmp_path / "a.dat", f"file://{tmp_path}/b.dat", speed=speed)
    assert not (tmp_path / "b.dat").exists()


def test_patience_beyond_all_clocks_is_long_patience(tmp_path, nobody):
    simulate_radar(f"file://{tmp_path}/a.dat", frames=1)
    for start in (
        partial(RadarSimulation, nobody),
        partial(BatterySimulation, nobody),
        partial(Replay, tmp_path / "a.dat", nobody),
    ):
        with start(connect_timeout_s=1e300) as running:
            assert not running.wait(0.05)
            running.stop()


def test_errors_survive_a_process_pool(nobody, tmp_path):
    simulate_radar(f"file://{tmp_path}/a.dat", frames=1)
    with pytest.raises(SendError) as sending:
        simulate_radar(nobody, frames=1, connect_timeout_s=0)
    with pytest.raises(ReplayError) as replaying:
        replay(tmp_path / "a.dat", nobody, connect_timeout_s=0)
    for error in (sending.value, replaying.value, ExpressionError("odd", "a < b", 2)):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_simulation_in_the_background_stops_when_told(tmp_path):
    with RadarSimulation(f"file://{tmp_path}/x", frames=None, rate_hz=1000, faults=FaultRates(drop=0.5)) as simulation:
        while not simulation.bytes_sent():
            assert not simulation.wait(0.01)
        simulation.stop()
    assert simulation.wait(0)
    assert simulation.truth() is simulation.truth()
    assert simulation.truth()["total"]["bytes_sent"] == simulation.bytes_sent()


def test_a_replay_repeats_a_file_and_carries_its_summary(tmp_path, nobody):
    path = tmp_path / "capture.dat"
    simulate_radar(f"file://{path}", frames=100)
    again = tmp_path / "again.dat"
    told = replay(path, f"file://{again}", speed="max")
    assert again.read_bytes() == path.read_bytes()
    assert told["streams"][0]["frames_sent"] == 400
    with pytest.raises(ReplayError) as caught:
        replay(path, nobody, connect_timeout_s=0.05)
    assert caught.value.summary["streams"][0]["frames_sent"] == 0


def test_a_rate_beyond_all_clocks_is_as_fast_as_it_goes(tmp_path):
    truth = simulate_radar(f"file://{tmp_path / 'a.dat'}", streams=1, frames=1000, rate_hz=1e300)
    assert truth["total"]["frames_sent"] == 1000
    truth = simulate_battery(f"file://{tmp_path / 'a.pkt'}", packets=1000, rate_hz=1e300)
    assert truth["total"]["packets_sent"] == 1000
