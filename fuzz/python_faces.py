"""Feed damaged BCSV files to the Python entry points, by the million, repeatably.

    python fuzz/python_faces.py --inputs 1000000            every target
    python fuzz/python_faces.py repair --inputs 1000        one of them
    python fuzz/python_faces.py repair --only 7341          one input again, in this process

libFuzzer (`fuzz/run.py`) searches below the Python layer with coverage; this campaign goes through the package as its
users do, and knows the truth: what was damaged without mending its checksum may be missing, but never wrong. Input
number N of a target depends on the seed and N alone. A worker that dies, hangs for 20 s or grows beyond its address
space is a finding too: its number was written down before it was tried.

Exit status: 0 no finding, 1 a finding.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import multiprocessing
import os
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from _twins import bcsv as twin  # noqa: E402
from _twins.bcsv_rows import CODECS  # noqa: E402
from _twins.lz4 import compress, decompress  # noqa: E402
from _twins.tables import columns_of, to_rows  # noqa: E402
from _twins.xxhash import xxh32, xxh64  # noqa: E402
from tapeline import bcsv  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS_SPACE = 3 << 30
PATIENCE_S = 20.0
START_S = 300.0
SEEDS_PER_PAIR = 2
ROWS = 40
CALM_ROWS = 520


@dataclass(frozen=True)
class Seed:
    """A good file and all that is known of it."""

    data: bytes
    table: pa.Table
    reading: twin.Reading

    @property
    def body(self) -> int:
        """Where the header ends."""
        return self.reading.header.size


def seeds() -> list[Seed]:
    """Files of every codec pair, with and without an index, of few and of many packets."""
    out = []
    for number in range(SEEDS_PER_PAIR):
        rng = random.Random(number)
        table = pa.table(
            {
                "b": pa.array([rng.random() < 0.5 for _ in range(ROWS)]),
                "u": pa.array([k // 3 for k in range(ROWS)], pa.uint8()),
                "i": pa.array([rng.randrange(-1 << 15, 1 << 15) for _ in range(ROWS)], pa.int16()),
                "n": pa.array([1 << 40 | k for k in range(ROWS)], pa.int64()),
                "f": pa.array([k * 0.25 for k in range(ROWS)], pa.float32()),
                "d": pa.array([rng.gauss(0, 1) for _ in range(ROWS)], pa.float64()),
                "s": pa.array(["", "a", "text" * 5][k % 3] for k in range(ROWS)),
            }
        )
        for row_codec in CODECS:
            for file_codec in twin.FILE_CODECS:
                data = twin.write(
                    columns_of(table), to_rows(table), row_codec=row_codec, file_codec=file_codec,
                    index=number % 2 == 0, flush_after=(10, 11, 25) if number else (20,),
                )  # fmt: skip
                out.append(Seed(data, table, twin.read(data)))
    return out + [calm_seed(file_codec) for file_codec in twin.FILE_CODECS]


def calm_seed(file_codec: str) -> Seed:
    """A zero-order hold file of two packets in which little changes: its columns are read from change to change."""
    table = pa.table(
        {
            "b": pa.array([k % 90 < 45 for k in range(CALM_ROWS)]),
            "u": pa.array([k // 100 for k in range(CALM_ROWS)], pa.uint8()),
            "n": pa.array([1 << 40 | k // 37 for k in range(CALM_ROWS)], pa.int64()),
            "d": pa.array([k // 61 * 0.1 for k in range(CALM_ROWS)], pa.float64()),
            "s": pa.array(["", "a", "text" * 5][k // 70 % 3] for k in range(CALM_ROWS)),
        }
    )
    data = twin.write(
        columns_of(table), to_rows(table), row_codec="zoh", file_codec=file_codec, flush_after=(CALM_ROWS // 2,)
    )
    return Seed(data, table, twin.read(data))


# ---------------------------------------------------------------- damage


def any_damage(data: bytes, rng: random.Random, first: int) -> bytes:
    """One to four of the things that happen to bytes, at `first` or behind."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if len(out) <= first:
            break
        at = rng.randrange(first, len(out))
        size = rng.choice((1, 2, 4, 8, 16, 64, 256))
        kind = rng.randrange(8)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + size] = rng.randbytes(min(size, len(out) - at))
        elif kind == 2:
            out[at : at + size] = rng.choice((b"\0", b"\xff")) * min(size, len(out) - at)
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            del out[at : at + size]
        elif kind == 5:
            out[at:at] = rng.randbytes(size)
        elif kind == 6:
            source = rng.randrange(first, len(out))
            out[at:at] = out[source : source + size]
        else:
            out[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)))
    return bytes(out)


def with_payload(seed: Seed, rng: random.Random) -> bytes:
    """Damage the rows of one packet and mend every checksum, so that the row codecs see it."""
    data, header = seed.data, seed.reading.header
    if not seed.reading.packets:  # a stream: one row after the other, each with its own checksum
        at, places = seed.body, []
        while at < len(data):
            prefix = twin.read_vle(data, at)
            if prefix is None:
                break
            length, start = prefix
            places.append((at, start, length))
            at = start + length + (4 if length else 0)
        at, start, length = rng.choice(places)
        row = any_damage(data[start : start + length], rng, 0)
        end = start + length + (4 if length else 0)
        return data[:at] + twin.vle(len(row)) + row + (struct.pack("<I", xxh32(row)) if row else b"") + data[end:]
    packet = rng.choice(seed.reading.packets)
    start, end = packet.offset + 16, packet.end
    if header.file_codec == "packet-lz4-batch":
        plain_size, size = struct.unpack_from("<II", data, start)
        plain = any_damage(decompress(data[start + 8 : start + 8 + size], plain_size), rng, 0)
        block = compress(plain)
        body = struct.pack("<II", len(plain), len(block)) + block
        return data[:start] + body + struct.pack("<Q", xxh64(plain)) + data[end:]
    body = any_damage(data[start : end - 8], rng, 0)
    return data[:start] + body + struct.pack("<Q", xxh64(body)) + data[end:]


def with_footer(seed: Seed, rng: random.Random) -> bytes:
    """Damage the footer; half the time with a checksum that holds and a length that fits."""
    at = seed.data.rfind(b"BIDX")
    if at < 0:
        return any_damage(seed.data, rng, seed.body)
    footer = any_damage(seed.data[at:], rng, 0)
    if rng.random() < 0.5 and len(footer) >= 28:
        footer = footer[:-20] + struct.pack("<I", len(footer)) + footer[-16:-8]
        footer += struct.pack("<Q", xxh64(footer))
    return seed.data[:at] + footer


# ---------------------------------------------------------------- what must hold


def rows_by_every_way(path: str) -> pa.Table | None:
    """Read strictly, by table, by row and by number: the same count, or the documented error."""
    with bcsv.Reader(path) as reader:
        try:
            table = reader.read_table()
        except bcsv.BcsvError:
            table = None
        try:
            rows = sum(1 for _ in reader)
        except bcsv.BcsvError:
            rows = None
        if table is not None and rows is not None:
            assert table.num_rows == rows, f"{table.num_rows} rows as a table, {rows} one by one"
        with contextlib.suppress(bcsv.BcsvError):
            count = reader.num_rows
            assert table is None or count == table.num_rows, f"num_rows {count}, read {table.num_rows}"
            if count:
                with contextlib.suppress(bcsv.BcsvError):
                    assert len(reader[count - 1]) == len(reader.schema)
        return table


def header_bytes(path: str, seed: Seed, rng: random.Random) -> None:
    """Any damage to the header: refused, or read as what it then says."""
    bad = any_damage(seed.data[: seed.body], rng, 0)
    write(path, bad + seed.data[seed.body :])
    with contextlib.suppress(bcsv.BcsvError):
        rows_by_every_way(path)


def row_codecs(path: str, seed: Seed, rng: random.Random) -> None:
    """Damaged rows behind checksums that hold."""
    write(path, with_payload(seed, rng))
    rows_by_every_way(path)
    bcsv.validate(path)


def packets(path: str, seed: Seed, rng: random.Random) -> None:
    """Damage behind the header: what is given before the error is right."""
    write(path, any_damage(seed.data, rng, seed.body))
    given = 0
    with bcsv.Reader(path) as reader, contextlib.suppress(bcsv.BcsvError):
        for batch in reader.iter_batches(batch_rows=7):
            same(pa.Table.from_batches([batch]), seed, given)
            given += batch.num_rows
    table = rows_by_every_way(path)
    if table is not None:
        same(table, seed, 0)


def footers(path: str, seed: Seed, rng: random.Random) -> None:
    """A damaged or lying footer: rows are right or refused, and nothing is called whole that is not."""
    write(path, with_footer(seed, rng))
    table = rows_by_every_way(path)
    if table is not None:
        same(table, seed, 0)
    with bcsv.Reader(path) as reader:
        with contextlib.suppress(bcsv.BcsvError):
            reader.read_table()
        if reader.complete:
            assert table is not None, "called complete, and cannot be read"
            rows = seed.table.num_rows
            assert table.num_rows == rows, f"called complete with {table.num_rows} rows of {rows}"


def salvage(path: str, seed: Seed, rng: random.Random) -> None:
    """Reading with `skip`: every row has its own number, and what is missing is named."""
    write(path, any_damage(seed.data, rng, seed.body))
    with bcsv.Reader(path, on_corrupt="skip") as reader:
        table = reader.read_table()
        numbered(table, reader.gaps, seed)


def repair(path: str, seed: Seed, rng: random.Random) -> None:
    """Repair: the source stays, the output is valid and holds what `skip` reads."""
    data = any_damage(seed.data, rng, seed.body)
    write(path, data)
    out = path + ".out"
    Path(out).unlink(missing_ok=True)
    report = bcsv.repair(path, out)
    assert Path(path).read_bytes() == data, "the source was touched"
    table = bcsv.read_table(out)
    assert table.num_rows == report.rows_readable
    assert bcsv.validate(out).ok
    assert to_rows(table) == to_rows(bcsv.read_table(path, on_corrupt="skip"))


def follow(path: str, seed: Seed, rng: random.Random) -> None:
    """A file that grows by odd steps, then is damaged: never a wrong row, never an error without damage."""
    cut = rng.randrange(seed.body, len(seed.data) + 1)
    damaged = rng.random() < 0.5
    rest = any_damage(seed.data[cut:], rng, 0) if damaged and cut < len(seed.data) else seed.data[cut:]
    whole = seed.data[:cut] + rest
    steps = sorted({seed.body, cut, len(whole), *(rng.randrange(seed.body, len(whole) + 1) for _ in range(3))})
    write(path, whole[: steps[0]])
    given: list[tuple[object, ...]] = []
    with bcsv.Reader(path, follow=True) as reader:
        try:
            for start, stop in zip(steps, [*steps[1:], len(whole)], strict=True):
                given += list(reader)
                with Path(path).open("ab") as file:
                    file.write(whole[start:stop])
            given += list(reader)
        except bcsv.BcsvError:
            assert whole != seed.data, "an error on a file that is good"
    expected = truth(seed)
    if seed.reading.packets or not damaged:
        assert given == expected[: len(given)], "a wrong row was given"
    if whole == seed.data:
        assert len(given) == seed.table.num_rows, f"{len(given)} rows of {seed.table.num_rows}"


TARGETS: dict[str, Callable[[str, Seed, random.Random], None]] = {
    "header": header_bytes,
    "rows": row_codecs,
    "packets": packets,
    "footer": footers,
    "salvage": salvage,
    "repair": repair,
    "follow": follow,
}


def truth(seed: Seed) -> list[tuple[object, ...]]:
    """The rows as tuples."""
    return list(zip(*(column.to_pylist() for column in seed.table.columns), strict=True))


def same(table: pa.Table, seed: Seed, first: int) -> None:
    """Rows equal those that were written; for streams as far as their checksums tell."""
    expected = seed.table.slice(first, table.num_rows)
    if table.equals(expected):
        return
    assert not seed.reading.packets, f"wrong rows from row {first} on"
    wrong_in_stream(table, seed, first)


def wrong_in_stream(table: pa.Table, seed: Seed, first: int) -> None:
    """In a stream a row's own checksum is all there is: rows may be missing between good ones, never made up.

    Absolute rows (flat) are among those written; a row of zoh or delta depends on the ones before it, so that a row
    taken out or doubled changes what follows without any checksum failing (spec/bcsv-format.md 14).
    """
    if seed.reading.header.row_codec != "flat" or seed.reading.header.level:
        return
    known = set(truth(seed))
    given = zip(*(column.to_pylist() for column in table.columns), strict=True)
    assert all(row in known for row in given), f"a row that was never written, from row {first} on"


def numbered(table: pa.Table, gaps: list[tuple[int, int]], seed: Seed) -> None:
    """Rows and gaps together are all that was written, each in its place."""
    if not seed.reading.packets:
        wrong_in_stream(table, seed, 0)
        return
    rows = seed.table.num_rows
    named = {k for first, stop in gaps for k in range(first, min(stop, rows))}
    numbers = [k for k in range(rows) if k not in named][: table.num_rows]
    assert table.num_rows == len(numbers), f"{table.num_rows} rows, and gaps {gaps}"
    assert table.equals(seed.table.take(pa.array(numbers, pa.int64()))), f"a wrong row, with gaps {gaps}"


def write(path: str, data: bytes) -> None:
    """Make the file."""
    Path(path).write_bytes(data)


# ---------------------------------------------------------------- the campaign


def one(target: str, number: int, path: str, files: list[Seed], seed: int) -> None:
    """Make input `number` and try it."""
    rng = random.Random(f"{seed} {target} {number}")
    TARGETS[target](path, files[rng.randrange(len(files))], rng)


def worker(target: str, numbers: range, *, progress: mmap.mmap, found: mmap.mmap, place: int, seed: int) -> None:
    """Try the inputs one after the other; the number of the current one is in `progress` before it is tried."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = seeds()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        path = str(Path(directory) / "input.bcsv")
        for number in numbers:
            struct.pack_into("<q", progress, 8 * place, number)
            try:
                one(target, number, path, files, seed)
            except Exception:  # noqa: BLE001  (whatever it is, it is a finding)
                text = f"FINDING {target} --only {number} --seed {seed}\n{traceback.format_exc()}"
                print(text, flush=True)
                struct.pack_into("<q", found, 8 * place, struct.unpack_from("<q", found, 8 * place)[0] + 1)
        struct.pack_into("<q", progress, 8 * place, -1)


def campaign(target: str, first: int, inputs: int, jobs: int, seed: int) -> int:
    """Run one target; the number of findings."""
    context = multiprocessing.get_context("fork")
    progress, found = mmap.mmap(-1, 8 * jobs), mmap.mmap(-1, 8 * jobs)
    began = time.monotonic()
    waiting = [range(first + place, first + inputs, jobs) for place in range(jobs)]
    running: dict[int, tuple[multiprocessing.process.BaseProcess, int, float]] = {}
    findings = 0

    def start(place: int) -> None:
        struct.pack_into("<q", progress, 8 * place, -2)
        shared = {"progress": progress, "found": found, "place": place, "seed": seed}
        process = context.Process(target=worker, args=(target, waiting[place]), kwargs=shared)
        process.start()
        running[place] = (process, -2, time.monotonic())

    for place in range(jobs):
        start(place)
    while running:
        for place, (process, before, since) in list(running.items()):
            process.join(0.2)
            number = struct.unpack_from("<q", progress, 8 * place)[0]
            if number != before:
                running[place] = (process, number, time.monotonic())
            if process.is_alive() and time.monotonic() - since < (START_S if number == -2 else PATIENCE_S):
                continue
            how = "hangs" if process.is_alive() else f"dies with {process.exitcode}"
            process.kill()
            process.join()
            del running[place]
            if number == -1:
                continue
            findings += 1
            print(f"FINDING {target} --only {number} --seed {seed}: the process {how}", flush=True)
            if number >= 0:
                waiting[place] = range(number + jobs, first + inputs, jobs)
                start(place)
    findings += sum(struct.unpack_from("<q", found, 8 * place)[0] for place in range(jobs))
    taken = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{target}: {inputs:,} inputs in {taken:.0f} s, peak {peak} MiB, {findings} findings", flush=True)
    return findings


def main() -> int:
    """Run the targets, or one input again."""
    parser = argparse.ArgumentParser(description="Damaged BCSV files through the Python entry points.")
    parser.add_argument("targets", nargs="*", help=f"all of {' '.join(TARGETS)} if none is named")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="inputs of each target")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, help="try this one input here, and let its error through")
    options = parser.parse_args()
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(f"unknown target {unknown[0]}")
    names = options.targets or list(TARGETS)
    if options.only is not None:
        with tempfile.TemporaryDirectory() as directory:
            one(names[0], options.only, str(Path(directory) / "input.bcsv"), seeds(), options.seed)
        return 0
    return 1 if sum(campaign(n, options.first, options.inputs, options.jobs, options.seed) for n in names) else 0


if __name__ == "__main__":
    sys.exit(main())
