"""The part of JSON Schema (draft 2020-12) that docs/schemas.py uses; an unknown keyword is an error."""

from __future__ import annotations

_IGNORED = {"$schema", "$comment", "title", "description"}
_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def faults(schema: dict, value: object, path: str = "$") -> list[str]:
    """Everything in which `value` differs from `schema`."""
    found = []
    for keyword, wanted in schema.items():
        if keyword not in _IGNORED:
            found += _CHECKS[keyword](schema, wanted, value, path)
    return found


def _is(value: object, kind: str) -> bool:
    if kind in ("integer", "number"):
        numbers = int if kind == "integer" else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, _TYPES[kind])


def _type(_schema, wanted, value, path):
    kinds = [wanted] if isinstance(wanted, str) else wanted
    return [] if any(_is(value, kind) for kind in kinds) else [f"{path}: {value!r} is not {' or '.join(kinds)}"]


def _enum(_schema, wanted, value, path):
    return [] if value in wanted else [f"{path}: {value!r} is not one of {wanted}"]


def _any_of(_schema, wanted, value, path):
    each = [faults(one, value, path) for one in wanted]
    return [] if not all(each) else min(each, key=len)


def _properties(_schema, wanted, value, path):
    return [f for name, one in wanted.items() if name in value for f in faults(one, value[name], f"{path}.{name}")]


def _required(_schema, wanted, value, path):
    return [f"{path}: {name} is missing" for name in wanted if name not in value]


def _additional(schema, wanted, value, path):
    more = [name for name in value if name not in schema.get("properties", {})]
    if wanted is False:
        return [f"{path}: {name} is not in the schema" for name in more]
    return [f for name in more for f in faults(wanted, value[name], f"{path}.{name}")]


def _items(_schema, wanted, value, path):
    return [f for k, item in enumerate(value) for f in faults(wanted, item, f"{path}[{k}]")]


def _prefix(_schema, wanted, value, path):
    return [
        f for k, (one, item) in enumerate(zip(wanted, value, strict=False)) for f in faults(one, item, f"{path}[{k}]")
    ]


def _least(_schema, wanted, value, path):
    return [] if len(value) >= wanted else [f"{path}: fewer than {wanted} items"]


def _most(_schema, wanted, value, path):
    return [] if len(value) <= wanted else [f"{path}: more than {wanted} items"]


def _only(kind, check):
    """Keywords of one type say nothing about values of another."""
    return lambda schema, wanted, value, path: check(schema, wanted, value, path) if isinstance(value, kind) else []


_CHECKS = {
    "type": _type,
    "enum": _enum,
    "anyOf": _any_of,
    "properties": _only(dict, _properties),
    "required": _only(dict, _required),
    "additionalProperties": _only(dict, _additional),
    "items": _only(list, _items),
    "prefixItems": _only(list, _prefix),
    "minItems": _only(list, _least),
    "maxItems": _only(list, _most),
}
