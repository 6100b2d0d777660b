"""Validators of options and their messages."""

from __future__ import annotations

import math

import pytest
from attrs import field, frozen

from robustok_core.recipe.validators import below_one, require_multiple, unit_interval


@frozen(kw_only=True)
class Options:
    share: float = field(default=0.0, validator=unit_interval)
    rate: float = field(default=0.0, validator=below_one)
    width: int = 12
    num_heads: int = 3

    def __attrs_post_init__(self) -> None:
        require_multiple(self, "width", "num_heads")


def test_the_ends_of_the_ranges_are_accepted() -> None:
    Options(share=0.0, rate=0.0)
    Options(share=1.0, rate=math.nextafter(1.0, 0.0))


@pytest.mark.parametrize(
    "wrong",
    [{"share": -0.1}, {"share": 1.1}, {"share": math.nan}, {"rate": 1.0}, {"rate": -0.1}],
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)  # type: ignore[arg-type]


def test_the_error_of_require_multiple_names_both_options_and_values() -> None:
    with pytest.raises(ValueError, match="^width 12 is not a multiple of num_heads 5$"):
        Options(num_heads=5)
