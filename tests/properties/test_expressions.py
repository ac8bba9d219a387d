"""The parser of `sample`: any text is a tree or an error that points into the text; what was printed parses back."""

import os
import re

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tapeline.errors import TapelineError
from tapeline.tools import _syntax
from tapeline.tools.sample import sample

EXAMPLES = int(os.environ.get("TAPELINE_TEST_EXAMPLES", "100"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

PIECES = [
    "a", "b", "flag", "s", "`a`", "$0", "$9", "1", "0", "2.5", "1e9", "0xFF", "'t'", '"', "'", "true", "not", "and",
    "or", "+", "-", "*", "/", "//", "%", "**", "<<", ">>", "&", "|", "^", "~", "==", "!=", "<", ">=", "=", "(", ")",
    "[", "]", "[-1]", "[-2:0]", "[1:", ":", ",", "mean", "min", "max(", "sqrt(", "contains(", "len", ".", "\n", "é",
    "\0", " ", "99999999999999999999", "1e999",
]  # fmt: skip
soup = st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join)
TABLE = pa.table(
    {
        "a": np.array([3, -1, 0, 7, 2**40], dtype=np.int64),
        "b": [0.5, float("nan"), -2.0, 0.0, 1e300],
        "flag": [True, False, True, True, False],
        "s": ["x", "", "t", "é", "tt"],
    }
)


def refused(function, *arguments):
    """The error of a call, if it is one that a user may see; any other one fails the test."""
    try:
        function(*arguments)
    except TapelineError as error:
        return error
    return None


def points_into(error, text):
    return 0 <= error.column <= len(text) and error.reason in str(error)


@many
@given(st.one_of(st.text(max_size=60), soup))
@example("(" * 5000)
@example("-" * 5000 + "a")
@example("a[" + "9" * 5000 + "]")
@example("not " * 5000 + "a")
@example("a ** " * 5000 + "a")
@example("a + " * 5000 + "a")
def test_any_text_is_a_tree_or_an_error_with_its_place(text):
    for parse in (_syntax.parse, _syntax.parse_select):
        error = refused(parse, text)
        assert error is None or points_into(error, text)


@many
@given(soup)
def test_what_parses_is_evaluated_or_refused(text):
    error = refused(sample, TABLE, text)
    if error is None:
        found = sample(TABLE, text)
        assert found.schema == TABLE.schema
        assert found.num_rows <= TABLE.num_rows
    elif isinstance(error, _syntax.ExpressionError):  # others: a sum of strings, a division by zero
        assert points_into(error, text)


# Trees of whole numbers, whose value Python knows: binding is as in Python.
numbers = st.one_of(st.integers(0, 9).map(str), st.sampled_from(["a", "(a)"]))
sums = st.recursive(
    numbers,
    lambda one: st.one_of(
        st.tuples(one, st.sampled_from(["+", "-", "*", "&", "|", "^"]), one).map(" ".join),
        one.map("({})".format),
        one.map("-{}".format),
        one.map("~{}".format),
    ),
    max_leaves=8,
)


@many
@given(sums, sums, st.sampled_from(["==", "<", ">=", "!="]))
def test_operators_bind_as_in_python(left, right, comparison):
    text = f"{left} {comparison} {right}"
    wanted = [a for a in (3, -1, 0, 7) if eval(re.sub(r"\ba\b", f"({a})", text))]
    small = TABLE.slice(0, 4).select(["a"])
    assert sample(small, text)["a"].to_pylist() == wanted
