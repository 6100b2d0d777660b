"""Measures the cost of a latent perturbation against a plain implementation. Prints one JSON object.

    python benchmarks/perturbation.py
    python benchmarks/perturbation.py --batch 32 --tokens 256 --codebook-size 4096 --width 64 --delta 100 --threads 2

The plain implementation computes the distances from every token of the batch to every codeword, finds the delta
nearest of each, and uses those of the first images. Ours considers only the distinct codes of the selected images.
Both run alternately in one process, so that other load affects both equally; each turn ends with vectors for the
decoder. Codes are uniform over the codebook, which is the worst case: fewer coincide than in a trained tokenizer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents
from robustok_perturbations.top_delta import top_delta
from robustok_quantizers.vq import VQ, VQConfig


def plain(latents: Latents, codebook: Tensor, *, beta: float, delta: int) -> Tensor:
    """(B, N, D): all distances, the delta nearest codewords of each token, a random one for the first images."""
    assert latents.vectors is not None
    images, tokens, _ = latents.vectors.shape
    z = latents.vectors.flatten(0, 1)  # (B N, D)
    distances = z.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2.0 * z @ codebook.T  # (B N, K)
    nearest = distances.topk(delta, dim=1, largest=False).indices  # (B N, delta)
    ranks = torch.randint(delta, (images * tokens, 1))
    ranks[int(beta * images) * tokens :] = 0
    replaced = codebook[nearest.gather(1, ranks)[:, 0]].unflatten(0, (images, tokens))
    return latents.vectors + (replaced - latents.vectors).detach()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[int], object], turn: int, device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    run(turn)
    synchronise(device)
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    quantizer = VQ(VQConfig(codebook_size=options.codebook_size, width=options.width)).to(device).requires_grad_(False)
    codebook = F.normalize(torch.randn(options.codebook_size, options.width, device=device), dim=-1)
    quantizer.embedding.copy_(codebook)
    codes = torch.randint(options.codebook_size, (options.batch, options.tokens), device=device)
    latents = Latents(vectors=quantizer.lookup(codes), codes=codes)

    def ours(turn: int) -> Tensor | None:
        draws = Draws.for_rows(turn, options.batch, device)
        perturbed, _ = top_delta(latents, quantizer, draws, beta=options.beta, alpha=options.alpha, delta=options.delta)
        return perturbed.vectors

    ways = {"plain": lambda turn: plain(latents, codebook, beta=options.beta, delta=options.delta), "ours": ours}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-2, options.repeats):  # the first two warm up
        for name, way in ways.items():
            spent = seconds(way, turn, device)
            if turn >= 0:
                times[name].append(spent)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        **vars(options),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "median_ms": {name: round(1e3 * value, 3) for name, value in medians.items()},
        "fastest_ms": {name: round(1e3 * min(values), 3) for name, values in times.items()},
        "ratio_of_medians": round(medians["plain"] / medians["ours"], 2),
        "median_of_ratios": round(statistics.median(map(float.__truediv__, times["plain"], times["ours"])), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"batch": 32, "tokens": 256, "codebook-size": 4096, "width": 64, "delta": 100, "repeats": 25, "threads": 2}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    for name, default in {"beta": 0.1, "alpha": 1.0}.items():
        parser.add_argument(f"--{name}", type=float, default=default, help=f"default {default}")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default cpu")
    print(json.dumps(measure(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
