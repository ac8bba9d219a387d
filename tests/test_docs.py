"""What is documented exists, what exists is documented, and every program in the documentation runs."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tapeline
from tapeline import bcsv, errors, ledger, wire
from tapeline.cli.main import COMMANDS, EXIT_CODES
from tapeline.config import RecorderConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
DOCTESTS = [
    "tapeline.quantities",
    "tapeline.ring",
    "tapeline.urls",
    "tapeline.config",
    "tapeline.wire",
    "tapeline.cli._output",
]


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def test_generated_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("info", RecorderConfig.describe(), ids=lambda info: info.key)
def test_every_setting_has_its_row(info):
    assert f"| `{info.key}` |" in page("reference/configuration.md")


@pytest.mark.parametrize("name", [name for name, _ in ledger.describe() + ledger.describe_registers()])
def test_every_ledger_field_has_its_row(name):
    assert f"| `{name}` |" in page("reference/ledger.md")


def test_ledger_fields_are_those_of_the_compiled_decoder():
    native = wire.FrameDecoder()._decoder.ledger()
    ours = ledger.Ledger().as_dict()
    assert list(native) == list(ours)
    assert list(native["frames_corrupt"]) == list(ours["frames_corrupt"])


def test_register_ledger_fields_are_those_of_the_compiled_decoder():
    native = wire.PacketDecoder()._decoder.ledger()
    ours = ledger.RegisterLedger().as_dict()
    assert list(native) == list(ours)
    for group in ("packets_invalid", "clients_closed"):
        assert list(native[group]) == list(ours[group])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_section_with_examples(name):
    section = page("reference/cli.md").split(f"## tapeline {name}\n", 1)[1].split("\n## ", 1)[0]
    assert "tapeline " + name in section


@pytest.mark.parametrize("code", EXIT_CODES.values())
def test_every_exit_code_has_its_row(code):
    assert f"| {code} |" in page("reference/cli.md")


def test_every_public_name_is_in_the_reference():
    text = page("reference/python.md")
    names = {f"tapeline.{name}" for name in tapeline.__all__ if not inspect.isclass(getattr(tapeline, name))}
    names |= {name for name in tapeline.__all__ if inspect.isclass(getattr(tapeline, name))}
    missing = [name for name in sorted(names - {"tapeline.__version__"}) if name not in text]
    missing += [name for name in wire.__all__ if name not in text]
    missing += [name for name in bcsv.__all__ if name not in page("reference/bcsv.md")]
    assert missing == []


def test_every_error_is_in_the_reference():
    text = page("reference/python.md")
    own = [n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, errors.TapelineError)]
    assert [name for name in own if f"`{name}`" not in text] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    targets = [t for t in LINK.findall(path.read_text(encoding="utf-8")) if "://" not in t]
    assert [t for t in targets if not (path.parent / t).exists()] == []


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")]
    assert [p for p in pages if f": {p}\n" not in navigation] == []


@pytest.mark.parametrize("path", sorted((ROOT / "changelog.d").glob("*")), ids=lambda p: p.name)
def test_changelog_fragments_have_a_kind(path):
    assert re.fullmatch(r"[a-z0-9-]+\.(security|removed|deprecated|added|changed|fixed)\.md", path.name)
    assert path.read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("name", DOCTESTS)
def test_doctests(name):
    module = importlib.import_module(name)
    failures, tests = doctest.testmod(module)
    assert (failures, tests > 0) == (0, True)


def run(program, directory):
    return subprocess.run(
        [sys.executable, "-W", "error", *program],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        timeout=60,
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_run(path, tmp_path):
    done = run([path], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


PROGRAMS = {p: "\n".join(PYTHON.findall(p.read_text(encoding="utf-8"))) for p in PAGES}


@pytest.mark.parametrize(
    "path", [p for p, program in PROGRAMS.items() if program], ids=lambda p: str(p.relative_to(ROOT))
)
def test_python_in_the_documentation_runs(path, tmp_path):
    """All blocks of a page, one after the other, as its reader would type them."""
    # programs that read need a recording called run, which the tutorial has made by then
    (tmp_path / "in.dat").write_bytes(b"".join(wire.encode_frame(b"x" * 64, n, n * 1000) for n in range(100)))
    with tapeline.Recorder({"out": tmp_path / "run", "streams": {"ch0": f"file://{tmp_path}/in.dat"}}) as recorder:
        assert recorder.wait(timeout=30)
    done = run(["-c", PROGRAMS[path]], tmp_path)
    assert done.returncode == 0, done.stderr
