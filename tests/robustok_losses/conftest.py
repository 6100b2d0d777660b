"""Components small enough for a test: a tokenizer of two linear layers, and features with two maps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs
import pytest
import torch
from attrs import field, frozen
from einops import rearrange
from torch import Tensor, nn

from robustok_core.kinds.features import Features
from robustok_core.kinds.loss import Reconstruction
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_core.recipe.registry import Registry
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.spec import Spec

SIZE, PATCH, WIDTH = 16, 8, 6


@frozen(kw_only=True)
class TinyFeaturesConfig:
    widths: tuple[int, ...] = field(default=(4, 6))


class TinyFeatures(Features):
    """Convolutions of stride 2 with dropout between them, which a frozen network must not apply."""

    Config = TinyFeaturesConfig
    name = "tiny"

    def __init__(self, config: TinyFeaturesConfig) -> None:
        super().__init__()
        self.width = config.widths[-1]
        pairs = zip((3, *config.widths), config.widths, strict=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.levels = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.dropout = nn.Dropout(0.5)
        self.requires_grad_(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        maps = []
        for level in self.levels:
            images = self.dropout(level(images).tanh())
            maps.append(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1].mean(dim=(2, 3))

    @property
    def fingerprint(self) -> str:
        return "tiny"


@frozen(kw_only=True)
class TinyTokenizerConfig:
    pass


class TinyTokenizer(Tokenizer):
    """Patches of 8 x 8 pixels to vectors of width 6 and back."""

    Config = TinyTokenizerConfig
    image_size = SIZE
    space = LatentSpace(kind="continuous", num_tokens=4, width=WIDTH, grid=(2, 2))

    def __init__(self, config: TinyTokenizerConfig | None = None) -> None:
        super().__init__()
        self.quantizer = None
        self.encoder = nn.Linear(3 * PATCH * PATCH, WIDTH)
        self.to_pixels = nn.Linear(WIDTH, 3 * PATCH * PATCH)

    def encode(self, images: Tensor) -> Latents:
        patches = rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)
        return Latents(vectors=self.encoder(patches))

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        pixels = self.to_pixels(vectors).tanh()
        return rearrange(pixels, "b (h w) (c p q) -> b c (h p) (w q)", h=2, p=PATCH, q=PATCH)

    @property
    def decoder(self) -> nn.ModuleList:
        return nn.ModuleList([self.to_pixels])

    @property
    def last_layer(self) -> nn.Parameter:
        return self.to_pixels.weight


class TinyPlugin:
    @hookimpl
    def robustok_register(self, register: Register) -> None:
        for name in ("tiny", "dino", "dinov2", "efficientnet_lite0"):
            register("features", name, TinyFeatures)


def features(**options: Any) -> Spec:
    """The spec of the tiny features."""
    return Spec(kind="features", name="tiny", factory=TinyFeatures, config=TinyFeaturesConfig(**options))


def make_tokenizer(seed: int = 0) -> TinyTokenizer:
    """A tokenizer with weights from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyTokenizer()


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """Calls `make` with torch's generator seeded, for its initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def make_step(
    *, rows: slice = slice(0, 8), tokenizer: TinyTokenizer | None = None, progress: float = 0.5, seed: int = 3
) -> Reconstruction:
    """A training step of a tokenizer on rows of a global batch of 8 images; the image term is the L2 distance."""
    tokenizer = make_tokenizer() if tokenizer is None else tokenizer
    draws = Draws.for_rows(seed, 8)
    images = draws.child("images").uniform(3, SIZE, SIZE)[rows] * 2 - 1
    labels = torch.zeros(len(images), dtype=torch.int64)
    latents = tokenizer.encode(images)
    noise = draws.child("noise").normal(4, WIDTH)[rows]
    decoded = latents.evolve(vectors=latents.vectors + noise)
    decoded_images = tokenizer.decode(decoded)
    return Reconstruction(
        batch=ImageBatch(images=images, labels=labels, indices=draws.indices[rows]),
        latents=latents,
        decoded=decoded,
        images=decoded_images,
        tokenizer=tokenizer,
        draws=draws[rows].child("losses"),
        progress=progress,
        image_loss=(decoded_images - images).square().mean(),
    )


def opponents_view(step: Reconstruction) -> Reconstruction:
    """The same step without the graph of its images."""
    return attrs.evolve(step, images=step.images.detach(), image_loss=None)


@pytest.fixture
def tiny() -> ModuleType:
    """This module: test files cannot import one another."""
    return sys.modules[__name__]


@pytest.fixture
def registry() -> Registry:
    """The losses, and the tiny features under the names that the losses use."""
    from robustok_losses import plugin

    registry = Registry()
    for candidate, name in ((plugin, "robustok_losses"), (TinyPlugin(), "tiny")):
        assert registry.add_plugin(candidate, name).error is None
    return registry
