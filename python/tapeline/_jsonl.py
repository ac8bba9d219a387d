"""JSON lines as a table: each line an object, each key a column.

The objects are written once into a temporary CSV file, numbers as their own digits, which then goes the way of every
CSV file. So the same rules choose the types, and no number passes through a float. A column with a string in it is
one of strings; objects and arrays are kept as JSON text.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapeline.errors import ConvertError

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator

    from tapeline._job import Job

_BLANKS = " \t\v\r\n"


class _Digits(str):
    """A number as written."""

    __slots__ = ()


def spool(job: Job, stack: contextlib.ExitStack) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Write the table at `job.path` into a temporary CSV file that lives as long as `stack`.

    Returns:
        The path; the types of columns that are known; facts for the report.

    Raises:
        ConvertError: A line is no JSON object; `.line` says which.
    """
    types, given = {}, job.options["types"]
    columns: dict[str, bool] = {}  # key to whether it holds a string
    for _, row in _rows(job):
        for key, value in row.items():
            columns[key] = columns.get(key, False) or not (value is None or isinstance(value, (_Digits, bool)))
    if not columns:
        raise ConvertError(f"{job.source}: there is no column in it", path=job.source)
    names = _names(list(columns))
    if isinstance(given, dict):
        types.update(given)
    elif given:
        types.update({name: kind for name, kind in zip(names, given, strict=False) if kind is not None})
    for name, text in zip(names, columns.values(), strict=True):
        if text:
            types.setdefault(name, "string")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=job.temporary, prefix=".tapeline-")))
    path = folder / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for _, row in _rows(job):
            writer.writerow([_cell(row.get(key)) for key in columns])
    wanted = job.options["columns"]
    if wanted is not None:
        types = {name: kind for name, kind in types.items() if name in wanted or name not in names}
    renamed = tuple((old, new) for old, new in zip(columns, names, strict=True) if old != new)
    return str(path), types, {"renamed": renamed, "blank_lines": 0}


def _rows(job: Job) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = json.JSONDecoder(parse_float=_Digits, parse_int=_Digits, parse_constant=_Digits)
    with Path(job.path).open(encoding="utf-8-sig") as file:
        try:
            for line, text in enumerate(file, 1):
                if text.isspace():
                    continue
                try:
                    row = decoder.decode(text)
                except ValueError as error:
                    raise ConvertError(f"{job.source}, line {line}: {error}", path=job.source, line=line) from error
                if not isinstance(row, dict):
                    raise ConvertError(f"{job.source}, line {line}: no JSON object", path=job.source, line=line)
                yield line, row
        except UnicodeDecodeError as error:
            raise ConvertError(f"{job.source}: the text is not UTF-8: {error}", path=job.source) from error


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's way to say infinity (see the JSON lines that we write)
        return {"1e999": "inf", "-1e999": "-inf"}.get(value, value) if isinstance(value, _Digits) else value
    return _text(value)


def _text(value: Any) -> str:
    """JSON text of a nested value, its numbers as they were written."""
    if isinstance(value, _Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_text(of)}" for key, of in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _names(keys: list[str]) -> list[str]:
    """Names fit for a schema, as for a CSV header: trimmed, not empty, unique."""
    names: list[str] = []
    seen: set[str] = set()
    for number, key in enumerate(keys):
        base = key.strip(_BLANKS) or f"Column_{number}"
        name, count = base, 0
        while name in seen:
            count += 1
            name = f"{base}.{count}"
        seen.add(name)
        names.append(name)
    return names
