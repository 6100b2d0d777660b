"""Torch's attention, with a workaround for bfloat16 training on CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, dropout: float = 0.0) -> Tensor:
    """`scaled_dot_product_attention` of q, k, v (B, heads, N, D / heads).

    When training in bfloat16 on a CPU, it is computed in float32: the backward pass of torch's kernel takes about
    three times as long in bfloat16 (`python benchmarks/attention.py`).
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), dropout_p=dropout, is_causal=causal)
        return mixed.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
