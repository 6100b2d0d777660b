"""What any value of a recipe may be."""

from __future__ import annotations

import pytest

from robustok_core.recipe.limits import (
    DEEPEST_NESTING,
    LARGEST_INTEGER,
    LONGEST_LIST,
    LONGEST_TEXT,
    nesting_problem,
    value_problem,
)


def nested(depth: int, kind: type) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_nesting_is_limited_however_deep_it_is(kind):
    assert nesting_problem(nested(DEEPEST_NESTING - 1, kind)) is None
    assert "nested more than" in nesting_problem(nested(DEEPEST_NESTING + 1, kind))
    assert "nested more than" in nesting_problem(nested(100_000, kind))


@pytest.mark.parametrize(
    "value",
    [
        0,
        -5,
        LARGEST_INTEGER,
        -LARGEST_INTEGER,
        1e-300,
        -1e38,
        True,
        "",
        "é" * LONGEST_TEXT,
        [0] * LONGEST_LIST,
        {"a": [1.5]},
        None,
    ],
)
def test_what_a_component_can_use_has_no_problem(value):
    assert value_problem(value) is None


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (LARGEST_INTEGER + 1, "the number is too large"),
        (-(10**4000), "the number is too large"),
        (16**5000, "the number is too large"),  # Python refuses to print it
        (float("inf"), "inf is not a finite number"),
        (float("nan"), "nan is not a finite number"),
        (1e300, "the number 1e+300 is too large"),
        ("a\0", "'a\\x00' holds a NUL character"),
        ("\udcff", "is not valid UTF-8"),
        ("x" * (LONGEST_TEXT + 1), "is too long"),
        ([0] * (LONGEST_LIST + 1), "is too long"),
        ([[1.0, {"a": float("-inf")}]], "-inf is not a finite number"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 50 else "",
)
def test_what_no_component_can_use_is_one_sentence(value, what):
    problem = value_problem(value)
    assert what in problem
    assert len(problem) < 200
