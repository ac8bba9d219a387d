"""A tree of an expression -> values, a batch at a time.

First every node is bound to the schema, which settles its type, so that a wrong type is an error that
points at the text before a row is read. Types are few: `bool`, `int` (64 bits, overflow is an error),
`float` (binary64), `string`; a bare column keeps its own type. Rows are given as a block that holds the
rows asked for with their neighbours before and behind (`Bound.back`, `Bound.ahead`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapeline.errors import TapelineError
from tapeline.tools._syntax import Binary, Call, Column, ExpressionError, Literal, Node, Unary, Window

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOWS = ("min", "max", "mean", "sum", "std", "count", "any", "all")
_MATH: dict[str, Callable[[Any], Any]] = {
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "log10": np.log10,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
}
_TEXT: dict[str, Callable[[Any, str], Any]] = {
    "contains": pc.match_substring,
    "startswith": pc.starts_with,
    "endswith": pc.ends_with,
}
FUNCTIONS = tuple(sorted({*_WINDOWS, *_MATH, *_TEXT, "abs", "isnan", "length", "int", "float"}))
_COMPARE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "==": (np.equal, pc.equal),
    "!=": (np.not_equal, pc.not_equal),
    "<": (np.less, pc.less),
    "<=": (np.less_equal, pc.less_equal),
    ">": (np.greater, pc.greater),
    ">=": (np.greater_equal, pc.greater_equal),
}
_CHECKED = {"+": pc.add_checked, "-": pc.subtract_checked, "*": pc.multiply_checked}
_FLOAT = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "//": np.floor_divide,
    "%": np.mod,
    "**": np.power,
}
_BITS = {"&": np.bitwise_and, "|": np.bitwise_or, "^": np.bitwise_xor}


class EvaluationError(TapelineError, ValueError):
    """A value of an expression that does not exist, such as a sum beyond 64 bits or a division by zero."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows `[back, rows - ahead)` of these columns are the ones asked for; the others are neighbours."""

    columns: dict[str, pa.Array]
    back: int
    rows: int  # asked for

    def values(self, name: str, offset: int) -> pa.Array:
        """The column `offset` rows away from each row asked for."""
        return self.columns[name].slice(self.back + offset, self.rows)


class Bound:
    """One expression, bound to the columns of a file.

    Attributes:
        kind: `bool`, `int`, `float` or `string`.
        type: Arrow type of the values.
        columns: Names of the columns needed.
        back: Rows needed before the current one.
        ahead: Rows needed behind it.
    """

    def __init__(self, node: Node, schema: pa.Schema, text: str) -> None:
        """Settle names and types.

        Raises:
            ExpressionError: A name is no column, a function is unknown, or a type does not fit.
        """
        self._schema = schema
        self._text = text
        self.columns: set[str] = set()
        self.back = 0
        self.ahead = 0
        self._node = node
        try:
            self.kind = self._check(node)
        except RecursionError:
            raise ExpressionError("too many operators in a row", text, 0) from None
        self.type: pa.DataType = (
            schema.field(self.name_of(node)).type
            if isinstance(node, Column)
            else {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "string": pa.string()}[self.kind]
        )

    def name_of(self, node: Column | Window) -> str:
        """The name of the column that a node means."""
        names = self._schema.names
        if isinstance(node.name, int):
            if node.name >= len(names):
                self._fail(f"there is no column {node.name}; the last one is {len(names) - 1}", node)
            return str(names[node.name])
        if node.name not in names:
            import difflib

            near = difflib.get_close_matches(node.name, names, 1)
            hint = f"; is it {near[0]}?" if near else ""
            self._fail(f"there is no column {node.name!r}{hint}", node)
        return node.name

    def evaluate(self, block: Block) -> pa.Array:
        """Values for the rows that a block asks for, in the type `type`.

        Raises:
            EvaluationError: An integer does not fit 64 bits, or is divided by zero.
        """
        try:
            with np.errstate(all="ignore"):  # binary64 has its own answers: inf and NaN
                value = self._value(self._node, block)
        except pa.ArrowInvalid as error:
            raise EvaluationError(f"{self._text}: {error}") from error
        if isinstance(value, (bool, int, float, str, np.generic)):
            scalar = value.item() if isinstance(value, np.generic) else value
            return pa.repeat(pa.scalar(scalar, self.type), block.rows)
        array = value if isinstance(value, pa.Array) else pa.array(value)
        return array if array.type == self.type else array.cast(self.type)

    # --- types

    def _fail(self, reason: str, node: Node) -> Any:
        raise ExpressionError(reason, self._text, node.at)

    def _use(self, node: Column | Window, first: int, last: int) -> str:
        name = self.name_of(node)
        self.columns.add(name)
        self.back = max(self.back, -first)
        self.ahead = max(self.ahead, last)
        kind = self._schema.field(name).type
        if pa.types.is_boolean(kind):
            return "bool"
        if pa.types.is_integer(kind):
            return "int"
        if pa.types.is_floating(kind):
            return "float"
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return "string"
        return str(self._fail(f"column {name!r} has type {kind}, with which nothing can be computed", node))

    def _check(self, node: Node) -> str:
        match node:
            case Literal(value=bool()):
                return "bool"
            case Literal(value=int()):
                return "int"
            case Literal(value=float()):
                return "float"
            case Literal():
                return "string"
            case Column(offset=offset):
                return self._use(node, offset, offset)
            case Window():
                return str(self._fail("a window needs a function around it: " + ", ".join(_WINDOWS), node))
            case Unary(op="not", operand=operand):
                self._want(operand, "bool", "'not'")
                return "bool"
            case Unary(op=op, operand=operand):
                kind = self._check(operand)
                if kind == "string" or (op == "~" and kind == "float"):
                    self._fail(f"{op!r} does not take a {kind}", node)
                return "int" if kind == "bool" and op != "~" else kind
            case Binary():
                return self._check_binary(node)
            case Call():
                return self._check_call(node)

    def _want(self, node: Node, wanted: str, what: str) -> None:
        kind = self._check(node)
        if kind != wanted:
            self._fail(f"{what} takes a {wanted}, this is a {kind}", node)

    def _check_binary(self, node: Binary) -> str:
        op = node.op
        if op in ("and", "or"):
            self._want(node.left, "bool", repr(op))
            self._want(node.right, "bool", repr(op))
            return "bool"
        left, right = self._check(node.left), self._check(node.right)
        if op in _COMPARE:
            if (left == "string") != (right == "string"):
                self._fail(f"a {left} and a {right} cannot be compared", node)
            return "bool"
        if "string" in (left, right):
            self._fail(f"{op!r} does not take a string", node)
        if op in ("&", "|", "^", "<<", ">>"):
            if "float" in (left, right):
                self._fail(f"{op!r} takes integers", node)
            return "bool" if left == right == "bool" and op in _BITS else "int"
        return "float" if "float" in (left, right) or op in ("/", "**") else "int"

    def _check_call(self, node: Call) -> str:
        name, args = node.name, node.args
        if name not in FUNCTIONS:
            self._fail(f"there is no function {name}; there are {', '.join(FUNCTIONS)}", node)
        if len(args) == 1 and isinstance(args[0], Window):
            return self._check_window(node, args[0])
        if name in ("min", "max") and len(args) > 1:
            kinds = [self._check(arg) for arg in args]
            if "string" in kinds:
                self._fail(f"{name} does not take strings", node)
            return "float" if "float" in kinds else "int"
        if name in _TEXT:
            if len(args) != 2 or not (isinstance(args[1], Literal) and isinstance(args[1].value, str)):
                self._fail(f"write {name}(column, 'text')", node)
            self._want(args[0], "string", name)
            return "bool"
        if name in _WINDOWS:
            self._fail(f"{name} takes a window, such as {name}(x[-4:0])", node)
        if len(args) != 1:
            self._fail(f"{name} takes one argument, not {len(args)}", node)
        if name == "length":
            self._want(args[0], "string", name)
            return "int"
        kind = self._check(args[0])
        if kind == "string":
            self._fail(f"{name} does not take a string", args[0])
        if name == "isnan":
            return "bool"
        if name == "int" or (name == "abs" and kind != "float"):
            return "int"
        return "float"

    def _check_window(self, node: Call, window: Window) -> str:
        if node.name not in _WINDOWS:
            self._fail(f"{node.name} does not take a window", node)
        kind = self._use(window, window.first, window.last)
        if kind == "string":
            self._fail("a window of strings has no " + node.name, node)
        if node.name in ("any", "all"):
            if kind != "bool":
                self._fail(f"{node.name} takes a window of bool, this is {kind}", node)
            return "bool"
        if node.name == "count":
            if kind != "bool":
                self._fail(f"count takes a window of bool, this is {kind}", node)
            return "int"
        if node.name in ("mean", "std"):
            return "float"
        return "float" if kind == "float" else "int"

    # --- values: NumPy arrays, Arrow arrays for strings, Python scalars for literals

    def _value(self, node: Node, block: Block) -> Any:
        match node:
            case Literal(value=value):
                return value
            case Column(offset=offset):
                array = block.values(self.name_of(node), offset)
                if node is self._node or pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
                    return array
                return array.to_numpy(zero_copy_only=False)
            case Unary(op=op, operand=operand):
                return _unary(op, self._value(operand, block))
            case Binary(op=op, left=left, right=right):
                return _binary(op, self._value(left, block), self._value(right, block))
            case Call(name=name, args=(Window() as window,)):
                array = block.columns[self.name_of(window)].slice(
                    block.back + window.first, block.rows + window.last - window.first
                )
                return _window(name, array.to_numpy(zero_copy_only=False), window.last - window.first + 1)
            case Call(name=name, args=args):
                return _call(name, [self._value(arg, block) for arg in args])
            case _:  # a bare window was refused when it was bound
                raise AssertionError(node)


def _wide(value: Any) -> Any:
    """Numbers as the 64-bit type that they are computed in; uint64 stays."""
    if isinstance(value, (bool, int, float)):
        return int(value) if isinstance(value, bool) else value
    kind = value.dtype.kind
    if kind == "f":
        return value.astype(np.float64, copy=False)
    if value.dtype == np.uint64:
        return value
    return value.astype(np.int64, copy=False)


def _is_float(value: Any) -> bool:
    return isinstance(value, float) or getattr(getattr(value, "dtype", None), "kind", "") == "f"


def _integer(value: Any) -> pa.Array | pa.Scalar:
    """An int64 for a checked kernel; a uint64 beyond it is an error."""
    if isinstance(value, (int, np.integer)):  # NumPy's is what an operator makes of two literals
        value = int(value)
        if not -(1 << 63) <= value < 1 << 63:
            raise pa.ArrowInvalid(f"{value} does not fit the 64 bits that integers are computed in")
        return pa.scalar(value, pa.int64())
    return pa.array(value).cast(pa.int64())


def _plain(value: pa.Array | pa.Scalar) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value.to_numpy(zero_copy_only=False)


def _unary(op: str, value: Any) -> Any:
    if op == "not":
        return np.logical_not(value)
    if op == "~":
        return np.invert(np.asarray(value))
    wide = _wide(value)
    if op == "+" or _is_float(wide):
        return wide if op == "+" else -wide
    return _plain(pc.negate_checked(_integer(wide)))


def _binary(op: str, left: Any, right: Any) -> Any:
    if op == "and":
        return np.logical_and(left, right)
    if op == "or":
        return np.logical_or(left, right)
    if op in _COMPARE:
        return _compare(op, left, right)
    if op in _BITS and np.asarray(left).dtype.kind == np.asarray(right).dtype.kind == "b":
        return _BITS[op](left, right)
    left, right = _wide(left), _wide(right)
    if _is_float(left) or _is_float(right) or op in ("/", "**"):
        return _FLOAT[op](np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64))
    if op in _CHECKED:
        return _plain(_CHECKED[op](_integer(left), _integer(right)))
    a, b = np.asarray(_plain(_integer(left))), np.asarray(_plain(_integer(right)))
    if op in _BITS:
        return _BITS[op](a, b)
    if op in ("<<", ">>"):
        kernel = pc.shift_left_checked if op == "<<" else pc.shift_right_checked
        return _plain(kernel(_integer(left), _integer(right)))
    if np.any(b == 0):
        raise pa.ArrowInvalid(f"an integer is divided by zero ({op}); with float(...) the result is inf or NaN")
    return _FLOAT[op](a, b)


def _compare(op: str, left: Any, right: Any) -> Any:
    numpy, arrow = _COMPARE[op]
    if isinstance(left, (pa.Array, str)) or isinstance(right, (pa.Array, str)):
        if isinstance(left, str) and isinstance(right, str):
            return bool(arrow(pa.scalar(left), pa.scalar(right)).as_py())
        return arrow(left, right).to_numpy(zero_copy_only=False)
    return numpy(_wide(left), _wide(right))  # int64 with uint64 is exact in NumPy, and so is a literal out of range


def _call(name: str, args: list[Any]) -> Any:
    if name in _TEXT:
        if isinstance(args[0], str):
            return bool(_TEXT[name](pa.scalar(args[0]), args[1]).as_py())
        return _TEXT[name](args[0], args[1]).to_numpy(zero_copy_only=False)
    if name == "length":
        return len(args[0]) if isinstance(args[0], str) else pc.utf8_length(args[0]).to_numpy(zero_copy_only=False)
    if name in ("min", "max"):
        kernel = np.minimum if name == "min" else np.maximum
        wide = [_wide(arg) for arg in args]
        if not any(_is_float(value) for value in wide):
            wide = [np.asarray(_plain(_integer(value))) for value in wide]
        else:
            wide = [np.asarray(value, dtype=np.float64) for value in wide]
        return functools.reduce(kernel, wide)
    value = _wide(args[0])
    if name == "isnan":
        return np.isnan(np.asarray(value, dtype=np.float64))
    if name == "abs":
        return np.abs(value) if _is_float(value) else _plain(pc.abs_checked(_integer(value)))
    if name == "float":
        return np.asarray(value, dtype=np.float64)
    if name == "int":
        if not _is_float(value):
            return value
        return pa.array(np.atleast_1d(np.trunc(value))).cast(pa.int64()).to_numpy() if np.ndim(value) else int(value)
    return _MATH[name](np.asarray(value, dtype=np.float64))


def _window(name: str, values: np.ndarray[Any, Any], width: int) -> Any:
    """A function over the `width` values that end or begin around each row; one result per row."""
    if values.dtype.kind in "bi" or values.dtype.kind == "u":
        wide = values.astype(np.int64) if values.dtype != np.uint64 else _plain(_integer(values))
    else:
        wide = values.astype(np.float64, copy=False)
    view = np.lib.stride_tricks.sliding_window_view(wide, width)
    if name == "mean":
        return view.mean(axis=1, dtype=np.float64)
    if name == "std":  # of the rows of the window, divided by their number
        return view.std(axis=1, dtype=np.float64)
    if name == "any":
        return view.any(axis=1)
    if name == "all":
        return view.all(axis=1)
    if name in ("sum", "count"):
        if wide.dtype.kind == "i" and wide.size and int(np.abs(wide.astype(np.float64)).max()) * width >= 1 << 62:
            raise pa.ArrowInvalid("a sum over a window may not fit 64 bits; use float columns, or mean(...)")
        return view.sum(axis=1)
    return view.min(axis=1) if name == "min" else view.max(axis=1)
