"""The augmentation of a discriminator's input: each operation matches its definition, each image is independent."""

from __future__ import annotations

import pytest
import torch

from robustok_core.values.draws import Draws
from robustok_losses.diffaug import DiffAugConfig, augment, crop_or_shrink, cut_out, recolour, translate


def random_images(count: int, size: int = 16) -> torch.Tensor:
    return Draws.for_rows(5, count).uniform(3, size, size) * 2 - 1


@pytest.mark.parametrize("config", [DiffAugConfig(), DiffAugConfig(probability=0.5, crop_size=8)])
def test_the_augmentation_of_an_image_does_not_depend_on_its_batch(config):
    images, draws = random_images(12), Draws.for_rows(1, 12)

    whole = augment(images, config, draws)
    parts = [augment(images[rows], config, draws[rows]) for rows in (slice(0, 1), slice(1, 6), slice(6, 12))]

    assert torch.equal(whole, torch.cat(parts))


def test_images_differ_in_their_augmentation():
    images = random_images(1).expand(6, -1, -1, -1)

    augmented = augment(images, DiffAugConfig(), Draws.for_rows(1, 6))

    assert len({image.numpy().tobytes() for image in augmented}) == 6


def test_probability_0_changes_no_image_and_one_half_changes_half_of_them():
    images, draws = random_images(400, size=8), Draws.for_rows(2, 400)
    only_colour = {"translation": 0.0, "cutout": 0.0}

    untouched = augment(images, DiffAugConfig(probability=0.0), draws)
    half = augment(images, DiffAugConfig(probability=0.5, **only_colour), draws)

    assert torch.equal(untouched, images)
    same = (half == images).all(dim=(1, 2, 3)).sum().item()
    assert same == pytest.approx(200, abs=50)  # five standard deviations


def test_a_shift_moves_whole_pixels_and_fills_with_grey():
    images = random_images(2)
    down, right = torch.tensor([0.0, 0.999]), torch.tensor([0.5, 0.0])  # -2 to 2 pixels of 16

    shifted = translate(images, down, right, 0.125)

    assert torch.equal(shifted[0, :, :-2], images[0, :, 2:])
    assert (shifted[0, :, -2:] == 0).all()
    assert torch.equal(shifted[1, :, 2:, :-2], images[1, :, :-2, 2:])
    assert (shifted[1, :, :2] == 0).all()
    assert (shifted[1, :, :, -2:] == 0).all()


def test_colours_change_by_brightness_then_saturation_then_contrast():
    image = torch.tensor([0.2, -0.4, 0.5])[None, :, None, None].expand(1, 3, 4, 4)
    u = torch.tensor

    brighter = recolour(image, u([0.75]), u([0.5]), u([0.5]))
    grey = recolour(image, u([0.5]), u([0.0]), u([0.5]))
    doubled = recolour(image, u([0.5]), u([1.0]), u([0.5]))
    flatter = recolour(image, u([0.5]), u([0.5]), u([0.0]))

    torch.testing.assert_close(brighter, image + 0.25)
    torch.testing.assert_close(grey, torch.full_like(image, 0.1))
    torch.testing.assert_close(doubled, 0.1 + 2 * (image - 0.1))
    torch.testing.assert_close(flatter, 0.1 + 0.5 * (image - 0.1))


def test_a_cutout_is_a_square_whose_centre_lies_in_the_image():
    images = torch.ones(4, 3, 20, 20)
    down, right = torch.tensor([0.5, 0.0, 0.5, 0.999]), torch.tensor([0.5, 0.0, 0.0, 0.999])

    gone = (cut_out(images, down, right, 0.2) == 0).all(dim=1).sum(dim=(1, 2))

    assert gone.tolist() == [16, 4, 8, 4]  # whole; a corner; an edge; the square may end at the far side


def test_a_larger_image_is_cropped_or_shrunk():
    images = random_images(2, size=12)
    numbers = torch.tensor([[0.0, 0.9], [0.999, 0.0], [0.0, 0.0]])  # which, down, right

    small = crop_or_shrink(images, 6, numbers)

    assert torch.equal(small[0], images[0, :, 6:, :6])
    torch.testing.assert_close(small[1], images[1].reshape(3, 6, 2, 6, 2).mean(dim=(2, 4)))


def test_the_gradient_passes_through_all_operations():
    images = random_images(3).double().requires_grad_()
    draws = Draws.for_rows(9, 3)
    config = DiffAugConfig(cutout=0.0, translation=0.0)

    augmented = augment(images, config, draws)
    (gradient,) = torch.autograd.grad(augmented.square().sum(), images)

    assert (gradient != 0).all()
    (shifted,) = torch.autograd.grad(augment(images, DiffAugConfig(), draws).square().sum(), images)
    assert (shifted == 0).any()  # pixels that were shifted out or cut out
    assert (shifted != 0).any()
