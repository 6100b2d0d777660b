"""Index backpropagation quantization (Shi et al. 2024, arXiv 2412.02692): the gradient reaches every codeword.

A code is the codeword with the largest dot product. Behind the hard choice stands a softmax over the whole codebook,
through which its gradient flows to all codewords and to the encoder. In training this takes K numbers per token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.kinds.nearest import product_scores, smallest
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import codebook_range, width_range
from robustok_core.values.full_precision import full_precision
from robustok_core.values.latents import Latents
from robustok_training.entropy import usage_entropy


@frozen(kw_only=True)
class IBQConfig:
    """Options of `ibq`; the defaults are those of its published tokenizers."""

    codebook_size: int = field(default=16384, validator=codebook_range, metadata={"doc": "K, number of codewords"})
    width: int = field(default=256, validator=width_range, metadata={"doc": "D, numbers per codeword"})
    joint_weight: float = field(
        default=1.0,
        validator=validators.ge(0),
        metadata={"doc": "weight of the term that pulls vectors and, through the softmax, all codewords together"},
    )
    commitment: float = field(
        default=1.0, validator=validators.ge(0), metadata={"doc": "weight of the term that pulls vectors to codewords"}
    )
    codebook_weight: float = field(
        default=0.25, validator=validators.ge(0), metadata={"doc": "weight of the term that pulls codewords to vectors"}
    )
    entropy_weight: float = field(
        default=0.05,
        validator=validators.ge(0),
        metadata={"doc": "weight of the entropy term: sure choices of each token, even usage of the codes"},
    )
    temperature: float = field(
        default=0.01,
        validator=validators.gt(0),
        metadata={"doc": "of the softmax in the entropy term; dot products are divided by it"},
    )


class IBQ(Quantizer):
    """Replaces each vector by the codeword with the largest dot product; nothing is normalised."""

    Config = IBQConfig
    nearest_by = "dot product"

    def __init__(self, config: IBQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size, self.width = config.codebook_size, config.width
        self.embedding = nn.Parameter(torch.randn(config.codebook_size, config.width))

    @property
    def codebook(self) -> Tensor:
        """(K, D) float32."""
        return self.embedding

    def lookup(self, codes: Tensor) -> Tensor:
        """(..., D) codewords of codes (...)."""
        return F.embedding(codes, self.embedding)

    def nearest(self, z: Tensor, count: int) -> Tensor:
        """(M, count) int64, the codes with the largest dot products with each row of z (M, D), largest first."""
        return torch.cat([smallest(scores, count) for scores in product_scores(z, self.embedding)])

    def quantize(self, z: Tensor) -> Latents:
        """Latents of z (B, N, D); losses "joint", "commitment", "codebook" and "entropy" in training mode."""
        compared = z.float()
        rows = compared.flatten(0, 1)
        codes = torch.cat([scores.argmin(dim=1) for scores in product_scores(rows, self.embedding)]).view(z.shape[:2])
        codewords, losses = self.lookup(codes), {}
        if self.training or torch.is_grad_enabled():
            with full_precision(z.device):
                products = rows @ self.embedding.T  # (B * N, K)
                soft = (products.softmax(dim=1) @ self.embedding.detach()).view(z.shape)
            vectors = codewords + (soft - soft.detach())  # the values of codewords, with the softmax's gradient too
            losses = self._losses(compared, codewords, vectors, products) if self.training else {}
        else:
            vectors = codewords
        return Latents(vectors=vectors, codes=codes, features=z, losses=losses)

    def _losses(self, compared: Tensor, codewords: Tensor, vectors: Tensor, products: Tensor) -> dict[str, Tensor]:
        config = self.config
        return {
            "joint": config.joint_weight * F.mse_loss(vectors, compared),
            "commitment": config.commitment * F.mse_loss(compared, codewords.detach()),
            "codebook": config.codebook_weight * F.mse_loss(codewords, compared.detach()),
            "entropy": config.entropy_weight * _entropy(products / config.temperature),
        }


def _entropy(logits: Tensor) -> Tensor:
    """The mean entropy of each token's choice minus the entropy of a micro-batch's usage, in nats; logits (M, K)."""
    with full_precision(logits.device):
        log_shares = logits.log_softmax(dim=1)
        shares = log_shares.exp()
        return -(shares * log_shares).sum(dim=1).mean() - usage_entropy(shares.mean(dim=0))
