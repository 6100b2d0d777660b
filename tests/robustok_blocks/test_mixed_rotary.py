"""Rotary position embedding on a grid, in learned directions and along the axes."""

from __future__ import annotations

import pytest
import torch

from robustok_blocks.mixed_rotary import axial_rotations, mixed_rotations, random_frequencies, still_around
from robustok_blocks.rotary import grid_rotations, rotate

GRID, HEADS, WIDTH = (4, 5), 2, 8


def rotations_of(kind: str) -> torch.Tensor:
    """Rotations (heads or 1, h w, width / 2, 2)."""
    if kind == "axial":
        return axial_rotations(GRID, WIDTH, 10.0)[None]
    torch.manual_seed(0)
    return mixed_rotations(random_frequencies(1, HEADS, WIDTH, 10.0)[:, 0], GRID, HEADS)


@pytest.mark.parametrize("kind", ["axial", "mixed"])
def test_attention_depends_on_the_offset_between_positions_and_not_on_the_positions(kind):
    rotations = rotations_of(kind)
    q, k = torch.randn(2, HEADS, 1, WIDTH, generator=torch.Generator().manual_seed(1))
    rows, columns = GRID
    logits = rotate(q.expand(-1, rows * columns, -1), rotations) @ rotate(
        k.expand(-1, rows * columns, -1), rotations
    ).transpose(1, 2)
    logits = logits.reshape(HEADS, rows, columns, rows, columns)
    torch.testing.assert_close(logits[:, 0, 0, 2, 1], logits[:, 1, 3, 3, 4])
    torch.testing.assert_close(logits[:, 3, 0, 1, 2], logits[:, 2, 2, 0, 4])
    assert (logits[:, 0, 0, 2, 1] - logits[:, 0, 0, 1, 2]).abs().min() > 1e-3, "rows and columns differ"


def test_directions_along_the_axes_give_axial_rotations():
    magnitudes = 10.0 ** -(torch.arange(0, WIDTH, 4) / WIDTH)
    zeros = torch.zeros_like(magnitudes)
    frequencies = torch.stack([torch.cat([magnitudes, zeros]), torch.cat([zeros, magnitudes])])  # columns, then rows
    torch.testing.assert_close(mixed_rotations(frequencies, GRID, 1)[0], axial_rotations(GRID, WIDTH, 10.0))


def test_axial_rotations_are_those_of_the_transposed_grid():
    rows, columns = GRID
    transposed = grid_rotations((columns, rows), WIDTH, 10.0).reshape(columns, rows, -1)
    axial = axial_rotations(GRID, WIDTH, 10.0).reshape(rows, columns, -1)
    assert torch.equal(axial.transpose(0, 1), transposed)


def test_each_head_has_two_directions_at_a_right_angle_and_axial_magnitudes():
    torch.manual_seed(0)
    of_columns, of_rows = random_frequencies(3, HEADS, WIDTH, 10.0).reshape(2, 3, HEADS, 2, WIDTH // 4)
    magnitudes = 10.0 ** -(torch.arange(0, WIDTH, 4) / WIDTH)
    torch.testing.assert_close(torch.hypot(of_columns, of_rows), magnitudes.expand(3, HEADS, 2, -1))
    across = of_columns[:, :, 0] * of_columns[:, :, 1] + of_rows[:, :, 0] * of_rows[:, :, 1]
    assert across.abs().max() < 1e-6
    angles = torch.atan2(of_rows, of_columns)[:, :, 0, 0].flatten()
    assert len(angles.unique()) == 3 * HEADS


def test_tokens_around_the_image_are_not_rotated():
    rotations = still_around(rotations_of("mixed"), 1, 3)
    x = torch.randn(2, HEADS, 1 + 20 + 3, WIDTH)
    moved = rotate(x, rotations)
    assert torch.equal(moved[:, :, :1], x[:, :, :1])
    assert torch.equal(moved[:, :, -3:], x[:, :, -3:])
    assert torch.equal(moved[:, :, 1:-3], rotate(x[:, :, 1:-3], rotations_of("mixed")))


def test_a_head_width_that_is_not_a_multiple_of_4_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        random_frequencies(1, 2, 6, 10.0)
