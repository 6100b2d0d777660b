"""Perturbations of latents in training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Call
from robustok_core.kinds.component import Component
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.spec import Spec


def agreement(owner: expectations.Owner, changed: Latents, clean: Latents, quantizer: Quantizer) -> None:
    """Requires that a token with another code has the vector of that code; waits for a device.

    A token whose code stays may have any vector: a perturbation may drop tokens or add noise to them.
    """
    if changed.codes is None or changed.vectors is None or clean.codes is None or clean.vectors is None:
        return
    moved = changed.codes != clean.codes  # (B, N)
    with torch.no_grad():
        codewords = quantizer.lookup(changed.codes[moved])  # (M, D)
    what = "`perturb` changes codes, but the vectors of these tokens are not those of the new codes"
    expectations.embedded(owner, changed.vectors[moved], codewords, clean.vectors, what)


def _perturbed(call: Call, result: Any, latents: Latents, quantizer: Quantizer | None, **_: Any) -> None:
    call.require(isinstance(result, tuple) and len(result) == 2, "`perturb` must return latents and a mask")
    changed, mask = result
    call.require(isinstance(changed, Latents), f"`perturb` must return Latents, found {type(changed).__name__}")
    clean = latents.vectors
    if clean is None:  # codes alone
        return
    expectations.tensor(call, changed.vectors, tuple(clean.shape), None, "vectors of `perturb`")
    expectations.tensor(call, mask, tuple(clean.shape[:2]), torch.bool, "the mask of `perturb`")
    values, what = call.looks_at_values(), "vectors of `perturb`"
    expectations.passes_gradient(call, changed.vectors, clean, what, "the clean vectors", graph=values)
    if changed.codes is not None:
        expectations.tensor(call, changed.codes, tuple(clean.shape[:2]), torch.int64, "codes of `perturb`")
    if values:
        expectations.finite(call, changed.vectors, "`perturb` returns vectors that are not finite")
        if changed.codes is not None and quantizer is not None:
            expectations.in_range(call, changed.codes, quantizer.codebook_size, "`perturb` returns codes")
            agreement(call, changed, latents, quantizer)


class Perturbation(Component, ABC):
    """Perturbs latents in training, so that the decoder learns to handle errors. Built as `Perturbation(config)`.

    Attributes:
        needs_features: whether it reads `Latents.features`, which only an encoder gives: pairs do not have them.
    """

    returns: ClassVar = {"perturb": _perturbed}
    needs_features: bool = False

    @abstractmethod
    def perturb(
        self, latents: Latents, quantizer: Quantizer | None, *, draws: Draws, progress: float
    ) -> tuple[Latents, Tensor]:
        """Perturbs a batch.

        Args:
            latents: clean latents; the gradient must reach `latents.vectors`.
            quantizer: the tokenizer's quantizer, None in a continuous space.
            draws: the batch's random numbers; a choice among images is made over `draws.total`.
            progress: completed share of the training, in [0, 1]; drives the annealing.

        Returns:
            The perturbed latents, and a mask (B, N) bool of the tokens that were replaced. A token with another code
            has the vector that `quantizer.lookup` gives for it, with a straight-through gradient.
        """

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """Raises RobustokError if it does not fit the latent space or the global batch size.

        A perturbation that replaces codes must refuse spaces without codes here, where `space.codebook_size` is None.

        Args:
            batch_size: None in an evaluation, which perturbs whatever it is given.
        """

    @classmethod
    def of_strength(cls, config: Any, **strength: Any) -> Any:
        """The configuration with which all images are perturbed at one strength: what pFID measures.

        As it stands, the configuration needs the option `beta`, the share of the images, and one for each part of the
        strength. A perturbation that calls them otherwise says here what they come to:
        `return attrs.evolve(config, rate=strength["alpha"])`.

        Args:
            config: an instance of `Config`.
            strength: `alpha` and `delta` of the metric pfid, `alpha` and `tau` of noise_pfd.

        Raises:
            ValueError: it has no such option, a value of its own for one, or weakens in the course of a training; the
                message goes on behind the perturbation's name.
        """
        known = attrs.fields_dict(type(config))
        wanted = {"beta": 1.0, **strength}
        if missing := wanted.keys() - known.keys():
            raise ValueError(f"has no option {', '.join(sorted(missing))}")
        for name in wanted:
            if known[name].default not in (attrs.NOTHING, getattr(config, name)):
                raise ValueError(f"has a value for {name}, which is set for it here: leave it out")
        if getattr(config, "anneal", None) is not None:
            raise ValueError("weakens in the course of a training, and this is one strength: leave anneal out")
        return attrs.evolve(config, **wanted)


def of_strength(perturbation: Spec, **strength: Any) -> Spec:
    """The spec of a perturbation that perturbs all images at one strength.

    Raises:
        ValueError: see `Perturbation.of_strength`; the message names the perturbation.
    """
    try:
        config = perturbation.factory.of_strength(perturbation.config, **strength)
    except ValueError as error:
        raise ValueError(f"perturbation {perturbation.name!r} {error}") from error
    return attrs.evolve(perturbation, config=config)
