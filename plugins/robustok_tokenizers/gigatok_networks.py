"""GigaTok's transformers, between maps of convolutional networks and tokens without a position in the image.

Both are stacks of DETR's decoder layers (Carion et al. 2020, arXiv 2005.12872): queries attend to each other, then to
a memory, and all positions are learned and added to queries and keys of every layer, not to values.
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
from robustok_tokenizers.vit_init import initialise_linear_layers
from robustok_tokenizers.vit_sizes import PresetSize, size_field

#: width, depth, num_heads
SIZES: Mapping[str, tuple[int, int, int]] = {
    "S": (512, 6, 8),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1280, 36, 20),
    "XXL": (1536, 48, 24),
}


@frozen(kw_only=True)
class QueryTransformerConfig(PresetSize):
    """Size of a transformer of `gigatok`."""

    sizes = SIZES

    preset: Literal["S", "B", "L", "XL", "XXL"] = field(
        default="S", validator=validators.in_(tuple(SIZES)), metadata={"doc": "a published size"}
    )
    width: int | None = size_field("numbers per token")
    depth: int | None = size_field("layers")
    num_heads: int | None = size_field("attention heads")


class MixedAttention(nn.Module):
    """Multi-head attention with one projection for queries, keys and values of any origin."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Queries (B, N, D), keys and values (B, M, D) to (B, N, D)."""
        projections = zip(self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3), strict=True)
        q, k, v = (
            rearrange(F.linear(x, weight, bias), "b n (h d) -> b h n d", h=self.num_heads)
            for x, (weight, bias) in zip((queries, keys, values), projections, strict=True)
        )
        return self.out_proj(rearrange(attend(q, k, v), "b h n d -> b n (h d)"))


class QueryLayer(nn.Module):
    """Queries attend to each other, then to the memory, then pass an MLP; each with a norm before it."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = MixedAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.multihead_attn = MixedAttention(width, num_heads)
        self.norm3 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, memory: Tensor, positions: Tensor, memory_positions: Tensor) -> Tensor:
        """Queries x (B, N, D) to the same shape; memory (B, M, D), positions (N, D) and (M, D)."""
        normed = self.norm1(x)
        x = x + self.self_attn(normed + positions, normed + positions, normed)
        x = x + self.multihead_attn(self.norm2(x) + positions, memory + memory_positions, memory)
        return x + self.linear2(F.gelu(self.linear1(self.norm3(x))))


class QueryTransformer(nn.Module):
    """The base of encoder and decoder. Attribute names are the published ones.

    Args:
        size: the transformer's. channels: of the map and of the tokens. places, tokens: their numbers.
    """

    def __init__(self, size: QueryTransformerConfig, channels: int, places: int, tokens: int) -> None:
        super().__init__()
        self.width, depth, num_heads = size.size
        self.ln_pre = nn.LayerNorm(channels)
        self.positional_embedding = nn.Parameter(torch.zeros(places, self.width))
        self.latent_token_positional_embedding = nn.Parameter(torch.zeros(tokens, self.width))
        self.transformer = nn.ModuleList(QueryLayer(self.width, num_heads) for _ in range(depth))
        self.ln_post = nn.LayerNorm(self.width)

    def initialise(self) -> None:
        """Initialises as timm's ViTs; positions with standard deviation width^-1/2."""
        initialise_linear_layers(self, self.width)
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter, std=self.width**-0.5)


class MapEncoder(QueryTransformer):
    """A map to N tokens, whose queries start as averages of the map over coarser and finer blocks."""

    def __init__(self, size: QueryTransformerConfig, channels: int, side: int, tokens: int) -> None:
        super().__init__(size, channels, side * side, tokens)
        self.blocks = block_grids(tokens)
        self.encoder_embed = nn.Linear(channels, self.width)
        self.global_proj = nn.Linear(self.width, self.width)
        self.conv_out = nn.Linear(self.width, channels)
        self.initialise()

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, h, w) to (B, N, C)."""
        memory = self.encoder_embed(self.ln_pre(rearrange(hidden, "b c h w -> b (h w) c")))
        embedded = rearrange(memory, "b (h w) d -> b d h w", h=hidden.shape[2])
        pooled = [F.adaptive_avg_pool2d(embedded, grid).flatten(2) for grid in self.blocks]
        x = self.global_proj(torch.cat(pooled, dim=2).transpose(1, 2))  # (B, N, width)
        for layer in self.transformer:
            x = layer(x, memory, self.latent_token_positional_embedding, self.positional_embedding)
        return self.conv_out(self.ln_post(x))


class MapDecoder(QueryTransformer):
    """N tokens to a map, whose queries all start as the first token and differ by their positions."""

    def __init__(self, size: QueryTransformerConfig, channels: int, side: int, tokens: int) -> None:
        super().__init__(size, channels, side * side, tokens)
        self.side = side
        self.decoder_embed = nn.Linear(channels, self.width)
        self.conv_out = nn.Conv2d(self.width, channels, 3, padding=1)
        self.initialise()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) to (B, C, h, w)."""
        x = self.ln_post(self.queries(tokens, len(self.transformer)))
        return self.conv_out(rearrange(x, "b (h w) d -> b d h w", h=self.side))

    def queries(self, tokens: Tensor, depth: int) -> Tensor:
        """(B, h w, width) the queries after `depth` layers, for tokens (B, N, C)."""
        memory = self.decoder_embed(self.ln_pre(tokens))
        x = memory[:, :1].expand(-1, self.side**2, -1)
        for layer in self.transformer[:depth]:
            x = layer(x, memory, self.positional_embedding, self.latent_token_positional_embedding)
        return x


def block_grids(tokens: int) -> list[tuple[int, int]]:
    """The grids (rows, columns) of blocks whose averages start N tokens: 1 x 1 twice, 1 x 2, 2 x 2, 2 x 4, ...

    Raises:
        ValueError: N is not a power of 2.
    """
    if tokens & (tokens - 1):
        raise ValueError(f"the number of tokens must be a power of 2, not {tokens}")
    grids = [(2 ** (level // 2), 2 ** ((level + 1) // 2)) for level in range(tokens.bit_length() - 1)]
    return [(1, 1), *grids]
