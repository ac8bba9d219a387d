"""The table of docs/howto/pybcsv-tools.md: both sides of every line run, and no option of theirs is left out."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybcsv
import pytest
from tests.system._processes import ENVIRONMENT

from tapeline import bcsv, convert

PAGE = Path(__file__).parents[2] / "docs/howto/pybcsv-tools.md"
LINES = [
    [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| `")
]
TOOLS = (
    "csv2bcsv",
    "bcsv2csv",
    "bcsvHead",
    "bcsvTail",
    "bcsvHeader",
    "bcsvValidate",
    "bcsvRepair",
    "bcsvCompare",
    "bcsvCast",
    "bcsvSampler",
    "bcsvGenerator",
)
# what the page says once for all of them
EVERYWHERE = {"--help", "--version", "--verbose", "--benchmark", "--json"}


def scripts():
    """Where the rival's tools are: here, or in the environment that this one was made over."""
    here = Path(sysconfig.get_path("scripts"))
    return here if (here / "csv2bcsv").exists() else Path(pybcsv.__file__).parents[4] / "bin"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data.csv").write_text("id,temp,state\n1,20.25,on\n2,20.75,off\n3,21.5,on\n")
    (tmp_path / "nohead.csv").write_text("1,20.25,on\n2,20.75,off\n")
    (tmp_path / "semi.csv").write_text("id;temp\n1;20,25\n2;20,75\n")
    (tmp_path / "blank.txt").write_text("id   temp\n1  20.25\n2 20.75\n")
    (tmp_path / "ragged.csv").write_text("id,temp,state\n1,20.25,on\n2,20.75\n3,21.5,on\n")
    convert(tmp_path / "data.csv", tmp_path / "data.bcsv")
    for name in ("out", "other", "copy1", "copy2"):
        shutil.copy(tmp_path / "data.bcsv", tmp_path / f"{name}.bcsv")
    whole = tmp_path / "whole.bcsv"
    table = {"x": [float(k * k % 7919) / 3 for k in range(30_000)]}
    bcsv.write_table(table, whole, packet_bytes=64 << 10, row_codec="flat", file_codec="packet")
    for name in ("broken", "broken1", "broken2"):
        (tmp_path / f"{name}.bcsv").write_bytes(whole.read_bytes()[:150_000])
    for name, profile in (("ours", "sensor_noisy"), ("theirs", "sensor_noisy")):
        tool = [sys.executable, "-m", "tapeline", "generate", "-n", "50", "--profile", profile, f"{name}.bcsv"]
        if name == "theirs":
            tool = [str(scripts() / "bcsvGenerator"), "-n", "50", "-p", profile, "-o", "theirs.bcsv"]
        subprocess.run(tool, cwd=tmp_path, check=True, capture_output=True, env=ENVIRONMENT)
    return tmp_path


@pytest.mark.parametrize(("theirs", "ours", "remark"), LINES, ids=[line[0].strip("`")[:60] for line in LINES])
def test_both_sides_of_a_line(folder, theirs, ours, remark):
    theirs, ours = theirs.strip("`"), ours.strip("`")
    tool, *words = shlex.split(theirs)
    done = subprocess.run(
        [str(scripts() / tool), *words], cwd=folder, capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    me = f"{shlex.quote(sys.executable)} -m tapeline"
    done = subprocess.run(
        ["sh", "-c", re.sub(r"(?:(?<=\| )|^)tapeline\b", me, ours)],
        cwd=folder, capture_output=True, text=True, check=False, env={**ENVIRONMENT, "PATH": os.environ["PATH"]},
    )  # fmt: skip
    wanted = 3 if "xit code 3" in remark and "if there are" not in remark else 0
    assert done.returncode == wanted, done.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_every_option_of_theirs_is_there(tool):
    text = subprocess.run([str(scripts() / tool), "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"^ .*?(--[A-Za-z][\w-]*)", text, re.MULTILINE)) - EVERYWHERE
    short = dict(re.findall(r"^ +(-\w), +(--[\w-]+)", text, re.MULTILINE))
    used = set()
    for theirs, _, _ in LINES:
        words = shlex.split(theirs.strip("`"))
        if words[0] == tool:
            used |= {short.get(word, word) for word in words}
    assert options or tool == "bcsvHeader"
    assert options <= used, options - used
