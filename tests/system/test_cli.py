"""The command as a whole: what it imports, how it ends, what it says when it is used wrongly."""

import importlib
import json
import os
import subprocess
import sys

import pytest
from tests.system._processes import COMMAND, ENVIRONMENT, tapeline

from tapeline import bcsv
from tapeline.cli._output import Outcome
from tapeline.cli.main import COMMANDS, EXIT_CODES, main

HEAVY = ["numpy", "pyarrow", "rich", "pandas", "polars", "matplotlib", "asyncio", "tapeline.config", "tapeline.bcsv"]


def modules_after(code):
    text = f"{code}\nimport sys, json\nsys.__stdout__.write('\\n' + json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return set(json.loads(out.stdout.splitlines()[-1]))


def test_import_loads_nothing_heavy():
    assert not modules_after("import tapeline") & {*HEAVY, "click", "tomllib"}


def test_help_loads_no_command_and_nothing_heavy():
    loaded = modules_after("from tapeline.cli.main import main; assert main(['--help']) == 0")
    assert not loaded & set(HEAVY)
    assert not {m for m in loaded if m.startswith("tapeline.cli.")} - {"tapeline.cli.main", "tapeline.cli._output"}


@pytest.mark.parametrize("module", ["tapeline.cli", "click", "tapeline.cli._output", "tapeline._native"])
def test_an_interrupt_while_it_starts_is_quiet(module):
    code = f"""
import runpy, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
# not ignored, as it is where the tests run in a shell's background
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
sys.argv[:] = ["tapeline", "--version"]
runpy.run_module("tapeline", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_public_names_are_there_when_asked_for():
    import tapeline

    for name in tapeline.__all__:
        assert getattr(tapeline, name) is not None
    assert set(tapeline.__all__) <= set(dir(tapeline))
    with pytest.raises(AttributeError, match="no attribute 'recorderr'"):
        tapeline.recorderr  # noqa: B018 - the access is the test


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_its_help_is_that_of_the_registry(name):
    entry = COMMANDS[name]
    module, _, attribute = entry.target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert command.help.strip().splitlines()[0] == entry.help


def test_version():
    done = tapeline("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tapeline 0.")


def test_exit_codes_are_those_of_the_contract():
    assert sorted(EXIT_CODES.values()) == [0, 1, 2, 3, 130]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recrd"], "No such command 'recrd'"),
        (["record", "--wrong"], "No such option"),
        (["record", "--stream", "ch0"], "expected NAME=URL"),
        (["record", "--stream", "ch0=udp://:0"], "out: missing"),
        (["record", "--out", "run"], "0 streams"),
        (["record", "--out", "run", "--stream", "ch0=http://x"], "unknown scheme 'http'"),
        (["record", "--out", "run", "--stream", "../x=udp://:0"], "not a stream name"),
        (["record", "--out", "run", "--stream", "ch0=udp://0.0.0.0:0"], "allow_insecure_bind"),
        (["record", "--out", "run", "--stream", "ch0=udp://:0", "--rotate", "soon"], "neither a size"),
        (["record", "--out", "run", "--stream", "ch0=udp://:0", "--count", "many"], "not an integer"),
        (["record", "--out", "run", "--stream", "ch0=udp://:0", "--set", "ring_byte=1"], "did you mean 'ring_bytes'"),
        (["record", "missing.toml"], "missing.toml"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path, words, says):
    done = tapeline(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.startswith("tapeline: error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_the_help_is_shown():
    done = tapeline()
    assert done.returncode == 2
    assert "Commands:" in done.stderr + done.stdout


def test_a_reader_that_goes_away_is_no_reason_to_talk():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "record", "--help"], stdout=write, stderr=subprocess.PIPE, check=False, env=ENVIRONMENT
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    done = tapeline("record", "--out", "run", "--stream", "a\x1b[31m=udp://:0", cwd=tmp_path)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("words", [["--version"], ["cat", "a.bcsv"], ["convert", "a.bcsv", "b.csv"]])
def test_a_closed_stdout_is_one_line_before_anything_is_done(tmp_path, words):
    bcsv.write_table({"a": [1]}, tmp_path / "a.bcsv")
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert closed.returncode == EXIT_CODES[Outcome.FAILED]
    assert closed.stderr == b"tapeline: error: stdout is closed, so no result could be given\n"
    assert not (tmp_path / "b.csv").exists()


def test_a_closed_stderr_and_stdin_are_no_crash(tmp_path):
    bcsv.write_table({"a": [1]}, tmp_path / "a.bcsv")
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- 2>&-', "sh", *COMMAND, "convert", "a.bcsv", "-", "--to", "csv"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    assert done.stdout == b"a\n1\n"


def test_main_takes_arguments(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tapeline ")
