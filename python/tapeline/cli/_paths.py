"""The type of an argument that names a file to look at."""

from __future__ import annotations

import os

import click

from tapeline._special import is_special


class InPath(click.Path):
    """A file or folder that exists; a pipe is refused, because commands read in several places and would wait."""

    def __init__(self, *, folders: bool = True) -> None:
        """Take folders, too, or not."""
        super().__init__(exists=True, dir_okay=folders)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Check it, as click does."""
        path = super().convert(value, param, ctx)
        if is_special(os.fspath(value)):
            self.fail(f"{value} is a device or a pipe; `tapeline convert` makes a file of it.", param, ctx)
        return path
