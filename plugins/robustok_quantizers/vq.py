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
from robustok_core.recipe.validators import below_one, codebook_range, width_range
from robustok_core.values.draws import Draws
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.latents import Latents
from robustok_quantizers.step_statistics import StepStatistics
from robustok_training.host_count import HostCount


@frozen(kw_only=True)
class VQConfig:
    """Options of `vq`; the defaults are those of the released RobusTok and LlamaGen tokenizers."""

    codebook_size: int = field(default=4096, validator=codebook_range, metadata={"doc": "K, number of codewords"})
    width: int = field(default=64, validator=width_range, metadata={"doc": "D, numbers per codeword"})
    l2_normalise: bool = field(
        default=True, metadata={"doc": "compare on the unit sphere: vectors and codewords are normalised"}
    )
    commitment: float = field(
        default=0.25, validator=validators.ge(0), metadata={"doc": "weight of the term that pulls vectors to codewords"}
    )
    codebook_update: Literal["gradient", "ema"] = field(
        default="gradient",
        validator=validators.in_(("gradient", "ema")),
        metadata={"doc": "how codewords learn: by a loss term, or as moving averages of the vectors assigned to them"},
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
        metadata={
            "doc": "usage relative to uniform below which a code is dead and restarts at a recent vector; 0: never"
        },
    )
    restart_after: int = field(
        default=100, validator=validators.ge(1), metadata={"doc": "steps between searches for dead codes"}
    )

    def __attrs_post_init__(self) -> None:
        moves = self.codebook_update == "ema"
        refuse_ignored(self, "ema_decay", unless=moves, needs='codebook_update = "ema"')
        refuse_ignored(self, "codebook_weight", unless=not moves, needs='codebook_update = "gradient"')
        restarts = self.restart_threshold > 0.0
        refuse_ignored(self, "restart_after", unless=restarts, needs="a restart_threshold above 0")


class VQ(Quantizer):
    """Replaces each vector by its nearest codeword.

    Codewords are stored unnormalised and normalised on use. Statistics of the codebook are collected over a
    step's micro-batches and applied in `after_step` over all processes, so that gradient accumulation and the
    number of processes change nothing.

    Buffers:
        usage: (K,) moving average of each code's share of the tokens; sums to 1.
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
        self._count = HostCount()

    @property
    def codebook(self) -> Tensor:
        """(K, D) float32, on the unit sphere if `l2_normalise` is on."""
        return self._normalise(self.embedding)

    def lookup(self, codes: Tensor) -> Tensor:
        """(..., D) codewords of codes (...)."""
        return F.embedding(codes, self.codebook)

    def quantize(self, z: Tensor) -> Latents:
        """Latents of z (B, N, D); losses "codebook" and "commitment" in training mode."""
        compared = self._normalise(z.float())  # (B, N, D)
        rows = rearrange(compared, "b n d -> (b n) d")
        codebook = self.codebook
        flat_codes = torch.cat([scores.argmin(dim=1) for scores in distance_scores(rows, codebook)])
        codes = flat_codes.reshape(z.shape[:2])
        codewords = F.embedding(codes, codebook)
        losses = {}
        if self.training:
            self._observe(rows, flat_codes)
            losses = self._losses(compared, codewords)
        return Latents(vectors=straight_through(compared, codewords), codes=codes, features=z, losses=losses)

    def _observe(self, rows: Tensor, codes: Tensor) -> None:
        """Stores only what `after_step` needs of a micro-batch, since it may never be called."""
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
        """Applies the step's statistics: updates usage and moving averages, restarts dead codes."""
        if self._step.counts is None:
            return
        step, self._step = self._step, StepStatistics()
        counts = step.total_counts()
        number = self._count.increment(self.steps)
        self._update_usage(counts, number)
        if self.config.codebook_update == "ema":
            self._update_averages(counts, step.total_sums())
        if self.config.restart_threshold > 0 and number % self.config.restart_after == 0:
            self._restart(step, draws)

    def _update_usage(self, counts: Tensor, number: int) -> None:
        decay = 0.0 if number == 1 else 0.9 if number <= 100 else 0.99  # the released code's schedule
        self.usage.lerp_(counts / counts.sum(), 1.0 - decay)

    def _update_averages(self, counts: Tensor, sums: Tensor) -> None:
        weight = 1.0 - self.config.ema_decay
        self.cluster_size.lerp_(counts.float(), weight)
        self.cluster_sum.lerp_(sums, weight)
        hit = (counts > 0)[:, None]  # a code without hits stays bit-identical
        self.embedding.copy_(torch.where(hit, self.cluster_sum / self.cluster_size[:, None], self.embedding))

    def _restart(self, step: StepStatistics, draws: Draws) -> None:
        dead = (self.usage < self.config.restart_threshold / self.codebook_size).nonzero()[:, 0]
        vectors = step.pick(len(dead), draws.generator("restart"))
        dead = dead[: len(vectors)]
        self.embedding[dead] = vectors
        self.usage[dead] = 1.0 / self.codebook_size  # or the next search would restart it again
        if self.config.codebook_update == "ema":
            self.cluster_size[dead] = 1.0
            self.cluster_sum[dead] = vectors
