"""Images at past moments and histories, against brute force over everything that was sent."""

import socket
import struct
import threading
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tapeline
from _support.registers import DIFF, FULL, QUERY, RACK, REPLY, RTOS, SBMU, T0, Log, Oracle, Packet, rows_of
from tapeline import TapelineError, _native, registers, wire
from tapeline.cli.main import main


def packet_lists():
    registers_of = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 65_535)), max_size=6, unique_by=lambda p: p[0])
    packet = st.builds(
        Packet,
        timestamp_us=st.integers(T0, T0 + 40),
        src_id=st.integers(0, 2),
        type=st.sampled_from([SBMU, RACK]),
        cmd=st.sampled_from([DIFF, DIFF, DIFF, FULL, QUERY]),
        seq=st.integers(0, 3),
        registers=registers_of.map(tuple),
    )
    return st.lists(st.lists(packet, max_size=20), min_size=1, max_size=4)


def written(tmp_path_factory, segments, *, index=True, spans=True, touch=True, wire="packet"):
    root = tmp_path_factory.mktemp("run")
    log = Log(root / "rack", wire=wire, block_packets=3)
    before = None
    for packets in segments:
        path = log.write(packets, index=index)
        if touch and index:
            _native.register_touch(str(path), wire, before)
        before = str(path)
    return log.manifest(root, spans=spans)


def brute_force(segments, time_us, wire="packet"):
    oracle = Oracle()
    for packet in (p for packets in segments for p in packets):
        if packet.timestamp_us <= time_us:
            oracle.apply(packet, wire)
    return oracle


@settings(max_examples=60, deadline=None)
@given(segments=packet_lists(), spans=st.booleans(), data=st.data())
def test_the_image_at_any_moment_is_that_of_brute_force(tmp_path_factory, segments, spans, data):
    root = written(tmp_path_factory, segments, spans=spans)
    for time_us in (T0 - 1, data.draw(st.integers(T0, T0 + 40)), T0 + 50):
        oracle = brute_force(segments, time_us)
        image = tapeline.image_at(root, time_us)
        found = image.as_dict()
        since = {
            (source["type"], source["src_id"]): dict(map(tuple, source.pop("unknown_since", [])))
            for source in found["sources"]
        }
        assert found == oracle.as_dict()
        assert since == {key: oracle.since[key] for key in since}
        assert image.digest == registers.image_at(root, time_us).digest


@settings(max_examples=30, deadline=None)
@given(segments=packet_lists(), index=st.booleans(), touch=st.booleans())
def test_the_history_is_that_of_brute_force(tmp_path_factory, segments, index, touch):
    root = written(tmp_path_factory, segments, index=index, touch=touch)
    if not index and any(segments[1:]):
        # without an index keyframes are known from the manifest alone, which images and histories do not rely on
        segments = segments[:1]
        root = written(tmp_path_factory, segments, index=False)
    for offset in (0, 5, 12):
        expected, last = [], None
        for packet in (p for packets in segments for p in packets):
            if (packet.type, packet.src_id) != (RACK, 1) or packet.cmd > FULL:
                continue
            value = dict(packet.registers).get(offset)
            if value is None and packet.cmd == FULL and last is not None:
                expected.append((packet.timestamp_us, None))
                last = None
            elif value is not None and value != last:
                expected.append((packet.timestamp_us, value))
                last = value
        table = tapeline.history(root, "rack", 1, offset)
        found = zip(table["timestamp_us"].cast(pa.int64()).to_pylist(), table["value"].to_pylist(), strict=True)
        assert list(found) == expected


def test_simple_packets_have_images_and_histories_too(tmp_path_factory):
    segments = [
        [Packet(T0 + 10 * n, src_id=-1 - n % 2, registers=((n % 4, n),)) for n in range(start, start + 20)]
        for start in (0, 20, 40)
    ]
    root = written(tmp_path_factory, segments, wire="simple")
    for time_us in (T0, T0 + 205, T0 + 10_000):
        assert tapeline.image_at(root, time_us / 1e6).as_dict() == brute_force(segments, time_us, "simple").as_dict()
    table = tapeline.history(root, RACK, -1, 2)
    assert table["value"].to_pylist() == list(range(2, 60, 4))


def test_registers_that_a_lost_packet_may_have_changed_are_marked(tmp_path_factory):
    first = [
        Packet(T0, seq=1, registers=((1, 10), (2, 20), (3, 30))),
        Packet(T0 + 1, seq=2, registers=((1, 11),)),
        Packet(T0 + 9, seq=5, registers=((2, 21),)),  # 3 and 4 are lost
        Packet(T0 + 10, seq=6, registers=((4, 40),)),
    ]
    second = [Packet(T0 + 20, seq=9, registers=((1, 12),))]  # 7 and 8 are lost, over the border
    root = written(tmp_path_factory, [first, second])

    def since(time_us):
        return tapeline.image_at(root, time_us).sources[RACK, 1].unknown_since

    assert since(T0 + 8) == {}
    assert since(T0 + 10) == {1: T0 + 9, 3: T0 + 9}
    assert since(T0 + 20) == {2: T0 + 20, 3: T0 + 9, 4: T0 + 20}
    image = tapeline.image_at(root, T0 + 10)
    assert image.get("rack", 1, 3) == 30
    assert image.as_dict()["sources"][0]["unknown_since"] == [[1, T0 + 9], [3, T0 + 9]]
    assert image.to_arrow()["unknown_since_us"].to_pylist() == [T0 + 9, None, T0 + 9, None]


def test_an_image_reads_one_segment_of_many(tmp_path_factory):
    segments = [
        [Packet(T0 + 1000 * s + n, seq=s * 50 + n, registers=tuple((i, n) for i in range(200))) for n in range(50)]
        for s in range(12)
    ]
    root = written(tmp_path_factory, segments)
    sizes = [path.stat().st_size for path in sorted((root / "rack").glob("*.pkt"))]
    for moment in (T0 + 6_020, T0 + 11_500):
        image = tapeline.image_at(root, moment)
        assert image.bytes_read <= max(sizes)
        assert image.as_dict() == brute_force(segments, moment).as_dict()


def test_a_history_reads_only_blocks_that_touch_the_register(tmp_path_factory):
    segments = [
        [Packet(T0 + n, seq=n, registers=tuple((1000 + i, n) for i in range(200))) for n in range(90)]
        + [Packet(T0 + 90, seq=90, registers=((40_000, 7),))]
        + [Packet(T0 + n, seq=n, registers=tuple((1000 + i, n) for i in range(200))) for n in range(91, 120)]
    ]
    root = written(tmp_path_factory, segments)
    (files,) = registers.find(root).values()
    found = _native.register_history(files.wire, files.spans(), RACK, 1, 40_000, False)
    assert pa.record_batch(found)["value"].to_pylist() == [7]
    assert found.packet_bytes < 3 * len(segments[0][0].data())
    nothing = _native.register_history(files.wire, files.spans(), RACK, 1, 50_000, False)
    assert (nothing.rows, nothing.packet_bytes) == (0, 0)


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_touch_index_changes_no_answer(tmp_path_factory, damage):
    segments = [[Packet(T0 + n, seq=n, registers=((n % 7 * 1000, n),)) for n in range(60)]]
    root = written(tmp_path_factory, segments)
    expected = tapeline.history(root, "rack", 1, 3000)
    (touch,) = (root / "rack").glob("*.touch.bcsv")
    whole = touch.read_bytes()
    match damage:
        case "cut":
            touch.write_bytes(whole[: len(whole) // 2])
        case "flip":
            touch.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
        case "gone":
            touch.unlink()
    assert tapeline.history(root, "rack", 1, 3000).equals(expected)


def test_a_log_that_is_being_written_is_read_to_its_last_whole_packet(tmp_path):
    log = Log(tmp_path / "rack")
    packets = [Packet(T0 + n, seq=n, registers=((n, n),)) for n in range(10)]
    path = log.write(packets, index=False, part=True)
    with path.open("ab") as file:
        file.write(packets[0].data()[:15])
    batches = list(registers.scan_log(path))
    assert pa.Table.from_batches(batches)["value"].to_pylist() == list(range(10))
    assert registers.image_at(path).get(RACK, 1, 9) == 9


def test_scan_log_gives_rows_or_packets_without_keyframes(tmp_path):
    log = Log(tmp_path / "rack")
    first = [Packet(T0 + n, seq=n, registers=((n, n + 1), (100, n))) for n in range(10)]
    second = [Packet(T0 + 50, src_id=2, type=RTOS, cmd=FULL, registers=((7, 8),))]
    paths = [log.write(first), log.write(second)]
    rows = pa.Table.from_batches(registers.scan_log(tmp_path / "rack"))
    assert rows["value"].to_pylist() == [row[6] for row in rows_of(first + second)]
    assert rows["type"].to_pylist() == ["RACK"] * 20 + ["RTOS"]
    packets = pa.Table.from_batches(registers.scan_log(paths[1], rows=False, keyframes=True))
    assert packets["count"].to_pylist() == [11, 1]
    assert packets["byte_offset"].to_pylist() == [0, 21 + 4 * 11]
    full = registers.scan_log(tmp_path / "rack", route={"cmd": "full"})
    assert pa.Table.from_batches(full)["offset"].to_pylist() == [7]


def test_damage_ends_a_scan_with_its_place(tmp_path):
    path = Log(tmp_path / "rack").write([Packet(T0 + n, seq=n, registers=((n, n),)) for n in range(10)])
    data = bytearray(path.read_bytes())
    data[25 * 4 + 13] = 9
    path.write_bytes(data)
    scan = registers.scan_log(path)
    assert next(scan).num_rows == 4
    with pytest.raises(TapelineError, match="no packet at byte 100: unknown cmd"):
        next(scan)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_700_000_000_000_000, 1_700_000_000_000_000),
        (1_700_000_000_000_000_999, 1_700_000_000_000_000),
        (1_700_000_000.25, 1_700_000_000_250_000),
        (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), 1_700_000_000_000_000),
        ("2023-11-14T22:13:20.5Z", 1_700_000_000_500_000),
        (np.datetime64("2023-11-14T22:13:20"), 1_700_000_000_000_000),
        (-5, 0),
        (1e300, 18_000_000_000_000_000_000),
    ],
)
def test_moments(value, expected):
    assert registers.moment(value) == expected


@pytest.mark.parametrize("value", ["yesterday", float("nan"), True])
def test_what_is_no_moment_is_refused(value):
    with pytest.raises(ValueError, match=r"time|isoformat"):
        registers.moment(value)


def test_a_query_is_asked_and_answered():
    asked = []

    def answer(listener):
        connection, _ = listener.accept()
        with connection:
            head = connection.recv(21, socket.MSG_WAITALL)
            count = struct.unpack_from("<I", head, 17)[0]
            asked.append(struct.unpack(f"<{count}H", connection.recv(4 * count, socket.MSG_WAITALL)[: 2 * count]))
            connection.sendall(Packet(T0, src_id=7, cmd=REPLY, registers=((9, 90), (3, 30))).data())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        image = registers.query("127.0.0.1", listener.getsockname()[1], "rack", 7, [9, 3, 4])
        thread.join()
    assert asked == [(9, 3, 4)]
    assert image.as_dict() == {"sources": [{"type": 2, "src_id": 7, "registers": [[3, 30], [9, 90]]}]}


def test_errors_name_what_is_missing(tmp_path):
    with pytest.raises(TapelineError, match="no register stream is here"):
        tapeline.image_at(tmp_path)
    Log(tmp_path / "rack").write([Packet(T0, registers=((1, 1),))])
    with pytest.raises(TapelineError, match="no register stream 'rock'; there are: rack"):
        tapeline.image_at(tmp_path, stream="rock")
    with pytest.raises(ValueError, match="not a source type"):
        tapeline.history(tmp_path, "rock", 1, 1)
    with pytest.raises(ValueError, match=r"0\.\.65535"):
        tapeline.history(tmp_path, "rack", 1, 65_536)


def recording(tmp_path, **options):
    root = tmp_path / "run"
    root.mkdir()
    log = Log(root / "rack", **options)
    paths = []
    for start in (0, 20, 40):
        packets = [Packet(T0 + n, seq=n, registers=((n, n), (100, n))) for n in range(start, start + 20)]
        paths.append(log.write(packets))
    log.manifest(root)
    return root, paths


def test_a_register_stream_of_a_recording(tmp_path):
    root, _ = recording(tmp_path)
    rec = tapeline.open_recording(root)
    stream = rec.streams["rack"]
    assert list(rec.register_streams) == ["rack"]
    assert rec.complete
    assert stream.rows().read_all()["value"].to_pylist() == [v for n in range(60) for v in (n, n)]
    assert stream.packets({"src_id": 1}).read_all()["seq"].to_pylist() == list(range(60))
    assert pa.table(stream).num_rows == 120
    assert stream.image_at(T0 + 30) == tapeline.image_at(root, T0 + 30) != stream.image_at(T0 + 29)
    assert stream.history("rack", 1, 100)["value"].to_pylist() == list(range(60))
    assert stream.logs[1].blocks()["keyframe"].to_pylist() == [True, False, False, False]
    with pytest.raises(TypeError, match="rows"):
        stream.payloads()


def test_a_single_log_is_opened_too(tmp_path):
    _, paths = recording(tmp_path)
    rec = tapeline.open_recording(paths[1])
    (stream,) = rec.streams.values()
    assert stream.rows().read_all().num_rows == 40
    assert rec.verify().ok
    # what was made by something else has no index
    alone = tmp_path / "alone.pkt"
    alone.write_bytes(paths[1].read_bytes())
    assert tapeline.open_recording(alone).verify().ok
    alone.write_bytes(paths[1].read_bytes()[:-1])
    assert not tapeline.open_recording(alone).verify().ok


@pytest.mark.parametrize("wire", ["packet", "simple"])
def test_verify_finds_nothing_in_what_is_right(tmp_path, wire):
    root, _ = recording(tmp_path, wire=wire)
    report = tapeline.open_recording(root).verify()
    assert [str(problem) for problem in report.problems] == []
    assert (report.segments, report.frames) == (3, 60)


@pytest.mark.parametrize("damage", ["value", "cut", "index", "gone", "count", "table"])
def test_verify_finds_every_damage(tmp_path, damage):
    root, paths = recording(tmp_path)
    data = bytearray(paths[1].read_bytes())
    match damage:
        case "value":
            data[-1] ^= 1
            paths[1].write_bytes(data)
        case "cut":
            paths[1].write_bytes(data[:-3])
        case "index":
            paths[1].with_suffix(".idx.bcsv").unlink()
        case "gone":
            paths[1].unlink()
        case "count":
            text = (root / "recording.json").read_text()
            (root / "recording.json").write_text(text.replace('"packets": 20', '"packets": 21', 1))
        case "table":
            table = next(registers.scan_log(paths[1])).slice(1)
            pq.write_table(pa.Table.from_batches([table]), paths[1].with_suffix(".parquet"))
    expected = {"value": "xxh64 of the block", "cut": "bytes", "index": "index", "gone": "segment", "count": "packets",
                "table": "rows"}  # fmt: skip
    assert expected[damage] in {problem.what for problem in tapeline.open_recording(root).verify().problems}


def test_verify_and_info_notice_a_damaged_header_of_an_index(tmp_path, capsys):
    """A BCSV header has no checksum; the manifest knows the digest of the whole file."""
    sent = tmp_path / "in.pkt"
    sent.write_bytes(b"".join(wire.encode_packet([n], [n], type=2, src_id=1, seq=n) for n in range(50)))
    with tapeline.Recorder({"out": tmp_path / "run", "streams": {"rack": f"file://{sent}?wire=packet"}}) as recorder:
        assert recorder.wait(30)
    recording = tapeline.open_recording(tmp_path / "run")
    assert recording.verify().ok
    [index] = (tmp_path / "run" / "rack").glob("*.idx.bcsv")
    data = index.read_bytes()
    assert data.count(b"keyframe") == 1
    index.write_bytes(data.replace(b"keyframe", b"kexframe"))
    assert [(p.file, p.what) for p in recording.verify().problems] == [(f"rack/{index.name}", "xxh3_128")]
    assert main(["info", str(tmp_path / "run"), "--json"]) == 0
    assert '"packets": 50' in capsys.readouterr().out


def test_what_is_not_there_and_what_does_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError):
        tapeline.image_at(tmp_path / "nowhere", 1)
    _, paths = recording(tmp_path)
    with pytest.raises(ValueError, match="src_id 1099511627776 is not"):
        tapeline.history(paths[0], 2, 1 << 40, 1)
    with pytest.raises(ValueError, match="is not a time"):
        tapeline.image_at(paths[0], [])
