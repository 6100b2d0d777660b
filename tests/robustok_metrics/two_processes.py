"""One of `world` processes that measure 60 images together: `two_processes.py RANK WORLD FOLDER`.

Writes pFID and rFD of this process to FOLDER/RANK-of-WORLD.json for four passes: two with a cache of its own (only
process 0 writes), two with a shared one; and how many images the network saw in each.
"""

from __future__ import annotations

import json
from pathlib import Path

import conftest as tiny
import torch

from processes import connected
from robustok_core import load_registry
from robustok_metrics.frechet import Frechet, FrechetConfig
from robustok_metrics.pfid import PFID, PFIDConfig
from robustok_training.distributed import all_sum, barrier


def measure(rank: int, world: int, caches: list[Path]) -> list[dict[str, float]]:
    registry = load_registry()
    images = registry.build("dataset", {"use": "fashion_mnist"}).validation.load(range(tiny.NUM_IMAGES))
    run = tiny.Pass(tiny.tiny_tokenizer(registry), images)
    perturbation = registry.spec("perturbation", {"use": "top_delta"})
    config = PFIDConfig(features=tiny.colours(), perturbation=perturbation, alphas=(0.5,), deltas=(3,))
    metrics = [Frechet(FrechetConfig(features=tiny.colours())), PFID(config)]
    passes = []
    for cache in caches:
        run.networks.clear()
        for metric in metrics:
            run.start(metric, cache=cache)
        run.update(*metrics, rows=torch.arange(tiny.NUM_IMAGES).chunk(world)[rank])
        results: dict[str, float] = {"seen": metrics[0].distances.features.seen}
        for metric in metrics:
            metric.load_state({name: all_sum(value) for name, value in metric.state().items()})
            results |= run.numbers(metric.compute())
        passes.append(results)
        barrier()
    return passes


def main(rank: int, world: int, folder: Path) -> None:
    own, shared = folder / f"cache-{rank}-of-{world}", folder / f"cache-of-{world}"
    passes = measure(rank, world, [own, own, shared, shared])
    (folder / f"{rank}-of-{world}.json").write_text(json.dumps(passes))


if __name__ == "__main__":
    connected(main)
