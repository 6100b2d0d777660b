"""LlamaGen's GPT: a Llama over an image's codes, with the class as the first token (Sun et al. 2024, arXiv 2406.06525).

With learned positions instead of rotary ones it is GigaTok's (Xiong et al. 2025, arXiv 2504.08736), whose tokens have
no position in the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.attention import attend
from robustok_blocks.rotary import check_head_width, grid_rotations, rotate
from robustok_blocks.swiglu import SwiGLU, swiglu_width
from robustok_core.errors import RobustokError
from robustok_core.recipe.validators import below_one, depth_range, width_range
from robustok_core.values.devices import sent
from robustok_core.values.draws import Draws
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.latents import Latents, LatentSpace
from robustok_generators.autoregressive import Autoregressive
from robustok_generators.codes import codes_of
from robustok_generators.decoding import Decoding
from robustok_generators.key_value_cache import FixedCache, KeyValueCache
from robustok_generators.sizes import Size, size_field, size_of


def _preset(width: int, depth: int, num_heads: int) -> Size:
    return Size(width=width, depth=depth, num_heads=num_heads, mlp_width=swiglu_width(width))


PRESETS = {
    "B": _preset(768, 12, 12),
    "L": _preset(1024, 24, 16),
    "XL": _preset(1280, 36, 20),
    "XXL": _preset(1536, 48, 24),
    "3B": _preset(3200, 24, 32),
}
_EPS = 1e-5


@frozen(kw_only=True)
class LlamaGenGPTConfig:
    """Options of `llamagen_gpt`: a preset, or explicit sizes."""

    preset: Literal["B", "L", "XL", "XXL", "3B"] | None = field(default=None, metadata={"doc": "a published size"})
    width: int | None = size_field("numbers per token")
    depth: int | None = size_field("layers", depth_range)
    num_heads: int | None = size_field("attention heads")
    mlp_width: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={
            "doc": "hidden width of the feed-forward layers; left out: 8/3 width, rounded up to a multiple of 256"
        },
    )
    positions: Literal["rope", "learned"] = field(
        default="rope",
        metadata={"doc": "rope rotates queries and keys by the token's row and column; learned adds an embedding"},
    )
    class_rope: Literal["zero", "identity"] = field(
        default="zero",
        metadata={
            "doc": "with rope, the class token's query and key: zero, as in released weights, or unrotated (identity)"
        },
    )
    token_dropout: float = field(default=0.1, validator=below_one, metadata={"doc": "dropout of the embedded tokens"})
    residual_dropout: float = field(default=0.1, validator=below_one, metadata={"doc": "dropout after the attention"})
    mlp_dropout: float = field(
        default=0.1, validator=below_one, metadata={"doc": "dropout after the feed-forward layer"}
    )
    label_dropout: float = field(
        default=0.1,
        validator=below_one,
        metadata={"doc": "share of training images whose label is dropped; 0: no guidance"},
    )

    def __attrs_post_init__(self) -> None:
        size = self.size
        if self.positions == "rope":
            check_head_width(size.head_width)
        refuse_ignored(self, "class_rope", unless=self.positions == "rope", needs='positions = "rope"')

    @property
    def size(self) -> Size:
        """The preset's size, overridden by the sizes given."""
        return size_of(self, PRESETS, None if self.width is None else swiglu_width(self.width))


class Attention(nn.Module):
    """Causal attention without biases, optionally with rotary positions."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.wqkv = nn.Linear(width, 3 * width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotations: Tensor | None, cache: KeyValueCache | FixedCache | None = None) -> Tensor:
        """(B, N, D) to the same shape; with a cache, x is the one position after the cached ones."""
        q, k, v = rearrange(self.wqkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        if rotations is not None:
            q, k = rotate(q, rotations), rotate(k, rotations)
        mixed = attend(q, k, v, causal=True) if cache is None else cache.attend(q, k, v)
        return F.dropout(self.wo(rearrange(mixed, "b h n d -> b n (h d)")), self.dropout, self.training)


class Layer(nn.Module):
    """Pre-norm attention and feed-forward layer."""

    def __init__(self, config: LlamaGenGPTConfig) -> None:
        super().__init__()
        size = config.size
        self.mlp_dropout = config.mlp_dropout
        self.attention_norm = nn.RMSNorm(size.width, eps=_EPS)
        self.attention = Attention(size.width, size.num_heads, config.residual_dropout)
        self.ffn_norm = nn.RMSNorm(size.width, eps=_EPS)
        self.feed_forward = SwiGLU(size.width, size.mlp_width)

    def forward(self, x: Tensor, rotations: Tensor | None, cache: KeyValueCache | FixedCache | None = None) -> Tensor:
        """(B, N, D) to the same shape."""
        x = x + self.attention(self.attention_norm(x), rotations, cache)
        return x + F.dropout(self.feed_forward(self.ffn_norm(x)), self.mlp_dropout, self.training)


class LlamaGenGPT(Autoregressive):
    """Reads [class, code, code, ...]; each position predicts the next code."""

    Config = LlamaGenGPTConfig
    also_called = ("gpt", "llamagen")

    def __init__(self, config: LlamaGenGPTConfig, space: LatentSpace, num_classes: int) -> None:
        super().__init__(space, num_classes, config.label_dropout)
        if config.positions == "rope" and space.grid is None:
            raise RobustokError(
                "rotary positions need tokens on a grid, and this latent space has no grid",
                where="generator llamagen_gpt",
                hint='set positions = "learned"',
            )
        self.config = config
        size = config.size
        self.class_embedding = nn.Embedding(num_classes + 1, size.width)  # the last is the null class
        self.token_embedding = nn.Embedding(self.codebook_size, size.width)
        if config.positions == "learned":
            # One more row than is used, as in GigaTok's files: the last code predicts nothing.
            self.positional_embedding = nn.Parameter(torch.zeros(space.num_tokens + 1, size.width))
        self.layers = nn.ModuleList(Layer(config) for _ in range(size.depth))
        self.norm = nn.RMSNorm(size.width, eps=_EPS)
        self.output = nn.Linear(size.width, self.codebook_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        if self.config.positions == "learned":
            nn.init.normal_(self.positional_embedding, std=0.02)
        nn.init.zeros_(self.output.weight)

    def loss(self, latents: Latents, labels: Tensor, *, draws: Draws, progress: float) -> Mapping[str, Tensor]:
        """The mean cross-entropy of all codes."""
        codes = codes_of(latents)
        logits = self(codes, self.with_dropped_labels(labels, draws))
        return {"cross_entropy": F.cross_entropy(logits.flatten(0, 1).float(), codes.flatten())}

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, N, K): position i predicts code i.

        Args:
            codes: (B, N) int64.
            labels: (B,) int64 in [0, num_classes]; num_classes is the null class.
        """
        x = torch.cat([self.class_embedding(labels)[:, None], self.token_embedding(codes[:, :-1])], dim=1)
        if self.config.positions == "learned":
            x = x + self.positional_embedding[: x.shape[1]]
        x = F.dropout(x, self.config.token_dropout, self.training)
        rotations = self.rotations()
        for layer in self.layers:
            x = layer(x, rotations)
        return self.output(self.norm(x))

    def rotations(self) -> Tensor | None:
        """Rotary positions (N, head width / 2, 2) of the inputs: the class, then all codes but the last."""
        grid, size = self.space.grid, self.config.size
        if self.config.positions == "learned" or grid is None:
            return None
        of_codes = sent(grid_rotations(grid, size.head_width), self.output.weight.device)
        of_class = torch.zeros_like(of_codes[:1])
        if self.config.class_rope == "identity":
            of_class[..., 0] = 1.0
        return torch.cat([of_class, of_codes[:-1]])

    def decoding(self, labels: Tensor) -> LlamaGenDecoding:
        return LlamaGenDecoding(self, labels)


class LlamaGenDecoding(Decoding):
    """Decodes one code at a time."""

    def __init__(self, model: LlamaGenGPT, labels: Tensor) -> None:
        super().__init__(model.layers, model.space.num_tokens, labels.device)
        self.model = model
        self.labels = labels
        self.rotations = model.rotations()

    def start(self) -> Tensor:
        self.move()
        return self._logits(self.model.class_embedding(self.labels))

    def step(self, codes: Tensor) -> Tensor:
        return self._logits(self.model.token_embedding(codes))

    def _logits(self, x: Tensor) -> Tensor:
        """Logits (rows, K) from the embeddings (rows, D) at the present position."""
        if self.model.config.positions == "learned":
            x = x + self.model.positional_embedding.index_select(0, self.place)
        rotations = None if self.rotations is None else self.rotations.index_select(0, self.place)
        x = x[:, None]
        for layer, cache in zip(self.blocks, self.caches, strict=True):
            x = layer(x, rotations, cache)
        return self.model.output(self.model.norm(x))[:, 0]
