"""Shared by the importers of tokenizers with a `vq`: its state, and 1x1 convolutions that are linear layers in ours."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor

#: The published name of a codebook, and ours.
CODEBOOK = ("quantize.embedding.weight", "quantizer.embedding")


def start_usage(weights: dict[str, Tensor]) -> None:
    """Adds the state of a `vq` that published files do not hold, as if it had observed no step yet."""
    weights["quantizer.usage"] = torch.zeros(len(weights["quantizer.embedding"]))
    weights["quantizer.steps"] = torch.tensor(0)


def without_usage(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without all state of the `vq` but its codebook."""
    state = ("usage", "steps", "cluster_size", "cluster_sum")
    return {name: value for name, value in weights.items() if name not in [f"quantizer.{part}" for part in state]}


def as_linear(weights: dict[str, Tensor], names: Iterable[str]) -> None:
    """Turns the 1x1 convolutions (out, in, 1, 1) among the weights into linear layers (out, in)."""
    for name in names:
        if name in weights and weights[name].ndim > 2 and prod(weights[name].shape[2:]) == 1:
            weights[name] = weights[name].flatten(1)


def as_convolution(weights: dict[str, Tensor], names: Iterable[str]) -> None:
    """The inverse of `as_linear`."""
    for name in names:
        if name in weights:
            weights[name] = weights[name][..., None, None]
