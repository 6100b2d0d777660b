"""Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505): each number is rounded to one of a few levels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_blocks.straight_through import straight_through
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.full_precision import full_precision
from robustok_core.values.latents import Latents
from robustok_quantizers.library import check_fits, with_all_buffers_saved


@frozen(kw_only=True)
class FSQConfig:
    """Options of `fsq`."""

    levels: tuple[int, ...] = field(
        default=(8, 5, 5, 5),
        validator=[validators.min_len(1), validators.deep_iterable(validators.ge(3))],
        metadata={"doc": "number of levels per channel; their product is K, their count is D"},
    )

    def __attrs_post_init__(self) -> None:
        check_fits(math.prod(self.levels) * len(self.levels))


class FSQ(Quantizer):
    """A fixed grid of codewords in [-1, 1]^D; there are no losses."""

    Config = FSQConfig

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        from vector_quantize_pytorch import FSQ as LibraryFSQ

        self.config = config
        self.codebook_size, self.width = math.prod(config.levels), len(config.levels)
        self.library = with_all_buffers_saved(lambda: LibraryFSQ(levels=list(config.levels)))

    @property
    def codebook(self) -> Tensor:
        return self.library.implicit_codebook

    def lookup(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.codebook)

    def quantize(self, z: Tensor) -> Latents:
        """Latents of z (B, N, D); `features` is z before the rounding, bounded to about [-1, 1]."""
        with full_precision(z.device):
            rounded, codes = self.library(z.float())
            codes = codes.long()
            return Latents(
                vectors=straight_through(rounded, self.lookup(codes)), codes=codes, features=self._bounded(z.float())
            )

    def _bounded(self, z: Tensor) -> Tensor:
        """Bounds z to the codebook's scale before the rounding (the paper's function `bound`)."""
        levels = self.library._levels
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        return (torch.tanh(z + torch.atanh(offset / half)) * half - offset) / (levels // 2)
