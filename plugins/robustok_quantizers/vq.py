"""Vector quantization with a learned codebook (van den Oord et al. 2017, arXiv 1711.00937).

The codebook of RobusTok and LlamaGen: codewords and vectors compared on the unit sphere
(`l2_normalise`, Yu et al. 2021, arXiv 2110.04627), learned by gradient or by moving averages.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.straight_through import straight_through
from robustok_core.kinds.nearest import distance_scores
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import below_one
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents
from robustok_quantizers.step_statistics import StepStatistics


@frozen(kw_only=True)
class VQConfig:
    """Options of `vq`; the defaults are those of the released RobusTok and LlamaGen tokenizers."""

    codebook_size: int = field(default=4096, validator=validators.ge(2), metadata={"doc": "K, number of codewords"})
    width: int = field(default=64, validator=validators.ge(1), metadata={"doc": "D, numbers per codeword"})
    l2_normalise: bool = field(
        default=True, metadata={"doc": "compare on the unit sphere: vectors and codewords are normalised"}
    )
    commitment: float = field(
        default=0.25, validator=validators.ge(0), metadata={"doc": "weight of the term that pulls vectors to codewords"}
    )
    codebook_update: Literal["gradient", "ema"] = field(
        default="gradient",
        validator=validators.in_(("gradient", "ema")),
        metadata={"doc": "how codewords learn: by a loss term, or as moving averages of the vectors they serve"},
    )
    codebook_weight: float = field(
        default=1.0,
        validator=validators.ge(0),
        metadata={"doc": "weight of the term that pulls codewords to vectors (codebook_update = gradient)"},
    )
    ema_decay: float = field(
        default=0.99,
        validator=below_one,
        metadata={"doc": "decay per step of the moving averages (codebook_update = ema)"},
    )
    restart_threshold: float = field(
        default=0.0,
        validator=below_one,
        metadata={"doc": "share of uniform usage below which a code is dead and restarts at a recent vector; 0: never"},
    )
    restart_after: int = field(
        default=100, validator=validators.ge(1), metadata={"doc": "steps between two searches for dead codes"}
    )


class VQ(Quantizer):
    """Replaces each vector by its nearest codeword.

    Codewords are stored as they are learned and normalised where they are used. What training tells about
    the codebook is collected over a step's micro-batches and applied in `after_step` over all processes,
    so that accumulation and processes change nothing.

    Buffers:
        usage: (K,) moving average of each code's share of the tokens, sums to 1.
        steps: number of steps observed.
    """

    Config = VQConfig
    usage: Tensor
    steps: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size, self.width = config.codebook_size, config.width
        bound = 1.0 / self.codebook_size
        codewords = self._normalise(torch.empty(self.codebook_size, self.width).uniform_(-bound, bound))
        if config.codebook_update == "gradient":
            self.embedding = nn.Parameter(codewords)
        else:
            self.register_buffer("embedding", codewords)
            self.register_buffer("cluster_size", torch.ones(self.codebook_size))
            self.register_buffer("cluster_sum", codewords.clone())
        self.register_buffer("usage", torch.zeros(self.codebook_size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._step = StepStatistics()

    @property
    def codebook(self) -> Tensor:
        """(K, D) float32, on the unit sphere where `l2_normalise` is on."""
        return self._normalise(self.embedding)

    def lookup(self, codes: Tensor) -> Tensor:
        """(..., D) codewords of codes (...)."""
        return F.embedding(codes, self.codebook)

    def quantize(self, z: Tensor) -> Latents:
        """Latents of z (B, N, D); losses "codebook" and "commitment" in training mode."""
        compared = self._normalise(z.float())  # (B, N, D)
        rows = rearrange(compared, "b n d -> (b n) d")
        codebook = self.codebook
        found = torch.cat([scores.argmin(dim=1) for scores in distance_scores(rows, codebook)])
        codes = found.reshape(z.shape[:2])
        codewords = F.embedding(codes, codebook)
        losses = {}
        if self.training:
            self._observe(rows, found)
            losses = self._losses(compared, codewords)
        return Latents(vectors=straight_through(compared, codewords), codes=codes, features=z, losses=losses)

    def _observe(self, rows: Tensor, codes: Tensor) -> None:
        """Notes what `after_step` will need of a micro-batch, and no more: it may never be called."""
        self._step.count(codes, self.codebook_size)
        if self.config.codebook_update == "ema":
            self._step.add_up(rows, codes, self.codebook_size)
        if self.config.restart_threshold > 0:
            self._step.keep(rows)

    def _losses(self, compared: Tensor, codewords: Tensor) -> dict[str, Tensor]:
        losses = {"commitment": self.config.commitment * F.mse_loss(compared, codewords.detach())}
        if self.config.codebook_update == "gradient":
            losses["codebook"] = self.config.codebook_weight * F.mse_loss(codewords, compared.detach())
        return losses

    def _normalise(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.l2_normalise else vectors

    @torch.no_grad()
    def after_step(self, draws: Draws) -> None:
        """Applies what the step's micro-batches told: usage, moving averages, restart of dead codes."""
        if self._step.counts is None:
            return
        step, self._step = self._step, StepStatistics()
        counts = step.total_counts()
        self.steps += 1
        self._update_usage(counts)
        if self.config.codebook_update == "ema":
            self._update_averages(counts, step.total_sums())
        if self.config.restart_threshold > 0 and int(self.steps) % self.config.restart_after == 0:
            self._restart(step, draws)

    def _update_usage(self, counts: Tensor) -> None:
        steps = int(self.steps)
        decay = 0.0 if steps == 1 else 0.9 if steps <= 100 else 0.99  # the released code's schedule
        self.usage.lerp_(counts / counts.sum(), 1.0 - decay)

    def _update_averages(self, counts: Tensor, sums: Tensor) -> None:
        weight = 1.0 - self.config.ema_decay
        self.cluster_size.lerp_(counts.float(), weight)
        self.cluster_sum.lerp_(sums, weight)
        hit = counts > 0  # a code without hits keeps its place to the bit
        self.embedding[hit] = self.cluster_sum[hit] / self.cluster_size[hit, None]

    def _restart(self, step: StepStatistics, draws: Draws) -> None:
        dead = (self.usage < self.config.restart_threshold / self.codebook_size).nonzero()[:, 0]
        vectors = step.pick(len(dead), draws.generator("restart"))
        dead = dead[: len(vectors)]
        self.embedding[dead] = vectors
        self.usage[dead] = 1.0 / self.codebook_size  # a fresh start, or the next search would take it again
        if self.config.codebook_update == "ema":
            self.cluster_size[dead] = 1.0
            self.cluster_sum[dead] = vectors
