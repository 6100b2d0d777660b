"""Measures the cost of sampling a RAR against a plain implementation.

    python benchmarks/sampling.py
    python benchmarks/sampling.py --tokens 64 --depth 6
    python benchmarks/sampling.py --precision bf16
    python benchmarks/sampling.py --device cuda --precision bf16 --batch 64

All sample the same codes from the same classes, random numbers and weights, with guidance (conditional and
unconditional rows in one pass). The plain implementation follows the released sampler: it extends keys and values by
concatenation, and at each step looks up the positions of all codes so far and computes the modulations of each block
for each row. The share of equal codes is reported. On a busy machine, compare processor seconds with --threads 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import harness
import torch
from torch import Tensor

from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import LatentSpace
from robustok_generators.autoregressive import guided
from robustok_generators.rar import RAR, RARConfig
from robustok_generators.token_sampling import TokenSampling, choose

SAMPLING = TokenSampling(temperature=1.02)
#: RobusTok's for RAR-B.
GUIDANCE = Guidance(scale=6.0, schedule="cosine", power=1.15)
SIZES = {"batch": 8, "tokens": 256, "codebook_size": 4096, "depth": 24}
QUICK = {"batch": 2, "tokens": 6, "codebook_size": 16, "depth": 1}


class GrowingCache:
    """Keys and values that grow by concatenation."""

    def __init__(self) -> None:
        self.cached: tuple[Tensor, Tensor] | None = None

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if self.cached is not None:
            keys, values = torch.cat([self.cached[0], keys], dim=2), torch.cat([self.cached[1], values], dim=2)
        self.cached = keys, values
        return torch.nn.functional.scaled_dot_product_attention(queries, keys, values)


class PlainDecoding:
    """Computes everything anew at each step, except for keys and values."""

    def __init__(self, model: RAR, labels: Tensor) -> None:
        self.model, self.labels = model, labels
        self.caches = [GrowingCache() for _ in model.blocks]
        self.embedded: list[Tensor] = []

    def start(self) -> Tensor:
        self._step(self.model.cls_token[0].expand(len(self.labels), -1))
        return self._step(self.model.class_embedding(self.labels))

    def advance(self, codes: Tensor) -> Tensor:
        return self._step(self.model.embeddings(codes))

    def _step(self, embedded: Tensor) -> Tensor:
        model = self.model
        self.embedded.append(embedded)
        so_far = len(self.embedded)
        x = (torch.stack(self.embedded, dim=1) + model.positions()[:, :so_far])[:, -1:]
        classes = model.class_embedding(self.labels)[:, None]
        conditions = model.conditions(classes, slice(0, so_far))[:, -1:]
        for block, cache in zip(model.blocks, self.caches, strict=True):
            x = block(x, block.modulation(conditions), cache)
        return model.head(x, model.head.modulation(conditions))[:, 0]


@torch.no_grad()
def plain(model: RAR, labels: Tensor, uniform: Tensor) -> Tensor:
    """(B, N) codes."""
    rows = torch.cat([labels, torch.full_like(labels, model.num_classes)])
    decoding = PlainDecoding(model, rows)
    codes: list[Tensor] = []
    for step in range(model.space.num_tokens):
        logits = decoding.advance(codes[-1].repeat(2)) if codes else decoding.start()
        logits = guided(logits.float(), GUIDANCE, step / model.space.num_tokens)
        codes.append(choose(logits, uniform[:, step], SAMPLING))
    return torch.stack(codes, dim=1)


def ours(model: Any, labels: Tensor, uniform: Tensor, sampling: TokenSampling = SAMPLING) -> Tensor:
    """(B, N) codes."""
    return model.sample_codes(labels, uniform, guidance=GUIDANCE, sampling=sampling)


@torch.no_grad()
def linear_layers(model: RAR, labels: Tensor, _: Tensor) -> None:
    """Not a sampler: runs only the linear layers of the blocks on random rows, as a lower bound on the time."""
    named = model.blocks.named_modules()
    layers = [m for name, m in named if isinstance(m, torch.nn.Linear) and not name.endswith("modulation")]
    inputs = {layer.in_features: torch.randn(2 * len(labels), layer.in_features).to(labels.device) for layer in layers}
    for _ in range(model.space.num_tokens):
        for layer in layers:
            layer(inputs[layer.in_features])


def build(options: argparse.Namespace) -> RAR:
    """A model with random non-zero weights."""
    space = LatentSpace(kind="discrete", num_tokens=options.tokens, width=64, codebook_size=options.codebook_size)
    torch.manual_seed(0)
    with torch.device(options.device):
        model = RAR(RARConfig(preset="B", depth=options.depth), space, 1000).eval()
        for block in [*model.blocks, model.head]:
            torch.nn.init.normal_(block.modulation.weight, std=0.02)
    return model


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.Parser(__doc__, SIZES, quick=QUICK, rounds=3)
    parser.add_argument("--precision", choices=["no", "bf16"], default="no", help="bf16: under autocast; default no")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    options = parser.options(arguments)
    model = build(options)
    labels = torch.arange(options.batch, device=options.device) * 7 % 1000
    uniform = Draws.for_rows(1, options.batch, options.device).uniform(options.tokens)
    ways: dict[str, Callable[..., Any]] = {"plain": plain, "ours": ours}
    if options.compile:
        ways["ours, compiled"] = partial(ours, sampling=TokenSampling(temperature=1.02, execution="compile"))
    ways["only the linear layers, without modulations"] = linear_layers
    with harness.autocast(options.device, options.precision):
        found = harness.compare(
            {name: partial(way, model, labels, uniform) for name, way in ways.items()},
            rounds=options.rounds,
        )
    report = harness.Report(options)
    report.compared("sampling RAR", found, amount=options.batch, unit="images")
    same = found.results["plain"] == found.results["ours"]
    report.found["share_of_equal_codes"] = round(same.float().mean().item(), 4)
    return report.finish()


if __name__ == "__main__":
    main()
