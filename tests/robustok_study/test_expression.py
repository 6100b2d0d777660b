"""Results, and differences and ratios of two."""

from __future__ import annotations

import pytest

from robustok_core import Result
from robustok_study.expression import Expression

RESULTS = {
    "t/rfd": Result(10.0, higher_is_better=False, num_images=100),
    "t/pfd": Result(16.0, higher_is_better=False, num_images=100),
    "g/gfd": Result(40.0, higher_is_better=False, num_images=100, num_reference=100),
    "g/more": Result(40.0, higher_is_better=False, num_images=500, num_reference=100),
    "g/loss": Result(4.0),
    "g/zero": Result(0.0),
}


@pytest.mark.parametrize(
    ("text", "value", "higher"), [("t/rfd", 10.0, False), ("t/pfd - t/rfd", 6.0, False), ("t/rfd / g/gfd", 0.25, None)]
)
def test_an_expression_is_computed_and_keeps_its_number_of_images(text, value, higher):
    found = Expression.parse(text).value(RESULTS)
    assert (found.value, found.higher_is_better, found.num_images) == (value, higher, 100)
    assert str(Expression.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "rfd", "t/rfd-t/pfd", "t/rfd - ", "t/rfd - t/pfd - t/x", "t/rfd + t/pfd", "a/b/c", "t/rfd  - t/pfd"],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="is not a metric"):
        Expression.parse(text)


@pytest.mark.parametrize("text", ["g/more - t/rfd", "t/rfd / g/more", "g/loss - t/rfd"])
def test_results_of_unequal_numbers_of_images_have_no_difference(text):
    with pytest.raises(ValueError, match="unequal numbers of images"):
        Expression.parse(text).value(RESULTS)


def test_what_is_missing_is_named_and_nothing_is_divided_by_zero():
    with pytest.raises(ValueError, match="no stage gave t/x"):
        Expression.parse("t/x - t/rfd").value(RESULTS)
    with pytest.raises(ValueError, match="g/zero is 0"):
        Expression.parse("g/loss / g/zero").value(RESULTS)
