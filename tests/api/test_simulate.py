"""tapeline.simulate and tapeline.replay as functions: options, errors, and what a run says of itself."""

import socket

import pytest

from tapeline.errors import ConfigError
from tapeline.replay import ReplayError, replay
from tapeline.simulate import FaultRates, RadarSimulation, simulate_radar


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


@pytest.mark.parametrize(
    "options",
    [
        {"streams": 0},
        {"streams": True},
        {"frames": -1},
        {"payload_bytes": 0},
        {"payload_bytes": 1 << 21},
        {"seed": 1 << 64},
        {"rate_hz": float("nan")},
        {"drop": 1.5},
        {"garbage": -0.1},
        {"connect_timeout_s": float("inf")},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        simulate_radar("tcp://127.0.0.1:9", **options)


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
