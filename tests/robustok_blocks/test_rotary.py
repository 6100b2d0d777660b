"""Rotary position embedding on a grid."""

from __future__ import annotations

import math

import pytest
import torch

from robustok_blocks.rotary import grid_rotations, rotate
from robustok_blocks.swiglu import SwiGLU, swiglu_width


def test_each_pair_rotates_by_row_or_column_times_its_frequency():
    rotations = grid_rotations((3, 5), 8, base=100.0)
    for position in range(15):
        row, column = divmod(position, 5)
        angles = [row, row / 10, column, column / 10]  # frequencies 100^0 and 100^-(1/2)
        expected = [[math.cos(angle), math.sin(angle)] for angle in angles]
        torch.testing.assert_close(rotations[position], torch.tensor(expected))


def test_rotation_multiplies_pairs_as_complex_numbers():
    x, rotations = torch.randn(2, 3, 15, 8), grid_rotations((3, 5), 8)
    rotated = torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous()) * torch.view_as_complex(rotations)
    torch.testing.assert_close(rotate(x, rotations), torch.view_as_real(rotated).flatten(-2))


def test_the_product_of_two_tokens_depends_only_on_the_offset_between_them():
    rotations = grid_rotations((4, 4), 8)
    q, k = torch.randn(8), torch.randn(8)
    queries, keys = (rotate(x.expand(16, 8), rotations) for x in (q, k))
    products = (queries @ keys.T).reshape(4, 4, 4, 4)
    torch.testing.assert_close(products[0, 1, 2, 2], products[1, 2, 3, 3])
    assert not torch.isclose(products[0, 1, 2, 2], products[0, 1, 2, 3])


def test_rotation_preserves_the_dtype():
    assert rotate(torch.randn(4, 8, dtype=torch.bfloat16), grid_rotations((2, 2), 8)).dtype == torch.bfloat16


def test_a_head_width_that_is_not_a_multiple_of_4_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, not 6"):
        grid_rotations((2, 2), 6)


@pytest.mark.parametrize(("width", "hidden"), [(768, 2048), (1024, 2816), (1280, 3584), (1536, 4096)])
def test_hidden_widths_are_those_of_published_models(width, hidden):
    assert swiglu_width(width) == hidden


def test_swiglu_gates_one_projection_with_the_other():
    layer, x = SwiGLU(4, 6), torch.randn(3, 4)
    gate, value = x @ layer.w1.weight.T, x @ layer.w3.weight.T
    torch.testing.assert_close(layer(x), (gate * torch.sigmoid(gate) * value) @ layer.w2.weight.T)
