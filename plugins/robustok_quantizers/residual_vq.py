"""Residual quantization (Zeghidour et al. 2021, arXiv 2107.03312): each level quantizes the residual so far.

A token's codes c_0, c_1, ... of Q levels with k codewords each are the digits of one code, c_0 + c_1 k + c_2 k^2 ...
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_blocks.straight_through import straight_through
from robustok_core.errors import RobustokError
from robustok_core.kinds.nearest import distance_scores, smallest
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import codebook_range, in_range, width_range
from robustok_core.values.full_precision import full_precision
from robustok_core.values.latents import Latents
from robustok_quantizers.library import check_fits, with_all_buffers_saved

#: The largest codebook that can be listed, and the number of codewords of a larger one that are searched at once.
_LARGEST_LISTED = 65536


@frozen(kw_only=True)
class ResidualVQConfig:
    """Options of `residual_vq`."""

    num_levels: int = field(default=2, validator=in_range(1, 62), metadata={"doc": "Q, codes per token"})
    level_size: int = field(
        default=64,
        validator=codebook_range,
        metadata={"doc": "codewords of each level; K = level_size to the power Q"},
    )
    width: int = field(default=16, validator=width_range, metadata={"doc": "D, numbers per codeword"})
    commitment: float = field(
        default=1.0,
        validator=validators.gt(0),
        metadata={"doc": "weight of the term that pulls each level's residuals and codewords together"},
    )

    def __attrs_post_init__(self) -> None:
        if self.level_size**self.num_levels >= 2**62:
            raise ValueError(f"{self.num_levels} levels of {self.level_size} give more codes than fit in 62 bits")
        check_fits(self.num_levels * self.level_size * self.width)


class ResidualVQ(Quantizer):
    """Quantizes what the levels before left over: a token's codewords of all levels add up.

    Codewords are learned by gradient. The library's moving averages, k-means and restart of dead codes stay off:
    they act within a micro-batch and draw from global random state.
    """

    Config = ResidualVQConfig
    also_called = ("rvq",)

    def __init__(self, config: ResidualVQConfig) -> None:
        super().__init__()
        from vector_quantize_pytorch import ResidualVQ as LibraryResidualVQ

        self.config = config
        self.codebook_size, self.width = config.level_size**config.num_levels, config.width
        self.library = with_all_buffers_saved(
            lambda: LibraryResidualVQ(
                dim=config.width,
                num_quantizers=config.num_levels,
                codebook_size=config.level_size,
                learnable_codebook=True,
                ema_update=False,
                kmeans_init=False,
                threshold_ema_dead_code=0,
                rotation_trick=False,
                commitment_weight=config.commitment,
            )
        )

    @property
    def codebook(self) -> Tensor:
        if self.codebook_size > _LARGEST_LISTED:
            raise RobustokError(
                f"residual_vq has {self.codebook_size} codewords, too many to list",
                where="quantizer",
                hint=f"for a whole codebook, level_size to the power num_levels must be at most {_LARGEST_LISTED}",
            )
        return self.lookup(torch.arange(self.codebook_size, device=self.library.codebooks.device))

    def lookup(self, codes: Tensor) -> Tensor:
        levels = self.library.codebooks  # (Q, k, D)
        vectors = torch.zeros(*codes.shape, self.width, device=levels.device)
        for codewords in levels:
            vectors = vectors + F.embedding(codes % self.config.level_size, codewords)
            codes = codes // self.config.level_size
        return vectors

    def nearest(self, z: Tensor, count: int) -> Tensor:
        """As that of every quantizer; a codebook that cannot be listed is searched part by part."""
        if self.codebook_size <= _LARGEST_LISTED:
            return super().nearest(z, count)
        best = z.new_empty(len(z), 0, dtype=torch.float32)  # scores, smallest first, of the codes beside them
        codes = torch.empty_like(best, dtype=torch.int64)
        for start in range(0, self.codebook_size, _LARGEST_LISTED):
            part = torch.arange(start, min(start + _LARGEST_LISTED, self.codebook_size), device=z.device)
            scores = list(distance_scores(z, self.lookup(part)))
            columns = [smallest(rows, min(count, len(part))) for rows in scores]
            found = torch.cat([rows.gather(1, order) for rows, order in zip(scores, columns, strict=True)])
            best, codes = torch.cat([best, found], dim=1), torch.cat([codes, part[torch.cat(columns)]], dim=1)
            order = smallest(best, min(count, best.shape[1]))  # of equal scores, those before have lower codes
            best, codes = best.gather(1, order), codes.gather(1, order)
        return codes

    def quantize(self, z: Tensor) -> Latents:
        """Latents of z (B, N, D); one loss in training mode, "codebook_and_commitment"."""
        with full_precision(z.device):
            _, digits, level_losses = self.library(z.float())  # (B, N, Q), (Q,)
        weights = self.config.level_size ** torch.arange(self.config.num_levels, device=z.device)
        codes = (digits.long() * weights).sum(dim=-1)
        losses = {"codebook_and_commitment": level_losses.sum()} if self.training else {}
        return Latents(vectors=straight_through(z.float(), self.lookup(codes)), codes=codes, features=z, losses=losses)
