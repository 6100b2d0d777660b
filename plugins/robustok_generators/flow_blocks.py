"""DiT's transformer blocks, scaled, shifted and gated by time and class (Peebles & Xie 2022, arXiv 2212.09748).

With layer norms and a GELU they are SiT's (arXiv 2401.08740); with RMS norms, a gated MLP and rotary positions,
LightningDiT's (arXiv 2501.01423).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from attrs import frozen
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.attention import attend
from robustok_blocks.modulation import modulate
from robustok_blocks.rotary import rotate
from robustok_blocks.swiglu import GatedMlp
from robustok_blocks.transformer import Mlp
from robustok_generators.sizes import Size

NormKind = Literal["layer", "rms"]
MlpKind = Literal["gelu_tanh", "swiglu"]
_EPS = 1e-6


@frozen(kw_only=True)
class Style:
    """The variant of a block; `shift` is whether a condition shifts tokens besides scaling them."""

    norm: NormKind
    mlp: MlpKind
    qk_norm: bool
    qk_norm_eps: float = _EPS
    shift: bool = True


def make_norm(kind: NormKind, width: int) -> nn.Module:
    """A layer norm without weights, or an RMS norm with a scale."""
    return nn.RMSNorm(width, eps=_EPS) if kind == "rms" else nn.LayerNorm(width, eps=_EPS, elementwise_affine=False)


class TanhMlp(Mlp):
    """Two linear layers with the tanh approximation of GELU between them."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the same shape."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Attention(nn.Module):
    """Self-attention over all tokens; optionally with queries and keys normalised per head and rotary positions."""

    def __init__(self, width: int, num_heads: int, style: Style) -> None:
        super().__init__()
        self.num_heads, self.normalised = num_heads, style.qk_norm
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        if style.qk_norm:
            kind = nn.RMSNorm if style.norm == "rms" else nn.LayerNorm
            self.q_norm, self.k_norm = (kind(width // num_heads, eps=style.qk_norm_eps) for _ in range(2))

    def forward(self, x: Tensor, rotations: Tensor | None) -> Tensor:
        """(B, N, D) to the same shape; rotations (N, head width / 2, 2)."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        if self.normalised:
            # Autocast normalises in float32 and multiplies in the dtype of v.
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if rotations is not None:
            q, k = rotate(q, rotations), rotate(k, rotations)
        mixed = attend(q, k, v)  # (B, heads, N, D / heads)
        return self.proj(rearrange(mixed, "b h n d -> b n (h d)"))


class FlowBlock(nn.Module):
    """Attention and MLP with adaLN-zero; `modulation` maps a condition to shifts, if any, scales and gates."""

    def __init__(self, size: Size, style: Style) -> None:
        super().__init__()
        self.norm1 = make_norm(style.norm, size.width)
        self.attn = Attention(size.width, size.num_heads, style)
        self.norm2 = make_norm(style.norm, size.width)
        self.mlp = (GatedMlp if style.mlp == "swiglu" else TanhMlp)(size.width, size.mlp_width)
        self.shifted = style.shift
        self.modulation = nn.Linear(size.width, (6 if style.shift else 4) * size.width)

    def forward(self, x: Tensor, modulation: Tensor, rotations: Tensor | None) -> Tensor:
        """(B, N, D) to the same shape, modulated by (B, 1, 6 D), or (B, 1, 4 D) without shifts."""
        if self.shifted:
            shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        else:
            scale1, gate1, scale2, gate2 = modulation.chunk(4, dim=-1)
            shift1 = shift2 = torch.zeros_like(scale1)
        x = torch.addcmul(x, gate1, self.attn(modulate(self.norm1(x), shift=shift1, scale=scale1), rotations))
        return torch.addcmul(x, gate2, self.mlp(modulate(self.norm2(x), shift=shift2, scale=scale2)))


class FlowHead(nn.Module):
    """A final modulated norm, then the outputs of each token.

    They are called velocities in weights, but `dit` predicts noise.
    """

    def __init__(self, width: int, channels: int, norm: NormKind) -> None:
        super().__init__()
        self.norm = make_norm(norm, width)
        self.modulation = nn.Linear(width, 2 * width)
        self.to_velocity = nn.Linear(width, channels)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(B, N, D) to (B, N, channels), modulated by (B, 1, 2 D)."""
        shift, scale = modulation.chunk(2, dim=-1)
        return self.to_velocity(modulate(self.norm(x), shift=shift, scale=scale))


class TimeEmbedding(nn.Module):
    """Cosines and sines of the time at frequencies from 1 to 1/10,000, then two linear layers.

    Times are not scaled: those of SiT and LightningDiT are in [0, 1], DiT's are steps from 0 to 999.
    """

    num_frequencies = 128

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * self.num_frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        """Embeddings (n, D) of times (n,) float32."""
        steps = torch.arange(self.num_frequencies, device=times.device) / self.num_frequencies
        angles = times[:, None] * 10_000.0**-steps
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))
