"""`tapeline record` as a process, with real sockets: what was sent is recorded or accounted for."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.system._processes import COMMAND, ENVIRONMENT, Running, tapeline
from tests.system._sending import dat_files, frame, frames, ledger_of, recorded, send_tcp, send_udp, summary

from tapeline.wire import encode_packet

TCP = "ch0=tcp://127.0.0.1:0"
UDP = "ch0=udp://127.0.0.1:0"


def test_tcp_frames_are_stored_as_they_came(tmp_path):
    sent = frames(500)
    with Running("record", "--stream", TCP, "--out", tmp_path / "run", "--count", 500, "--json") as run:
        send_tcp(run.address("ch0", "tcp"), b"".join(sent))
        code, out = run.finish()
    ledger = ledger_of(out)
    assert code == 0
    assert (ledger.frames_stored, ledger.bytes_stored) == (500, sum(map(len, sent)))
    assert recorded(tmp_path / "run") == b"".join(sent)
    files = summary(out)["ch0"]["files"]
    assert sorted(files) == sorted(str(path) for path in (tmp_path / "run" / "ch0").iterdir())


def test_the_receiving_thread_may_run_on_every_core(tmp_path):
    # A thread that writes may be bound to the receiving one's core; one that does both goes where it finds one.
    sent = b"".join(frame(n, bytes(60_000)) for n in range(1000))
    with Running("record", "--stream", TCP, "--out", tmp_path / "run", "--json") as run:
        with socket.create_connection(run.address("ch0", "tcp"), timeout=30) as s:
            s.sendall(sent)
            # written, most of it: what is not is smaller than a ring's block
            while sum(path.stat().st_size for path in (tmp_path / "run" / "ch0").glob("*.dat*")) < len(sent) // 2:
                assert run.process.poll() is None
            tasks = Path(f"/proc/{run.process.pid}/task").iterdir()
            receiving = [task for task in tasks if (task / "comm").read_text() == "recv-ch0\n"]
            assert [os.sched_getaffinity(int(task.name)) for task in receiving] == [os.sched_getaffinity(0)]
        run.signal(signal.SIGINT)
        code, out = run.finish()
    assert (code, ledger_of(out).bytes_stored) == (0, len(sent))


def test_udp_datagrams_may_hold_several_frames(tmp_path):
    sent = frames(300)
    datagrams = [b"".join(sent[i : i + 3]) for i in range(0, 300, 3)]
    with Running("record", "--stream", UDP, "--out", tmp_path / "run", "--count", 300, "--json") as run:
        send_udp(run.address("ch0", "udp"), datagrams)
        code, out = run.finish()
    ledger = ledger_of(out)
    assert code == 0
    assert (ledger.frames_stored, ledger.datagrams_received) == (300, 100)
    assert recorded(tmp_path / "run") == b"".join(sent)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_mid_stream_drains_and_finishes(tmp_path, number):
    taken = threading.Event()

    def send(address):
        with socket.create_connection(address, timeout=30) as s:
            try:
                for n in range(10**9):
                    s.sendall(frame(n))
                    if n == 2000:
                        taken.set()
            except OSError:
                return

    with Running("record", "--stream", TCP, "--out", tmp_path / "run", "--json") as run:
        sender = threading.Thread(target=send, args=(run.address("ch0", "tcp"),))
        sender.start()
        assert taken.wait(30)
        run.signal(number)
        code, out = run.finish()
        sender.join(30)
    ledger = ledger_of(out)
    stored = recorded(tmp_path / "run")
    assert ledger.frames_lost == 0
    assert stored == b"".join(frames(ledger.frames_stored))
    # the connection was cut, so its last frame may be
    assert code == (3 if ledger.bytes_discarded else 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_does_not_wait_for_the_next_look(tmp_path, number):
    # The loop looks at the signals once a refresh: here never.
    never = "from tapeline.cli import main, record; record._REFRESH_S = 1e9; raise SystemExit(main.main())"
    command = [sys.executable, "-c", never]
    with Running("record", "--stream", TCP, "--out", tmp_path / "run", "--json", command=command) as run:
        send_tcp(run.address("ch0", "tcp"), b"".join(frames(10)))
        run.signal(number)
        code, out = run.finish()
    assert (code, ledger_of(out).frames_stored) == (0, 10)


def test_loss_is_counted_and_exit_code_3(tmp_path):
    sent = frames(100)
    damaged = bytearray(sent[50])
    damaged[-1] ^= 1
    data = b"".join([*sent[:10], *sent[12:50], bytes(damaged), b"garbage", *sent[51:], sent[99]])
    (tmp_path / "in.dat").write_bytes(data)
    done = tapeline("record", "--stream", f"ch0=file://{tmp_path}/in.dat", "--out", tmp_path / "run", "--json")
    ledger = ledger_of(done.stdout)
    assert done.returncode == 3
    assert (ledger.frames_stored, ledger.frames_lost, ledger.frames_duplicate, ledger.gaps) == (97, 3, 1, 2)
    assert ledger.frames_corrupt.payload_crc == 1
    assert ledger.bytes_discarded == len(damaged) + len(b"garbage")
    assert ledger.bytes_received == len(data)


def test_standard_input_ends_the_recording(tmp_path):
    sent = b"".join(frames(50))
    (tmp_path / "in.dat").write_bytes(sent)
    with (tmp_path / "in.dat").open("rb") as stdin:
        done = _run_with_stdin(stdin, "record", "--stream", "ch0=-", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0
    assert recorded(tmp_path / "run") == sent


def _run_with_stdin(stdin, *words):
    import subprocess

    from tests.system._processes import COMMAND

    return subprocess.run(
        [*COMMAND, *map(str, words)], stdin=stdin, capture_output=True, text=True, check=False, env=ENVIRONMENT
    )


def test_duration_ends_a_silent_recording_without_loss(tmp_path):
    done = tapeline("record", "--stream", UDP, "--out", tmp_path / "run", "--duration", "200ms")
    assert done.returncode == 0
    assert "listening on udp://127.0.0.1:" in done.stderr
    assert "ch0" in done.stdout


def test_segments_rotate_by_size(tmp_path):
    sent = frames(2000)
    (tmp_path / "in.dat").write_bytes(b"".join(sent))
    done = tapeline(
        "record", "--stream", f"ch0=file://{tmp_path}/in.dat", "--out", tmp_path / "run", "--rotate", "64KiB",
        "--assembly", "count:100", "--json",
    )  # fmt: skip
    assert done.returncode == 0
    assert len(dat_files(tmp_path / "run")) > 3
    assert recorded(tmp_path / "run") == b"".join(sent)
    assert len(summary(done.stdout)["ch0"]["files"]) == 2 * len(dat_files(tmp_path / "run"))


def test_sigusr2_begins_a_new_segment(tmp_path):
    with Running("record", "--stream", TCP, "--out", tmp_path / "run", "--count", 200, "--json") as run:
        address = run.address("ch0", "tcp")
        manifest = tmp_path / "run" / "recording.json"
        send_tcp(address, b"".join(frames(100)))
        _until(lambda: list((tmp_path / "run" / "ch0").glob("*.dat.part")))
        run.signal(signal.SIGUSR2)
        _until(lambda: json.loads(manifest.read_text())["streams"]["ch0"]["segments"])
        send_tcp(address, b"".join(frames(100, first=100)))
        code, _out = run.finish()
    assert code == 0
    assert len(dat_files(tmp_path / "run")) == 2
    assert recorded(tmp_path / "run") == b"".join(frames(200))


def _until(condition, timeout=30.0):
    """Wait for something outside this process that sends no event."""
    import time

    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.01)


def test_two_signals_force_the_end_and_repair_finds_what_was_written(tmp_path):
    sent = frames(3000)
    with (
        Running("record", "--stream", TCP, "--out", tmp_path / "run") as run,
        socket.create_connection(run.address("ch0", "tcp"), timeout=30) as s,
    ):
        s.sendall(b"".join(sent))
        _until(lambda: sum(p.stat().st_size for p in (tmp_path / "run").rglob("*.dat.part")) >= sum(map(len, sent)))
        run.signal(signal.SIGSTOP)  # so that both signals are there before either is looked at
        run.signal(signal.SIGINT)
        run.signal(signal.SIGTERM)
        run.signal(signal.SIGCONT)
        code, _out = run.finish()
    assert code == 130
    done = tapeline("repair", tmp_path / "run", "--json")
    assert done.returncode == 0
    assert recorded(tmp_path / "run") == b"".join(sent)


def test_kill_loses_nothing_that_was_written_and_the_next_recorder_goes_on(tmp_path):
    first, second = frames(1000), frames(500, first=1000)
    with (
        Running("record", "--stream", TCP, "--out", tmp_path / "run") as run,
        socket.create_connection(run.address("ch0", "tcp"), timeout=30) as s,
    ):
        s.sendall(b"".join(first))
        _until(lambda: sum(p.stat().st_size for p in (tmp_path / "run").rglob("*.dat.part")) >= sum(map(len, first)))
        run.signal(signal.SIGKILL)
        run.finish()
    with Running("record", "--stream", TCP, "--out", tmp_path / "run", "--count", 500, "--json") as run:
        send_tcp(run.address("ch0", "tcp"), b"".join(second))
        code, _out = run.finish()
    assert code == 0
    assert recorded(tmp_path / "run") == b"".join([*first, *second])


def test_repair_cuts_an_unfinished_tail_off_and_keeps_it(tmp_path):
    sent = frames(20)
    with (
        Running("record", "--stream", TCP, "--out", tmp_path / "run") as run,
        socket.create_connection(run.address("ch0", "tcp"), timeout=30) as s,
    ):
        s.sendall(b"".join(sent))
        _until(lambda: sum(p.stat().st_size for p in (tmp_path / "run").rglob("*.dat.part")) >= sum(map(len, sent)))
        run.signal(signal.SIGKILL)
        run.finish()
    (part,) = (tmp_path / "run" / "ch0").glob("*.dat.part")
    with part.open("r+b") as f:
        f.seek(0)
        f.truncate(sum(map(len, sent)))
        f.seek(0, os.SEEK_END)
        f.write(sent[0][:77])
    done = tapeline("repair", tmp_path / "run")
    assert done.returncode == 3
    assert "77" in done.stdout
    assert recorded(tmp_path / "run") == b"".join(sent)
    (tail,) = (tmp_path / "run" / "ch0").glob("*.tail")
    assert tail.read_bytes() == sent[0][:77]
    again = tapeline("repair", tmp_path / "run")
    assert again.returncode == 0


def test_repair_of_something_else_fails(tmp_path):
    done = tapeline("repair", tmp_path)
    assert done.returncode == 1
    assert "not a recording" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_connections_in_turn_lose_nothing(tmp_path):
    with Running("record", "--stream", TCP, "--out", tmp_path / "run", "--count", 300, "--json") as run:
        for first in (0, 100, 200):
            send_tcp(run.address("ch0", "tcp"), b"".join(frames(100, first=first)))
        code, out = run.finish()
    assert code == 0
    assert (ledger_of(out).frames_lost, ledger_of(out).restarts) == (0, 0)
    assert recorded(tmp_path / "run") == b"".join(frames(300))


def test_what_udp_lost_and_tcp_brought_is_repaired(tmp_path):
    sent = frames(200)
    words = ("--stream", UDP, "--stream", TCP, "--out", tmp_path / "run", "--set", "hold_seconds=30", "--json")
    with Running("record", *words, "--count", 200) as run:
        send_udp(run.address("ch0", "udp"), [f for n, f in enumerate(sent) if n % 10 != 5])
        send_tcp(run.address("ch0", "tcp"), b"".join(sent))
        code, out = run.finish()
    ledger = ledger_of(out)
    assert (ledger.frames_stored, ledger.frames_lost) == (200, 0)
    assert ledger.frames_repaired == 20
    assert recorded(tmp_path / "run") == b"".join(sent)
    assert code == 0


def test_a_multicast_group_is_joined_by_its_address(tmp_path):
    stream = "ch0=udp://239.255.77.13:0?interface=127.0.0.1"
    with Running("record", "--stream", stream, "--out", tmp_path / "run", "--count", 20, "--json") as run:
        address = run.address("ch0", "udp")
        assert address[0] == "239.255.77.13"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            for data in frames(20):
                sender.sendto(data, address)
        code, out = run.finish()
    assert (code, ledger_of(out).frames_stored) == (0, 20)


def test_a_connection_that_ends_is_dialled_again(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp+connect://127.0.0.1:{server.getsockname()[1]}?connect_backoff_seconds=0.01,0.05"
        words = ("record", "--stream", f"ch0={url}", "--out", tmp_path / "run", "--count", 60, "--json")
        with Running(*words) as run:
            run.expect(r"^ch0: connecting to tcp\+connect://")
            for first in (0, 30):
                connection, _peer = server.accept()
                with connection:
                    connection.sendall(b"".join(frames(30, first=first)))
            code, out = run.finish()
    assert (code, ledger_of(out).frames_stored, ledger_of(out).frames_lost) == (0, 60, 0)
    assert recorded(tmp_path / "run") == b"".join(frames(60))


def test_file_environment_and_options_make_one_configuration(tmp_path):
    (tmp_path / "c.toml").write_text('[streams.ch0]\nurl = "tcp://127.0.0.1:0"\nrotate_bytes = "1MiB"\n')
    env = {"TAPELINE_OUT": str(tmp_path / "run"), "TAPELINE_STREAMS__CH0__SYNC": "batch"}
    done = tapeline("record", tmp_path / "c.toml", "--duration", "0.1", "--set", "max_open=7", env=env)
    assert done.returncode == 0
    manifest = json.loads((tmp_path / "run" / "recording.json").read_text())
    (stream,) = manifest["config"]["streams"]
    assert (stream["rotate_bytes"], stream["sync"], stream["max_open"]) == (1 << 20, "batch", 7)


def _fails(done, *says):
    assert (done.returncode, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("tapeline: error: ")]
    assert len(errors) == 1
    assert all(text in errors[0] for text in says)


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_an_address_in_use_fails_with_its_name(tmp_path, scheme):
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if scheme == "tcp":
            taken.listen()
        url = f"{scheme}://127.0.0.1:{taken.getsockname()[1]}"
        _fails(tapeline("record", "--stream", f"ch0={url}", "--out", tmp_path / "run"), "in use", url)


def test_a_directory_that_cannot_be_made_fails_with_its_name(tmp_path):
    (tmp_path / "file").write_text("")
    _fails(tapeline("record", "--stream", UDP, "--out", tmp_path / "file" / "run"), str(tmp_path / "file" / "run"))


def test_a_file_that_is_not_there_fails_with_its_name(tmp_path):
    url = f"file://{tmp_path}/none.dat"
    _fails(tapeline("record", "--stream", f"ch0={url}", "--out", tmp_path / "run"), "none.dat")


def test_a_stream_that_never_starts_fails_with_its_name(tmp_path):
    done = tapeline("record", "--stream", UDP, "--out", tmp_path / "run", "--start-timeout", "0.2", "--json")
    assert done.returncode == 1
    assert "stream ch0 received nothing within 0.2 s" in done.stderr
    assert ledger_of(done.stdout).frames_stored == 0


def test_a_directory_in_use_is_refused(tmp_path):
    with Running("record", "--stream", UDP, "--out", tmp_path / "run") as run:
        run.address("ch0", "udp")
        _fails(tapeline("record", "--stream", UDP, "--out", tmp_path / "run"), "another recorder")
        run.signal(signal.SIGTERM)
        code, _out = run.finish()
    assert code == 0


def test_a_write_that_fails_names_stream_and_file_and_keeps_what_was_written(tmp_path):
    import resource
    import subprocess

    from tests.system._processes import COMMAND

    sent = frames(4000)
    (tmp_path / "in.dat").write_bytes(b"".join(sent))
    limit = 300 * len(sent[0])
    words = [*COMMAND, "record", "--stream", f"ch0=file://{tmp_path}/in.dat", "--out", str(tmp_path / "run"), "--json"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=ENVIRONMENT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "ch0" in error
    assert ".dat" in error
    assert "too large" in error
    assert summary(done.stdout)["ch0"]["ledger"]["bytes_received"] > 0
    assert tapeline("repair", tmp_path / "run").returncode in {0, 3}
    assert b"".join(sent).startswith(recorded(tmp_path / "run"))
    assert len(recorded(tmp_path / "run")) >= limit - len(sent[0])


def test_a_terminal_sees_rates_and_others_do_not(tmp_path):
    import subprocess

    from tests.system._processes import COMMAND

    controller, terminal = pty.openpty()
    words = [*COMMAND, "record", "--stream", UDP, "--out", str(tmp_path / "run"), "--duration", "1"]
    env = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal, env=env) as run:
        os.close(terminal)
        seen = b""
        try:
            while chunk := os.read(controller, 65536):
                seen += chunk
        except OSError:
            pass  # the terminal closed
        out = run.stdout.read()
    os.close(controller)
    assert run.returncode == 0
    assert b"frames/s" in seen
    assert b"ring" in seen
    assert b"frames/s" not in out


@pytest.mark.parametrize("writer", ["none", "silent", "sent"])
@pytest.mark.parametrize("wire", ["frame", "packet"])
def test_a_stop_does_not_wait_for_the_other_end_of_a_pipe(tmp_path, wire, writer):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with Running("record", "--stream", f"ch0=file://{pipe}?wire={wire}", "--out", tmp_path / "run", "--json") as run:
        run.expect("ch0: reading")
        held = None if writer == "none" else os.open(pipe, os.O_WRONLY)
        sent = frame(0, b"abc") if wire == "frame" else encode_packet([1], [2])
        if held is not None and writer == "sent":
            os.write(held, sent)
        run.signal(signal.SIGINT)
        code, out = run.finish(20)
    if held is not None:
        os.close(held)
    assert code == 0
    stored = b"".join(p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.suffix in {".dat", ".pkt"})
    assert stored == (sent if writer == "sent" else b"")
    assert ledger_of(out).bytes_received == len(stored) if wire == "frame" else True


def test_what_comes_through_a_named_pipe_is_recorded_to_its_end(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sent = b"".join(frames(300))
    with Running("record", "--stream", f"ch0=file://{pipe}", "--out", tmp_path / "run", "--json") as run:
        run.expect("ch0: reading")
        with pipe.open("wb") as writer:
            writer.write(sent)
        code, out = run.finish(20)
    assert (code, ledger_of(out).frames_stored) == (0, 300)
    assert recorded(tmp_path / "run") == sent


def test_a_silent_standard_input_is_stopped(tmp_path):
    silent, held = os.pipe()
    words = [*COMMAND, "record", "--stream", "ch0=-", "--out", str(tmp_path / "run")]
    with subprocess.Popen(words, stdin=silent, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert b"reading" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    os.close(silent)
    os.close(held)
