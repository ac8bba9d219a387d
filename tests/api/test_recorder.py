"""The Recorder object: life cycle, snapshots, failures."""

import json
import socket
import subprocess
import sys
import threading

import pytest
from tests.system._sending import frames, recorded, send_tcp, send_udp

import tapeline
from tapeline.errors import ConfigError, RecorderError


def address(recorder, name="ch0"):
    host, _, port = recorder.status().streams[name].addresses[0].partition("://")[2].rpartition(":")
    return host, int(port)


def config(tmp_path, url="tcp://127.0.0.1:0", **settings):
    return {"out": tmp_path / "run", "streams": {"ch0": url}, **settings}


def test_a_recording_from_start_to_summary(tmp_path):
    with tapeline.Recorder(config(tmp_path, count=50)) as recorder:
        assert recorder.wait(timeout=0) is False
        send_tcp(address(recorder), b"".join(frames(50)))
        assert recorder.wait(timeout=30) is True
        status = recorder.status()
        assert status.finished is True
    assert recorder.out == tmp_path / "run"
    assert recorder.ledger()["ch0"].frames_stored == 50
    assert recorder.ledger()["ch0"].broken_laws() == []
    summary = recorder.summary()
    assert summary["lost_anything"] is False
    assert summary["streams"]["ch0"]["ledger"] == recorder.ledger()["ch0"].as_dict()
    assert recorded(tmp_path / "run") == b"".join(frames(50))


def test_a_toml_file_is_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text('out = "run"\n[streams]\nch0 = "udp://:0"\n')
    with tapeline.Recorder(tmp_path / "c.toml") as recorder:
        assert set(recorder.ledger()) == {"ch0"}
    assert (tmp_path / "run" / "recording.json").is_file()


def test_status_names_the_port_and_the_buffers(tmp_path):
    with tapeline.Recorder(config(tmp_path, "udp://127.0.0.1:0?receive_buffer_bytes=64KiB")) as recorder:
        assert address(recorder)[1] > 0
        while not (stream := recorder.status().streams["ch0"]).receive_buffer_bytes:
            assert not recorder.wait(0.01)  # the receive thread tells it when it runs
        assert stream.receive_buffer_bytes >= 64 << 10
        assert stream.ring_bytes >= 60 << 20
        assert (stream.error, recorder.status().finished) == (None, False)


def test_another_thread_may_look_while_one_waits(tmp_path):
    with tapeline.Recorder(config(tmp_path, "udp://:0", count=100)) as recorder:
        waiting = threading.Thread(target=recorder.wait)
        waiting.start()
        send_udp(address(recorder), frames(99))
        while recorder.ledger()["ch0"].frames_received < 99:
            assert waiting.is_alive()
        send_udp(address(recorder), frames(1, first=99))
        waiting.join(30)
        assert not waiting.is_alive()


def test_stop_drains_and_gives_the_summary(tmp_path):
    recorder = tapeline.Recorder(config(tmp_path)).start()
    send_tcp(address(recorder), b"".join(frames(10)))
    while recorder.ledger()["ch0"].frames_received < 10:
        pass
    assert recorder.stop()["streams"]["ch0"]["ledger"]["frames_stored"] == 10
    assert recorder.stop()["streams"]["ch0"]["ledger"]["frames_stored"] == 10


def test_duration_ends_the_wait(tmp_path):
    with tapeline.Recorder(config(tmp_path, duration_seconds=0.05)) as recorder:
        assert recorder.wait(timeout=30) is True


def test_a_stream_that_never_starts_raises_its_name(tmp_path):
    with (
        pytest.raises(RecorderError, match=r"ch0 received nothing within 0\.05 s") as caught,
        tapeline.Recorder(config(tmp_path, start_timeout_seconds=0.05)) as recorder,
    ):
        recorder.wait(timeout=30)
    assert caught.value.stream == "ch0"
    assert recorder.status().finished is True


def test_one_stream_keeps_less_than_another(tmp_path):
    source = tmp_path / "frames.dat"
    source.write_bytes(b"".join(frames(5000)))
    url = f"file://{source}?rotate_bytes=20000&assembly=count:10"
    streams = {"all": url, "few": f"{url}&keep_segments=2"}
    with tapeline.Recorder({"out": tmp_path / "run", "streams": streams}) as recorder:
        assert recorder.wait(timeout=30) is True
    told = json.loads((tmp_path / "run" / "recording.json").read_text())["streams"]
    assert (len(told["few"]["segments"]), told["all"]["evicted"]) == (2, [])
    assert len(told["few"]["segments"]) + len(told["few"]["evicted"]) == len(told["all"]["segments"]) > 4
    assert {gone["reason"] for gone in told["few"]["evicted"]} == {"keep_segments"}
    assert len(list((tmp_path / "run" / "few").glob("*.dat"))) == 2
    assert tapeline.open_recording(tmp_path / "run").verify().ok


def test_a_recorder_starts_once(tmp_path):
    recorder = tapeline.Recorder(config(tmp_path))
    with pytest.raises(RuntimeError, match="not started"):
        recorder.ledger()
    with recorder, pytest.raises(RecorderError, match="started before"):
        recorder.start()


def test_an_error_of_the_body_is_not_hidden(tmp_path):
    with pytest.raises(ZeroDivisionError), tapeline.Recorder(config(tmp_path)) as recorder:
        raise ZeroDivisionError
    assert recorder.status().finished is True


def test_an_address_in_use_is_an_os_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            tapeline.Recorder(config(tmp_path, f"tcp://127.0.0.1:{port}")).start()
    assert caught.value.errno is not None


def test_a_wrong_configuration_opens_nothing(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'streams'"):
        tapeline.Recorder({"out": tmp_path / "run", "stream": {}})
    assert list(tmp_path.iterdir()) == []


def test_calls_that_make_no_sense_are_refused_at_once(tmp_path):
    recorder = tapeline.Recorder(config(tmp_path))
    for call in (recorder.ledger, recorder.stop, recorder.wait, recorder.rotate, recorder.summary):
        with pytest.raises(RecorderError, match="was not started"):
            call()
    with recorder, pytest.raises(ValueError, match="not a number"):
        recorder.wait(float("nan"))


def test_rings_that_the_memory_does_not_hold_are_refused_before_anything_is_killed(tmp_path):
    streams = {f"ch{n}": {"url": "tcp://127.0.0.1:0", "ring_bytes": 1 << 36} for n in range(256)}
    with pytest.raises(ConfigError, match="make ring_bytes smaller"):
        tapeline.Recorder({"out": tmp_path / "run", "streams": streams}).start()
    assert not list(tmp_path.rglob("*.dat*"))


def test_a_log_that_takes_no_more_leaves_an_account_that_holds(tmp_path):
    """A limit on the size of a file stands in for a full disk; a client is in the middle of a packet all the time."""
    program = f"""
import resource, signal, socket, sys, tapeline
from tapeline import wire
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recorder = tapeline.Recorder({{"out": {str(tmp_path / "run")!r}, "streams": {{"rack": "tcp://127.0.0.1:0?wire=packet"}}}})
recorder.start()
address = recorder.status().streams["rack"].addresses[0].rpartition("/")[2].rpartition(":")
half, whole = (socket.create_connection((address[0], int(address[2]))) for _ in range(2))
half.sendall(wire.encode_packet([1], [1])[:9])
while recorder.ledger()["rack"].bytes_received < 9:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000,) * 2)
try:
    while not recorder.status().finished:
        whole.sendall(wire.encode_packet(range(9000), range(9000)))
except OSError:
    pass
try:
    recorder.stop()
except tapeline.RecorderError as error:
    ledger = recorder.ledger()["rack"]
    assert ledger.bytes_discarded >= 9
    print(ledger.broken_laws(), error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.startswith("[] "), done
