"""Numbers as people read them."""

from __future__ import annotations

import pytest

from robustok_core.values.numbers import duration_text, number_text


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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.26, "0.3 s"),
        (1, "1 s"),
        (9.97, "10 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3599.6, "1 h"),
        (7300, "2 h 2 min"),
        (86399, "1 d"),
        (187200, "2 d 4 h"),
        (1e7, "115 d 18 h"),
    ],
)
def test_times_have_at_most_two_units(seconds, text):
    assert duration_text(seconds) == text
