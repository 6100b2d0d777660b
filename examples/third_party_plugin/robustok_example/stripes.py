"""A dataset of grey stripes; the class is their direction."""

import math

import torch
from attrs import field, frozen, validators
from robustok_core import Dataset, Draws, ImageBatch, Images, derive_seed


@frozen(kw_only=True)
class StripesConfig:
    image_size: int = field(default=32, validator=validators.ge(8), metadata={"doc": "height and width, in pixels"})
    count: int = field(default=80, validator=validators.ge(4), metadata={"doc": "images per split"})


class StripedImages(Images):
    """Image i is a function of the split's name and i, so no images are stored."""

    def __init__(self, name, config):
        self.name, self.config = name, config

    @property
    def labels(self):
        return torch.arange(self.config.count) % 2

    @property
    def fingerprint(self):
        return f"{self.name} {self.config}"

    def load(self, indices, draws=None):
        rows = torch.as_tensor(indices)
        numbers = Draws(seed=derive_seed(self.name), indices=rows, total=len(self))
        waves, start = 2 + numbers.child("waves").integers(4), numbers.child("start").uniform()  # (B,) each
        positions = torch.arange(self.config.image_size) / self.config.image_size
        lines = torch.sin(2 * math.pi * (waves[:, None] * positions + start[:, None]))  # (B, W)
        across = lines[:, None, :].expand(-1, self.config.image_size, -1)  # (B, H, W)
        labels = self.labels[rows]
        images = torch.where(labels[:, None, None] == 0, across, across.transpose(1, 2))
        return ImageBatch(images=images[:, None].expand(-1, 3, -1, -1).clone(), labels=labels, indices=rows)


class Stripes(Dataset):
    """Two to five waves, across the image or down it."""

    Config = StripesConfig
    num_classes, class_names = 2, ("upright", "lying")

    def __init__(self, config):
        self.image_size = config.image_size
        self.train, self.validation = StripedImages("train", config), StripedImages("validation", config)
