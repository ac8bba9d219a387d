"""Reading recordings back: whole ones, open ones, damaged ones."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

import tapeline
from _support.recordings import (
    RECEIVED,
    T0,
    Plan,
    Row,
    counted,
    dat_files,
    edit_manifest,
    write_recording,
)
from tapeline import _native, wire
from tapeline.recording import parse_time

INDEX_TYPES = {
    **dict.fromkeys(
        [
            "periodic",
            "first_sequence",
            "last_sequence",
            "first_timestamp_ns",
            "last_timestamp_ns",
            "first_received_ns",
            "offset",
            "length",
        ],
        pa.uint64(),
    ),
    "frames_expected": pa.uint32(),
    "frames_present": pa.uint32(),
    "status": pa.uint8(),
    "segment": pa.string(),
}


@pytest.fixture
def whole(tmp_path):
    """Two segments of complete periodics of four frames: sequences 0 to 15 and 16 to 23."""
    return write_recording(tmp_path / "run", {"ch0": Plan([counted(0, 4), counted(4, 6)])})


@pytest.fixture
def holed(tmp_path):
    """Periodic 1 lacks 6; 5 came late, in the second segment, after periodic 2."""
    first = [*counted(0, 1), Row(1, [4, 7], 4, status=1)]
    second = [*counted(2, 3), Row(1, [5], 1, status=2), *counted(3, 4)]
    return write_recording(tmp_path / "run", {"ch0": Plan([first, second])})


def sequences(frames):
    return [frame.sequence for frame in frames]


# --- opening ------------------------------------------------------------------------------------------------


def test_a_whole_recording(whole):
    rec = tapeline.open_recording(whole)
    assert list(rec.streams) == ["ch0"]
    assert rec.complete
    assert rec.manifest["host"] == "here"
    stream = rec.streams["ch0"]
    assert stream.ledger.frames_stored == 24
    assert stream.ledger.as_dict()["periodics_complete"] == 6
    assert stream.assembly == "count:4"
    assert stream.layout == wire.FrameLayout()


def test_a_place_without_a_recording(tmp_path):
    with pytest.raises(tapeline.TapelineError, match="nor a segment"):
        tapeline.open_recording(tmp_path)
    with pytest.raises(FileNotFoundError):
        tapeline.open_recording(tmp_path / "nowhere")


def test_a_single_file_is_a_recording_of_one_stream(whole):
    rec = tapeline.open_recording(dat_files(whole)[1])
    (stream,) = rec.streams.values()
    assert sequences(stream.frames()) == list(range(16, 24))
    assert rec.manifest == {}
    assert not rec.complete


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1, "streams": [1]}', b"[" * 100_000, b"\xff"])
def test_an_unusable_manifest_costs_nothing_but_what_it_said(whole, content):
    (whole / "recording.json").write_bytes(content)
    rec = tapeline.open_recording(whole)
    assert not rec.complete
    assert sequences(rec.streams["ch0"].frames()) == list(range(24))
    assert not rec.verify().ok


@pytest.mark.parametrize("value", [None, 3, "x", [], {"ch0": 1}, {"ch0": {"segments": [1], "layout": [], "ledger": 2}}])
def test_wrong_types_in_the_manifest_are_reported(whole, value):
    edit_manifest(whole, lambda m: m.update(streams=value))
    rec = tapeline.open_recording(whole)
    assert sequences(rec.streams["ch0"].frames()) == list(range(24))
    assert any(problem.file == "recording.json" for problem in rec.verify().problems)


@pytest.mark.parametrize("version_flags", [2, 4])
@pytest.mark.parametrize("length_bytes", [4, 8])
@pytest.mark.parametrize("header_crc", [True, False])
@pytest.mark.parametrize("magic", [bytes.fromhex("d1c64f93a7b25e8c"), b"ownMAGIC"])
def test_a_layout_is_recognised_without_a_manifest(tmp_path, version_flags, length_bytes, header_crc, magic):
    layout = wire.FrameLayout(magic, version_flags, length_bytes, header_crc)
    root = write_recording(tmp_path / "run", {"ch0": Plan([counted(0, 2)], layout=layout)})
    (root / "recording.json").unlink()
    stream = tapeline.open_recording(root).streams["ch0"]
    assert sequences(stream.frames()) == list(range(8))
    assert stream.layout.header_bytes == layout.header_bytes


# --- the index ----------------------------------------------------------------------------------------------


def test_periodics_are_the_index_of_all_segments(holed):
    table = tapeline.open_recording(holed).streams["ch0"].periodics()
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == INDEX_TYPES
    assert table["periodic"].to_pylist() == [0, 1, 2, 1, 3]
    assert table["status"].to_pylist() == [0, 1, 0, 2, 0]
    assert table["offset"].to_pylist() == [0, 288, 0, 288, 360]
    assert table["segment"].to_pylist() == [dat_files(holed)[i].name for i in (0, 0, 1, 1, 1)]
    assert table["first_received_ns"][0].as_py() == T0 + RECEIVED


def test_a_missing_index_is_rebuilt_but_for_receive_times(holed):
    stream = tapeline.open_recording(holed).streams["ch0"]
    before = stream.periodics()
    for path in (holed / "ch0").glob("*.idx.bcsv"):
        path.unlink()
    rebuilt = stream.periodics()
    # a segment stands alone: in the second one nothing says that 5 comes after its periodic, but the order
    assert rebuilt.drop(["first_received_ns"]).equals(before.drop(["first_received_ns"]))
    assert set(rebuilt["first_received_ns"].to_pylist()) == {0}


def test_an_index_that_does_not_fit_its_segment_is_not_used(whole):
    paths = sorted((whole / "ch0").glob("*.idx.bcsv"))
    paths[0].write_bytes(paths[1].read_bytes())
    table = tapeline.open_recording(whole).streams["ch0"].periodics()
    assert table["first_sequence"].to_pylist() == [0, 4, 8, 12, 16, 20]


# --- periodics ----------------------------------------------------------------------------------------------


def test_a_complete_periodic(whole):
    periodic = tapeline.open_recording(whole).streams["ch0"].read_periodic(5)
    assert sequences(periodic.frames) == [20, 21, 22, 23]
    assert periodic.status == 0
    assert periodic.missing == []
    assert periodic.payloads[1] == (21).to_bytes(4, "little") * 8
    assert periodic.frames[0].timestamp_ns == T0 + 20_000


def test_a_late_frame_is_in_its_periodic_and_marked(holed):
    periodic = tapeline.open_recording(holed).streams["ch0"].read_periodic(1)
    assert [(f.sequence, f.late) for f in periodic.frames] == [(4, False), (5, True), (7, False)]
    assert periodic.status == 1
    assert periodic.missing == [(6, 7)]
    assert periodic.frames_expected == 4


def test_missing_ranges_reach_to_the_ends_of_a_counted_periodic(tmp_path):
    plan = Plan([[Row(2, [21, 22, 25], 10, status=1)]], assembly="count:10")
    stream = tapeline.open_recording(write_recording(tmp_path / "run", {"ch0": plan})).streams["ch0"]
    assert stream.read_periodic(2).missing == [(20, 21), (23, 25), (26, 30)]


def test_an_unknown_periodic(whole):
    with pytest.raises(KeyError):
        tapeline.open_recording(whole).streams["ch0"].read_periodic(6)


# --- frames by time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (T0 + 5_000, T0 + 18_000),
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=T0 // 1_000 + 5), T0 + 18_000),
        (np.datetime64(T0 + 5_000, "ns"), np.datetime64(T0 + 18_000, "ns")),
        ("2026-09-21T14:13:20.000005Z", "2026-09-21T14:13:20.000018"),
        ("2026-09-21T16:13:20.000004001+02:00", T0 + 17_001),
    ],
)
def test_frames_between_two_times(whole, start, stop):
    frames = tapeline.open_recording(whole).streams["ch0"].frames(start, stop)
    assert sequences(frames) == list(range(5, 18))


def test_open_ends_and_empty_ranges(whole):
    stream = tapeline.open_recording(whole).streams["ch0"]
    assert sequences(stream.frames(start=T0 + 22_000)) == [22, 23]
    assert sequences(stream.frames(stop=T0 + 2_000)) == [0, 1]
    assert sequences(stream.frames(5, 5)) == []
    assert sequences(stream.frames(-(1 << 70), 1 << 70)) == list(range(24))


def test_only_the_segments_concerned_are_read(whole):
    dat_files(whole)[1].write_bytes(b"\0" * dat_files(whole)[1].stat().st_size)
    stream = tapeline.open_recording(whole).streams["ch0"]
    assert sequences(stream.frames(stop=T0 + 3_000)) == [0, 1, 2]


def test_a_time_that_is_none():
    with pytest.raises(ValueError, match="Invalid isoformat"):
        parse_time("yesterday")


# --- payloads and Arrow ---------------------------------------------------------------------------------------


def test_payloads_of_one_segment_are_a_view(whole):
    (stream,) = tapeline.open_recording(dat_files(whole)[0]).streams.values()
    array = stream.payloads("<u4")
    assert array.shape == (16, 8)
    assert array.tolist() == [[n] * 8 for n in range(16)]
    assert array.strides == (72, 4)
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_payloads_without_their_crcs(whole):
    stream = tapeline.open_recording(whole).streams["ch0"]
    before = stream.payloads(">u2")
    assert (stream.payloads(">u2", verify=False) == before).all()
    path = dat_files(whole)[0]
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert stream.payloads(verify=False).shape == (24, 32), "a payload is trusted"
    data[0] ^= 1
    path.write_bytes(data)
    assert stream.payloads(verify=False).shape == (23, 32), "a magic is not"


def test_a_segment_may_get_its_final_name_while_it_is_read(whole):
    path = dat_files(whole)[1]
    part = path.with_name(path.name + ".part")
    path.rename(part)
    stream = tapeline.open_recording(whole).streams["ch0"]
    assert stream.segments[1].is_open
    part.rename(path)
    assert sequences(stream.frames()) == list(range(24))
    assert not stream.segments[1].is_open


def test_payloads_of_several_segments_are_one_array(whole):
    array = tapeline.open_recording(whole).streams["ch0"].payloads("<u4")
    assert array.shape == (24, 8)
    assert array[:, 0].tolist() == list(range(24))


def test_payloads_are_bytes_without_a_dtype(whole):
    assert tapeline.open_recording(whole).streams["ch0"].payloads().shape == (24, 32)


def test_payloads_of_several_sizes_are_a_list(tmp_path):
    plan = Plan([counted(0, 1)], sizes={2: 8})
    stream = tapeline.open_recording(write_recording(tmp_path / "run", {"ch0": plan})).streams["ch0"]
    assert [len(part) for part in stream.payloads("<u4")] == [8, 8, 2, 8]
    with pytest.raises(ValueError, match="not a whole number"):
        stream.payloads(np.dtype("V7"))


def test_a_stream_without_frames(tmp_path):
    root = write_recording(tmp_path / "run", {"ch0": Plan([])})
    stream = tapeline.open_recording(root).streams["ch0"]
    assert stream.payloads("<i2").shape == (0, 0)
    assert stream.periodics().num_rows == 0
    assert stream.to_arrow().read_all().num_rows == 0


@pytest.mark.parametrize("sizes", [{}, {5: 12}])
def test_frames_as_arrow(tmp_path, sizes):
    plan = Plan([counted(0, 2), counted(2, 3)], sizes=sizes)
    stream = tapeline.open_recording(write_recording(tmp_path / "run", {"ch0": plan})).streams["ch0"]
    table = pa.table(stream)
    assert table.schema.names == ["sequence", "timestamp_ns", "stream_id", "flags", "payload"]
    assert table["sequence"].to_pylist() == list(range(12))
    assert table["timestamp_ns"].to_pylist() == [T0 + 1_000 * n for n in range(12)]
    assert table["payload"].to_pylist() == [plan.payload_of(n) for n in range(12)]


# --- open and damaged files -----------------------------------------------------------------------------------


def make_open(root, cut):
    """Turn the last segment into one that a killed recorder left, with `cut` bytes of it missing."""
    path = dat_files(root)[-1]
    data = path.read_bytes()
    path.unlink()
    index = path.with_name(path.name.removesuffix(".dat") + ".idx.bcsv")
    index.rename(index.with_name(index.name + ".part"))
    path.with_name(path.name + ".part").write_bytes(data[: len(data) - cut])

    def change(manifest):
        manifest["stopped"] = None
        manifest["streams"]["ch0"]["segments"].pop()

    edit_manifest(root, change)


def test_an_open_segment_is_read_as_far_as_it_goes(whole):
    make_open(whole, cut=30)
    rec = tapeline.open_recording(whole)
    assert not rec.complete
    stream = rec.streams["ch0"]
    assert sequences(stream.frames()) == list(range(23))
    assert stream.periodics()["status"].to_pylist() == [0, 0, 0, 0, 0, 1]
    assert stream.read_periodic(5).missing == [(23, 24)]
    assert stream.payloads().shape == (23, 32)
    problems = rec.verify().problems
    assert {problem.what for problem in problems} >= {"segment", "42 bytes that are no valid frame", "stopped"}


def test_a_flipped_byte_costs_one_frame(whole):
    path = dat_files(whole)[0]
    data = bytearray(path.read_bytes())
    data[3 * 72 + 50] ^= 1
    path.write_bytes(data)
    rec = tapeline.open_recording(whole)
    stream = rec.streams["ch0"]
    assert sequences(stream.frames()) == [n for n in range(24) if n != 3]
    assert stream.read_periodic(0).missing == [(3, 4)]
    assert stream.payloads().shape == (23, 32)
    assert stream.to_arrow().read_all().num_rows == 23
    report = rec.verify()
    assert not report.ok
    damage = report.problems[0]
    assert (damage.file, damage.offset) == (f"ch0/{path.name}", 216)
    assert (damage.what, damage.found) == ("72 bytes that are no valid frame", "payload_crc")
    assert {"frames", "xxh3_128"} < {problem.what for problem in report.problems}


def test_frames_around_damage_are_found_without_an_index(whole):
    for path in (whole / "ch0").glob("*.idx.bcsv"):
        path.unlink()
    path = dat_files(whole)[0]
    data = bytearray(path.read_bytes())
    data[1 * 72 + 50] ^= 1
    data[9 * 72 : 9 * 72 + 8] = bytes(8)
    path.write_bytes(data)
    stream = tapeline.open_recording(whole).streams["ch0"]
    assert sequences(stream.frames()) == [n for n in range(24) if n not in {1, 9}]
    assert sequences(stream.read_periodic(0).frames) == [0, 2, 3]


# --- verify -------------------------------------------------------------------------------------------------


def test_a_whole_recording_verifies(whole, holed_elsewhere):
    for root, frames in ((whole, 24), (holed_elsewhere, 15)):
        report = tapeline.open_recording(root).verify()
        assert report.problems == []
        assert report.ok
        assert (report.frames, report.bytes) == (frames, frames * 72)
        assert str(report).startswith("ok: ")
        assert json.loads(json.dumps(report.as_dict()))["ok"] is True


@pytest.fixture
def holed_elsewhere(tmp_path):
    first = [*counted(0, 1), Row(1, [4, 7], 4, status=1)]
    second = [*counted(2, 3), Row(1, [5], 1, status=2), *counted(3, 4)]
    return write_recording(tmp_path / "holed", {"ch0": Plan([first, second])})


def found(root):
    """File and subject of each problem."""
    report = tapeline.open_recording(root).verify()
    assert not report.ok
    assert "not ok" in str(report)
    return {(problem.file.rpartition("/")[2], problem.what) for problem in report.problems}


def test_a_missing_segment_is_found(whole):
    path = dat_files(whole)[0]
    path.unlink()
    assert found(whole) >= {
        (path.name, "segment"),
        ("recording.json", "ch0: frames_stored"),
        ("recording.json", "ch0: bytes_stored"),
    }


def test_a_segment_that_the_manifest_does_not_list_is_found_and_read(whole):
    edit_manifest(whole, lambda m: m["streams"]["ch0"]["segments"].pop())
    assert (dat_files(whole)[1].name, "segment in the manifest") in found(whole)
    rec = tapeline.open_recording(whole)
    assert not rec.complete
    assert sequences(rec.streams["ch0"].frames()) == list(range(24))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bytes", 1),
        ("frames", 1),
        ("first_sequence", 1),
        ("last_sequence", 1),
        ("first_timestamp_ns", 1),
        ("last_timestamp_ns", 1),
        ("xxh3_128", "0" * 32),
    ],
)
def test_a_wrong_entry_of_a_segment_is_found(whole, key, value):
    edit_manifest(whole, lambda m: m["streams"]["ch0"]["segments"][0].update({key: value}))
    assert found(whole) == {(dat_files(whole)[0].name, key)}


@pytest.mark.parametrize(("key", "value"), [("bytes", 1), ("rows", 9), ("xxh3_128", "0"), ("name", "x")])
def test_a_wrong_entry_of_an_index_is_found(whole, key, value):
    edit_manifest(whole, lambda m: m["streams"]["ch0"]["segments"][0]["index"].update({key: value}))
    name = dat_files(whole)[0].name.replace(".dat", ".idx.bcsv")
    assert found(whole) == {(name, key)}


@pytest.mark.parametrize(
    ("field", "problems"),
    [
        ("frames_stored", {"frames_stored", "frames_received = frames_stored + dropped duplicates"}),
        ("bytes_stored", {"bytes_stored", "bytes_received - bytes_discarded = bytes of valid frames"}),
        ("frames_received", {"frames_received = frames_stored + dropped duplicates"}),
        ("bytes_received", {"bytes_received - bytes_discarded = bytes of valid frames"}),
        ("frames_late", {"frames_late"}),
        ("periodics_complete", {"periodics_complete"}),
        ("periodics_incomplete", {"periodics_incomplete"}),
    ],
)
def test_a_ledger_that_does_not_add_up_is_found(whole, field, problems):
    def change(manifest):
        manifest["streams"]["ch0"]["ledger"][field] += 1

    edit_manifest(whole, change)
    assert found(whole) == {("recording.json", f"ch0: {problem}") for problem in problems}


def test_dropped_duplicates_and_evicted_segments_are_accounted_for(tmp_path):
    plan = Plan(
        [counted(1, 2)],
        evicted=[{"name": "x", "bytes": 288, "frames": 4}],
        ledger={
            "frames_stored": 8,
            "bytes_stored": 576,
            "frames_received": 10,
            "frames_duplicate": 2,
            "bytes_received": 576 + 144 + 5,
            "bytes_discarded": 5,
            "periodics_complete": 2,
        },
    )
    root = write_recording(tmp_path / "run", {"ch0": plan})
    assert tapeline.open_recording(root).verify().problems == []


def test_streams_parted_by_their_ids_add_up(tmp_path):
    parts = {f"ch0.{n}": Plan([counted(n, n + 2)]) for n in (0, 3)}
    root = write_recording(tmp_path / "run", parts)
    for part in parts:
        for path in (root / part).iterdir():
            (root / "ch0").mkdir(exist_ok=True)
            path.rename(root / "ch0" / path.name)
        (root / part).rmdir()

    def change(manifest):
        streams = manifest["streams"]
        for part in parts:
            streams[part]["directory"] = "ch0"
        total = {k: sum(streams[part]["ledger"][k] for part in parts) for k in streams["ch0.0"]["ledger"]}
        streams["ch0"] = {**streams["ch0.0"], "segments": [], "ledger": total}
        del streams["ch0"]["directory"]

    edit_manifest(root, change)
    rec = tapeline.open_recording(root)
    assert rec.verify().problems == []
    assert rec.complete
    assert sequences(rec.streams["ch0.3"].frames()) == list(range(12, 20))
    edit_manifest(root, lambda m: m["streams"]["ch0"]["ledger"].update(frames_stored=17, frames_received=17))
    assert found(root) == {("recording.json", "ch0: frames_stored")}


def test_rows_that_do_not_describe_their_frames_are_found(tmp_path):
    rows = [*counted(0, 1), Row(1, [4, 6, 5, 7], 4), Row(2, [8, 9], 4, status=0), Row(3, [16], 4, status=1)]
    root = write_recording(tmp_path / "run", {"ch0": Plan([rows])})
    what = {what.partition(" of the row")[0] for _, what in found(root)}
    assert what == {"order of sequence", "status", "periodic"}


def test_an_unreadable_index_is_found(whole):
    path = min((whole / "ch0").glob("*.idx.bcsv"))
    path.write_bytes(b"not an index")
    assert (path.name, "index") in found(whole)
    path.unlink()
    assert (path.name, "index") in found(whole)


def test_a_manifest_that_names_files_outside_is_not_followed(whole):
    def change(manifest):
        manifest["streams"]["ch0"]["directory"] = "../.."
        manifest["streams"]["ch0"]["segments"].append({"name": "../../secret.dat"})

    edit_manifest(whole, change)
    report = tapeline.open_recording(whole).verify()
    assert not any(".." in problem.file for problem in report.problems)


def test_digests_are_xxh3_128(tmp_path):
    # the empty input's digest, from the algorithm's published test values
    (tmp_path / "empty").touch()
    assert _native.file_digest(str(tmp_path / "empty")) == "99aa06d3014798d86001c324468d497f"


def test_frames_give_their_payloads_as_an_array(whole):
    stream = tapeline.open_recording(whole).streams["ch0"]
    every = [frame.payload for frame in stream.frames()]
    assert [row.tobytes() for row in stream.frames().payloads()] == every
    middle = list(stream.frames())[5].timestamp_ns
    frames = stream.frames(middle)
    assert next(frames).timestamp_ns == middle
    assert [bytes(row) for row in frames.payloads("u1")] == every[5:]
    assert stream.frames(1, 2).payloads(">u2").shape == (0, 0)


@pytest.mark.parametrize("kind", ["O", "S0", [("a", "O")]])
def test_bytes_of_a_recording_are_never_taken_for_python_objects(whole, kind):
    stream = tapeline.open_recording(whole).streams["ch0"]
    for payloads in (stream.payloads, stream.frames().payloads, stream.frames(1).payloads, stream.segments[0].payloads):
        with pytest.raises(ValueError, match="is not a type of samples"):
            payloads(kind)


@pytest.mark.parametrize("time", [1.5, True, None.__class__, b"2001"])
def test_what_is_no_time_is_refused(whole, time):
    with pytest.raises(ValueError, match="is not a time"):
        tapeline.open_recording(whole).streams["ch0"].frames(time)
