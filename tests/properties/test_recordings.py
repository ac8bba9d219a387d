"""Recordings with damage of any kind: nothing raises, nothing that was changed passes, what is whole is read."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tapeline
from _support.recordings import Plan, Row, counted, write_recording

EXAMPLES = int(os.environ.get("TAPELINE_TEST_EXAMPLES", "60"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rows = [*counted(0, 1), Row(1, [4, 7], 4, status=1), Row(1, [6], 1, status=2), *counted(2, 3)]
    plans = {"ch0": Plan([counted(0, 3), counted(3, 4)]), "ch1": Plan([rows], sizes={4: 7})}
    return write_recording(tmp_path_factory.mktemp("source") / "run", plans)


def read_everything(root):
    """All that can be asked of a recording; the frames found."""
    rec = tapeline.open_recording(root)
    total = 0
    for stream in rec.streams.values():
        frames = list(stream.frames())
        total += len(frames)
        table = stream.periodics()
        for k in set(table["periodic"].to_pylist()):
            stream.read_periodic(k)
        assert stream.to_arrow().read_all().num_rows == len(frames)
        assert len(stream.payloads()) == len(frames)
        assert stream.ledger.as_dict()
    assert rec.complete in {True, False}
    return total


changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "fill", "remove", "swap"]),
        st.integers(0, 1 << 20),
        st.integers(0, 1 << 20),
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=3,
)


def damage(paths, change):
    kind, which, where, value = change
    path = paths[which % len(paths)]
    if not path.exists():
        return
    data = bytearray(path.read_bytes())
    at = where % (len(data) + 1)
    match kind:
        case "remove":
            path.unlink()
            return
        case "swap":
            other = paths[where % len(paths)]
            if other.exists():
                data, was = bytearray(other.read_bytes()), data
                other.write_bytes(was)
        case "flip" if at < len(data):
            data[at] ^= value
        case "cut":
            del data[at:]
        case "insert":
            data[at:at] = bytes([value]) * value
        case "fill":
            data[at : at + value] = bytes(min(value, len(data) - at))
    path.write_bytes(data)


@many
@given(changes=changes)
def test_damage_never_raises_and_never_passes(source, tmp_path_factory, changes):
    root = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(source, root)
    paths = sorted(p for p in root.rglob("*") if p.is_file())
    before = {p: p.read_bytes() for p in paths}
    for change in changes:
        damage(paths, change)
    after = {p: p.read_bytes() if p.exists() else None for p in paths}
    changed = {p for p in paths if before[p] != after[p]}
    report = tapeline.open_recording(root).verify()
    assert str(report)
    read = read_everything(root)
    if not changed:
        assert report.ok
    if any(p.suffix != ".json" for p in changed):
        assert not report.ok
    if not any(p.suffix == ".dat" for p in changed):
        assert read == 16 + 11
    shutil.rmtree(root.parent)
