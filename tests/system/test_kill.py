"""`kill -9`, SIGTERM and a full disk: what was passed to the kernel is there, what has its final name is whole."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys

import pytest
from tests.system._processes import Running, tapeline
from tests.system._sending import frame, ledger_of

# A long campaign: TAPELINE_KILLS=200 (make kill).
KILLS = int(os.environ.get("TAPELINE_KILLS", "20"))
MODES = ("segment", "batch", "interval:0.05")


def repair(directory):
    """Repair and verify; the exit code says whether a frame that was cut in the middle of a write was put aside."""
    tails = set(directory.rglob("*.tail"))
    done = tapeline("repair", directory)
    put_aside = set(directory.rglob("*.tail")) - tails
    assert done.returncode == (3 if put_aside else 0), done.stdout + done.stderr
    verified = tapeline("verify", directory)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    return json.loads((directory / "recording.json").read_text())


def data_of(directory):
    """What every segment holds, by its name without suffixes."""
    contents = {}
    for path in sorted(directory.rglob("*.dat*")):
        stem = path.name.split(".dat")[0]
        contents.setdefault(stem, {})[path.name.removeprefix(stem)] = path.read_bytes()
    return contents


def send_until_cut(address, kill_at, kill, first):
    """Send frames until the connection breaks; `kill` is called once that many bytes are handed over."""
    sent, number, killed = 0, first, False
    try:
        with socket.create_connection(address, timeout=30) as s:
            while True:
                chunk = b"".join(frame(n) for n in range(number, number + 64))
                s.sendall(chunk)
                number += 64
                sent += len(chunk)
                if sent >= kill_at and not killed:
                    kill()
                    killed = True
    except OSError:
        assert killed, "the recorder closed the connection"
    return number


# With more streams than cores the thread that receives writes as well.
@pytest.mark.parametrize(("mode", "idle"), [*((mode, 0) for mode in MODES), ("segment", os.cpu_count() or 1)])
@pytest.mark.timeout(60 + 20 * KILLS)
def test_after_a_kill_everything_passed_to_the_kernel_is_there(tmp_path, mode, idle):
    chance = random.Random(f"{mode} {KILLS}")
    first, directory = 0, tmp_path / "run"
    beside = [word for n in range(idle) for word in ("--stream", f"idle{n}=tcp://127.0.0.1:0")]
    for _ in range(max(1, KILLS // len(MODES))):
        words = ("--set", "rotate_bytes=300000", "--sync", mode, *beside)
        with Running("record", "--stream", "ch0=tcp://127.0.0.1:0", "--out", directory, *words) as run:
            address = run.address("ch0", "tcp")
            first = send_until_cut(address, chance.randrange(1, 3_000_000), run.process.kill, first)
            run.process.wait(30)
        before = data_of(directory)
        whole = {name: parts[".dat"] for name, parts in before.items() if ".dat" in parts}
        manifest = repair(directory)
        after = data_of(directory)
        for name, parts in before.items():
            was = parts.get(".dat", b"") + parts.get(".dat.part", b"")
            now = after.get(name, {}).get(".dat", b"") + after.get(name, {}).get(".dat.tail", b"")
            assert now == was if ".dat.tail" not in parts else now == was + parts[".dat.tail"], name
            assert name not in whole or after[name][".dat"] == whole[name]
        assert not list(directory.rglob("*.part"))
        ledger = manifest["streams"]["ch0"]["ledger"]
        stored = b"".join(parts.get(".dat", b"") for parts in after.values())
        assert ledger["bytes_stored"] == len(stored)
    numbers = [s["number"] for s in manifest["streams"]["ch0"]["segments"]]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("assembly", ["none", "markers", "count:7"])
def test_a_ledger_older_than_the_segments_counts_what_they_hold(tmp_path, assembly):
    """As a kill leaves it between a segment's final name and the manifest that follows."""
    directory, place = tmp_path / "run", tmp_path / "run" / "recording.json"
    order = [*range(100), *range(110, 400), *range(100, 105)]
    (tmp_path / "in.dat").write_bytes(b"".join(frame(n, flags=n % 10 == 0) for n in order))
    words = ("--set", f"assembly={assembly}", "--set", "hold_seconds=0", "--set", "rotate_bytes=20000")
    assert tapeline("record", "--stream", f"ch0=file://{tmp_path}/in.dat", "--out", directory, *words).returncode == 3
    told = json.loads(place.read_text())["streams"]["ch0"]["ledger"]
    assert told["periodics_complete"] + told["periodics_incomplete"] > 0
    assert assembly == "none" or told["frames_late"] > 0
    names = ("periodics_complete", "periodics_incomplete", "frames_late", "frames_stored", "bytes_stored")
    manifest = json.loads(place.read_text())
    manifest["stopped"] = None
    manifest["streams"]["ch0"]["ledger"].update(dict.fromkeys(names, 0))
    place.write_text(json.dumps(manifest))
    found = repair(directory)["streams"]["ch0"]["ledger"]
    assert {name: found[name] for name in names} == {name: told[name] for name in names}


def test_what_a_sender_handed_over_before_sigterm_is_recorded(tmp_path):
    """The sender's last byte is with the kernel before the signal is sent: not one of them may be missing."""
    directory = tmp_path / "run"
    with Running("record", "--stream", "ch0=tcp://127.0.0.1:0", "--out", directory, "--json") as run:
        data = b"".join(frame(n) for n in range(20_000))
        with socket.create_connection(run.address("ch0", "tcp"), timeout=30) as s:
            s.sendall(data)
            run.signal(signal.SIGTERM)
            code, out = run.finish()
    ledger = ledger_of(out)
    assert code == 0
    assert (ledger.frames_stored, ledger.bytes_received) == (20_000, len(data))
    assert b"".join(parts[".dat"] for parts in data_of(directory).values()) == data


def test_sigusr2_in_mid_stream_begins_segments_and_loses_nothing(tmp_path):
    directory, rounds = tmp_path / "run", 5
    with Running("record", "--stream", "ch0=tcp://127.0.0.1:0", "--out", directory, "--json") as run:
        sent = b""
        with socket.create_connection(run.address("ch0", "tcp"), timeout=30) as s:
            for part in range(rounds):
                chunk = b"".join(frame(n) for n in range(part * 1000, part * 1000 + 1000))
                s.sendall(chunk)
                sent += chunk
                run.signal(signal.SIGUSR2)
        run.signal(signal.SIGTERM)
        code, out = run.finish()
    assert code == 0
    assert ledger_of(out).frames_stored == rounds * 1000
    assert b"".join(parts[".dat"] for parts in data_of(directory).values()) == sent


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 64 MB; where none can be mounted (no root), a limit on the size of a file stands in for it."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mount.returncode != 0:
        yield place, True
        return
    try:
        yield place, False
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_ends_with_one_line_and_valid_files(small_disk, tmp_path):
    place, limited = small_disk
    directory = place / "run"
    body = os.urandom(60_000)
    frames = (frame(n, body) for n in range(2000))
    source = tmp_path / "in.dat"
    with source.open("wb") as f:
        f.writelines(frames)
    words = ["record", "--stream", f"ch0=file://{source}", "--out", directory, "--set", "min_free_bytes=0"]
    if limited:
        command = f"import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); \
resource.setrlimit(resource.RLIMIT_FSIZE, (40 << 20,) * 2); from tapeline.cli.main import main; \
sys.exit(main({[str(w) for w in words]!r}))"
        done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False, timeout=60)
    else:
        done = tapeline(*words)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, done.stderr
    assert "ch0" in lines[0]
    held = data_of(directory)
    bytes_held = sum(len(content) for parts in held.values() for content in parts.values())
    assert bytes_held > 32 << 20
    source.unlink()
    (part,) = held.values()
    # Room for the index that recovery writes: the disk is full to the last page.
    if not limited:
        subprocess.run(["mount", "-o", "remount,size=80m", str(place)], check=True)
    manifest = repair(directory)
    (segment,) = manifest["streams"]["ch0"]["segments"]
    assert segment["bytes"] == sum(len(content) for content in part.values())
    assert segment["frames"] * len(frame(0, body)) == segment["bytes"]
