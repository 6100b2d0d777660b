"""Histograms of oriented gradients of images with known gradients."""

from __future__ import annotations

import math

import pytest
import torch

from robustok_tokenizers.oriented_gradients import NUM_BINS, oriented_gradients, patch_gradients


def slope(degrees: float, size: int = 16) -> torch.Tensor:
    """(1, 1, size, size) linear ramp in a direction: 0 is right, 90 is down."""
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    angle = math.radians(degrees)
    return (x * math.cos(angle) + y * math.sin(angle))[None, None]


@pytest.mark.parametrize("number", range(NUM_BINS))
def test_a_slope_votes_for_the_bin_of_its_direction(number):
    middle = 180.0 / NUM_BINS * (number + 0.5)
    for degrees in (middle, middle + 180.0):  # directions have no sign
        histogram = oriented_gradients(slope(degrees), 8)[0, 0]  # (9, 2, 2)
        inner = oriented_gradients(slope(degrees, 48), 16)[0, 0, :, 1, 1]  # its padding is far away
        assert inner.argmax() == number
        assert inner[number] == pytest.approx(1.0)
        assert histogram.norm(dim=0) == pytest.approx(torch.ones(2, 2))


def test_contrast_and_brightness_do_not_matter_and_a_constant_image_has_no_direction():
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(oriented_gradients(images * 0.25 + 0.5, 8), oriented_gradients(images, 8))
    assert not oriented_gradients(torch.ones(1, 3, 16, 16), 8).any()


def test_a_patch_has_the_histograms_of_its_four_cells():
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    cells = oriented_gradients(images, 4)  # (2, 3, 9, 4, 6)
    patches = patch_gradients(images, 8)  # (2, 2 * 3, 108)
    assert patches.shape == (2, 6, 108)
    patch = patches[:, 5].reshape(2, 3, NUM_BINS, 2, 2)  # the lower right patch
    assert torch.equal(patch, cells[..., 2:, 4:])
