"""Compares torch's attention and ours when training in bfloat16 on a CPU: `python benchmarks/attention.py`.

Both run alternately in one process. Prints JSON: the median time of a forward and backward pass, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

from robustok_blocks.attention import attend


def seconds(attention: object, shape: tuple[int, ...]) -> float:
    """The duration of one causal forward and backward pass."""
    q, k, v = (torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attention(q, k, v)  # type: ignore[operator]
    mixed.sum().backward()
    return time.perf_counter() - began


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=[64, 4, 66, 32], help="batch, heads, tokens, head width")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ways = {
        "torch": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "ours": lambda q, k, v: attend(q, k, v, causal=True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds + 2):
        for name, way in ways.items():
            duration = seconds(way, tuple(arguments.shape))
            if number >= 2:  # the first two warm up
                times[name].append(duration)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        json.dumps(
            {
                "shape": arguments.shape,
                "threads": arguments.threads,
                "torch_version": torch.__version__,
                "milliseconds": {name: round(1000 * value, 2) for name, value in medians.items()},
                "ratio": round(medians["torch"] / medians["ours"], 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
