"""Reading while another hand writes: every flushed row is seen, and "no more yet" is not "closed"."""

import threading

import pytest

from _twins.damage import PAIRS
from tapeline import bcsv

SCHEMA = [("k", "int64"), ("s", "string")]
pairs = pytest.mark.parametrize(("row_codec", "file_codec"), PAIRS)


def row(k):
    return (k, "x" * (k % 5))


@pairs
def test_every_flushed_row_is_seen(tmp_path, row_codec, file_codec):
    path = tmp_path / "grows.bcsv"
    seen = []
    with bcsv.Writer(path, SCHEMA, row_codec=row_codec, file_codec=file_codec) as writer:
        writer.flush()
        reader = bcsv.Reader(path, follow=True)
        for turn in range(300):
            for k in range(turn % 4):
                writer.write_row(row(len(seen) + k))
            writer.flush()
            seen += list(reader)
            assert len(seen) == writer.rows_written
            assert reader.num_rows == len(seen)
            assert reader.complete is not True
        writer.write_row(row(len(seen)))
        for _ in range(700):  # 1,000 looks by one handle in all; a row that was not flushed may be seen, or not yet
            reader.refresh()
            assert reader.complete is not True
            assert reader.num_rows - len(seen) in (0, 1)
    seen += list(reader)
    assert list(reader) == []
    assert reader.complete is (None if file_codec.startswith("stream") else True)
    assert seen == [row(k) for k in range(len(seen))]
    assert reader[-1] == seen[-1]
    reader.close()


def test_wait_returns_when_rows_come_and_when_the_file_closes(tmp_path):
    path = tmp_path / "waits.bcsv"
    writer = bcsv.Writer(path, SCHEMA)
    writer.flush()
    with bcsv.Reader(path, follow=True) as reader:
        assert reader.wait(0) is False
        assert reader.complete is False, "not closed, only nothing yet"
        ready = threading.Event()

        def write():
            ready.wait()
            writer.write_row(row(0))
            writer.flush()

        thread = threading.Thread(target=write)
        thread.start()
        ready.set()
        assert reader.wait() is True
        assert list(reader) == [row(0)]
        thread.join()
        writer.close()
        assert reader.wait() is False
        assert reader.complete is True


@pairs
def test_unfinished_files_are_read_without_following(tmp_path, row_codec, file_codec):
    path = tmp_path / "open.bcsv"
    with bcsv.Writer(path, SCHEMA, row_codec=row_codec, file_codec=file_codec) as writer:
        writer.write_rows(row(k) for k in range(100))
        writer.flush()
        writer.write_rows(row(k) for k in range(100, 150))
        table = bcsv.read_table(path)
        assert table.num_rows >= 100
        assert table["k"].to_pylist() == list(range(table.num_rows))
        assert bcsv.Reader(path).complete is (None if file_codec.startswith("stream") else False)
    assert bcsv.read_table(path).num_rows == 150
