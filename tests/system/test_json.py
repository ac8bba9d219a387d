"""Every command as a process: its help, its `--json` against the documented schema, its exit codes."""

import json
import re
import struct
from pathlib import Path

import click
import numpy as np
import pytest
from tests.system._processes import tapeline

from _support.json_schema import faults
from _support.register_server import answering
from _support.registers import REPLY, T0, Log, Packet
from tapeline import bcsv, ring
from tapeline.cli.main import COMMANDS, cli

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference" / "schemas"


def leaves():
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from (f"{name} {sub}" for sub in command.list_commands(context))
        else:
            yield name


LEAVES = sorted(leaves())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with one of everything that commands read."""
    root = tmp_path_factory.mktemp("world")
    table = {"t": np.arange(9000), "x": np.linspace(0, 1, 9000), "s": ["a", "b"] * 4500}
    bcsv.write_table(table, root / "a.bcsv", file_codec="packet", row_codec="flat", packet_bytes=64 << 10)
    bcsv.write_table({**table, "x": table["x"] + 1}, root / "b.bcsv")
    damaged = bytearray((root / "a.bcsv").read_bytes())
    damaged[-2000] ^= 1
    (root / "damaged.bcsv").write_bytes(damaged)
    (root / "a.csv").write_text("t;x\n1;2,5\n2;nan\n3\n")
    with ring.Writer(root / "ring", capacity=1 << 16) as writer:
        head = struct.pack("<Q5BI", T0, 4, 1, 2, 0, 0, 1)
        writer.write(head + struct.pack("<2H", 3, 4), timestamp_us=1)
        writer.write(b"no packet", timestamp_us=2)
    registers = root / "registers"
    registers.mkdir()
    log = Log(registers / "rack")
    log.write([Packet(T0 + 1_000_000 * n, seq=n, registers=((n, n), (100, n))) for n in range(10)])
    log.manifest(registers)
    faulty = ["--streams", 1, "--frames", 200, "--periodic", 50, "--drop", 0.05]
    assert tapeline("simulate", "radar", "--to", "file://in.dat", *faulty, cwd=root).returncode == 0
    # what was lost before it came here is told by the ledger
    assert tapeline("record", "--stream", "ch0=file://in.dat", "--out", "run", cwd=root).returncode == 3
    whole = ["--streams", 1, "--frames", 200, "--periodic", 50]
    assert tapeline("simulate", "radar", "--to", "file://whole.dat", *whole, cwd=root).returncode == 0
    return root


# command, arguments, exit code; each prints at least one object
RUNS = [
    ("record", "--stream ch0=file://whole.dat --out {out}", 0),
    ("record", "--stream ch0=file://in.dat --out {out}", 3),
    ("record", "--stream rack=file://{world}/registers/rack/*.pkt?wire=packet&sinks=csv --out {out}", 0),
    ("simulate radar", "--to file://{out} --streams 2 --frames 50 --drop 0.1 --garbage 0.1", 0),
    ("simulate battery", "--to file://{out} --packets 10 --count 4", 0),
    ("demo", "--frames 100", 0),
    ("head", "a.bcsv", 0),
    ("head", "a.csv -n 2", 1),
    ("tail", "b.bcsv -n 3", 0),
    ("validate", "a.bcsv", 0),
    ("validate", "damaged.bcsv --deep", 1),
    ("validate", "a.bcsv --profile mixed_generic --quick", 1),
    ("compare", "a.bcsv a.bcsv", 0),
    ("compare", "a.bcsv b.bcsv", 1),
    ("cast", "a.bcsv", 0),
    ("cast", "a.bcsv {out}.bcsv --types t=uint8", 3),
    ("cast", "a.bcsv {out}.bcsv --optimize", 0),
    ("sample", "a.bcsv {out}.bcsv --where x>0.5", 0),
    ("sample", "a.bcsv - --where t<3", 0),
    ("generate", "{out}.bcsv -n 10", 0),
    ("generate", "--list", 0),
    ("sql", "select(t)from'a.bcsv'where(t<3)", 0),
    ("sql", "select(t)from'a.bcsv' -o {out}.parquet", 0),
    ("info", "a.bcsv", 0),
    ("info", "a.bcsv --deep", 0),
    ("info", "damaged.bcsv --deep", 3),
    ("info", "run", 0),
    ("info", "registers", 0),
    ("info", "in.dat", 0),
    ("cat", "a.bcsv --range 5:7", 0),
    ("cat", "damaged.bcsv --skip-damage", 3),
    ("cat", "run --limit 2", 0),
    ("cat", "registers --limit 2", 0),
    ("cat", "registers --limit 2 --rows", 0),
    ("convert", "a.bcsv {out}.parquet", 0),
    ("convert", "a.csv {out}.bcsv --ragged skip", 3),
    ("convert", "a.csv {out}.bcsv --ragged pad", 0),
    ("convert", "damaged.bcsv {out}.csv --skip-damage", 3),
    ("verify", "run", 0),
    ("verify", "registers", 0),
    ("repair", "a.bcsv {out}.bcsv", 0),
    ("repair", "damaged.bcsv {out}.bcsv", 3),
    ("repair", "damaged.bcsv --dry-run", 3),
    ("repair", "run", 0),
    ("replay", "run --to file://{out} --speed max", 0),
    ("replay", "registers --to file://{out} --speed max", 0),
    ("registers image", "registers", 0),
    ("registers history", "registers rack 1 100", 0),
    ("plot", "run -o {out}.png", 0),
    ("ring stat", "{world}/ring", 0),
    ("ring cat", "{world}/ring", 0),
    ("doctor", "--out {world} --disk-bytes 1MiB", 0),
]
# these ask a server; see the test of their own
SERVED = ["registers query", "registers watch"]


def check(command, stdout):
    schema = json.loads((SCHEMAS / f"{command.replace(' ', '-')}.json").read_text(encoding="utf-8"))
    lines = stdout.splitlines()
    assert lines
    for line in lines:
        assert faults(schema, json.loads(line)) == []


@pytest.mark.parametrize(("command", "words", "code"), RUNS, ids=str)
def test_json_is_what_the_schema_says(world, tmp_path, command, words, code):
    words = [expanded(word.format(out=tmp_path / "out", world=world)) for word in words.split()]
    done = tapeline(*command.split(), *words, "--json", cwd=world)
    assert done.returncode == code, done.stderr
    if code == 1 and not done.stdout:
        assert done.stderr.startswith("tapeline: error: ")
        return
    check(command, done.stdout)


def expanded(word):
    """The name of a log has the time in it."""
    found = re.fullmatch(r"(.*file://)(/[^?]*\*[^?]*)(.*)", word)
    if found is None:
        return word
    path = Path(found[2])
    return found[1] + str(next(path.parent.glob(path.name))) + found[3]


def test_json_of_those_that_ask_a_server():
    replies = [Packet(T0, src_id=3, cmd=REPLY, registers=((9, value),)).data() for value in (7, 7, 8)]
    with answering(replies) as address:
        words = [address, "--type", "2", "--src-id", "3", "9", "--json"]
        done = [tapeline("registers", "query", *words)]
        done.append(tapeline("registers", "watch", *words, "--count", 2, "--interval", "1ms"))
    for command, one in zip(SERVED, done, strict=True):
        assert one.returncode == 0, one.stderr
        check(command, one.stdout)


def test_every_command_has_a_schema_and_is_run():
    assert sorted(path.stem for path in SCHEMAS.glob("*.json")) == [name.replace(" ", "-") for name in LEAVES]
    assert sorted({command for command, _, code in RUNS if code == 0} | set(SERVED)) == LEAVES


@pytest.mark.parametrize("command", LEAVES)
def test_help_has_two_examples_and_names_json(command):
    done = tapeline(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    examples = done.stdout.split("Examples:\n", 1)[1]
    assert len(re.findall(rf"(^|\| )\s*tapeline {command} ?", examples, re.MULTILINE)) >= 2
    assert "--json" in done.stdout


@pytest.mark.parametrize("command", LEAVES)
def test_wrong_usage_is_exit_code_2(command):
    done = tapeline(*command.split(), "--no-such-option")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tapeline: error: ")
    assert f"tapeline {command} --help" in done.stderr


def test_the_checker_finds_what_differs():
    schema = {"type": "object", "properties": {"a": {"type": ["integer", "null"]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    assert faults(schema, {"a": 1}) == faults(schema, {"a": None}) == []
    for wrong in ({}, {"a": "1"}, {"a": True}, {"a": 1, "b": 2}, [1]):
        assert len(faults(schema, wrong)) == 1
    with pytest.raises(KeyError):
        faults({"maximum": 3}, 4)
