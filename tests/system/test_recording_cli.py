"""`info`, `cat`, `verify` and `plot` on recordings, through the command line."""

import json

import numpy as np
import pytest
from tests.system._processes import tapeline

import tapeline as package
from _support.recordings import T0, Plan, Row, counted, dat_files, write_recording
from tapeline import wire
from tapeline.cli._plot import series
from tapeline.cli.main import main


@pytest.fixture
def run(tmp_path):
    """Two streams; ch1 lacks 5 and 6 when periodic 1 closes, and 6 comes late."""
    gaps = [*counted(0, 1), Row(1, [4, 7], 4, status=1), Row(1, [6], 1, status=2), *counted(2, 3)]
    plans = {"ch0": Plan([counted(0, 4), counted(4, 6)]), "ch1": Plan([gaps], ledger={"frames_lost": 1})}
    return write_recording(tmp_path / "run", plans)


def answer(capsys, *words):
    """Exit code and what was printed, as JSON."""
    code = main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def text(capsys, *words):
    code = main([*map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- info ---------------------------------------------------------------------------------------------------


def test_info_tells_what_each_stream_holds(run, capsys):
    code, facts = answer(capsys, "info", run)
    assert code == 0
    assert (facts["kind"], facts["complete"], facts["host"]) == ("recording", True, "here")
    one = facts["streams"]["ch1"]
    assert (one["frames"], one["bytes"], one["segments"]) == (11, 11 * 72, 1)
    assert (one["first_sequence"], one["last_sequence"]) == (0, 11)
    assert (one["periodics_complete"], one["periodics_incomplete"], one["frames_late"]) == (2, 1, 1)
    assert one["ledger"]["frames_lost"] == 1
    assert one["first_timestamp_ns"] == T0


def test_info_for_people(run, capsys):
    code, out, _ = text(capsys, "info", run)
    assert code == 0
    assert "complete" in out.splitlines()[0]
    assert out.splitlines()[-1].split()[:3] == ["ch1", "1", "11"]


def test_info_of_a_single_file(run, capsys):
    code, facts = answer(capsys, "info", dat_files(run)[1])
    assert code == 0
    (one,) = facts["streams"].values()
    assert (facts["kind"], one["frames"], one["ledger"]) == ("dat", 8, None)


def test_info_of_a_bcsv_file(run, capsys):
    index = min((run / "ch0").glob("*.idx.bcsv"))
    code, facts = answer(capsys, "info", index)
    assert code == 0
    assert (facts["kind"], facts["row_codec"], facts["file_codec"]) == ("bcsv", "flat", "packet")
    assert (facts["rows"], facts["complete"]) == (4, True)
    assert facts["columns"][0] == {"name": "periodic", "type": "uint64"}
    code, out, _ = text(capsys, "info", index)
    assert code == 0
    assert "periodic            uint64" in out


def test_info_of_something_else(tmp_path, capsys):
    assert text(capsys, "info", tmp_path)[0] == 1
    assert text(capsys, "info", tmp_path / "nowhere")[0] == 2


# --- cat ----------------------------------------------------------------------------------------------------


def test_cat_prints_frames_by_stream_and_time(run, capsys):
    code = main(["cat", str(run), "--stream", "ch0", "--start", str(T0 + 2_000), "--limit", "2", "--json"])
    frames = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [frame["sequence"] for frame in frames] == [2, 3]
    assert frames[0]["payload"] == ((2).to_bytes(4, "little") * 8).hex()


def test_cat_marks_late_frames(run, capsys):
    _, out, _ = text(capsys, "cat", run, "--stream", "ch1")
    assert [line.split()[1] for line in out.splitlines() if line.split()[4] == "L"] == ["6"]


def test_cat_writes_payloads_as_they_are(run):
    out = run.parent / "payloads"
    with out.open("wb") as file:
        import subprocess

        from tests.system._processes import COMMAND, ENVIRONMENT

        words = [*COMMAND, "cat", str(run), "--stream", "ch0", "--payloads"]
        done = subprocess.run(words, stdout=file, check=False, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 0
    assert np.fromfile(out, "<u4").reshape(24, 8)[:, 3].tolist() == list(range(24))


@pytest.mark.parametrize(
    "words", [["--stream", "ch9"], ["--start", "yesterday"], ["--payloads", "--json"], ["--limit", "-1"]]
)
def test_cat_used_wrongly(run, capsys, words):
    code, out, err = text(capsys, "cat", run, *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


# --- verify -------------------------------------------------------------------------------------------------


def test_verify_says_yes(run, capsys):
    code, report = answer(capsys, "verify", run)
    assert (code, report["ok"], report["problems"]) == (0, True, [])
    assert report["frames"] == 35


def test_verify_says_no_and_where(run, capsys):
    path = dat_files(run)[0]
    data = bytearray(path.read_bytes())
    data[60] ^= 8
    path.write_bytes(data)
    code, report = answer(capsys, "verify", run)
    assert (code, report["ok"]) == (1, False)
    assert report["problems"][0]["file"] == f"ch0/{path.name}"
    code, out, _ = text(capsys, "verify", run)
    assert code == 1
    assert "payload_crc" in out.splitlines()[0]
    assert out.splitlines()[-1].startswith("not ok: ")


def test_verify_of_what_the_recorder_wrote(tmp_path):
    frames = [
        wire.encode_frame(bytes([n % 256]) * 500, sequence=n, timestamp_ns=T0 + 1_000 * n)
        for n in range(3_000)
        if n % 100 != 7
    ]
    (tmp_path / "in.dat").write_bytes(b"".join(frames) + b"noise")
    source = f"ch0=file://{tmp_path}/in.dat"
    done = tapeline(
        "record", "--stream", source, "--out", tmp_path / "run", "--assembly", "count:8", "--rotate", "200kB"
    )
    assert done.returncode == 3, done.stderr
    rec = package.open_recording(tmp_path / "run")
    assert rec.complete
    stream = rec.streams["ch0"]
    assert len(stream.segments) > 3
    assert [frame.sequence for frame in stream.frames()] == [n for n in range(3_000) if n % 100 != 7]
    assert stream.read_periodic(13).missing == [(107, 108)]
    assert stream.payloads().shape == (2_970, 500)
    assert stream.ledger.frames_lost == 30
    assert rec.verify().problems == []


# --- plot ---------------------------------------------------------------------------------------------------


def test_plot_writes_a_picture(run, capsys):
    picture = run.parent / "run.png"
    code, facts = answer(capsys, "plot", run, "-o", picture)
    assert code == 0
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert facts["streams"]["ch1"] == {
        "seconds": 11e-6,
        "frames_missing": 2,
        "frames_late": 1,
        "periodics_complete": 2,
        "periodics_incomplete": 1,
    }


def test_plot_of_an_unknown_kind(run, capsys):
    code, _, err = text(capsys, "plot", run, "-o", run.parent / "run.nothing")
    assert code == 1
    assert "nothing" in err


def test_binning_keeps_the_totals(run):
    one = series(package.open_recording(run).streams["ch1"], bins=7)
    width = one.edges_s[1] - one.edges_s[0]
    assert one.bytes_per_second.sum() * width == pytest.approx(11 * 72)
    assert one.missing.sum() == pytest.approx(2)
    assert np.nanmin(one.completeness) < 1


def test_a_periodic_that_is_missing_as_a_whole_counts(tmp_path):
    root = write_recording(tmp_path / "run", {"ch0": Plan([[*counted(0, 1), *counted(3, 4)]])})
    assert series(package.open_recording(root).streams["ch0"]).missing.sum() == pytest.approx(8)


def test_a_stream_without_frames_can_be_drawn(tmp_path):
    root = write_recording(tmp_path / "run", {"ch0": Plan([])})
    one = series(package.open_recording(root).streams["ch0"])
    assert one.missing.sum() == 0
    assert np.isnan(one.completeness).all()


# --- damage of a .dat ---------------------------------------------------------------------------------------


def test_convert_tells_of_bytes_that_are_no_frame(run, tmp_path, capsys):
    data = dat_files(run)[1].read_bytes()
    bad, out = tmp_path / "bad.dat", tmp_path / "out.csv"
    bad.write_bytes(data[:72] + bytes([data[72] ^ 1]) + data[73:-1])
    code, _, err = text(capsys, "convert", bad, out)
    assert code == 1
    assert "72 bytes from byte 72 on are no valid frame" in err
    assert not out.exists()
    code, report = answer(capsys, "convert", bad, out, "--skip-damage")
    assert (code, report["bytes_skipped"], report["rows"]) == (3, 72 + 71, len(data) // 72 - 2)
    assert len(out.read_text().splitlines()) == report["rows"] + 1


def test_the_last_frames_show_their_bytes(run, capfd):
    last = list(package.open_recording(run).streams["ch1"].frames())[-1]
    code, out, _ = text(capfd, "tail", "-n", 1, run, "--stream", "ch1", "--no-header")
    assert (code, out.strip().split(",")[0]) == (0, str(last.sequence))
    assert out.strip().split(",")[-1] == last.payload.hex()
