"""Measures the cost of sampling a flow transformer against a plain implementation. Prints one JSON object.

    python benchmarks/flow_sampling.py
    python benchmarks/flow_sampling.py --preset XL --depth 4 --start 0.3
    python benchmarks/flow_sampling.py --device cuda --precision bf16 --preset XL --batch 50 --steps 50

Both take the same Euler steps from the same noise, with the same weights, alternately in one process, so that other
load affects both equally. The plain implementation makes two passes per step, with and without classes, even when
guidance is off, and computes the modulations of each block for each row. The latents are compared at the end. Also
measured: one pass of the transformer with a separate time and class for each row, as in training, against timm's ViT
with the same width, depth, heads and tokens, which takes neither.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import LatentSpace
from robustok_generators.flow_sampling import FlowSampling
from robustok_generators.flow_transformer import FlowTransformer, FlowTransformerConfig

TARGET = 1.15
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


def ours(work: Work) -> Tensor:
    """(B, N, D) latents."""
    latents = work.model.sample(work.labels, work.draws, guidance=work.guidance, sampling=work.sampling)
    assert latents.vectors is not None
    return latents.vectors


def one_pass(work: Work) -> Tensor:
    """(B, N, D) velocities."""
    return work.model(work.noise, work.times, work.labels)


def one_pass_of_vit(work: Work) -> Tensor:
    """(B, N, width) features."""
    return work.vit(work.noise.mT[:, :, None])


WAYS: dict[str, Callable[[Work], Tensor]] = {
    "plain": plain,
    "ours": ours,
    "forward": one_pass,
    "forward_of_timm_vit": one_pass_of_vit,
}


@torch.no_grad()
def seconds(way: Callable[[Work], Tensor], work: Work, precision: str) -> tuple[float, float, Tensor]:
    """Wall seconds, CPU seconds and the result."""
    context: AbstractContextManager[object] = nullcontext()
    if precision == "bf16":
        context = torch.autocast(work.noise.device.type, torch.bfloat16)
    wait = torch.cuda.synchronize if work.noise.is_cuda else lambda: None
    wait()
    start, cpu = time.perf_counter(), time.process_time()
    with context:
        result = way(work)
    wait()
    return time.perf_counter() - start, time.process_time() - cpu, result


def measure(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(options.threads)
    work = Work(options)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    results: dict[str, Tensor] = {}
    for repeat in range(options.repeats + 1):
        for name, way in WAYS.items():
            clock, cpu, results[name] = seconds(way, work, options.precision)
            if repeat:  # the first warms up
                spent[name].append((clock, cpu))
    medians = [{name: statistics.median(pair[i] for pair in spent[name]) for name in WAYS} for i in (0, 1)]
    clock_of, cpu_of = medians
    return {
        **vars(options),
        "device_name": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in work.model.parameters()),
        "parameters_of_timm_vit": sum(p.numel() for p in work.vit.parameters()),
        "median_seconds": {name: round(value, 3) for name, value in clock_of.items()},
        "median_cpu_seconds": {name: round(value, 3) for name, value in cpu_of.items()},
        "plain_to_ours": round(clock_of["plain"] / clock_of["ours"], 2),
        "plain_to_ours_cpu": round(cpu_of["plain"] / cpu_of["ours"], 2),
        "forward_to_timm_vit": round(clock_of["forward"] / clock_of["forward_of_timm_vit"], 3),
        "forward_to_timm_vit_cpu": round(cpu_of["forward"] / cpu_of["forward_of_timm_vit"], 3),
        "forward_target": TARGET,
        "largest_difference": round((results["plain"] - results["ours"]).abs().max().item(), 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=["B", "L", "XL"], default="B", help="default B")
    sizes = {"batch": 8, "classes": 4, "tokens": 128, "depth": 12, "steps": 10, "repeats": 3, "threads": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--scale", type=float, default=1.75, help="guidance scale; default 1.75")
    parser.add_argument(
        "--start", type=float, default=0.3, help="start of guidance; default 0.3 as in MAETok: t in [0, 0.7]"
    )
    parser.add_argument("--precision", choices=["no", "bf16"], default="no", help="bf16: under autocast; default no")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default cpu")
    print(json.dumps(measure(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
