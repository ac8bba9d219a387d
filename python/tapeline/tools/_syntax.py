"""The text of an expression -> a tree: a lexer and a recursive-descent parser. Nothing is evaluated here.

Grammar, loosest binding first (docs/reference/expressions.md is the text for users):

    or -> and -> not -> comparison -> | -> ^ -> & -> shift -> + - -> * / // % -> unary -> ** -> primary
    primary: number, 'string', true, false, name, name[k], name[a:b], `odd name`, $3, function(...), (...)

Every node keeps the column of the text where it begins, so that later errors can point at it too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from tapeline.errors import TapelineError

# Nesting that a person would write; deeper texts would exhaust the stack of a recursive parser
MAX_DEPTH = 60
# Rows that a neighbour may be away: they are carried from batch to batch
MAX_OFFSET = 100_000

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[^\W\d]\w*)
    |`(?P<quoted>[^`]+)`
    |\$(?P<index>\d+)
    |'(?P<single>(?:[^']|'')*)'
    |"(?P<double>(?:[^"]|"")*)"
    |(?P<op>\*\*|//|<<|>>|<=|>=|==|!=|<>|&&|\|\||[-+*/%<>=!&|^~()\[\]:,])
    )""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
_LEVELS: tuple[tuple[str, ...], ...] = (("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"), ("*", "/", "//", "%"))
_KEYWORDS = ("and", "or", "not", "true", "false")


class ExpressionError(TapelineError, ValueError):
    """An expression that cannot be understood.

    Attributes:
        text: The expression.
        column: Where in `text`, from 0.
        reason: What is wrong, in one line.
    """

    def __init__(self, reason: str, text: str, column: int) -> None:
        """Build the message: the reason, the text, and a caret under the column."""
        self.reason = reason
        self.text = text
        self.column = column
        super().__init__(f"{reason} (column {column + 1})\n  {text}\n  {' ' * column}^")

    def __reduce__(self) -> tuple[type[ExpressionError], tuple[str, str, int]]:
        """Pickle it by what it was made of, as process pools do with every error."""
        return type(self), (self.reason, self.text, self.column)


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, string or truth value."""

    at: int
    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the row `offset` rows away; `name` is a position if it was written as `$3`."""

    at: int
    name: str | int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """A column over the rows `first` to `last` away, both included."""

    at: int
    name: str | int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Unary:
    """An operator before its operand: `-`, `+`, `~` or `not`."""

    at: int
    op: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands."""

    at: int
    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the language."""

    at: int
    name: str
    args: tuple[Node, ...]


Node = Literal | Column | Window | Unary | Binary | Call


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number name quoted index string op end
    text: str
    at: int


def parse(text: str) -> Node:
    """Parse one expression.

    Raises:
        ExpressionError: The text is no expression; `.column` says where.
    """
    parser = _Parser(text)
    node = parser.expression()
    parser.expect_end()
    return node


def parse_select(text: str) -> list[tuple[str, Node]]:
    """Parse a list such as `time, p = u * i` into names and expressions.

    An expression without a name must be a column; it keeps the column's name (`$3` until it is bound).

    Raises:
        ExpressionError: The text is no such list, or a name comes twice.
    """
    parser = _Parser(text)
    found: list[tuple[str, Node]] = []
    while True:
        at = parser.now.at
        name, node = parser.named()
        if name is None:
            if not isinstance(node, Column):
                raise ExpressionError("a computed column needs a name: NAME = EXPRESSION", text, at)
            name = f"${node.name}" if isinstance(node.name, int) else node.name
        if any(name == other for other, _ in found):
            raise ExpressionError(f"the name {name!r} comes twice", text, at)
        found.append((name, node))
        if not parser.take(","):
            break
    parser.expect_end()
    return found


def _tokens(text: str) -> list[_Token]:
    found = []
    position = 0
    while True:
        space = _SPACE.match(text, position)
        start = space.end() if space else position
        if start == len(text):
            found.append(_Token("end", "", start))
            return found
        match = _TOKEN.match(text, start)
        if match is None:
            reason = "this string has no end" if text[start] in "'\"`" else f"unexpected character {text[start]!r}"
            raise ExpressionError(reason, text, start)
        kind = match.lastgroup or "op"
        value = match.group(kind)
        if kind in ("single", "double"):
            quote = "'" if kind == "single" else '"'
            kind, value = "string", value.replace(quote * 2, quote)
        found.append(_Token(kind, value, start))
        position = match.end()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.position = 0
        self.depth = 0

    @property
    def now(self) -> _Token:
        return self.tokens[self.position]

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        raise ExpressionError(reason, self.text, self.now.at if at is None else at)

    def is_op(self, *ops: str) -> bool:
        return self.now.kind == "op" and self.now.text in ops

    def is_word(self, *words: str) -> bool:
        return self.now.kind == "name" and self.now.text.lower() in words

    def take(self, op: str) -> bool:
        if not self.is_op(op):
            return False
        self.position += 1
        return True

    def expect(self, op: str, why: str) -> None:
        if not self.take(op):
            self.fail(f"expected {op!r} {why}, found {self.found()}")

    def found(self) -> str:
        return "the end of the text" if self.now.kind == "end" else repr(self.now.text)

    def expect_end(self) -> None:
        if self.is_op("="):
            self.fail("to compare, write ==")
        if self.now.kind != "end":
            self.fail(f"expected an operator or the end, found {self.found()}")

    def named(self) -> tuple[str | None, Node]:
        following = self.tokens[min(self.position + 1, len(self.tokens) - 1)]
        if self.now.kind in ("name", "quoted") and following.kind == "op" and following.text == "=":
            name = self.now.text
            self.position += 2
            return name, self.expression()
        return None, self.expression()

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} deep")
        node = self.conjunction()
        while self.is_word("or") or self.is_op("||"):
            at = self.advance()
            node = Binary(at, "or", node, self.conjunction())
        self.depth -= 1
        return node

    def advance(self) -> int:
        at = self.now.at
        self.position += 1
        return at

    def conjunction(self) -> Node:
        node = self.negation()
        while self.is_word("and") or self.is_op("&&"):
            at = self.advance()
            node = Binary(at, "and", node, self.negation())
        return node

    def negation(self) -> Node:
        signs = []
        while self.is_word("not") or self.is_op("!"):
            signs.append(self.advance())
            if len(signs) > MAX_DEPTH:
                self.fail(f"nested more than {MAX_DEPTH} deep")
        node = self.comparison()
        for at in reversed(signs):
            node = Unary(at, "not", node)
        return node

    def comparison(self) -> Node:
        node = self.binary(0)
        if self.is_op("<>"):
            self.fail("to ask for a difference, write !=")
        if not self.is_op(*_COMPARISONS):
            return node
        op = self.now.text
        at = self.advance()
        node = Binary(at, op, node, self.binary(0))
        if self.is_op(*_COMPARISONS):
            self.fail("comparisons do not chain; join them with 'and'")
        return node

    def binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self.unary()
        node = self.binary(level + 1)
        while self.is_op(*_LEVELS[level]):
            op = self.now.text
            at = self.advance()
            node = Binary(at, op, node, self.binary(level + 1))
        return node

    def unary(self) -> Node:
        signs = []
        while self.is_op("-", "+", "~"):
            op = self.now.text
            signs.append((op, self.advance()))
            if len(signs) > MAX_DEPTH:
                self.fail(f"nested more than {MAX_DEPTH} deep")
        node = self.power()
        for op, at in reversed(signs):
            if op == "-" and isinstance(node, Literal) and isinstance(node.value, (int, float)):
                node = Literal(at, -node.value)
            else:
                node = Unary(at, op, node)
        return node

    def power(self) -> Node:
        node = self.primary()
        if self.is_op("**"):
            at = self.advance()
            self.depth += 1
            if self.depth > MAX_DEPTH:
                self.fail(f"nested more than {MAX_DEPTH} deep")
            node = Binary(at, "**", node, self.unary())
            self.depth -= 1
        return node

    def primary(self) -> Node:
        token = self.now
        if token.kind == "number":
            self.position += 1
            return Literal(token.at, self.number(token))
        if token.kind == "string":
            self.position += 1
            return Literal(token.at, token.text)
        if token.kind == "index":
            self.position += 1
            return self.column(int(token.text[:9]), token.at)
        if token.kind == "quoted":
            self.position += 1
            return self.column(token.text, token.at)
        if token.kind == "name":
            return self.word(token)
        if self.take("("):
            node = self.expression()
            self.expect(")", "to close the bracket")
            return node
        return self.fail(f"expected a value, found {self.found()}")

    def word(self, token: _Token) -> Node:
        if self.is_word("true", "false"):
            self.position += 1
            return Literal(token.at, token.text.lower() == "true")
        if self.is_word(*_KEYWORDS):
            self.fail(f"expected a value, found {self.found()}")
        self.position += 1
        if not self.take("("):
            return self.column(token.text, token.at)
        args: list[Node] = []
        if not self.take(")"):
            args.append(self.expression())
            while self.take(","):
                args.append(self.expression())
            self.expect(")", f"after the arguments of {token.text}")
        return Call(token.at, token.text.lower(), tuple(args))

    def number(self, token: _Token) -> int | float:
        text = token.text
        if text[:2] in ("0x", "0X"):
            value: int | float = int(text, 16)
        elif text.isdecimal():
            if len(text) > 20:
                self.fail("this integer needs more than 64 bits", token.at)
            value = int(text)
        else:
            return float(text)
        if value >= 1 << 64:
            self.fail("this integer needs more than 64 bits", token.at)
        return value

    def column(self, name: str | int, at: int) -> Node:
        if not self.take("["):
            return Column(at, name)
        first = self.offset()
        if self.take(":"):
            last = self.offset()
            self.expect("]", "after the rows of a window")
            if last < first:
                self.fail(f"the window [{first}:{last}] is empty; the earlier row comes first", at)
            return Window(at, name, first, last)
        self.expect("]", "after the number of rows")
        return Column(at, name, first)

    def offset(self) -> int:
        at = self.now.at
        sign = 1
        if self.is_op("-", "+"):
            sign = -1 if self.now.text == "-" else 1
            self.position += 1
        if self.now.kind != "number" or not self.now.text.isdecimal():
            self.fail("expected a number of rows, such as [-1] or [-4:0]")
        value = int(self.now.text[:9])
        self.position += 1
        if value > MAX_OFFSET:
            self.fail(f"a neighbour can be at most {MAX_OFFSET:,} rows away", at)
        return sign * value
