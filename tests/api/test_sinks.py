"""Table sinks and followers, fed by a log that the test writes: what they leave behind and what they count."""

import itertools
import json
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from _support.registers import DIFF, FULL, RACK, SBMU, T0, Log, Packet, rows_of
from tapeline import bcsv, registers
from tapeline._sink_settings import parse_sinks
from tapeline.sinks import Follower, LogPosition, SinkSet, table_columns, table_writer

TABLES = ("parquet", "bcsv", "csv", "jsonl")


def packets(count, *, registers_each=3, start=0):
    return [
        Packet(
            T0 + 100 * n,
            src_id=n % 3,
            type=RACK if n % 2 else SBMU,
            cmd=FULL if n % 50 == 0 else DIFF,
            seq=n // 3,
            registers=tuple(((n * 7 + i) % 65_536, (n * 31 + i) % 65_536) for i in range(registers_each)),
        )
        for n in range(start, start + count)
    ]


class FakeRecorder:
    """`log_position` over finished files: what a recorder answers after its end, or while it grows."""

    def __init__(self, paths, keyframe_bytes=0):
        self.paths = list(paths)
        self.keyframe_bytes = keyframe_bytes
        self.visible = [path.stat().st_size for path in self.paths]
        self.ended = True
        self.first = 0

    def __call__(self, after, _timeout_s):
        number = self.first if after is None else after[0]
        if number >= len(self.paths):
            return LogPosition(number, "", 0, 0, finished=True, ended=True)
        size = self.visible[number]
        whole = size == self.paths[number].stat().st_size
        last = number + 1 == len(self.paths)
        return LogPosition(number, str(self.paths[number]), size, self.keyframe_bytes if number else 0,
                           finished=whole and (self.ended or not last), ended=self.ended and last)  # fmt: skip


def follow(sink, recorder, directory, wire="packet"):
    follower = Follower(parse_sinks([sink])[0], wire, directory, recorder).start()
    assert follower.join(30)
    return follower.status()


def read_rows(path):
    """A table file as tuples of plain numbers."""
    match path.suffix:
        case ".parquet":
            table = pq.read_table(path)
            names = ["UNKNOWN", "SBMU", "RACK", "RTOS"]
            columns = [
                table["timestamp_us"].cast(pa.int64()).to_pylist(),
                [names.index(name) for name in table["type"].to_pylist()],
                *(table[name].to_pylist() for name in table.column_names[2:]),
            ]
        case ".bcsv":
            columns = [column.to_pylist() for column in bcsv.read_table(path).columns]
        case ".csv":
            columns = [column.to_pylist() for column in pc.read_csv(path).columns]
        case _:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            return [tuple(line.values()) for line in lines]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_table_holds_exactly_the_rows_of_its_segment(tmp_path, kind, count):
    log = Log(tmp_path / "rack")
    sent = packets(count)
    path = log.write(sent)
    status = follow(kind, FakeRecorder([path]), path.parent)
    table = path.with_suffix(f".{kind}")
    assert read_rows(table) == rows_of(sent)
    assert (status.packets, status.rows, status.files, status.error) == (count, count * 3, 1, None)
    assert not list(path.parent.glob("*.part"))


@pytest.mark.parametrize("kind", TABLES)
def test_each_segment_has_a_table_without_the_keyframes(tmp_path, kind):
    log = Log(tmp_path / "rack")
    parts = [packets(60), packets(1, start=60), packets(40, start=61)]
    paths = [log.write(part) for part in parts]
    for number, path in enumerate(paths):
        recorder = FakeRecorder(paths, 0)
        recorder.keyframe_bytes = log.segments[number]["keyframe_bytes"]
        recorder.first = number
        recorder.paths = paths[: number + 1]
        follow(kind, recorder, path.parent)
    assert [read_rows(path.with_suffix(f".{kind}")) for path in paths] == [rows_of(part) for part in parts]


def test_tables_are_equal_in_pyarrow_polars_and_pandas(tmp_path):
    log = Log(tmp_path / "rack")
    sent = packets(300)
    path = log.write(sent)
    follow("parquet", FakeRecorder([path]), path.parent)
    follow("csv", FakeRecorder([path]), path.parent)
    parquet = path.with_suffix(".parquet")
    expected = np.array(rows_of(sent))
    for frame in (pl.read_parquet(parquet).to_arrow(), pa.Table.from_pandas(pd.read_parquet(parquet))):
        assert frame["value"].to_pylist() == expected[:, 6].tolist()
        assert frame["timestamp_us"].cast(pa.int64()).to_pylist() == expected[:, 0].tolist()
        assert set(frame["type"].to_pylist()) == {"SBMU", "RACK"}
    for values in (pl.read_csv(path.with_suffix(".csv")).to_numpy(), pd.read_csv(path.with_suffix(".csv")).to_numpy()):
        assert np.array_equal(values, expected)
    assert pq.read_schema(parquet).equals(table_columns("packet"))


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4"])
def test_parquet_takes_compression_and_row_groups(tmp_path, compression):
    log = Log(tmp_path / "rack")
    path = log.write(packets(500))
    sink = {"kind": "parquet", "compression": compression, "row_group_rows": 400}
    follow(sink, FakeRecorder([path]), path.parent)
    meta = pq.ParquetFile(path.with_suffix(".parquet")).metadata
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [400, 400, 400, 300]
    found = meta.row_group(0).column(6).compression.lower()
    assert found == {"none": "uncompressed"}.get(compression, compression)
    assert "RLE_DICTIONARY" in meta.row_group(0).column(1).encodings


@pytest.mark.parametrize("kind", TABLES)
def test_simple_packets_have_their_own_columns(tmp_path, kind):
    log = Log(tmp_path / "rack", wire="simple")
    sent = [Packet(T0 + n, src_id=n - 2, registers=((n, n + 1), (65_535, 0))) for n in range(5)]
    path = log.write(sent)
    follow(kind, FakeRecorder([path]), path.parent, "simple")
    table = path.with_suffix(f".{kind}")
    expected = [(p.timestamp_us / 1e6, p.src_id, o, v) for p in sent for o, v in p.registers]
    match kind:
        case "parquet":
            found = [tuple(row.values()) for row in pq.read_table(table).to_pylist()]
        case "bcsv":
            found = [tuple(row.values()) for row in bcsv.read_table(table).to_pylist()]
        case "csv":
            found = [tuple(row.values()) for row in pc.read_csv(table).to_pylist()]
        case _:
            found = [tuple(json.loads(line).values()) for line in table.read_text().splitlines()]
    assert found == expected


def test_the_route_chooses_what_is_written(tmp_path):
    log = Log(tmp_path / "rack")
    sent = packets(200)
    path = log.write(sent)
    sinks = [
        ({"kind": "csv", "label": "full", "route": {"cmd": "full"}}, lambda p: p.cmd == FULL),
        ({"kind": "csv", "label": "two", "route": {"src_id": [0, 2], "type": ["sbmu"]}},
         lambda p: p.src_id in {0, 2} and p.type == SBMU),
    ]  # fmt: skip
    for sink, wanted in sinks:
        status = follow(sink, FakeRecorder([path]), path.parent)
        chosen = [p for p in sent if wanted(p)]
        table = path.with_name(path.name.replace(".pkt", f".{sink['label']}.csv"))
        assert read_rows(table) == rows_of(chosen)
        assert (status.packets, status.bytes) == (len(chosen), sum(len(p.data()) for p in chosen))


def test_what_a_crash_left_undone_is_made_again(tmp_path):
    log = Log(tmp_path / "rack")
    parts = [packets(20), packets(20, start=20), packets(20, start=40)]
    paths = [log.write(part) for part in parts]
    half = table_writer(parse_sinks("parquet")[0], paths[0].with_suffix(".parquet"), "packet")
    half.write(next(registers.scan_log(paths[0])))
    del half
    recorder = FakeRecorder(paths, log.segments[2]["keyframe_bytes"])
    recorder.first = 2
    status = follow("parquet", recorder, paths[0].parent)
    assert [read_rows(path.with_suffix(".parquet")) for path in paths] == [rows_of(part) for part in parts]
    assert status.files == 3
    again = follow("parquet", recorder, paths[0].parent)
    assert again.files == 1


def test_a_growing_log_is_followed_to_its_end(tmp_path):
    log = Log(tmp_path / "rack")
    sent = packets(100)
    path = log.write(sent)
    sizes = list(itertools.accumulate(len(p.data()) for p in sent))
    got, seen = [], threading.Event()

    def take(batch):
        got.append(batch)
        seen.set()

    recorder = FakeRecorder([path])
    recorder.ended = False
    recorder.visible = [0]
    follower = Follower(parse_sinks([take])[0], "packet", path.parent, recorder).start()
    for size in (sizes[0], sizes[49], sizes[99]):
        seen.clear()
        recorder.visible = [size]
        assert seen.wait(30)
    recorder.ended = True
    assert follower.join(30)
    assert pa.Table.from_batches(got)["value"].to_pylist() == [row[6] for row in rows_of(sent)]
    assert follower.status().lag_bytes == 0


def test_a_failing_function_is_told_and_stops_nothing_else(tmp_path):
    path = Log(tmp_path / "rack").write(packets(10))

    def fail(_batch):
        raise KeyError("no such thing")

    status = follow({"kind": "python", "call": fail}, FakeRecorder([path]), path.parent)
    assert status.error == "KeyError: 'no such thing'"
    assert status.lost_anything


def test_a_live_function_that_lies_too_far_behind_skips_and_counts(tmp_path):
    log = Log(tmp_path / "rack")
    first, rest = packets(100, registers_each=200), packets(200, registers_each=200, start=100)
    paths = [log.write(first), log.write(rest)]
    recorder = FakeRecorder(paths, log.segments[1]["keyframe_bytes"])
    got = []
    sink = {"kind": "python", "call": got.append, "priority": "live", "max_lag_bytes": paths[1].stat().st_size + 1}
    status = follow(sink, recorder, paths[0].parent)
    assert (status.shed_packets, status.shed_bytes) == (100, sum(len(p.data()) for p in first))
    assert pa.Table.from_batches(got)["value"].to_pylist() == [row[6] for row in rows_of(rest)]
    assert (status.packets, status.rows) == (200, 200 * 200)
    archive = follow({"kind": "python", "call": got.append}, recorder, paths[0].parent)
    assert (archive.packets, archive.shed_packets) == (300, 0)


class Receiver:
    """Accepts connections one after the other; closes the first after some bytes."""

    def __init__(self, cut=None):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.received = []
        self.cut = cut
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            got = bytearray()
            self.received.append(got)
            with connection:
                while part := connection.recv(1000):
                    got += part
                    if self.cut is not None and len(got) > self.cut:
                        self.cut = None
                        break

    def close(self):
        self.listener.close()


def split(data):
    """Whole packets in some bytes."""
    found, at = [], 0
    while at + 21 <= len(data) and at + 4 + int.from_bytes(data[at : at + 4], "little") <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        found.append(bytes(data[at:end]))
        at = end
    return found


def test_forward_sends_the_packets_of_its_route_verbatim(tmp_path):
    sent = packets(300)
    path = Log(tmp_path / "rack").write(sent)
    receiver = Receiver()
    sink = {"kind": "forward", "url": receiver.url, "route": {"cmd": ["diff"]}}
    status = follow(sink, FakeRecorder([path]), path.parent)
    receiver.close()
    expected = [p.data() for p in sent if p.cmd == DIFF]
    assert split(b"".join(receiver.received)) == expected
    assert (status.packets, status.connects, status.shed_packets, status.error) == (len(expected), 1, 0, None)


def test_forward_reconnects_and_loses_nothing(tmp_path):
    sent = packets(4_000, registers_each=300)
    path = Log(tmp_path / "rack", block_packets=1000).write(sent)
    receiver = Receiver(cut=100_000)
    sink = {"kind": "forward", "url": receiver.url, "connect_backoff_seconds": [0.01, 0.05]}
    status = follow(sink, FakeRecorder([path]), path.parent)
    receiver.close()
    got = set(split(receiver.received[0])) | set(split(receiver.received[-1]))
    missing = [n for n, p in enumerate(sent) if p.data() not in got]
    # what the first connection's kernel had acknowledged and its program never read is beyond anyone's knowledge
    assert status.connects == 2
    assert len(missing) * len(sent[0].data()) < 8 << 20
    assert split(receiver.received[-1])[-1] == sent[-1].data()
    assert status.packets == 4_000


def test_forward_without_a_listener_sheds_at_the_end_and_counts(tmp_path):
    sent = packets(100)
    path = Log(tmp_path / "rack").write(sent)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    sink = {"kind": "forward", "url": url, "connect_backoff_seconds": [0.01, 0.05]}
    follower = Follower(parse_sinks([sink])[0], "packet", path.parent, FakeRecorder([path]))
    follower.drain(0.2)
    follower.start()
    assert follower.join(30)
    status = follower.status()
    assert (status.packets, status.shed_packets) == (0, 100)
    assert status.shed_bytes == path.stat().st_size


def test_all_sinks_of_a_recorder_start_drain_and_report(tmp_path):
    class Source:
        def __init__(self, recorder):
            self.recorder = recorder
            self.progress = []

        def log_position(self, stream, after, timeout_s):
            assert stream == "rack"
            return tuple(self.recorder(after, timeout_s))

        def sink_progress(self, stream, sink, number):
            self.progress.append((stream, sink, number))

    sent = packets(50)
    path = Log(tmp_path / "rack").write(sent)

    def fail(_batch):
        raise ValueError("full")

    @dataclass
    class Stream:
        sinks: tuple
        name: str = "rack"
        wire: str = "packet"

    @dataclass
    class Config:
        streams: list
        out: Path

    source = Source(FakeRecorder([path]))
    sinks = SinkSet(Config([Stream(parse_sinks(["parquet", fail]))], tmp_path), source).start()
    assert sinks.finished(30)
    summary = sinks.add_to({"streams": {"rack": {"files": [str(path)]}}, "lost_anything": False})
    assert [one["rows"] for one in summary["streams"]["rack"]["sinks"]] == [150, 0]
    assert summary["lost_anything"]
    assert summary["streams"]["rack"]["files"] == [str(path), str(path.with_suffix(".parquet"))]
    assert sinks.failure() == ("rack", "stream rack: sink python: ValueError: full")
    assert ("rack", "parquet", 1) in source.progress
    assert path.with_suffix(".touch.bcsv").exists()
    assert path.with_suffix(".doubts.bcsv").exists()
