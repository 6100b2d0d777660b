"""Samples tokens from logits: temperature, top-k, top-p and inverse transform sampling."""

from __future__ import annotations

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.values.ignored import refuse_ignored
from robustok_generators.repeated_step import Execution, execution_option


@frozen(kw_only=True)
class TokenSampling:
    """How tokens are sampled; the defaults sample from the model's distribution unchanged."""

    temperature: float = field(
        default=1.0,
        validator=validators.ge(0.0),
        metadata={"doc": "divides the logits; below 1 is sharper, 0 takes the most likely code"},
    )
    top_k: int = field(
        default=0, validator=validators.ge(0), metadata={"doc": "sample from this many most likely codes; 0: all"}
    )
    top_p: float = field(
        default=1.0,
        validator=[validators.gt(0.0), validators.le(1.0)],
        metadata={"doc": "sample from the most likely codes that together reach this probability; 1: all"},
    )
    execution: Execution = execution_option()

    def __attrs_post_init__(self) -> None:
        refuse_ignored(self, "top_k", "top_p", unless=self.temperature > 0.0, needs="a temperature above 0")


def choose(logits: Tensor, uniform: Tensor, sampling: TokenSampling) -> Tensor:
    """Samples one code per row: (B,) int64.

    Args:
        logits: (B, K) float32, guided.
        uniform: (B,) in [0, 1), the random numbers.
        sampling: applied in the order temperature, top-k, top-p.
    """
    if sampling.temperature == 0.0:
        return logits.argmax(dim=1)
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[1]:
        logits = only_top_k(logits, sampling.top_k)
    if sampling.top_p < 1.0:
        logits = only_top_p(logits, sampling.top_p)
    return inverse_cdf(logits, uniform)


def only_top_k(logits: Tensor, k: int) -> Tensor:
    """Sets logits (B, K) to minus infinity where k others are greater."""
    least = logits.topk(k, dim=1).values[:, -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def only_top_p(logits: Tensor, p: float) -> Tensor:
    """Sets logits (B, K) to minus infinity where more likely codes already reach p (Holtzman et al. 2020)."""
    ordered, order = logits.sort(dim=1, descending=True, stable=True)
    shares = ordered.softmax(dim=1)
    likelier = shares.cumsum(dim=1) - shares
    outside = likelier >= p
    return logits.masked_fill(torch.empty_like(outside).scatter_(1, order, outside), -torch.inf)


def inverse_cdf(logits: Tensor, uniform: Tensor) -> Tensor:
    """(B,) int64: the first code at which the cumulative distribution of logits (B, K) exceeds uniform (B,).

    In float64: in float32 the sum of many small probabilities can stay below the uniform number.
    """
    cumulative = logits.double().softmax(dim=1).cumsum(dim=1)
    return torch.searchsorted(cumulative, uniform.double()[:, None], right=True)[:, 0]
