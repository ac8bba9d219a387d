"""Running the command as a process, and talking to it while it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("TAPELINE_")}
COMMAND = [sys.executable, "-m", "tapeline"]


def tapeline(*words, cwd=None, env=None, stdin=None, timeout=60):
    """Run to the end; the result has returncode, stdout and stderr as text."""
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True, text=True, check=False, cwd=cwd, env={**ENVIRONMENT, **(env or {})}, input=stdin,
        timeout=timeout,
    )  # fmt: skip


class Running:
    """A command that goes on; its stderr is read as it comes, so `expect` waits for lines and never sleeps."""

    def __init__(self, *words, cwd=None, env=None, command=COMMAND):
        self.process = subprocess.Popen(
            [*command, *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
            env={**ENVIRONMENT, **(env or {})},
        )  # fmt: skip
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def expect(self, pattern, timeout=30):
        """Wait for a line of stderr that matches and return the match."""
        found = []

        def look():
            found[:] = [m for m in (re.search(pattern, line) for line in self.lines) if m]
            return found or self._ended

        with self._changed:
            self._changed.wait_for(look, timeout)
        assert found, f"no line matches {pattern!r} in {self.lines}"
        return found[0]

    def address(self, stream, scheme):
        """(host, port) where a stream listens."""
        match = self.expect(rf"^{re.escape(stream)}: listening on {re.escape(scheme)}://(.+):([0-9]+)$")
        return match[1], int(match[2])

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self, timeout=60):
        """Wait for the end; returns exit code and stdout."""
        try:
            out = self.process.stdout.read()
            code = self.process.wait(timeout)
            self._reader.join(timeout)
        finally:
            self.close()
        return code, out

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
