"""Lookup-free quantization (Yu et al. 2023, arXiv 2310.05737): the sign of each number is a bit of the code.

With `spherical` it is binary spherical quantization (Zhao et al. 2024, arXiv 2406.07548).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_blocks.straight_through import straight_through
from robustok_core.kinds.nearest import distance_scores, smallest
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import in_range
from robustok_core.values.full_precision import full_precision
from robustok_core.values.latents import Latents
from robustok_quantizers.library import with_all_buffers_saved
from robustok_training.entropy import usage_entropy


@frozen(kw_only=True)
class LFQConfig:
    """Options of `lfq`."""

    width: int = field(
        default=10,
        validator=in_range(1, 18),
        metadata={"doc": "D, bits per code; K = 2 to the power D, and the entropy term needs K numbers per token"},
    )
    spherical: bool = field(default=False, metadata={"doc": "compare on the unit sphere"})
    lowest_bit_first: bool = field(
        default=False,
        metadata={"doc": "the first number is the lowest bit of the code, as in Open-MAGVIT2, instead of the highest"},
    )
    entropy_weight: float = field(
        default=0.1, validator=validators.ge(0), metadata={"doc": "weight of the entropy term"}
    )
    diversity: float = field(
        default=1.0, validator=validators.ge(0), metadata={"doc": "weight of the even-usage part of the entropy term"}
    )
    inverse_temperature: float = field(
        default=100.0, validator=validators.gt(0), metadata={"doc": "sharpness of the soft codes in the entropy term"}
    )
    commitment: float = field(
        default=0.25, validator=validators.ge(0), metadata={"doc": "weight of the term that pulls vectors to codewords"}
    )


class LFQ(Quantizer):
    """Uses the corners of a cube as codewords. The library assigns codes; the losses are ours, because the library
    (1.32) loses its average over processes.
    """

    Config = LFQConfig

    def __init__(self, config: LFQConfig) -> None:
        super().__init__()
        from vector_quantize_pytorch import LFQ as LibraryLFQ

        self.config = config
        self.codebook_size, self.width = 2**config.width, config.width
        self.library = with_all_buffers_saved(lambda: LibraryLFQ(dim=config.width, spherical=config.spherical)).eval()

    def train(self, mode: bool = True) -> LFQ:
        """Keeps the library in eval mode, in which it only quantizes."""
        super().train(mode)
        self.library.eval()
        return self

    @property
    def codebook(self) -> Tensor:
        return self._on_sphere(self._ordered(self.library.codebook))

    def lookup(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.codebook)

    def quantize(self, z: Tensor) -> Latents:
        """Latents of z (B, N, D); losses "entropy" and "commitment" in training mode."""
        with full_precision(z.device):
            compared = self._on_sphere(z.float())
            codes = self.library(self._ordered(z.float())).indices.long()
            codewords = self.lookup(codes)
            losses = {}
            if self.training:
                losses["entropy"] = self.config.entropy_weight * self._entropy(compared.flatten(0, 1))
                losses["commitment"] = self.config.commitment * F.mse_loss(compared, codewords)
        return Latents(vectors=straight_through(compared, codewords), codes=codes, features=z, losses=losses)

    def nearest(self, z: Tensor, count: int) -> Tensor:
        """(M, count) int64, the codes nearest to each row of z (M, D), nearest first.

        The codes nearest to a codeword are those that differ from its code in the fewest bits; among codes that
        differ in equally many, the lower ones come first.
        """
        if not self.config.spherical:
            return super().nearest(z, count)
        # All codewords have the same length, so the order is that of the corners of the cube for any multiple of z.
        # With this multiple a codeword becomes a corner, whose distances are whole numbers: equal ones are equal.
        z = z.float() / z.float().abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        corners = self._ordered(self.library.codebook)
        return torch.cat([smallest(scores, count) for scores in distance_scores(z, corners)])

    def _entropy(self, vectors: Tensor) -> Tensor:
        """The mean entropy per code minus the weighted entropy of a micro-batch's usage, over all processes; (M, D)."""
        codebook = self.codebook
        scores = 2 * self.config.inverse_temperature * vectors @ codebook.T  # (M, K)
        evenness = usage_entropy(scores.softmax(dim=1).mean(dim=0))
        # The bits of a soft code are independent: its entropy is the sum of theirs.
        bit_logits = 4 * self.config.inverse_temperature * vectors * codebook[-1]
        return _bit_entropy(bit_logits).sum(dim=1).mean() - self.config.diversity * evenness

    def _ordered(self, vectors: Tensor) -> Tensor:
        """Vectors (..., D) from our order of bits to the library's, or back."""
        return vectors.flip(-1) if self.config.lowest_bit_first else vectors

    def _on_sphere(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.spherical else vectors


def _bit_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of bits with these log odds."""
    return F.softplus(logits) - logits * torch.sigmoid(logits)
