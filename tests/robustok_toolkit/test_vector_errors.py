"""Errors whose shape is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustok_toolkit.vector_errors import MadeLatents, VectorErrors, vector_errors

GRID, WIDTH, IMAGES = (6, 6), 4, 400


def correlated(seed: int) -> Tensor:
    """Latents (400, 36, 4) most of whose variance is in eight directions of an image."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(8, 36 * WIDTH, generator=torch.Generator().manual_seed(9))
    found = torch.randn(IMAGES, 8, generator=generator) @ directions
    return (found + 0.3 * torch.randn(found.shape, generator=generator)).view(IMAGES, 36, WIDTH)


def errors_of(made: Tensor, real: Tensor) -> VectorErrors:
    return vector_errors(MadeLatents(real=real, made=made, labels=torch.arange(len(real)) % 2, grid=GRID), seed=1)


def test_independent_noise_has_the_shape_of_the_noise_beside_it():
    real = correlated(0)
    unit = real.std(dim=1, correction=0, keepdim=True)
    found = errors_of(real + 0.5 * unit * torch.randn(real.shape, generator=torch.Generator().manual_seed(5)), real)
    assert found.size == pytest.approx(0.5, rel=0.02)
    assert found.made.inflation == pytest.approx(1.25, rel=0.03)
    assert found.made.neighbour_correlation == pytest.approx(0.0, abs=0.02)
    assert found.made.isotropy == pytest.approx(1.0, rel=0.01)
    for name in ("along_data", "inflation", "largest_tenth", "isotropy"):
        assert getattr(found.made, name) == pytest.approx(getattr(found.noise, name), rel=0.1), name


def test_other_real_latents_lie_along_the_data_and_do_not_inflate_it():
    found = errors_of(correlated(1), correlated(0))
    assert found.made.inflation == pytest.approx(1.0, abs=0.05)
    assert found.made.along_data == pytest.approx(0.5, abs=0.15), "the directions that hold half of the variance"
    assert found.noise.along_data < 0.1, "a few of 144 directions"
    assert found.noise.inflation > 2


def test_errors_are_measured_along_other_images_of_the_same_classes():
    """Each of two classes, in turn, lies in directions of its own, and so do its errors."""
    real, made = correlated(0), correlated(1)
    real[::2, :18], made[::2, :18] = 0.0, 0.0
    real[1::2, 18:], made[1::2, 18:] = 0.0, 0.0
    assert errors_of(made, real).made.along_data == pytest.approx(0.5, abs=0.15), "as without classes"


def test_where_the_errors_lie_is_told():
    real = correlated(0)
    everywhere = errors_of(real + torch.tensor([0.3, 0.0, 0.0, 0.0]), real).made
    assert everywhere.neighbour_correlation == pytest.approx(1.0, abs=0.05)
    assert everywhere.isotropy == pytest.approx(1 / WIDTH)
    one_token = real.clone()
    one_token[:, 7] += 0.3
    assert errors_of(one_token, real).made.largest_tenth == pytest.approx(1.0)


def test_no_errors_are_of_size_0_and_give_numbers():
    real = correlated(0)
    found = errors_of(real, real)
    assert found.size == 0
    assert (found.made.along_data, found.made.isotropy, found.made.inflation) == (0, 0, 1)


def test_a_channel_that_is_constant_in_an_image_does_not_decide():
    real = correlated(0)
    real[0, :, 1] = 0.7
    assert errors_of(real + 0.1 * torch.randn(real.shape, generator=torch.Generator().manual_seed(5)), real).size < 1


def test_a_channel_that_is_constant_in_all_images_does_not_decide():
    """A generator errs there, too, if by little."""
    real, generator = correlated(0), torch.Generator().manual_seed(5)
    noise = 0.1 * torch.randn(real.shape, generator=generator)
    varying = errors_of(real + noise, real)
    real[..., 1] = 0.3
    noise[..., 1] *= 1e-3
    found = errors_of(real + noise, real)
    assert found.size < 1
    assert found.made.inflation == pytest.approx(varying.made.inflation, rel=0.1)
    assert found.noise.inflation < 2
