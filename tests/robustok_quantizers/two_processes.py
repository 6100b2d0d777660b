"""One of `world` processes that share a step's vectors: `two_processes.py RANK WORLD FOLDER`.

Saves the codebooks after three steps of two micro-batches, and the gradients of LFQ's entropy, to
FOLDER/RANK-of-WORLD.pt.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from processes import connected
from robustok_core.values.draws import Draws
from robustok_quantizers.lfq import LFQ, LFQConfig
from robustok_quantizers.vq import VQ, VQConfig
from robustok_training.distributed import all_gather_rows

MICRO_BATCHES = 2


def vectors(step: int, width: int, rank: int, world: int) -> list[Tensor]:
    """This process's share of each micro-batch of a step of 24 images: micro-batch m, process p."""
    whole = torch.randn(24, 5, width, generator=torch.Generator().manual_seed(step))
    shares = whole.chunk(MICRO_BATCHES * world)
    return [shares[micro * world + rank] for micro in range(MICRO_BATCHES)]


def codebook(update: str, rank: int, world: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    options = {"codebook_size": 32, "width": 4, "restart_threshold": 0.5, "restart_after": 2}
    quantizer = VQ(VQConfig(codebook_update=update, **options)).train()
    for step in range(3):
        for z in vectors(step, 4, rank, world):
            quantizer.quantize(z)
        quantizer.after_step(Draws.for_rows(step, 1))
    return {f"{update} {name}": value for name, value in quantizer.state_dict().items()}


def entropy_gradient(rank: int, world: int) -> Tensor:
    """The gradient for all rows of a micro-batch, divided by `world` since data parallelism averages gradients."""
    quantizer = LFQ(LFQConfig(width=3, inverse_temperature=1.0)).train()
    z = vectors(0, 3, rank, world)[0].requires_grad_()
    quantizer.quantize(z).losses["entropy"].backward()
    return all_gather_rows(z.grad / world)


def main(rank: int, world: int, folder: Path) -> None:
    results = {**codebook("gradient", rank, world), **codebook("ema", rank, world)}
    results["entropy gradient"] = entropy_gradient(rank, world)
    torch.save(results, folder / f"{rank}-of-{world}.pt")


if __name__ == "__main__":
    connected(main)
