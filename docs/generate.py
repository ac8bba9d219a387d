"""Write the reference pages that come out of the code; `--check` only says which ones are out of date.

python docs/generate.py          # after changing a setting, a command or a ledger field
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import schemas

from tapeline import ledger
from tapeline.cli.main import COMMANDS, EXIT_CODES, cli
from tapeline.config import RecorderConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent
_NOTE = "<!-- written by docs/generate.py; do not edit -->\n\n"


def configuration() -> str:
    """The page of all settings."""
    lines = [
        "# Configuration\n",
        "Settings come in layers, each over the one before: defaults, the TOML file, variables named `TAPELINE_…`,",
        "command-line options. An unknown key is an error that names the nearest one.\n",
        "```toml",
        'out = "run"\n',
        "[defaults]                        # for every stream",
        'assembly = "markers"\n',
        "[streams.ch0]",
        'url = "udp://127.0.0.1:9001"',
        'rotate_bytes = "1GiB"\n',
        "[streams.ch1]",
        'sources = ["udp://127.0.0.1:9002", "tcp://127.0.0.1:9002"]   # merged by sequence',
        "layout = { header_crc = false }",
        "```\n",
        "As a variable, `streams.ch0.rotate_bytes` is `TAPELINE_STREAMS__CH0__ROTATE_BYTES`; as an option it is",
        "`--set streams.ch0.rotate_bytes=1GiB`, or `--set rotate_bytes=1GiB` for every stream; in a URL it is",
        "`udp://127.0.0.1:9001?rotate_bytes=1GiB`. Layout settings need no `layout.` in a URL.\n",
        "Sizes: a number of bytes, or with kB, MB, GB (powers of 1,000), KiB, MiB, GiB or K, M, G (powers of 1,024).",
        "Times: seconds, or with ms, s, min (or m), h, d.\n",
        "| setting | value | default | meaning |",
        "|---|---|---|---|",
    ]
    for info in RecorderConfig.describe():
        kind = f"{info.type} ({info.unit})" if info.unit else info.type
        default = f"`{info.default}`" if info.default else ""
        lines.append(f"| `{info.key}` | {kind} | {default} | {info.doc} |")
    return _NOTE + "\n".join(lines) + "\n"


def ledger_fields() -> str:
    """The page of the ledger."""
    lines = [
        "# The ledger\n",
        "One ledger per stream, readable while recording (`Recorder.ledger()`) and kept in `recording.json`. Every",
        "byte and every frame that arrived is in it exactly once:\n",
        "1. `bytes_received` = bytes of valid frames + `bytes_discarded` + bytes the decoder still holds;",
        "2. `frames_received` = `frames_stored` + dropped `frames_duplicate` + frames in flight;",
        "3. what the producer sent = distinct frames received + `frames_lost`, between the first and the last sequence",
        "   seen. Frames lost before the first or after the last one are known to the producer only.\n",
        "`tapeline verify` checks these laws on a recording, the tests after everything that moves bytes.\n",
        "| field | counts |",
        "|---|---|",
        *(f"| `{name}` | {text} |" for name, text in ledger.describe()),
        "\n## Register streams\n",
        "A stream of register packets has packets instead of frames. Packets are never dropped for their number:",
        "`seq` is one byte, and two producers may share a source. Its laws:\n",
        "1. `bytes_received` = `bytes_valid` + `bytes_invalid` + `bytes_discarded` + bytes of unfinished packets;",
        "2. `packets_received` = `packets_stored` + `packets_refused` + packets in flight.\n",
        "| field | counts |",
        "|---|---|",
        *(f"| `{name}` | {text} |" for name, text in ledger.describe_registers()),
    ]
    return _NOTE + "\n".join(lines) + "\n"


def command_line() -> str:
    """The page of all commands."""
    lines = [
        "# Command line\n",
        "Results go to stdout, progress and messages to stderr. `python -m tapeline` is the same command.\n",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {code} | {outcome.value} |" for outcome, code in EXIT_CODES.items()),
        "",
        "A wrong setting, an address in use, a directory that cannot be written or a stream that never starts (with",
        "`--start-timeout`) gives one line on stderr.\n",
    ]
    context = click.Context(cli, info_name="tapeline", terminal_width=100, max_content_width=100)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if command is not None:
            for path, help_text in _helps(command, name, context):
                lines += [f"## tapeline {path}\n", "```text", help_text.rstrip(), "```\n"]
    return _NOTE + "\n".join(lines)


def _helps(command: click.Command, name: str, parent: click.Context) -> Iterator[tuple[str, str]]:
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=100,
        max_content_width=100,
        help_option_names=["-h", "--help"],
    )
    yield context.command_path.removeprefix("tapeline "), command.get_help(context)
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            child = command.get_command(context, sub)
            if child is not None:
                yield from _helps(child, sub, context)


def json_schema(command: str) -> str:
    """The JSON Schema of what a command prints."""
    return json.dumps(schemas.document(command), indent=1, ensure_ascii=False) + "\n"


PAGES = {
    "reference/configuration.md": configuration,
    "reference/ledger.md": ledger_fields,
    "reference/cli.md": command_line,
    "reference/json.md": lambda: _NOTE + schemas.page(),
    **{f"reference/{schemas.file_name(name)}": partial(json_schema, name) for name in schemas.SCHEMAS},
}


def main(arguments: list[str]) -> int:
    """Write or check every page; 1 when `--check` finds a difference."""
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'out of date; run python docs/generate.py' if '--check' in arguments else 'written'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
