"""Differentiable augmentation of a discriminator's input (DiffAugment, Zhao et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.recipe.validators import LARGEST_SIDE, in_range, unit_interval
from robustok_core.values.draws import Draws
from robustok_core.values.ignored import refuse_ignored

#: Share of the images that are cropped if `crop_size` is set; the others are resized.
CROPPED_SHARE = 0.5


@frozen(kw_only=True)
class DiffAugConfig:
    """Options of the augmentation; the defaults are the paper's."""

    probability: float = field(
        default=1.0,
        validator=unit_interval,
        metadata={"doc": "probability that an operation changes an image, drawn separately for each operation"},
    )
    translation: float = field(
        default=0.125,
        validator=unit_interval,
        metadata={"doc": "largest shift, as a share of the image side; exposed pixels are grey"},
    )
    colour: bool = field(default=True, metadata={"doc": "random brightness, saturation and contrast"})
    cutout: float = field(
        default=0.2,
        validator=unit_interval,
        metadata={"doc": "side of the square that is set to grey, as a share of the image side"},
    )
    crop_size: int | None = field(
        default=None,
        validator=validators.optional(in_range(8, LARGEST_SIDE)),
        metadata={
            "doc": "crop half of the images to this side in pixels and resize the others to it, e.g. 224; images that "
            "are no larger stay as they are"
        },
    )

    def __attrs_post_init__(self) -> None:
        some = self.translation > 0.0 or self.colour or self.cutout > 0.0
        refuse_ignored(self, "probability", unless=some, needs="translation, colour or cutout")


def augment(images: Tensor, config: DiffAugConfig, draws: Draws) -> Tensor:
    """Augments images (B, 3, H, W) in [-1, 1]; differentiable, float32.

    Row i of the result depends only on image i and row i of `draws`.
    """
    images = images.float()
    draws = draws.to(images.device)
    whether, how = draws.child("whether").uniform(3), draws.child("how").uniform(7).T
    change = (whether < config.probability).T[:, :, None, None, None]  # (3, B, 1, 1, 1)
    if config.translation:
        images = torch.where(change[0], translate(images, how[0], how[1], config.translation), images)
    if config.colour:
        images = torch.where(change[1], recolour(images, *how[2:5]), images)
    if config.cutout:
        images = torch.where(change[2], cut_out(images, how[5], how[6], config.cutout), images)
    if config.crop_size is not None and min(images.shape[-2:]) > config.crop_size:
        images = crop_or_shrink(images, config.crop_size, draws.child("crop").uniform(3).T)
    return images


def translate(images: Tensor, down: Tensor, right: Tensor, share: float) -> Tensor:
    """Shifts by whole pixels, at most `share` of the side in each direction; `down`, `right` (B,) uniform in [0, 1)."""
    rows, columns = (_shifted(u, side, share) for u, side in zip((down, right), images.shape[-2:], strict=True))
    inside = _inside(rows, images.shape[-2])[:, None, :, None] & _inside(columns, images.shape[-1])[:, None, None, :]
    return pick(images, rows.clamp(0, images.shape[-2] - 1), columns.clamp(0, images.shape[-1] - 1)) * inside


def recolour(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Adds -0.5 to 0.5, scales the difference from grey by 0 to 2, then the difference from the mean by 0.5 to 1.5.

    Each of the last three arguments is (B,), uniform in [0, 1).
    """
    b, s, c = (u[:, None, None, None] for u in (brightness - 0.5, saturation * 2, contrast + 0.5))
    images = images + b
    grey = images.mean(dim=1, keepdim=True)
    images = grey + s * (images - grey)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + c * (images - mean)


def cut_out(images: Tensor, down: Tensor, right: Tensor, share: float) -> Tensor:
    """Zeroes a square whose centre lies anywhere in the image; `down`, `right` (B,) uniform in [0, 1)."""
    rows, columns = (_covered(u, side, share) for u, side in zip((down, right), images.shape[-2:], strict=True))
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


def crop_or_shrink(images: Tensor, size: int, numbers: Tensor) -> Tensor:
    """(B, 3, size, size): a random crop, or the whole image area-resized; `numbers` (3, B) uniform in [0, 1)."""
    height, width = images.shape[-2:]
    window = torch.arange(size, device=images.device)
    rows, columns = (
        window + _whole(u, side - size + 1)[:, None] for u, side in zip(numbers[1:], (height, width), strict=True)
    )
    shrunk = F.interpolate(images, size=(size, size), mode="area")
    return torch.where((numbers[0] < CROPPED_SHARE)[:, None, None, None], pick(images, rows, columns), shrunk)


def pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, h, w): gathers rows (B, h) and columns (B, w), int64, from each of images (B, C, H, W)."""
    _, channels, _, width = images.shape
    strip = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
    return strip.gather(3, columns[:, None, None, :].expand(-1, channels, rows.shape[1], -1))


def _whole(uniform: Tensor, count: int) -> Tensor:
    return (uniform * count).long().clamp(max=count - 1)  # in [0, count)


def _shifted(uniform: Tensor, side: int, share: float) -> Tensor:
    limit = int(side * share + 0.5)
    shift = _whole(uniform, 2 * limit + 1) - limit
    return torch.arange(side, device=uniform.device) - shift[:, None]  # (B, side): source index of each pixel


def _inside(positions: Tensor, side: int) -> Tensor:
    return (positions >= 0) & (positions < side)


def _covered(uniform: Tensor, side: int, share: float) -> Tensor:
    size = int(side * share + 0.5)
    first = _whole(uniform, side + 1 - size % 2) - size // 2
    positions = torch.arange(side, device=uniform.device) - first[:, None]
    return _inside(positions, size)  # (B, side)
