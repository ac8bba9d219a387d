"""Sinks of a running recorder: what they leave behind is what was sent, whatever happens around them."""

import json
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

import tapeline
from tapeline import bcsv, wire
from tapeline.sinks import plain_batch

NAMES = ["timestamp_us", "type", "src_id", "cmd", "seq", "offset", "value"]
TABLES = ("parquet", "bcsv", "csv", "jsonl")


def config(out, sinks, *, wire_name="packet", keep=None, **settings):
    stream = {"url": f"tcp://127.0.0.1:0?wire={wire_name}", "sinks": sinks, **settings}
    return {"out": str(out), "streams": {"rack": stream}, **(keep or {})}


def connect(recorder, stream="rack"):
    url = recorder.status().streams[stream].addresses[0]
    host, port = url.removeprefix("tcp://").rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.settimeout(30)
    return connection


class Sent:
    """Random packets and, beside them, the table they make."""

    def __init__(self, seed=1):
        self.rng = np.random.default_rng(seed)
        self.columns = [[] for _ in NAMES]
        self.packets = 0

    def some(self, packets, count, *, src_ids=3):
        parts = []
        for _ in range(packets):
            n = self.packets
            offsets = (
                self.rng.permutation(65_536)[:count].astype("u2") if count < 5000 else np.arange(count, dtype="u2")
            )
            values = self.rng.integers(0, 65_536, count, dtype="u2")
            fields = (1_790_000_000_000_000 + 100 * n, 1 + n % 2, n % src_ids, int(n % 40 == 0), n // src_ids % 256)
            stamp, kind, src_id, cmd, seq = fields
            parts.append(wire.encode_packet(offsets, values, timestamp_us=stamp, type=kind, src_id=src_id, cmd=cmd,
                                            seq=seq))  # fmt: skip
            for column, value in zip(self.columns, (*fields, offsets, values), strict=True):
                column.append(np.broadcast_to(np.asarray(value, np.uint64), count))
            self.packets += 1
        return b"".join(parts)

    def table(self):
        """Shape (rows, 7), in the order sent."""
        return np.stack([np.concatenate(column) for column in self.columns], axis=1)


def plain(table):
    batches = [plain_batch(batch) for batch in table.combine_chunks().to_batches()]
    return np.stack([np.concatenate([b[n].to_numpy().astype(np.uint64) for b in batches]) for n in NAMES], axis=1)


def read(path):
    """A table file as numbers, shape (rows, 7)."""
    if path.stat().st_size == 0:
        return np.empty((0, 7), np.uint64)
    match path.suffix:
        case ".parquet":
            table = pq.read_table(path)
            return plain(table) if table.num_rows else np.empty((0, 7), np.uint64)
        case ".bcsv":
            table = bcsv.read_table(path)
        case ".csv":
            table = pc.read_csv(path)
        case _:
            table = pl.read_ndjson(path).to_arrow()
    assert table.column_names == NAMES
    return np.stack([table[name].to_numpy().astype(np.uint64) for name in NAMES], axis=1)


def tables(out, extension, stream="rack"):
    """All tables of a kind, in the order of their segments."""
    paths = sorted(p for p in (out / stream).iterdir() if p.name.partition("Z.")[2] == extension)
    logs = sorted((out / stream).glob("*.pkt"))
    assert [p.name.partition("Z.")[0] for p in paths] == [p.name.partition("Z.")[0] for p in logs]
    return paths


def all_rows(out, extension):
    return np.concatenate([read(path) for path in tables(out, extension)])


def until(recorder, condition):
    """Wait for something that the recorder's threads do; fails after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        recorder.wait(timeout=0.02)


def stored(recorder, packets):
    """Wait until the log has so many packets."""
    until(recorder, lambda: recorder.ledger()["rack"].packets_stored == packets)


@pytest.mark.parametrize(("packets", "count"), [(1, 1), (1, 0), (1, 65_536), (900, 3)])
def test_every_format_holds_exactly_the_rows_sent(tmp_path, packets, count):
    sent, batches = Sent(), []
    recorder = tapeline.Recorder(config(tmp_path, [*TABLES, batches.append]))
    with recorder, connect(recorder) as client:
        client.sendall(sent.some(packets, count))
        stored(recorder, sent.packets)
    expected = sent.table()
    for kind in TABLES:
        assert np.array_equal(all_rows(tmp_path, kind), expected), kind
    found = pa.Table.from_batches(batches) if batches else None
    assert (found is None) == (len(expected) == 0)
    if found is not None:
        assert np.array_equal(plain(found), expected)
    sinks = recorder.summary()["streams"]["rack"]["sinks"]
    assert [(sink["rows"], sink["error"], sink["lag_bytes"]) for sink in sinks] == [(len(expected), None, 0)] * 5
    assert tapeline.open_recording(tmp_path).streams["rack"].sinks == sinks
    assert not list((tmp_path / "rack").glob("*.part"))
    assert tapeline.open_recording(tmp_path).verify().ok


def test_over_a_million_packets_in_pyarrow_polars_and_pandas(tmp_path):
    # the packets of one template, each with a time of its own: made and checked as arrays
    count, total = 2, 1_050_000
    template = wire.encode_packet([1, 2], [3, 4], src_id=7, type=2)
    data = np.frombuffer(template, np.uint8).reshape(1, -1).repeat(total, axis=0)
    stamps = 1_790_000_000_000_000 + np.arange(total, dtype="<u8")
    data[:, 4:12] = stamps.view(np.uint8).reshape(-1, 8)
    data[:, 15] = (np.arange(total) % 256).astype(np.uint8)
    values = np.random.default_rng(3).integers(0, 65_536, (total, count), dtype="<u2")
    data[:, -4:] = values.view(np.uint8).reshape(total, -1)
    recorder = tapeline.Recorder(config(tmp_path, ["parquet"], rotate_bytes=8_000_000))
    with recorder, connect(recorder) as client:
        client.sendall(data.tobytes())
        stored(recorder, total)
    paths = tables(tmp_path, "parquet")
    assert len(paths) >= 3
    expected = {"timestamp_us": stamps.repeat(count).view(np.int64), "value": values.ravel(),
                "seq": (np.arange(total) % 256).astype(np.uint8).repeat(count),
                "offset": np.tile(np.array([1, 2], np.uint16), total)}  # fmt: skip
    arrow = pa.concat_tables([pq.read_table(path) for path in paths])
    polars = pl.concat([pl.read_parquet(path) for path in paths])
    pandas = pd.concat([pd.read_parquet(path) for path in paths])
    assert arrow.num_rows == len(polars) == len(pandas) == total * count
    for name, values_sent in expected.items():
        assert np.array_equal(arrow[name].cast(pa.int64()).to_numpy(), values_sent), name
        assert np.array_equal(polars[name].to_physical().to_numpy(), values_sent), name
        column = pandas[name].dt.tz_localize(None).astype("datetime64[us]") if name == "timestamp_us" else pandas[name]
        assert np.array_equal(column.to_numpy().astype(np.int64), values_sent), name
    assert set(pandas["type"].unique()) == {"RACK"}
    assert recorder.summary()["streams"]["rack"]["sinks"][0]["packets"] == total


def test_a_table_ends_where_its_log_is_rotated(tmp_path):
    sent = Sent()
    recorder = tapeline.Recorder(config(tmp_path, ["parquet", "csv"], rotate_bytes=6_000))
    with recorder, connect(recorder) as client:
        for _ in range(30):
            client.sendall(sent.some(10, 20))
            stored(recorder, sent.packets)
    logs = sorted((tmp_path / "rack").glob("*.pkt"))
    assert len(logs) > 3
    recording = tapeline.open_recording(tmp_path).streams["rack"]
    for segment, table in zip(recording.logs, tables(tmp_path, "parquet"), strict=True):
        # the log read by another way, without the keyframes at its start
        decoded = wire.PacketDecoder().feed(segment.path.read_bytes()[segment.keyframe_bytes :])
        rows = [(p.timestamp_us, p.type, p.src_id, p.cmd, p.seq, *pair) for p in decoded if p.cmd < 2
                for pair in p.registers]  # fmt: skip
        assert read(table).tolist() == [list(row) for row in rows]
    for kind in ("parquet", "csv"):
        assert np.array_equal(all_rows(tmp_path, kind), sent.table())


def test_rotation_by_time_finishes_tables_while_recording(tmp_path):
    sent = Sent()
    recorder = tapeline.Recorder(config(tmp_path, ["csv"], rotate_seconds=0.1))
    with recorder, connect(recorder) as client:
        for number in range(1, 4):
            client.sendall(sent.some(5, 4))
            stored(recorder, sent.packets)
            until(recorder, lambda number=number: len(list((tmp_path / "rack").glob("*.csv"))) >= number)
    assert np.array_equal(all_rows(tmp_path, "csv"), sent.table())


def test_a_table_has_its_name_only_when_it_is_whole(tmp_path):
    sent, stop, seen = Sent(), threading.Event(), []

    def look():
        # every table that can be seen must be readable to its end, and its log must have its name
        while not stop.is_set():
            for path in (tmp_path / "rack").glob("*.parquet"):
                seen.append(pq.read_metadata(path).num_rows)
                assert path.with_suffix(".pkt").exists()

    watcher = threading.Thread(target=look)
    recorder = tapeline.Recorder(config(tmp_path, ["parquet"], rotate_bytes=40_000))
    with recorder, connect(recorder) as client:
        (tmp_path / "rack").mkdir(exist_ok=True)
        watcher.start()
        for _ in range(100):
            client.sendall(sent.some(10, 50))
        stored(recorder, sent.packets)
        until(recorder, lambda: seen)
        stop.set()
        watcher.join()
    assert np.array_equal(all_rows(tmp_path, "parquet"), sent.table())


def test_routes_send_packets_to_different_sinks(tmp_path):
    sent = Sent()
    sinks = [
        {"kind": "parquet", "label": "dumps", "route": {"cmd": ["full"]}},
        {"kind": "parquet", "label": "racks", "route": {"type": ["rack"], "src_id": [0, 2], "cmd": ["diff"]}},
        {"kind": "bcsv", "route": {"src_id": 1}},
    ]
    recorder = tapeline.Recorder(config(tmp_path, sinks, rotate_bytes=9_000))
    with recorder, connect(recorder) as client:
        client.sendall(sent.some(400, 9))
        stored(recorder, sent.packets)
    rows = sent.table()
    kind, src_id, cmd = rows[:, 1], rows[:, 2], rows[:, 3]
    assert np.array_equal(all_rows(tmp_path, "dumps.parquet"), rows[cmd == 1])
    assert np.array_equal(all_rows(tmp_path, "racks.parquet"), rows[(kind == 2) & np.isin(src_id, [0, 2]) & (cmd == 0)])
    assert np.array_equal(all_rows(tmp_path, "bcsv"), rows[src_id == 1])
    assert tapeline.open_recording(tmp_path).verify().ok


def test_simple_packets_make_tables_of_their_own_form(tmp_path):
    recorder = tapeline.Recorder(config(tmp_path, ["parquet", "csv"], wire_name="simple", rotate_bytes=1_000))
    expected = [(n / 4, -n, n, 65_535 - n) for n in range(300)]
    with recorder, connect(recorder) as client:
        client.sendall(b"".join(wire.encode_packet([o], [v], kind="simple", time=t, rack=r) for t, r, o, v in expected))
    for suffix, reader in (("parquet", pq.read_table), ("csv", pc.read_csv)):
        found = pa.concat_tables([reader(p) for p in sorted((tmp_path / "rack").glob(f"*.{suffix}"))])
        assert found.column_names == ["time", "rack", "offset", "value"]
        assert [tuple(row.values()) for row in found.to_pylist()] == expected


def test_a_slow_function_is_seen_and_never_stops_the_log(tmp_path):
    sent, go, got = Sent(), threading.Event(), []

    def slow(batch):
        assert go.wait(60)
        got.append(batch)

    recorder = tapeline.Recorder(config(tmp_path, [slow], rotate_bytes=50_000))
    with recorder, connect(recorder) as client:
        data = sent.some(500, 100)
        client.sendall(data)
        stored(recorder, sent.packets)
        # the log has everything while the function has taken nothing
        status = recorder.status()
        assert status.streams["rack"].ledger.packets_stored == 500
        [sink] = recorder.sinks()["rack"]
        assert (sink.rows, sink.packets) == (0, 0)
        until(recorder, lambda: recorder.sinks()["rack"][0].lag_bytes >= len(data))
        go.set()
    assert np.array_equal(plain(pa.Table.from_batches(got)), sent.table())
    assert recorder.sinks()["rack"][0].lag_bytes == 0


def test_live_paths_are_shed_first_and_counted_and_the_archive_never(tmp_path):
    sent, go, got, entered = Sent(), threading.Event(), [], threading.Event()

    def slow(batch):
        entered.set()
        assert go.wait(60)
        got.append(batch)

    live = {"kind": "python", "call": slow, "priority": "live", "max_lag_bytes": 65_536}
    recorder = tapeline.Recorder(config(tmp_path, [live, "parquet"], rotate_bytes=60_000))
    with recorder, connect(recorder) as client:
        client.sendall(sent.some(1, 100))
        assert entered.wait(30)
        client.sendall(sent.some(1_000, 100))
        stored(recorder, sent.packets)
        go.set()
        until(recorder, lambda: recorder.sinks()["rack"][0].lag_bytes < 65_536)
    shed, archive = recorder.sinks()["rack"]
    packets = recorder.ledger()["rack"].packets_stored
    assert shed.shed_packets > 0
    assert shed.shed_bytes > 0
    assert shed.packets + shed.shed_packets == packets
    assert (archive.packets, archive.shed_packets, archive.error) == (packets, 0, None)
    assert np.array_equal(all_rows(tmp_path, "parquet"), sent.table())
    assert sum(batch.num_rows for batch in got) == shed.rows < len(sent.table())
    assert recorder.summary()["lost_anything"]
    told = tapeline.open_recording(tmp_path).streams["rack"].sinks
    assert told[0]["shed_packets"] == shed.shed_packets


def test_retention_waits_for_the_archive(tmp_path):
    sent, go, got = Sent(), threading.Event(), []

    def slow(batch):
        assert go.wait(60)
        got.append(batch)

    recorder = tapeline.Recorder(config(tmp_path, [slow, "csv"], rotate_bytes=5_000, keep={"keep_segments": 2}))
    with recorder, connect(recorder) as client:
        client.sendall(sent.some(300, 20))
        stored(recorder, sent.packets)
        log = tmp_path / "rack"
        until(recorder, lambda: len(list(log.glob("*.csv"))) >= 5)
        assert min(p.name.split("_")[1] for p in log.glob("*.pkt")) == "000000"
        go.set()
        until(recorder, lambda: recorder.sinks()["rack"][0].lag_bytes == 0)
        # the next segments that are closed let the old ones go
        for _ in range(6):
            client.sendall(sent.some(30, 20))
            stored(recorder, sent.packets)
            recorder.rotate()
        until(recorder, lambda: not list(log.glob("rack_000000_*.pkt")))
    assert np.array_equal(plain(pa.Table.from_batches(got)), sent.table())
    tables_left = np.concatenate([read(p) for p in sorted(log.glob("*.csv"))])
    assert np.array_equal(tables_left, sent.table())
    stems = {p.name.split(".pkt")[0] for p in log.glob("*.pkt")}
    assert {p.name.split(".touch")[0] for p in log.glob("*.touch.bcsv")} == stems
    assert tapeline.open_recording(tmp_path).verify().ok


def test_what_a_full_disk_took_before_a_sink_had_read_it_is_counted(tmp_path):
    """As `on_low_disk = "evict"` does: it asks no sink, for the log goes on or nothing does."""
    sent, go, got = Sent(), threading.Event(), []

    def slow(batch):
        assert go.wait(60)
        got.append(batch)

    recorder = tapeline.Recorder(config(tmp_path, [slow], rotate_bytes=5_000))
    with recorder, connect(recorder) as client:
        client.sendall(sent.some(300, 20))
        stored(recorder, sent.packets)
        log = tmp_path / "rack"
        until(recorder, lambda: len(list(log.glob("*.pkt"))) >= 5)
        third = sorted(log.glob("*.pkt"))[2]
        taken = tapeline.registers.scan_log(third)
        rows = sum(batch.num_rows for batch in taken)
        third.unlink()
        go.set()
    [sink] = recorder.sinks()["rack"]
    assert (sink.segments_missed, sink.error) == (1, None)
    assert sink.rows == sum(batch.num_rows for batch in got) == len(sent.table()) - rows
    assert recorder.summary()["lost_anything"]


def test_retention_is_applied_when_the_last_sink_is_done(tmp_path):
    sent, go = Sent(), threading.Event()
    sinks = [lambda _batch: go.wait(60), "csv"]
    recorder = tapeline.Recorder(config(tmp_path, sinks, rotate_bytes=5_000, keep={"keep_segments": 2}))
    log = tmp_path / "rack"
    with recorder, connect(recorder) as client:
        client.sendall(sent.some(300, 20))
        stored(recorder, sent.packets)
        recorder.request_stop()
        until(recorder, lambda: recorder.status().finished)
        assert min(p.name.split("_")[1] for p in log.glob("*.pkt")) == "000000"
        go.set()
    left = sorted(p.name.removesuffix(".pkt") for p in log.glob("*.pkt"))
    assert len(left) == 2
    for kind in ("idx", "touch", "doubts"):
        assert sorted(p.name.removesuffix(f".{kind}.bcsv") for p in log.glob(f"*.{kind}.bcsv")) == left
    assert np.array_equal(np.concatenate([read(p) for p in sorted(log.glob("*.csv"))]), sent.table())
    files = [Path(file).name for file in recorder.summary()["streams"]["rack"]["files"]]
    assert sorted(name.removesuffix(".pkt") for name in files if name.endswith(".pkt")) == left
    recording = tapeline.open_recording(tmp_path)
    assert recording.verify().ok
    assert recording.complete
    told = json.loads((tmp_path / "recording.json").read_text())["streams"]["rack"]
    assert {entry["reason"] for entry in told["evicted"]} == {"keep_segments"}
    assert [sink["error"] for sink in told["sinks"]] == [None, None]


def test_segments_of_an_earlier_recorder_grow_old_too(tmp_path):
    sent = Sent()
    with tapeline.Recorder(config(tmp_path, ["csv"], rotate_bytes=5_000)) as recorder, connect(recorder) as client:
        client.sendall(sent.some(300, 20))
        stored(recorder, sent.packets)
    log = tmp_path / "rack"
    assert len(list(log.glob("*.pkt"))) > 2
    with tapeline.Recorder(config(tmp_path, ["csv"], keep={"keep_seconds": 1})) as recorder:
        until(recorder, lambda: not list(log.glob("*.pkt")))
    assert tapeline.image_at(tmp_path).as_dict() == {"sources": []}
    assert tapeline.open_recording(tmp_path).verify().ok


def test_a_log_stays_while_its_table_could_not_be_made(tmp_path):
    """The log is the spool: what a sink did not get done is made of it at the next start."""
    sent, log = Sent(), tmp_path / "rack"
    recorder = tapeline.Recorder(config(tmp_path, ["csv"], rotate_bytes=5_000, keep={"keep_segments": 1}))
    recorder.start()
    with connect(recorder) as client:
        client.sendall(sent.some(1, 20))
        stored(recorder, sent.packets)
        first = next(log.glob("*.pkt.part")).name.removesuffix(".pkt.part")
        (log / f"{first}.csv").mkdir()  # no file can get this name
        client.sendall(sent.some(300, 20))
        stored(recorder, sent.packets)
    with pytest.raises(tapeline.RecorderError, match="csv"):
        recorder.stop()
    assert (log / f"{first}.pkt").exists()
    (log / f"{first}.csv").rmdir()
    with tapeline.Recorder(config(tmp_path, ["csv"], keep={"keep_segments": 1})):
        pass
    assert np.array_equal(np.concatenate([read(p) for p in sorted(log.glob("*.csv"))]), sent.table())
    assert len(list(log.glob("*.pkt"))) == 1


def test_forward_feeds_a_second_recorder_with_what_its_route_allows(tmp_path):
    sent = Sent()
    far = tapeline.Recorder(config(tmp_path / "far", ["parquet"]))
    with far:
        url = far.status().streams["rack"].addresses[0].split("?")[0]
        forward = {"kind": "forward", "url": url, "route": {"cmd": ["diff"]}}
        near = tapeline.Recorder(config(tmp_path / "near", ["parquet", forward], rotate_bytes=20_000))
        with near, connect(near) as client:
            client.sendall(sent.some(800, 10))
            stored(near, sent.packets)
        until(far, lambda: far.ledger()["rack"].packets_stored == near.sinks()["rack"][1].packets)
    rows = sent.table()
    assert np.array_equal(all_rows(tmp_path / "far", "parquet"), rows[rows[:, 3] == 0])
    assert np.array_equal(all_rows(tmp_path / "near", "parquet"), rows)
    [_, forwarded] = near.summary()["streams"]["rack"]["sinks"]
    assert (forwarded["packets"], forwarded["shed_packets"], forwarded["connects"]) == (780, 0, 1)


def test_the_next_recorder_makes_missing_tables_before_a_packet_comes(tmp_path):
    sent = Sent()
    with tapeline.Recorder(config(tmp_path, [], rotate_bytes=9_000)) as recorder, connect(recorder) as client:
        client.sendall(sent.some(200, 30))
        stored(recorder, sent.packets)
    assert not list((tmp_path / "rack").glob("*.parquet"))
    with tapeline.Recorder(config(tmp_path, ["parquet"])) as recorder:
        until(
            recorder,
            lambda: len(list((tmp_path / "rack").glob("*.parquet"))) == len(list((tmp_path / "rack").glob("*.pkt"))),
        )
    assert np.array_equal(all_rows(tmp_path, "parquet"), sent.table())


def test_a_recording_with_sinks_is_checked_and_a_wrong_table_is_told(tmp_path):
    sent = Sent()
    with tapeline.Recorder(config(tmp_path, ["parquet"])) as recorder, connect(recorder) as client:
        client.sendall(sent.some(20, 3))
        stored(recorder, sent.packets)
    [path] = tables(tmp_path, "parquet")
    assert tapeline.open_recording(tmp_path).verify().ok
    pq.write_table(pq.read_table(path).slice(1), path)
    report = tapeline.open_recording(tmp_path).verify()
    assert not report.ok
    assert json.dumps([p.what for p in report.problems]) == '["rows"]'
