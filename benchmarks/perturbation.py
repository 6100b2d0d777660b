"""Measures the cost of a latent perturbation against a plain implementation.

    python benchmarks/perturbation.py
    python benchmarks/perturbation.py --batch 32 --tokens 256 --codebook-size 4096 --width 64 --delta 100 --threads 2

The plain implementation computes the distances from every token of the batch to every codeword, finds the delta
nearest of each, and uses those of the first images. Ours considers only the distinct codes of the selected images.
Each turn ends with vectors for the decoder. Codes are uniform over the codebook, which is the worst case: fewer
coincide than in a trained tokenizer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import harness
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


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    sizes = {"batch": 32, "tokens": 256, "codebook_size": 4096, "width": 64, "delta": 100}
    quick = {"batch": 4, "tokens": 4, "codebook_size": 16, "width": 4, "delta": 4, "beta": 0.5}
    parser = harness.Parser(__doc__, sizes, quick=quick, rounds=25)
    for name, default in {"beta": 0.1, "alpha": 1.0}.items():
        parser.add_argument(f"--{name}", type=float, default=default, help=f"default {default}")
    options = parser.options(arguments)
    torch.manual_seed(0)
    device, turns = torch.device(options.device), itertools.count()
    quantizer = VQ(VQConfig(codebook_size=options.codebook_size, width=options.width)).to(device).requires_grad_(False)
    codebook = F.normalize(torch.randn(options.codebook_size, options.width, device=device), dim=-1)
    quantizer.embedding.copy_(codebook)
    codes = torch.randint(options.codebook_size, (options.batch, options.tokens), device=device)
    latents = Latents(vectors=quantizer.lookup(codes), codes=codes)

    def ours() -> Tensor | None:
        draws = Draws.for_rows(next(turns), options.batch, device)
        perturbed, _ = top_delta(latents, quantizer, draws, beta=options.beta, alpha=options.alpha, delta=options.delta)
        return perturbed.vectors

    ways = {"plain": lambda: plain(latents, codebook, beta=options.beta, delta=options.delta), "ours": ours}
    report = harness.Report(options)
    report.compared("perturbation", harness.compare(ways, rounds=options.rounds, warm_up=2))
    return report.finish()


if __name__ == "__main__":
    main()
