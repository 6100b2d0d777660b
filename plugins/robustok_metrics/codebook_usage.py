"""Metric `codebook_usage`: how many codes a tokenizer uses, and how evenly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.values.latents import LatentSpace
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec

#: The counts of so many codes take half a GiB.
_MOST_CODES = 2**26


@frozen(kw_only=True)
class CodebookUsageConfig:
    """Codebook usage has no options."""


class CodebookUsage(Metric):
    """Results: `codebook_usage`, the share of codes seen at least once, and `codebook_perplexity`.

    Both grow with the number of images until every code in use has been seen.
    """

    Config = CodebookUsageConfig
    also_called = ("perplexity", "usage", "utilization")

    def __init__(self, config: CodebookUsageConfig) -> None:
        self.config = config

    def check(self, space: LatentSpace) -> None:
        """Raises RobustokError if the latent space has no codes, or more than can be counted one by one."""
        if space.codebook_size is None:
            raise RobustokError(
                f"this latent space has no codes to count ({space.describe()})",
                where="metric codebook_usage",
                hint="remove the metric for a continuous tokenizer",
            )
        if space.codebook_size > _MOST_CODES:
            what = f"at most {_MOST_CODES:,} codes are counted, and this latent space has {space.codebook_size:,}"
            raise RobustokError(what, where="metric codebook_usage", hint="remove the metric for such a codebook")

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return ["codebook_usage", "codebook_perplexity"]

    def start(self, context: EvaluationContext) -> None:
        """Clears the counts; raises as `check` does."""
        self.check(context.tokenizer.space)
        size = context.tokenizer.space.codebook_size
        assert size is not None
        self.num_images = context.num_images
        self.counts = torch.zeros(size, dtype=torch.int64, device=context.device)

    def update(self, step: Evaluation) -> None:
        assert step.latents.codes is not None
        self.counts += torch.bincount(step.latents.codes.flatten(), minlength=len(self.counts))

    def state(self) -> Mapping[str, Tensor]:
        return {"counts": self.counts}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.counts = state["counts"]

    def compute(self) -> Mapping[str, Result]:
        values = {"codebook_usage": usage(self.counts), "codebook_perplexity": perplexity(self.counts)}
        return {
            name: Result(value, higher_is_better=True, num_images=self.num_images) for name, value in values.items()
        }


def usage(counts: Tensor) -> float:
    """The share of codes that were seen; counts (K,)."""
    return float((counts > 0).double().mean())


def perplexity(counts: Tensor) -> float:
    """The exponential of the entropy of the code distribution; K if all K codes are used equally.

    Raises:
        RunError: nothing was counted.
    """
    total = counts.sum()
    if total == 0:
        raise RunError("no codes were counted")
    shares = counts[counts > 0].cpu().double() / total.item()
    return float(torch.exp(-(shares * shares.log()).sum()))
