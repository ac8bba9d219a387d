"""Where the command starts, as `tapeline` and as `python -m tapeline`.

SIGINT ends it with 130 and without a traceback from here on. While the command line is imported it ends at once: a
`KeyboardInterrupt` then could surface inside the import system, which prints and forgets it. Later it is raised as
ever, so that a command can remove what is half written.
"""

# `signal` would be one more import before the first word of help; the interpreter has loaded this part of it already
import _signal  # type: ignore[import-not-found]  # typeshed knows it as `signal` only
import gc
import os
import sys

_INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code."""
    # not if whoever started us wants SIGINT ignored
    interruptible = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if interruptible:
        _signal.signal(_signal.SIGINT, _leave)
    # nothing that importing makes is garbage, and looking for some takes milliseconds
    gc.disable()
    from tapeline.cli.main import main as run

    gc.enable()
    code = _INTERRUPTED
    try:
        if interruptible:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        code = run()
        if interruptible:
            # the command is over and its outcome stands
            _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    except KeyboardInterrupt:
        _signal.signal(_signal.SIGINT, _leave)
    return code


def _leave(_number: int, _frame: object) -> None:
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
