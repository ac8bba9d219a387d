"""Every sink at once behind the simulator, and every output compared with its account.

`TAPELINE_EVERYTHING_SECONDS=600 python -m pytest tests/system/test_register_everything.py` is the long run.
"""

import json
import os
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest
from tests.system._processes import COMMAND, ENVIRONMENT

import tapeline
from tapeline import bcsv

SECONDS = float(os.environ.get("TAPELINE_EVERYTHING_SECONDS", "2"))
RATE = 200  # packets of each client a second
CLIENTS = 4
ROTATE_BYTES = 50_000 if SECONDS < 60 else 1_000_000


def config(out, sinks):
    stream = {"url": "tcp://127.0.0.1:0?wire=packet", "rotate_bytes": ROTATE_BYTES, "sinks": sinks}
    return {"out": str(out), "streams": {"rack": stream}}


def plain(table):
    """Rows as numbers, whatever the format."""
    columns = []
    for name in ("timestamp_us", "type", "src_id", "cmd", "seq", "offset", "value"):
        column = table[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            names = pa.array(["UNKNOWN", "SBMU", "RACK", "RTOS"])
            column = pa.compute.index_in(column.dictionary_decode(), names)
        columns.append(np.asarray(column.cast(pa.int64())))
    return np.stack(columns, axis=1)


READERS = {"parquet": pq.read_table, "bcsv": bcsv.read_table, "csv": pc.read_csv, "jsonl": pj.read_json}


@pytest.mark.timeout(120 + 2 * SECONDS)
def test_every_output_is_what_was_sent(tmp_path):
    batches = []
    with tapeline.Recorder(config(tmp_path / "second", [])) as second:
        to = second.status().streams["rack"].addresses[0].partition("?")[0]
        sinks = [*READERS, batches.append, {"kind": "forward", "url": to}]
        with tapeline.Recorder(config(tmp_path / "first", sinks)) as first:
            url = first.status().streams["rack"].addresses[0].partition("?")[0]
            words = ["--to", url, "--clients", CLIENTS, "--count", "1:60", "--rate", RATE, "--duration", f"{SECONDS}s",
                     "--full-every", 50, "--json"]  # fmt: skip
            done = subprocess.run(
                [*COMMAND, "simulate", "battery", *map(str, words)],
                env=ENVIRONMENT, check=True, capture_output=True, text=True,
            )  # fmt: skip
            sent = json.loads(done.stdout.splitlines()[-1])
        deadline = time.monotonic() + 60
        while second.ledger()["rack"].packets_received < sent["total"]["packets_sent"]:
            assert time.monotonic() < deadline
            second.wait(timeout=0.05)
    packets, registers = sent["total"]["packets_sent"], sent["total"]["registers_sent"]
    assert packets > 0
    for number, recorder in enumerate((first, second)):
        out = tmp_path / ("first", "second")[number]
        ledger = recorder.ledger()["rack"]
        assert not ledger.broken_laws()
        assert (ledger.packets_stored, ledger.registers_received) == (packets, registers)
        assert not recorder.summary()["lost_anything"]
        assert tapeline.image_at(out).digest == sent["image_digest"]
        assert tapeline.open_recording(out).verify().ok
    assert [sink.error for sink in first.sinks()["rack"]] == [None] * 6
    assert sum(batch.num_rows for batch in batches) == registers
    left = iter(batches)
    handed = []
    for log in sorted((tmp_path / "first" / "rack").glob("*.pkt")):
        # a segment at a time, so that a long run needs no more memory than a short one
        rows = plain(pa.Table.from_batches(tapeline.registers.scan_log(log)))
        for extension, read in READERS.items():
            table = log.with_suffix(f".{extension}")
            assert np.array_equal(plain(read(table)), rows), table
        while sum(map(len, handed)) < len(rows):
            handed.append(plain(pa.Table.from_batches([next(left)])))
        assert np.array_equal(np.concatenate(handed), rows)
        handed = []
