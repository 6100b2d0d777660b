"""Which images and tokens a perturbation meets, and how it weakens as training goes on (paper section 3)."""

from __future__ import annotations

import math
from typing import Literal

from attrs import field, frozen
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.recipe.validators import unit_interval
from robustok_core.values.draws import Draws
from robustok_core.values.latents import LatentSpace

WhichImages = Literal["random", "first"]
WhichTokens = Literal["exact", "bernoulli"]


def share_field(default: float, doc: str) -> float:
    """An option that is a share, in [0, 1]."""
    return field(default=default, validator=unit_interval, metadata={"doc": doc})


@frozen(kw_only=True)
class Anneal:
    """How a perturbation weakens: constant, then linear, then constant. The defaults are the paper's (200 epochs)."""

    start: float = share_field(0.2, "share of the training after which it begins to weaken (epoch 40)")
    end: float = share_field(0.6, "share of the training after which it stays (epoch 120)")
    ratio: float = share_field(0.5, "share of its first strength that is left in the end")

    def __attrs_post_init__(self) -> None:
        if self.start > self.end:
            raise ValueError(f"annealing ends ({self.end}) before it starts ({self.start})")

    def factor(self, progress: float) -> float:
        """What its strengths are multiplied by at this share of the training: 1 at first, `ratio` at last."""
        if progress <= self.start:
            return 1.0
        if progress >= self.end:
            return self.ratio
        return 1.0 - (1.0 - self.ratio) * (progress - self.start) / (self.end - self.start)


def pick_images(draws: Draws, beta: float, which: WhichImages) -> Tensor:
    """(B,) bool: whether each of the draws' rows is among the perturbed images of all `draws.total`."""
    count = int(beta * draws.total) if which == "first" else round_half_up(beta * draws.total)
    if count == 0:
        enough = math.ceil(1e4 / draws.total) / 1e4
        raise RobustokError(
            f"beta = {beta} of a batch of {draws.total} images is not one image",
            where="perturbation.beta",
            hint=f"perturb at least {enough} of them, or enlarge the batch; beta = 0 turns it off",
        )
    return draws.indices < count if which == "first" else draws.chosen(count)


def pick_tokens(draws: Draws, num_tokens: int, alpha: float, which: WhichTokens) -> Tensor:
    """(B, N) bool: whether each token of the draws' rows is replaced."""
    if which == "bernoulli":
        return draws.uniform(num_tokens) < alpha
    shuffled = draws.bits(num_tokens).argsort(dim=1)  # a random permutation of [0, N) in each row
    return shuffled < round_half_up(alpha * num_tokens)


def check_tokens(space: LatentSpace, alpha: float) -> None:
    """Raises RobustokError where an exact share alpha above 0 of the tokens is no token."""
    replaced = alpha * space.num_tokens
    if replaced > 0 and round_half_up(replaced) == 0:
        raise RobustokError(
            f"alpha = {alpha} of {space.num_tokens} tokens is not one token",
            where="perturbation.alpha",
            hint=f"perturb at least {1 / space.num_tokens:.2g} of them; alpha = 0 turns it off",
        )


def check_images(batch_size: int | None, beta: float, which: WhichImages) -> None:
    """Raises RobustokError where a share beta above 0 of a global batch is no image; None is any batch."""
    if batch_size is not None and beta > 0:
        pick_images(Draws.for_rows(0, batch_size), beta, which)


def round_half_up(count: float) -> int:
    """The nearest whole number, halves up as they are written: 0.29 of 50 is 15, though floats give 14.499...98."""
    return math.floor(round(count, 6) + 0.5)
