"""Wrong tokens as a generator draws them: by the measured law of its errors (ours, not the paper's).

`top_delta` replaces a token by any of the delta nearest codewords, all alike. A generator errs otherwise: often by
near neighbours, sometimes by far ones. `robustok calibrate` measures how often it draws a neighbour of each rank, and
prints the law as the option `shares`; this perturbation replaces tokens by that law. A replaced token always changes:
a share alpha of rank_law changes as many tokens as alpha delta / (delta - 1) of top_delta, on average.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.devices import sent
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_perturbations.selection import (
    Anneal,
    check_images,
    check_tokens,
    pick,
    share_field,
    with_codes,
)
from robustok_toolkit.rank_law import check_ranked, codes_at, draw_ranks


def _is_law(_: object, __: object, shares: tuple[float, ...]) -> None:
    if not shares or len(shares) > 32 or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError("must hold 1 to 32 numbers that are not negative, at least one of them above 0")


@frozen(kw_only=True)
class RankLawConfig:
    """Which images and tokens are replaced, as of `top_delta`, and the law by which."""

    shares: tuple[float, ...] = field(
        validator=_is_law,
        metadata={
            "doc": "how often each range of ranks is drawn, nearest first: the last is the farther half of the "
            "codebook, the one before it the quarter before that, ...; `robustok calibrate` prints it"
        },
    )
    beta: float = share_field(0.1, "share of the images of a batch that are perturbed")
    alpha: float = share_field(1.0, "share of the tokens of a perturbed image that are replaced")
    anneal: Anneal | None = field(default=None, metadata={"doc": "how alpha falls during training; left out: constant"})


class RankLaw(Perturbation):
    """Replaces tokens by other codes, near and far ones as often as a law says; the law does not change in training."""

    Config = RankLawConfig

    def __init__(self, config: RankLawConfig) -> None:
        self.config = config

    def perturb(
        self, latents: Latents, quantizer: Quantizer | None, *, draws: Draws, progress: float
    ) -> tuple[Latents, Tensor]:
        codes, config = latents.codes, self.config
        if quantizer is None or codes is None:
            raise ValueError("rank_law replaces codes, and these latents have none")
        mask = torch.zeros_like(codes, dtype=torch.bool)  # (B, N)
        alpha = config.alpha * (1.0 if config.anneal is None else config.anneal.factor(progress))
        if config.beta == 0 or alpha == 0:
            return latents, mask
        picked = pick(draws, codes.shape[1], beta=config.beta, images="random", alpha=alpha, tokens="exact")
        uniform = picked.draws.child("ranks").uniform(codes.shape[1])[picked.tokens]  # (M,)
        positions, mask = picked.send(len(codes), codes.device)
        ranks = draw_ranks(sent(uniform, codes.device), config.shares, quantizer.codebook_size)
        return with_codes(latents, positions, codes_at(ranks, codes[positions], quantizer), quantizer), mask

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """Raises RobustokError if there are no codes, too many to order, or too few tokens or images."""
        try:
            check_ranked(space.codebook_size, "rank_law")
        except RobustokError as error:
            raise RobustokError(error.what, where="perturbation.use", hint=error.hint) from error
        check_tokens(space, self.config.alpha, self.config.anneal)
        check_images(batch_size, self.config.beta, "random")

    @classmethod
    def of_strength(cls, config: Any, **strength: Any) -> Any:
        """All images, at alpha."""
        if strength.keys() != {"alpha"}:
            raise ValueError("takes only alpha, because its shares say how far codes lie: use the metric rank_pfd")
        return super().of_strength(config, **strength)
