"""Measures the cost of sampling a flow transformer against a plain implementation.

    python benchmarks/flow_sampling.py
    python benchmarks/flow_sampling.py --preset XL --depth 4 --start 0.3
    python benchmarks/flow_sampling.py --device cuda --precision bf16 --preset XL --batch 50 --steps 50

Both take the same Euler steps from the same noise, with the same weights. The plain implementation makes two passes
per step, with and without classes, even when guidance is off, and computes the modulations of each block for each row.
The largest difference of the latents is reported. Also measured: one pass of the transformer with a separate time and
class for each row, as in training, against timm's ViT with the same width, depth, heads and tokens, which takes
neither; it should take at most 1.15 times as long.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import harness
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import LatentSpace
from robustok_generators.flow_sampling import FlowSampling
from robustok_generators.flow_transformer import FlowTransformer, FlowTransformerConfig

CHANNELS, CLASSES = 32, 1000


class Work:
    """A model with random non-zero weights, a ViT of its size, labels and draws."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.space = LatentSpace(kind="continuous", num_tokens=options.tokens, width=CHANNELS)
        config = FlowTransformerConfig(preset=options.preset, depth=options.depth)
        self.model = FlowTransformer(config, self.space, CLASSES).to(options.device).eval()
        for module in [*self.model.blocks, self.model.head]:
            nn.init.normal_(module.get_parameter("modulation.weight"), std=0.02)
        nn.init.normal_(self.model.head.to_velocity.weight, std=0.02)
        self.vit = vit(config, options.tokens).to(options.device).eval()
        self.labels = torch.arange(options.batch, device=options.device) * 7 % options.classes
        self.draws = Draws.for_rows(1, options.batch, options.device)
        self.guidance = Guidance(scale=options.scale, start=options.start)
        self.sampling = FlowSampling(steps=options.steps)
        self.noise = self.draws.child("noise").normal(options.tokens, CHANNELS)
        self.times = self.draws.child("time").uniform()


def vit(config: FlowTransformerConfig, num_tokens: int) -> nn.Module:
    """A ViT for images of one row, in which each pixel is a token."""
    size = config.size
    return VisionTransformer(
        img_size=(1, num_tokens),
        patch_size=1,
        in_chans=CHANNELS,
        num_classes=0,
        global_pool="",
        class_token=False,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.num_heads,
        mlp_ratio=size.mlp_width / size.width,
    )


def plain(work: Work) -> Tensor:
    """(B, N, D) latents from the plain loop."""
    x, steps = work.noise, work.sampling.steps
    null = torch.full_like(work.labels, CLASSES)
    for step in range(steps):
        t = 1.0 - step / steps
        times = torch.full_like(work.times, t)
        conditional = work.model(x, times, work.labels).float()
        unconditional = work.model(x, times, null).float()
        weight = work.guidance.weight(1.0 - t)
        x = x - (unconditional + weight * (conditional - unconditional)) / steps
    return x


def ours(work: Work, execution: Any = "graph") -> Tensor:
    """(B, N, D) latents."""
    sampling = attrs.evolve(work.sampling, execution=execution)
    latents = work.model.sample(work.labels, work.draws, guidance=work.guidance, sampling=sampling)
    assert latents.vectors is not None
    return latents.vectors


def one_pass(work: Work) -> Tensor:
    """(B, N, D) velocities."""
    return work.model(work.noise, work.times, work.labels)


def one_pass_of_vit(work: Work) -> Tensor:
    """(B, N, width) features."""
    return work.vit(work.noise.mT[:, :, None])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    sizes = {"batch": 8, "classes": 4, "tokens": 128, "depth": 12, "steps": 10}
    quick = {"preset": "S", "batch": 1, "tokens": 4, "depth": 1, "steps": 2}
    parser = harness.Parser(__doc__, sizes, quick=quick, rounds=3)
    parser.add_argument("--preset", choices=["S", "B", "L", "XL"], default="B", help="default B")
    parser.add_argument("--scale", type=float, default=1.75, help="guidance scale; default 1.75")
    parser.add_argument(
        "--start", type=float, default=0.3, help="start of guidance; default 0.3 as in MAETok: t in [0, 0.7]"
    )
    parser.add_argument("--precision", choices=["no", "bf16"], default="no", help="bf16: under autocast; default no")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    options = parser.options(arguments)
    work, report = Work(options), harness.Report(options)
    samplers: dict[str, Callable[[Work], Tensor]] = {"plain": plain, "ours": ours}
    if options.compile:
        samplers["ours, compiled"] = partial(ours, execution="compile")
    passes = {"timm's ViT": one_pass_of_vit, "ours": one_pass}
    with torch.no_grad(), harness.autocast(options.device, options.precision):
        for what, ways in (("sampling flow_transformer", samplers), ("forward pass", passes)):
            found = harness.compare({name: partial(way, work) for name, way in ways.items()}, rounds=options.rounds)
            report.compared(what, found, amount=options.batch, unit="images")
            if "plain" in ways:
                difference = (found.results["plain"] - found.results["ours"]).abs().max().item()
                report.found["largest_difference"] = round(difference, 6)
    return report.finish()


if __name__ == "__main__":
    main()
