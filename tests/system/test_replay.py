"""`tapeline replay` as a process: what comes out is what the files hold, bit for bit."""

import json
import signal
import socket

import pytest
from tests.system._processes import Running, tapeline
from tests.system._sending import Receiver, frame, frames, recorded

from tapeline import wire
from tapeline.errors import ConfigError
from tapeline.replay import replay
from tapeline.simulate import battery, simulate_radar


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Two streams in several segments, recorded from files."""
    directory = tmp_path_factory.mktemp("replay")
    words = []
    for name, seed in (("a", 1), ("b", 2)):
        path = directory / f"{name}.bin"
        simulate_radar(f"file://{path}", streams=1, frames=800, payload_bytes=500, seed=seed, start_ns=10**18)
        words += ["--stream", f"{name}=file://{path}"]
    done = tapeline("record", *words, "--out", directory / "run", "--rotate", "100KiB", "--json")
    assert done.returncode == 0, done.stderr
    return directory / "run"


def test_each_stream_to_its_url_bit_for_bit(recording):
    with Receiver() as a, Receiver() as b:
        done = tapeline("replay", recording, "--to", a.url, b.url, "--speed", "max", "--json")
    assert done.returncode == 0, done.stderr
    assert a.data == recorded(recording, "a")
    assert b.data == recorded(recording, "b")
    told = json.loads(done.stdout)
    assert [s["bytes_sent"] for s in told["streams"]] == [len(a.data), len(b.data)]
    assert [s["frames_sent"] for s in told["streams"]] == [800, 800]


def test_one_stream_at_its_own_pace(recording):
    with Receiver() as receiver:
        done = tapeline("replay", recording, "--to", receiver.url, "--stream", "b")
    assert done.returncode == 0, done.stderr
    assert receiver.data == recorded(recording, "b")
    assert "800" in done.stdout


def test_streams_merged_by_time(recording):
    with Receiver() as receiver:
        done = tapeline("replay", recording, "--to", receiver.url, "--speed", "1000", "--json")
    assert done.returncode == 0, done.stderr
    # both streams carry the same id and sequences
    decoder = wire.FrameDecoder(keep_duplicates=True)
    times = [f.timestamp_ns for f in decoder.feed(receiver.data) + decoder.finish()]
    assert len(times) == 1600
    assert times == sorted(times)


def test_udp_carries_every_frame_as_a_datagram(tmp_path):
    sent = frames(100)
    path = tmp_path / "capture.dat"
    path.write_bytes(b"".join(sent))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(30)
        url = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        done = tapeline("replay", path, "--to", url, "--json")
        assert done.returncode == 0, done.stderr
        assert [receiver.recv(65536) for _ in sent] == sent


def test_a_replay_is_recorded_as_it_was(recording, tmp_path):
    with Running("record", "--stream", "a=tcp://127.0.0.1:0", "--out", tmp_path / "again", "--count", 800) as run:
        url = "tcp://{}:{}".format(*run.address("a", "tcp"))
        done = tapeline("replay", recording, "--to", url, "--stream", "a", "--speed", "max")
        assert done.returncode == 0, done.stderr
        run.finish()
    assert recorded(tmp_path / "again", "a") == recorded(recording, "a")


def test_bytes_that_are_no_frames_are_told_with_exit_code_3(tmp_path):
    path = tmp_path / "capture.dat"
    path.write_bytes(frame(0) + b"rubbish" + frame(1))
    with Receiver() as receiver:
        done = tapeline("replay", path, "--to", receiver.url, "--json")
    assert done.returncode == 3
    assert receiver.data == frame(0) + frame(1)
    assert json.loads(done.stdout)["streams"][0]["bytes_skipped"] == 7


def test_a_signal_ends_it(tmp_path):
    path = tmp_path / "capture.dat"
    ends_of_time = wire.encode_frame(b"late", sequence=1, timestamp_ns=2**63)
    path.write_bytes(frame(0) + ends_of_time)
    with Receiver() as receiver, Running("replay", path, "--to", receiver.url, "--json") as run:
        assert receiver.some.wait(30)
        run.signal(signal.SIGINT)
        code, out = run.finish()
    assert code == 0
    assert json.loads(out)["streams"][0]["frames_sent"] == 1


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--speed", "fast"], "--speed"),
        (["--speed", "0"], "speed"),
        (["--speed", "inf"], "speed"),
        (["--stream", "c"], "'c'"),
        (["--datagram", "many"], "--datagram"),
        (["tcp://127.0.0.1:8", "tcp://127.0.0.1:7"], "destinations"),
    ],
)
def test_wrong_options_are_exit_code_2_and_named(recording, words, names):
    done = tapeline("replay", recording, "--to", "tcp://127.0.0.1:9", *words)
    assert done.returncode == 2
    assert names in done.stderr
    assert done.stdout == ""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A stream of frames, one of another layout, and one of register packets, in one recording."""
    directory = tmp_path_factory.mktemp("mixed")
    (directory / "a.dat").write_bytes(b"".join(frames(20)))
    short = wire.FrameLayout(version_flags=2)
    (directory / "b.dat").write_bytes(
        b"".join(wire.encode_frame(b"x" * 50, sequence=n, timestamp_ns=10**18 + n, layout=short) for n in range(20))
    )
    battery(f"file://{directory}/rack.pkt", packets=20)
    done = tapeline(
        "record", "--stream", f"a=file://{directory}/a.dat", "--stream", f"b=file://{directory}/b.dat?version_flags=2",
        "--stream", f"rack=file://{directory}/rack.pkt?wire=packet", "--out", directory / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return directory


def test_wires_do_not_mix_in_one_connection(mixed, tmp_path):
    out = tmp_path / "out"
    for chosen, differ in (
        (["a", "rack"], ("'a' (wire=frame)", "'rack' (wire=packet)")),
        (["a", "b"], ("version_flags=4", "version_flags=2")),
    ):
        words = [word for name in chosen for word in ("--stream", name)]
        done = tapeline("replay", mixed / "run", "--to", f"file://{out}", "--speed", "max", *words)
        assert done.returncode == 2
        assert done.stdout == ""
        assert all(text in done.stderr for text in (*differ, "--stream"))
    with pytest.raises(ConfigError, match=r"'a'.*'b'.*streams="):
        replay(mixed / "run", f"file://{out}", speed="max")
    assert not out.exists()


def test_each_wire_to_its_own_url(mixed, tmp_path):
    urls = [f"file://{tmp_path}/{name}" for name in "abc"]
    done = tapeline("replay", mixed / "run", "--to", *urls, "--speed", "max")
    assert done.returncode == 0, done.stderr
    for name, source in zip("abc", ("a.dat", "b.dat", "rack.pkt"), strict=True):
        assert (tmp_path / name).read_bytes() == (mixed / source).read_bytes()
    done = tapeline("replay", mixed / "run", "--to", urls[0], "--speed", "max", "--stream", "rack")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a").read_bytes() == (mixed / "rack.pkt").read_bytes()


def test_streams_and_files_are_named_once(recording, tmp_path):
    url = f"file://{tmp_path}/x"
    with pytest.raises(ConfigError, match="'a' is named twice"):
        replay(recording, url, streams=["a", "a"])
    with pytest.raises(ConfigError, match="more than once"):
        replay(recording, [url, url])
    assert not (tmp_path / "x").exists()


def test_nobody_listening_is_exit_code_1(recording):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        done = tapeline("replay", recording, "--to", url, "--connect-timeout", "0.1s")
    assert done.returncode == 1
    assert url in done.stderr


def test_help_shows_examples():
    done = tapeline("replay", "--help")
    assert done.returncode == 0
    assert done.stdout.count("tapeline replay run") >= 2
