"""How foreign values, names and exceptions are written in messages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustok_core.values.wording import described, reason_of, some_names


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(2, 3), "Tensor (2, 3) of torch.float32"),
        (np.zeros(2, np.int64), "ndarray (2,) of int64"),
        (np.float64(1), "float64"),
        ([1], "list"),
        (None, "NoneType"),
    ],
)
def test_a_value_is_described_by_its_type_and_shape(value: object, text: str) -> None:
    assert described(value) == text


def test_a_few_names_stand_for_many() -> None:
    assert some_names(["a", "b", "c"]) == "a, b, c"
    assert some_names(list("abcde")) == "a, b, c and 2 more"
    assert some_names([]) == ""


def test_the_reason_of_an_exception_is_its_first_line_with_text_or_its_type() -> None:
    assert reason_of(ValueError("\n  \nbad value\nmore")) == "bad value"
    assert reason_of(KeyError()) == "KeyError"
