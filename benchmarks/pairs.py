"""Measures the cost of a post-training pair against a plain implementation. Prints one JSON object.

    python benchmarks/pairs.py
    python benchmarks/pairs.py --depth 6 --tokens 64

A RAR regenerates the codes of real images and preserves each code with probability sigma. Ours uses preallocated keys
and values; the plain implementation feeds one token at a time without a cache: at each step, the whole model runs
over all codes so far. Both run alternately in one process, with the same weights and random numbers, and their codes
are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from sampling import build  # beside this file
from torch import Tensor

from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_generators.autoregressive import Kept
from robustok_generators.rar import RAR
from robustok_generators.token_sampling import TokenSampling, choose

SAMPLING = TokenSampling()


def ours(model: RAR, labels: Tensor, uniform: Tensor, kept: Kept) -> Tensor:
    return model.draw(labels, uniform, guidance=Guidance(), sampling=SAMPLING, kept=kept)


def prefix_logits(model: RAR, codes: Tensor, labels: Tensor) -> Tensor:
    """(B, K) logits of the code after codes (B, n), computing all positions."""
    condition = model.class_embedding(labels)[:, None]
    x = torch.cat([model.cls_token.expand(len(codes), -1, -1), condition, model.embeddings(codes)], dim=1)
    x = x + model.positions()[:, : x.shape[1]]
    conditions = model.conditions(condition, slice(0, x.shape[1]))
    for block in model.blocks:
        x = block(x, block.modulation(conditions))
    return model.head(x[:, -1:], model.head.modulation(conditions[:, -1:]))[:, 0]


@torch.no_grad()
def plain(model: RAR, labels: Tensor, uniform: Tensor, kept: Kept) -> Tensor:
    codes = torch.zeros(len(labels), model.space.num_tokens, dtype=torch.int64, device=labels.device)
    for position in range(model.space.num_tokens):
        logits = prefix_logits(model, codes[:, :position], labels)
        sampled = choose(logits.float(), uniform[:, position], SAMPLING)
        codes[:, position] = torch.where(kept.mask[:, position], kept.codes[:, position], sampled)
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"batch": 8, "tokens": 256, "codebook-size": 4096, "depth": 24, "repeats": 3, "threads": 2}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--sigma", type=float, default=0.7)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = build(options)
    draws = Draws.for_rows(1, options.batch, options.device)
    labels = torch.arange(options.batch, device=options.device) * 7 % 1000
    uniform = draws.uniform(options.tokens)
    kept = Kept(
        codes=draws.child("real").integers(options.codebook_size, options.tokens),
        mask=draws.child("keep").uniform(options.tokens) < options.sigma,
    )
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    codes: dict[str, Tensor] = {}
    for _ in range(options.repeats):
        for name, way in (("plain", plain), ("ours", ours)):
            began = time.perf_counter()
            codes[name] = way(model, labels, uniform, kept)
            if labels.is_cuda:
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        **vars(options),
        "torch": torch.__version__,
        "pairs_per_second": {name: round(options.batch / value, 3) for name, value in medians.items()},
        "ratio_of_medians": round(medians["plain"] / medians["ours"], 2),
        "share_of_equal_codes": round((codes["plain"] == codes["ours"]).float().mean().item(), 4),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
