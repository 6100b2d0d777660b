"""The pixel loss against values computed by hand."""

from __future__ import annotations

import attrs
import pytest
import torch


@pytest.mark.parametrize(("norm", "expected"), [("l1", (0.5 + 1.5) / 4), ("l2", (0.25 + 2.25) / 4)])
def test_the_error_is_the_mean_over_all_pixels(tiny, registry, norm, expected):
    loss = registry.build("loss", {"use": "reconstruction", "norm": norm})
    step = tiny.make_step(rows=slice(0, 2))
    images = torch.zeros(2, 3, 16, 16)
    off = torch.tensor([0.0, 0.5, -1.5, 0.0]).repeat(2 * 3 * 64).reshape(2, 3, 16, 16)
    step = attrs.evolve(step, batch=attrs.evolve(step.batch, images=images), images=images + off)

    assert loss(step).item() == pytest.approx(expected)


def test_half_precision_images_are_compared_in_float32(tiny, registry):
    loss = registry.build("loss", {"use": "reconstruction"})
    step = tiny.make_step()

    assert loss(attrs.evolve(step, images=step.images.bfloat16())).dtype == torch.float32


def test_reconstruction_and_perceptual_are_the_image_terms(registry):
    assert registry.find("loss", "reconstruction").compares_images
    assert registry.find("loss", "perceptual").compares_images
    assert not registry.find("loss", "adversarial").compares_images
    assert not registry.find("loss", "semantic").compares_images
