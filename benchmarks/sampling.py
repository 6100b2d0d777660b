"""Measures the cost of sampling a RAR against a plain implementation. Prints one JSON object.

    python benchmarks/sampling.py
    python benchmarks/sampling.py --tokens 64 --depth 6
    python benchmarks/sampling.py --precision bf16

Both sample the same codes from the same classes, random numbers and weights, with guidance (conditional and
unconditional rows in one pass), alternately in one process, so that other load affects both equally. The plain
implementation follows the released sampler: it extends keys and values by concatenation, and at each step looks up
the positions of all codes so far and computes the modulations of each block for each row. The codes are compared at
the end. On a busy machine, compare CPU seconds with --threads 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import LatentSpace
from robustok_generators.autoregressive import Decoding, guided
from robustok_generators.rar import RAR, RARConfig
from robustok_generators.token_sampling import TokenSampling, choose

SAMPLING = TokenSampling(temperature=1.02)
#: RobusTok's for RAR-B.
GUIDANCE = Guidance(scale=6.0, schedule="cosine", power=1.15)


class GrowingCache:
    """Keys and values that grow by concatenation."""

    def __init__(self) -> None:
        self.cached: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.cached is not None:
            keys, values = torch.cat([self.cached[0], keys], dim=2), torch.cat([self.cached[1], values], dim=2)
        self.cached = keys, values
        return self.cached


class PlainDecoding(Decoding):
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


def ours(model: RAR, labels: Tensor, uniform: Tensor) -> Tensor:
    """(B, N) codes."""
    return model.draw(labels, uniform, guidance=GUIDANCE, sampling=SAMPLING)


def linear_layers(model: RAR, labels: Tensor, _: Tensor) -> None:
    """Not a sampler: runs only the linear layers of the blocks on random rows, as a lower bound on the time."""
    widths = {layer.in_features for layer in _linear(model)}
    inputs = {width: torch.randn(2 * len(labels), width, device=labels.device) for width in widths}
    with torch.no_grad():
        for _ in range(model.space.num_tokens):
            for layer in _linear(model):
                layer(inputs[layer.in_features])


def _linear(model: RAR) -> list[torch.nn.Linear]:
    """The linear layers of the blocks, except for those of the modulations."""
    named = model.blocks.named_modules()
    return [m for name, m in named if isinstance(m, torch.nn.Linear) and not name.endswith("modulation")]


def build(options: argparse.Namespace) -> RAR:
    """A model with random non-zero weights."""
    space = LatentSpace(kind="discrete", num_tokens=options.tokens, width=64, codebook_size=options.codebook_size)
    config = RARConfig(preset="B", depth=options.depth)
    torch.manual_seed(0)
    model = RAR(config, space, 1000)
    for block in [*model.blocks, model.head]:
        torch.nn.init.normal_(block.modulation.weight, std=0.02)
    return model.to(options.device).eval()


Way = Callable[[RAR, Tensor, Tensor], "Tensor | None"]


def seconds(
    way: Way, model: RAR, labels: Tensor, uniform: Tensor, precision: str
) -> tuple[float, float, Tensor | None]:
    """Wall seconds, CPU seconds and the codes."""
    context: AbstractContextManager[object] = nullcontext()
    if precision == "bf16":
        context = torch.autocast(labels.device.type, torch.bfloat16)
    wait = torch.cuda.synchronize if labels.is_cuda else lambda: None
    wait()
    start, cpu = time.perf_counter(), time.process_time()
    with context:
        codes = way(model, labels, uniform)
    wait()
    return time.perf_counter() - start, time.process_time() - cpu, codes


def measure(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(options.threads)
    model = build(options)
    labels = torch.arange(options.batch, device=options.device) * 7 % 1000
    uniform = Draws.for_rows(1, options.batch, options.device).uniform(options.tokens)
    ways: dict[str, Way] = {"plain": plain, "ours": ours, "linear_layers_without_modulations": linear_layers}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    codes: dict[str, Tensor | None] = {}
    for _ in range(options.repeats):
        for name, way in ways.items():
            *spent, codes[name] = seconds(way, model, labels, uniform, options.precision)
            times[name].append((spent[0], spent[1]))
    clock, cpu = ({name: statistics.median(pair[i] for pair in times[name]) for name in ways} for i in (0, 1))
    same = codes["plain"] == codes["ours"]
    assert isinstance(same, Tensor)
    return {
        **vars(options),
        "device_name": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "median_seconds": {name: round(value, 3) for name, value in clock.items()},
        "median_cpu_seconds": {name: round(value, 3) for name, value in cpu.items()},
        "ratio_of_medians": round(clock["plain"] / clock["ours"], 2),
        "ratio_of_cpu_medians": round(cpu["plain"] / cpu["ours"], 2),
        "share_of_equal_codes": round(same.float().mean().item(), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"batch": 8, "tokens": 256, "codebook-size": 4096, "depth": 24, "repeats": 3, "threads": 2}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--precision", choices=["no", "bf16"], default="no", help="bf16: under autocast; default no")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default cpu")
    print(json.dumps(measure(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
