"""Numbers as people read them."""

from __future__ import annotations

import pytest

from robustok_core.values.numbers import number_text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (12345.678, 4, "12,346"),
        (999.96, 4, "1,000"),
        (12000.0, 6, "12,000"),
        (12000.25, 6, "12,000.2"),
        (1381504.0, 6, "1,381,504"),
        (-2500.5, 4, "-2,500"),
        (0.000123456, 4, "0.0001235"),
        (405.26789, 6, "405.268"),
        (0.0, 4, "0"),
        (float("nan"), 4, "nan"),
        (float("inf"), 4, "inf"),
        (1e300, 4, "1e+300"),
    ],
)
def test_numbers_show_all_digits_before_the_point(value, digits, text):
    assert number_text(value, digits) == text
