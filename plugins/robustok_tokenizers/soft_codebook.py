"""Soft vector quantization: a latent is a mean of codewords (SoftVQ-VAE, Chen et al. 2024, arXiv 2412.10958)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_core.recipe.validators import codebook_range, width_range
from robustok_core.values.full_precision import full_precision
from robustok_core.values.latents import Latents
from robustok_training.entropy import entropy, usage_entropy


@frozen(kw_only=True)
class SoftCodebookConfig:
    """Options of a soft codebook; the defaults are those of the released SoftVQ tokenizers."""

    num_tables: int = field(
        default=4,
        validator=width_range,
        metadata={"doc": "tables of codewords, each for as many consecutive tokens as the others"},
    )
    size: int = field(default=8192, validator=codebook_range, metadata={"doc": "K, codewords of a table"})
    temperature: float = field(
        default=0.07, validator=validators.gt(0.0), metadata={"doc": "temperature of the softmax over them"}
    )
    l2_normalise: bool = field(
        default=True, metadata={"doc": "compare on the unit sphere: vectors and codewords are normalised"}
    )
    entropy_weight: float = field(
        default=0.01,
        validator=validators.ge(0.0),
        metadata={"doc": "weight of the entropy of each token's weights minus that of their mean, in nats"},
    )


class SoftCodebook(nn.Module):
    """Replaces vectors by means of codewords, weighted by a softmax of their dot products.

    Args:
        config: its options. num_tokens: N, a multiple of the number of tables. width: D.
    """

    def __init__(self, config: SoftCodebookConfig, num_tokens: int, width: int) -> None:
        super().__init__()
        self.config, self.per_table = config, num_tokens // config.num_tables
        bound = 1.0 / config.size
        codewords = torch.empty(config.num_tables, config.size, width).uniform_(-bound, bound)
        self.embedding = nn.Parameter(self._normalise(codewords))

    def forward(self, z: Tensor) -> Latents:
        """Latents of z (B, N, D): `vectors` are means of codewords; the loss "entropy" in training mode."""
        with full_precision(z.device):
            weights = self.weights(z)
            vectors = torch.einsum("b t n k, t k d -> b t n d", weights, self._normalise(self.embedding))
            losses = {"entropy": self._entropy(weights)} if self.training else {}
        return Latents(vectors=vectors.flatten(1, 2), features=z, losses=losses)

    def weights(self, z: Tensor) -> Tensor:
        """(B, tables, N / tables, K) float32, the weights of the codewords for z (B, N, D); they sum to 1.

        As in the published code, codewords learn from the means alone, not from their weights.
        """
        compared = self._normalise(rearrange(z.float(), "b (t n) d -> b t n d", n=self.per_table))
        codewords = self._normalise(self.embedding).detach()
        scores = torch.einsum("b t n d, t k d -> b t n k", compared, codewords)
        return (scores / self.config.temperature).softmax(dim=-1)

    def _entropy(self, weights: Tensor) -> Tensor:
        """A token's entropy minus that of a table's mean weights over all processes, averaged over the tables."""
        means = weights.mean(dim=(0, 2))  # (tables, K)
        return self.config.entropy_weight * (entropy(weights).mean() - usage_entropy(means).mean())

    def _normalise(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.l2_normalise else vectors
