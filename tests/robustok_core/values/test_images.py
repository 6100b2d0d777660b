"""Images in [-1, 1] and in 8 bits."""

from __future__ import annotations

import math

import pytest
import torch

from robustok_core import RunError
from robustok_core.values.images import from_uint8, to_uint8

ALL = torch.arange(256, dtype=torch.uint8)


def test_every_8_bit_value_comes_back():
    assert torch.equal(to_uint8(from_uint8(ALL)), ALL)


def test_the_ends_are_minus_1_and_1_and_what_lies_beyond_is_clamped():
    assert from_uint8(ALL)[[0, 255]].tolist() == [-1.0, 1.0]
    assert to_uint8(torch.tensor([-1.5, -1.0, 1.0, 1.5])).tolist() == [0, 0, 255, 255]


def test_a_value_between_two_is_rounded_to_the_nearer_and_half_up():
    assert to_uint8(torch.tensor([10.4, 10.6]) / 127.5 - 1).tolist() == [10, 11]
    assert to_uint8(torch.zeros(1)).tolist() == [128], "0 lies between 127 and 128, exactly"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_images_that_are_not_finite_are_refused_and_counted(value):
    images = torch.zeros(3, 3, 4, 4)
    images[1, 2, 3, 0] = images[2] = value
    with pytest.raises(RunError, match="2 of 3 decoded images hold values that are NaN or infinite"):
        to_uint8(images)
