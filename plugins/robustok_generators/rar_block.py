"""RAR's transformer blocks, scaled, shifted and gated by a condition that differs per position.

The conditioning is DiT's adaLN-zero (Peebles & Xie 2022, arXiv 2212.09748), except that norms are affine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import frozen
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.attention import attend
from robustok_blocks.modulation import modulate
from robustok_generators.key_value_cache import FixedCache, KeyValueCache

_EPS = 1e-6


@frozen(kw_only=True)
class Dropouts:
    """Dropout rates of hidden layers and of attention weights."""

    hidden: float
    attention: float


class CausalAttention(nn.Module):
    """Causal self-attention; queries and keys are normalised per head."""

    def __init__(self, width: int, num_heads: int, dropouts: Dropouts) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropouts = dropouts
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // num_heads, eps=_EPS)
        self.k_norm = nn.LayerNorm(width // num_heads, eps=_EPS)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cache: KeyValueCache | FixedCache | None = None) -> Tensor:
        """(B, N, D) to the same shape; with a cache, x is the one position after the cached ones."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        # Autocast normalises in float32 and multiplies in the dtype of v.
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        dropout = self.dropouts.attention if self.training else 0.0
        mixed = attend(q, k, v, causal=True, dropout=dropout) if cache is None else cache.attend(q, k, v)
        x = self.proj(rearrange(mixed, "b h n d -> b n (h d)"))
        return F.dropout(x, self.dropouts.hidden, self.training)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them, and dropout after each."""

    def __init__(self, width: int, hidden: int, dropouts: Dropouts) -> None:
        super().__init__()
        self.dropout = dropouts.hidden
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the same shape."""
        x = F.dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return F.dropout(self.fc2(x), self.dropout, self.training)


class RARBlock(nn.Module):
    """Causal attention and MLP with adaLN-zero; `modulation` maps a condition to shifts, scales and gates."""

    def __init__(self, width: int, num_heads: int, mlp_width: int, dropouts: Dropouts) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = CausalAttention(width, num_heads, dropouts)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width, mlp_width, dropouts)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, modulation: Tensor, cache: KeyValueCache | FixedCache | None = None) -> Tensor:
        """(B, N, D) to the same shape, modulated by (B, N, 6 D); for the cache see `CausalAttention`."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = torch.addcmul(x, gate1, self.attn(modulate(self.norm1(x), shift=shift1, scale=scale1), cache))
        return torch.addcmul(x, gate2, self.mlp(modulate(self.norm2(x), shift=shift2, scale=scale2)))


class RARHead(nn.Module):
    """A final modulated norm, then the logits."""

    def __init__(self, width: int, codebook_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_EPS, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.to_logits = nn.Linear(width, codebook_size)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(B, N, D) to (B, N, K), modulated by (B, N, 2 D)."""
        scale, shift = modulation.chunk(2, dim=-1)
        return self.to_logits(modulate(self.norm(x), shift=shift, scale=scale))
