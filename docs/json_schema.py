"""How docs/schemas.py writes JSON Schemas, and how a schema becomes the rows of a table."""

from __future__ import annotations

from typing import Any, NamedTuple

Schema = dict[str, Any]


class Output(NamedTuple):
    """What a command prints: how often, and what."""

    form: str
    schema: Schema


def of(kind: str, text: str, *, null: bool = False) -> Schema:
    """A value of one type."""
    return {"type": [kind, "null"] if null else kind, "description": text}


def an_int(text: str, *, null: bool = False) -> Schema:
    """A whole number."""
    return of("integer", text, null=null)


def a_number(text: str, *, null: bool = False) -> Schema:
    """A number."""
    return of("number", text, null=null)


def a_text(text: str, *, null: bool = False) -> Schema:
    """Text."""
    return of("string", text, null=null)


def a_bool(text: str, *, null: bool = False) -> Schema:
    """True or false."""
    return of("boolean", text, null=null)


def anything(text: str) -> Schema:
    """A value of any type."""
    return {"description": text}


def a_list(text: str, items: Schema) -> Schema:
    """A list of items of one kind."""
    return {"type": "array", "description": text, "items": items}


def a_pair(text: str, first: str = "integer", second: Any = "integer") -> Schema:
    """Two values."""
    return {
        "type": "array",
        "description": text,
        "prefixItems": [{"type": first}, {"type": second}],
        "minItems": 2,
        "maxItems": 2,
    }


def a_map(text: str, values: Schema) -> Schema:
    """An object with any names and values of one kind."""
    return {"type": "object", "description": text, "additionalProperties": values}


def an_object(text: str, members: Schema, optional: Schema | None = None) -> Schema:
    """An object with exactly these members; the optional ones may be missing."""
    return {
        "type": "object",
        "description": text,
        "properties": {**members, **(optional or {})},
        "required": list(members),
        "additionalProperties": False,
    }


def one_of(text: str, *kinds: Schema) -> Schema:
    """A value of one of some kinds."""
    return {"description": text, "anyOf": list(kinds)}


def members(schema: Schema, prefix: str, closed: tuple[Schema, ...]) -> list[tuple[str, str, str]]:
    """Path, type and meaning of each member, those of members included except of `closed` ones."""
    rows = []
    for name, member in schema["properties"].items():
        path = prefix + name
        text = member.get("description", "")
        rows.append((path, _kind(member), text if name in schema["required"] else f"{text} Not always there."))
        if member in closed:
            continue
        inner, below = member, path
        while True:
            if "items" in inner:
                inner, below = inner["items"], below + "[]"
            elif isinstance(inner.get("additionalProperties"), dict):
                inner, below = inner["additionalProperties"], below + ".*"
            else:
                break
        for one in inner.get("anyOf", [inner]):
            if "properties" in one and one not in closed:
                rows += members(one, f"{below}.", closed)
    return rows


def _kind(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
