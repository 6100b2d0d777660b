"""Transformer blocks with rotary position embedding."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.attention import attend
from robustok_blocks.rotary import rotate
from robustok_blocks.swiglu import SwiGLU, swiglu_width
from robustok_blocks.transformer import Attention, Block


class RotaryAttention(Attention):
    """Self-attention over all tokens; queries and keys are rotated by their positions if rotations are given."""

    turn = staticmethod(rotate)

    def forward(self, x: Tensor, rotations: Tensor | None = None) -> Tensor:
        """(B, N, D) to the same shape; rotations ([heads or B, 1,] N, head width / 2, 2)."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        if rotations is not None:
            q, k = self.turn(q, rotations), self.turn(k, rotations)
        mixed = attend(q, k, v)  # (B, heads, N, D / heads)
        return self.proj(rearrange(mixed, "b h n d -> b n (h d)"))


class RotaryBlock(Block):
    """A ViT block whose attention takes rotations."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, layer_scale: float, drop_path: float) -> None:
        super().__init__(width, num_heads, mlp_ratio, layer_scale, drop_path)
        self.attn = RotaryAttention(width, num_heads)

    def forward(self, x: Tensor, rotations: Tensor | None = None) -> Tensor:
        """(B, N, D) to the same shape."""
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), rotations)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class GatedRotaryBlock(nn.Module):
    """A Llama block for images: RMS norms, rotary attention and SwiGLU."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=1e-6)
        self.attn = RotaryAttention(width, num_heads)
        self.norm2 = nn.RMSNorm(width, eps=1e-6)
        self.mlp: nn.Module = SwiGLU(width, swiglu_width(width))

    def forward(self, x: Tensor, rotations: Tensor) -> Tensor:
        """(B, N, D) to the same shape."""
        x = x + self.attn(self.norm1(x), rotations)
        return x + self.mlp(self.norm2(x))
