"""Measures the cost of a post-training pair against a plain implementation.

    python benchmarks/pairs.py
    python benchmarks/pairs.py --depth 6 --tokens 64

A RAR regenerates the codes of real images and preserves each code with probability sigma. Ours uses preallocated keys
and values; the plain implementation feeds one token at a time without a cache: at each step, the whole model runs
over all codes so far. Both have the same weights and random numbers; the share of equal codes is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import harness
import torch
from sampling import QUICK, SIZES, build  # beside this file
from torch import Tensor

from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_generators.autoregressive import Kept
from robustok_generators.rar import RAR
from robustok_generators.token_sampling import TokenSampling, choose

SAMPLING = TokenSampling()


def ours(model: RAR, labels: Tensor, uniform: Tensor, kept: Kept) -> Tensor:
    return model.sample_codes(labels, uniform, guidance=Guidance(), sampling=SAMPLING, kept=kept)


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


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.Parser(__doc__, SIZES, quick=QUICK, rounds=3)
    parser.add_argument("--sigma", type=float, default=0.7)
    options = parser.options(arguments)
    model = build(options)
    draws = Draws.for_rows(1, options.batch, options.device)
    labels = torch.arange(options.batch, device=options.device) * 7 % 1000
    uniform = draws.uniform(options.tokens)
    kept = Kept(
        codes=draws.child("real").integers(options.codebook_size, options.tokens),
        mask=draws.child("keep").uniform(options.tokens) < options.sigma,
    )
    ways = {name: partial(way, model, labels, uniform, kept) for name, way in (("plain", plain), ("ours", ours))}
    found = harness.compare(ways, rounds=options.rounds, warm_up=0)
    report = harness.Report(options)
    report.compared("pairs", found, amount=options.batch, unit="pairs")
    same = found.results["plain"] == found.results["ours"]
    report.found["share_of_equal_codes"] = round(same.float().mean().item(), 4)
    return report.finish()


if __name__ == "__main__":
    main()
