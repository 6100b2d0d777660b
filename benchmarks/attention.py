"""Compares torch's attention and ours when training in bfloat16 on a CPU: `python benchmarks/attention.py`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import harness
import torch
import torch.nn.functional as F

from robustok_blocks.attention import attend


def forward_and_backward(attention: Any, shape: Sequence[int]) -> None:
    q, k, v = (torch.randn(*shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attention(q, k, v)
    mixed.sum().backward()


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.Parser(__doc__, rounds=20, quick={"shape": [1, 1, 4, 8]})
    parser.add_argument("--shape", type=int, nargs=4, default=[64, 4, 66, 32], help="batch, heads, tokens, head width")
    options = parser.options(arguments)
    ways = {
        "torch": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "ours": lambda q, k, v: attend(q, k, v, causal=True),
    }
    steps = {name: partial(forward_and_backward, way, options.shape) for name, way in ways.items()}
    report = harness.Report(options)
    report.compared("attention", harness.compare(steps, rounds=options.rounds, warm_up=2))
    return report.finish()


if __name__ == "__main__":
    main()
