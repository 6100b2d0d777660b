"""MaskGIT: a bidirectional transformer that fills in many masked tokens at a time (arXiv 2202.04200).

Training masks a random share of an image's tokens and predicts them. Sampling starts with all tokens masked; each
step samples all masked tokens, keeps the most confident ones and masks the others again, so that after a share s of
the steps a share cos(pi s / 2) of the tokens is still masked.

Different from the paper: pre-norm blocks, no projection before the head, and guidance by a null class. Dropout acts
on the embedded tokens and on the output of each branch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.transformer import Attention, Mlp
from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.validators import below_one, depth_range, rounds_range, width_range
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators.codes import codes_of
from robustok_generators.label_dropout import drop_labels
from robustok_generators.prepared_linear import prepared_linear
from robustok_generators.repeated_step import RepeatedStep, repeated
from robustok_generators.sizes import Size, size_field, size_of
from robustok_generators.token_sampling import TokenSampling, choose
from robustok_toolkit.eval_mode import evaluating

#: B is the paper's.
PRESETS = {
    "B": Size(width=768, depth=24, num_heads=8, mlp_width=3072),
    "L": Size(width=1024, depth=24, num_heads=16, mlp_width=4096),
}


@frozen(kw_only=True)
class MaskGITConfig:
    """Options of `maskgit`: a preset, or explicit sizes."""

    preset: Literal["B", "L"] | None = field(default=None, metadata={"doc": "a named size; B is the paper's"})
    width: int | None = size_field("numbers per token")
    depth: int | None = size_field("blocks", depth_range)
    num_heads: int | None = size_field("attention heads")
    mlp_width: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "hidden width of the MLPs; left out: the preset's, or 4 width"},
    )
    dropout: float = field(default=0.1, validator=below_one, metadata={"doc": "dropout of hidden activations"})
    label_dropout: float = field(
        default=0.1,
        validator=below_one,
        metadata={"doc": "share of training images whose label is dropped; 0: no guidance"},
    )
    label_smoothing: float = field(
        default=0.1, validator=below_one, metadata={"doc": "share of the target spread over all codes"}
    )

    def __attrs_post_init__(self) -> None:
        assert self.size  # raises if it is incomplete

    @property
    def size(self) -> Size:
        """The preset's size, overridden by the sizes given."""
        return size_of(self, PRESETS, None if self.width is None else 4 * self.width)


@frozen(kw_only=True)
class MaskGITSampling(TokenSampling):
    """Options of the sampler; the defaults are the paper's for 256 x 256 images."""

    steps: int = field(default=8, validator=rounds_range, metadata={"doc": "passes through the transformer"})
    choice_temperature: float = field(
        default=4.5,
        validator=validators.ge(0.0),
        metadata={"doc": "noise in the choice of tokens to keep; falls linearly to 0 at the last step"},
    )


class MaskedBlock(nn.Module):
    """Pre-norm attention and MLP, each followed by dropout."""

    def __init__(self, size: Size, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=1e-6)
        self.attn = Attention(size.width, size.num_heads)
        self.norm2 = nn.LayerNorm(size.width, eps=1e-6)
        self.mlp = Mlp(size.width, size.mlp_width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to the same shape."""
        x = x + self.dropout(self.attn(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class MaskGIT(Generator):
    """Predicts masked tokens from the others and the class, which is prepended as a token.

    Raises:
        RobustokError: the latent space has no codes.
    """

    Config = MaskGITConfig
    Sampling = MaskGITSampling
    not_decayed = ("positions", "token_embedding.weight", "label_embedding.weight")

    def __init__(self, config: MaskGITConfig, space: LatentSpace, num_classes: int) -> None:
        super().__init__()
        if space.codebook_size is None:
            raise RobustokError(
                f"maskgit generates codes, and this latent space has none ({space.describe()})",
                where="generator.use",
                hint="use a tokenizer with a quantizer",
            )
        self.config, self.space, self.num_classes = config, space, num_classes
        self.mask_code, self.null_label = space.codebook_size, num_classes
        self.knows_null_class = config.label_dropout > 0.0
        size = config.size
        self.token_embedding = nn.Embedding(space.codebook_size + 1, size.width)
        self.label_embedding = nn.Embedding(num_classes + 1, size.width)
        self.positions = nn.Parameter(torch.zeros(1, 1 + space.num_tokens, size.width))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(MaskedBlock(size, config.dropout) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)
        self.head = nn.Linear(size.width, space.codebook_size)
        self.initialise()

    def initialise(self) -> None:
        """Initialises as in the paper: truncated normal of standard deviation 0.02, biases 0."""
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, N, K) from tokens (B, N) in [0, K], K the mask, and labels (B,), num_classes the null class."""
        x = torch.cat([self.label_embedding(labels)[:, None], self.token_embedding(tokens)], dim=1)
        x = self.dropout(x + self.positions)  # (B, 1 + N, D)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 1:]))

    def loss(self, latents: Latents, labels: Tensor, *, draws: Draws, progress: float) -> Mapping[str, Tensor]:
        """The cross-entropy of the masked tokens, averaged over all masked tokens of the global batch (equation 1).

        So the mean over processes and micro-batches equals that of a single batch, although they mask different
        numbers of tokens.
        """
        codes = codes_of(latents)
        masked, average = mask_tokens(draws.child("mask"), codes.shape[1])
        tokens = torch.where(masked, self.mask_code, codes)
        rate = self.config.label_dropout if self.training else 0.0
        logits = self(tokens, drop_labels(labels, draws.child("label_dropout"), rate, self.null_label))
        token_losses = F.cross_entropy(
            rearrange(logits, "b n k -> b k n").float(),
            codes,
            reduction="none",
            label_smoothing=self.config.label_smoothing,
        )  # (B, N)
        return {"cross_entropy": (token_losses * masked).sum() / (average * len(codes))}

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        draws: Draws,
        *,
        guidance: Guidance,
        keep: Keep | None = None,
        sampling: MaskGITSampling | None = None,
    ) -> Latents:
        """Fills in masked tokens step by step (section 3.2); sample i depends on its label and row i of the draws.

        With `keep`, each token of the real latents is kept with probability sigma: it is known from the start, and the
        schedule runs over the remaining tokens.
        """
        return Latents(codes=self._sampled(self._start(draws, keep), labels, draws, guidance, sampling))

    @torch.no_grad()
    def sample_forced(
        self,
        labels: Tensor,
        draws: Draws,
        *,
        real: Latents,
        guidance: Guidance,
        sampling: MaskGITSampling | None = None,
    ) -> Latents:
        """Samples as `sample` does; each step reads the true codes in place of those that steps before it drew."""
        masks = self._start(draws, None)
        return Latents(codes=self._sampled(masks, labels, draws, guidance, sampling, read=codes_of(real)))

    def _sampled(
        self,
        tokens: Tensor,
        labels: Tensor,
        draws: Draws,
        guidance: Guidance,
        sampling: MaskGITSampling | None,
        read: Tensor | None = None,
    ) -> Tensor:
        """Codes (B, N) from tokens (B, N), some of them masked; `read` as in `sample_forced`."""
        sampling = sampling or MaskGITSampling()
        num_masked = (tokens == self.mask_code).sum(dim=1)  # (B,)
        left = scheduled(num_masked, sampling.steps, self.space.num_tokens)
        with (
            evaluating(self),
            prepared_linear(self),
            repeated(self.__call__, self.blocks, sampling.execution, tokens.device) as network,
        ):
            for step in range(sampling.steps):
                known = tokens if read is None else torch.where(tokens == self.mask_code, tokens, read)
                logits = self._guided(network, known, labels, guidance.weight(step / sampling.steps))
                tokens = self._advance(tokens, logits, left[step], step, draws.child("step", step), sampling)
        return tokens

    def _start(self, draws: Draws, keep: Keep | None) -> Tensor:
        """Tokens (B, N) before the first step: the kept ones, all others masked."""
        shape = (len(draws.indices), self.space.num_tokens)
        masks = torch.full(shape, self.mask_code, dtype=torch.int64, device=draws.indices.device)
        if keep is None:
            return masks
        return keep.over(masks, draws)

    def _guided(self, network: RepeatedStep, tokens: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Logits (B, N, K) float32; guidance needs a second row per sample."""
        if weight == 1.0:
            return network(tokens, labels).float()
        null_labels = torch.full_like(labels, self.null_label)
        logits = network(torch.cat([tokens, tokens]), torch.cat([labels, null_labels])).float()
        conditional, unconditional = logits.chunk(2)
        return unconditional + weight * (conditional - unconditional)

    def _advance(
        self, tokens: Tensor, logits: Tensor, left: Tensor, step: int, draws: Draws, sampling: MaskGITSampling
    ) -> Tensor:
        """The tokens (B, N) after a step; the `left` (B,) least confident ones are masked again."""
        unknown = tokens == self.mask_code
        uniform = draws.child("token").uniform(tokens.shape[1])
        sampled = choose(logits.flatten(0, 1), uniform.flatten(), sampling).view_as(tokens)
        confidence = logits.log_softmax(dim=-1).gather(-1, sampled[..., None])[..., 0]  # (B, N)
        temperature = sampling.choice_temperature * (1.0 - (step + 1) / sampling.steps)
        confidence = confidence + temperature * gumbel(draws.child("choice").uniform(tokens.shape[1]))
        rank = confidence.masked_fill(~unknown, math.inf).argsort(dim=1, stable=True).argsort(dim=1)
        masked_again = rank < left[:, None]
        return torch.where(masked_again, self.mask_code, torch.where(unknown, sampled, tokens))


def mask_tokens(draws: Draws, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Chooses which tokens of each image to mask in training; `masked_count` of a uniform number says how many.

    Returns:
        (B, N) bool, True where masked; and the mean number of masked tokens over all `draws.total` images.
    """
    all_draws = Draws.for_rows(draws.seed, draws.total, draws.indices.device)
    counts = masked_count(all_draws.child("ratio").uniform(), num_tokens)  # (total,)
    shuffled = draws.child("tokens").bits(num_tokens).argsort(dim=1)  # a random permutation of [0, N) in each row
    return shuffled < counts[draws.indices, None], counts.mean()


def masked_count(uniform: Tensor, num_tokens: int) -> Tensor:
    """A share cos(pi u / 2) of the tokens, rounded up, for uniform numbers u in [0, 1): between 1 and all."""
    return (torch.cos(0.5 * math.pi * uniform) * num_tokens).ceil()


def scheduled(to_draw: Tensor, steps: int, num_tokens: int) -> Tensor:
    """(steps, B) int64: how many of `to_draw` (B,) in [0, N] tokens are still masked after each step.

    The cosine schedule, rounded down. A lookup table, since on devices without float64 0.5 of 4 could give 1.
    """
    ratios = [math.cos(0.5 * math.pi * ((step + 1) / steps)) for step in range(steps)]
    table = [[int(count * ratio) for count in range(num_tokens + 1)] for ratio in ratios]
    return torch.tensor(table, device=to_draw.device)[:, to_draw]


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise, finite, from uniform numbers in [0, 1)."""
    return -torch.log(-torch.log(uniform.clamp(min=2.0**-25)))
