"""The `tapeline` command: a group that imports a command only when it is run.

`COMMANDS` is the registry. It carries the one-line help, so that `tapeline --help` imports no command
module (a test compares both). Exit codes are decided here and nowhere else (design/api.md, command line).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from tapeline.cli._output import Outcome, escape
from tapeline.errors import ConfigError, TapelineError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_CODES = {
    Outcome.DONE: 0,
    Outcome.FAILED: 1,
    Outcome.USAGE: 2,
    Outcome.LOSS: 3,
    Outcome.FORCED: 130,
}


class Entry(NamedTuple):
    """Where a command lives, and its line in `tapeline --help`."""

    target: str
    help: str


COMMANDS: dict[str, Entry] = {
    "record": Entry("tapeline.cli.record:record", "Record streams into a directory until stopped."),
    "simulate": Entry("tapeline.cli.simulate:simulate", "Send test streams, with faults that are accounted for."),
    "demo": Entry("tapeline.cli.demo:demo", "Record four faulty radar streams and account for every byte."),
    "head": Entry("tapeline.cli.look:head", "Print the first rows of a table, a recording, a .dat or a .pkt."),
    "tail": Entry("tapeline.cli.look:tail", "Print the last rows of a table, a recording, a .dat or a .pkt."),
    "validate": Entry("tapeline.cli.check:validate", "Check a BCSV file: every checksum, the index and all lengths."),
    "compare": Entry("tapeline.cli.check:compare", "Compare two tables: BCSV, CSV, Parquet or Arrow files."),
    "cast": Entry("tapeline.cli.shape:cast", "Change the types of columns; find the smallest ones that lose nothing."),
    "sample": Entry(
        "tapeline.cli.shape:sample",
        "Filter and project a table with expressions over the current and neighbouring rows.",
    ),
    "generate": Entry(
        "tapeline.cli.shape:generate", "Write a synthetic table of one of the profiles of the benchmarks."
    ),
    "sql": Entry("tapeline.cli.shape:sql", "Run SQL of DuckDB over BCSV files, together with Parquet and CSV files."),
    "info": Entry("tapeline.cli.recording:info", "Say what a recording or file holds."),
    "cat": Entry(
        "tapeline.cli.recording:cat",
        "Print the rows of a table, or the frames or register packets of a recording, .dat or .pkt file.",
    ),
    "convert": Entry("tapeline.cli.convert:convert", "Convert a table or recording between file formats."),
    "verify": Entry("tapeline.cli.recording:verify", "Check digests, CRCs, sequences and the ledger of a recording."),
    "repair": Entry(
        "tapeline.cli.repair:repair", "Recover a recording after a crash, or a BCSV file after any damage."
    ),
    "replay": Entry(
        "tapeline.cli.replay:replay", "Send the frames or register packets of a recording again, bit for bit."
    ),
    "registers": Entry(
        "tapeline.cli.registers:registers", "Look at the registers of a recording or a running recorder."
    ),
    "plot": Entry("tapeline.cli.recording:plot", "Draw rates, losses and completeness of a recording."),
    "ring": Entry("tapeline.cli.ring:ring", "Look at a ring in shared memory."),
    "doctor": Entry(
        "tapeline.cli.doctor:doctor",
        "Say what this machine allows: socket buffers, offloads, disk, checksums, compression.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the base class's signature
        """Names in the order of the registry."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None for a name that is not in the registry."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            msg = f"{entry.target} is not a command"
            raise TypeError(msg)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command named by the first argument; a wrong name suggests the nearest ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=list(COMMANDS), ctx=ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the registry alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run, and keep click from taking every broken pipe for a closed terminal."""
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except OSError as error:
            raise _SystemError(error) from error
        return result


class _SystemError(Exception):
    """An `OSError` on its way past click, which would swallow a broken pipe of a socket."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
    if wanted and not ctx.resilient_parsing:
        from tapeline import __version__

        click.echo(f"tapeline {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def cli() -> None:
    """Record high-rate binary telemetry with nothing lost silently, and read it back fast.

    Exit codes: 0 done and nothing lost; 1 failed, or the answer is no; 2 usage or configuration;
    3 finished, but data was lost, skipped or clamped; 130 forced by a second signal.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a forced stop ends the process here.

    Args:
        args: The words after `tapeline`; `sys.argv` if None.

    Returns:
        One of the values of `EXIT_CODES`.
    """
    outcome = _run(args) if _fill_closed_streams() else _failed("stdout is closed, so no result could be given")
    if outcome is Outcome.FORCED:
        # a normal exit would wait for the threads that were just given up
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(EXIT_CODES[outcome])
    return EXIT_CODES[outcome]


def _fill_closed_streams() -> bool:
    """Take the numbers of closed standard streams, so that no file opened later gets what is meant for them.

    Reading stdin then fails, and what goes to stderr is gone.

    Returns:
        False if stdout is closed: no result could be given.
    """
    if sys.stdout is None:
        return False
    for descriptor, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            opened = os.open(os.devnull, os.O_WRONLY)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    return True


def _run(args: Sequence[str] | None) -> Outcome:
    try:
        result = cli.main(args=None if args is None else list(args), prog_name="tapeline", standalone_mode=False)
    except click.UsageError as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            return Outcome.USAGE
        command = error.ctx.command_path if error.ctx else "tapeline"
        return _failed(f"{error.format_message().rstrip('.')}; see {command} --help", Outcome.USAGE)
    except click.ClickException as error:
        return _failed(error.format_message())
    except click.Abort:
        return Outcome.FORCED
    except ConfigError as error:
        return _failed(str(error), Outcome.USAGE)
    except TapelineError as error:
        return _failed(str(error))
    except _SystemError as wrapped:
        if isinstance(wrapped.error, BrokenPipeError) and _stdout_closed():
            return Outcome.FAILED
        return _failed(_os_text(wrapped.error))
    except OSError as error:  # from --help and --version
        return _failed(_os_text(error))
    # click returns the code of `ctx.exit()` here, which is 0 for --help and --version
    return result if isinstance(result, Outcome) else Outcome.DONE


def _failed(text: str, outcome: Outcome = Outcome.FAILED) -> Outcome:
    click.echo(f"tapeline: error: {escape(' '.join(text.split()))}", err=True)
    return outcome


def _os_text(error: OSError) -> str:
    if error.strerror is None:
        return str(error) or type(error).__name__
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _stdout_closed() -> bool:
    """True when nobody reads stdout any more; it then leads nowhere, so that the exit stays quiet."""
    try:
        descriptor = sys.stdout.fileno()
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(descriptor, 0)
            if not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
                return False
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    except (OSError, ValueError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
