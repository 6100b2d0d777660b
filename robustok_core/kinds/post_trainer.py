"""Post-trainers adapt a trained tokenizer to a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Call
from robustok_core.kinds.component import Component
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace


def _paired(call: Call, latents: Any, tokenizer: Tokenizer, _: Generator, real: LatentBatch, **__: Any) -> None:
    expectations.latents(call, latents, tokenizer.space, len(real), "pair", values=call.looks_at_values())


def _selected(call: Call, modules: Any, tokenizer: Tokenizer) -> None:
    valid = isinstance(modules, Sequence) and bool(modules) and all(isinstance(m, nn.Module) for m in modules)
    call.require(valid, "`trained` must return at least one module of the tokenizer")
    own = {id(parameter) for parameter in tokenizer.parameters()}
    foreign = any(id(parameter) not in own for module in modules for parameter in module.parameters())
    call.require(not foreign, "`trained` returns parameters that are not the tokenizer's")


class PostTrainer(Component, ABC):
    """Adapts a trained tokenizer to a generator's latents (paper section 4). Built as `PostTrainer(config)`.

    It defines what a pair is and which modules are trained. The stages `make_pairs`, `post_train` and
    `compare_decoders` store the pairs, train and measure.
    """

    returns: ClassVar = {"pair": _paired, "trained": _selected}

    def check(self, space: LatentSpace) -> None:
        """Raises RobustokError if it does not fit a latent space; called before anything runs."""

    @abstractmethod
    def pair(
        self, tokenizer: Tokenizer, generator: Generator, real: LatentBatch, *, draws: Draws, sigma: float
    ) -> Latents:
        """The latents (codes or vectors) from which the tokenizer learns to decode the real images.

        Args:
            tokenizer: the result of main training.
            generator: trained on that tokenizer's latents.
            real: latents of the real images, of which the generator preserves a share sigma.
            draws: one row per image.
            sigma: in [0, 1].
        """

    @abstractmethod
    def trained(self, tokenizer: Tokenizer) -> Sequence[nn.Module]:
        """The modules of the tokenizer that are trained; the stage freezes the rest, buffers included."""
