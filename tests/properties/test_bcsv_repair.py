"""Repair: every packet whose checksum holds is in the output, whatever lies before it; and what each depth of
validate sees. The twin, which searches the same bytes in plain Python, is the judge."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from _twins import bcsv as twin
from _twins.damage import PAIRS, bad_block, flipped, small_file
from _twins.tables import to_rows
from tapeline import bcsv

EXAMPLES = int(os.environ.get("TAPELINE_TEST_EXAMPLES", "100"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

PACKETS = [pair for pair in PAIRS if pair[1].startswith("packet")]
ORIGINALS = {pair: small_file(*pair, rows=120, flushes=7) for pair in PACKETS}

damages = st.lists(
    st.one_of(
        st.tuples(st.just("block"), st.integers(0, 2**32), st.sampled_from([16, 64, 256])),
        st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.just(0)),
        st.tuples(st.just("cut"), st.floats(0.1, 1), st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data, steps):
    """The header stays: without it there is nothing to repair."""
    head = twin.read(data).header.size
    for kind, where, size in steps:
        at = head + int(where * (len(data) - head)) if kind != "block" else 0
        if kind == "block" and len(data) - head > 3 * size:
            data = data[:head] + bad_block(bytes(size) + data[head:], np.random.default_rng(where), size)[size:]
        elif kind == "flip" and len(data) > head:
            data = flipped(data, 8 * at + at % 8)
        elif kind == "cut":
            data = data[:at]
    return data


@pytest.mark.parametrize("pair", PACKETS)
def test_every_packet_that_holds_is_in_the_output(tmp_path_factory, pair):
    folder = tmp_path_factory.mktemp("repair")
    path, out = folder / "damaged.bcsv", folder / "out.bcsv"
    whole = twin.read(ORIGINALS[pair])
    original, packets = whole.rows, whole.packets
    assert len(packets) == 8

    # Two blocks change places, and with them the packets within.
    @example([("block", 2**32, 256), ("cut", 0.875, 0), ("block", 2**32, 256)])
    @many
    @given(damages)
    def check(steps):
        data = damaged(ORIGINALS[pair], steps)
        path.write_bytes(data)
        out.unlink(missing_ok=True)
        wanted = twin.read(data, salvage=True)
        report = bcsv.repair(path, out)
        rows = to_rows(bcsv.read_table(out))
        assert bcsv.validate(out, depth="rows").ok
        assert report.rows_readable == len(rows)
        assert set(rows) <= set(original), "no row is made up"
        assert {row for run in wanted.runs if run.verified for row in run.rows} <= set(rows)
        # Judged without any reader: a packet all of whose bytes are there.
        for packet in packets:
            if ORIGINALS[pair][packet.offset : packet.end] in data:
                assert set(packet.rows) <= set(rows), f"rows {packet.first} to {packet.first + len(packet.rows) - 1}"

    check()


@pytest.mark.parametrize("file_codec", ["packet", "packet-lz4", "packet-lz4-batch"])
def test_what_each_depth_sees(tmp_path, file_codec):
    path = tmp_path / "a.bcsv"
    bcsv.write_table({"x": np.random.default_rng(3).random(40_000)}, path, file_codec=file_codec, packet_bytes=64 << 10)
    data = path.read_bytes()
    packets = bcsv.Reader(path).packets
    assert len(packets) > 2
    inside = packets[1].offset + packets[1].size // 2
    faults = {
        "payload": flipped(data, 8 * inside),
        "packet header": flipped(data, 8 * (packets[1].offset + 5)),
        "index": flipped(data, 8 * (len(data) - 40)),
        "end": data[:-9],
    }
    for depth in ("headers", "checksums", "rows"):
        path.write_bytes(data)
        report = bcsv.validate(path, depth=depth)
        assert report.ok
        assert report.rows_readable == 40_000
        for name, bad in faults.items():
            path.write_bytes(bad)
            report = bcsv.validate(path, depth=depth)
            assert report.ok is (name == "payload" and depth == "headers"), (name, depth)
            assert report.ok or report.problems
    path.write_bytes(faults["payload"])
    found = {depth: bcsv.validate(path, depth=depth).rows_readable for depth in ("headers", "checksums", "rows")}
    assert found == {"headers": 40_000, "checksums": 40_000 - packets[1].rows, "rows": 40_000 - packets[1].rows}
