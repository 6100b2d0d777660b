"""One of `world` processes that extract features of 101 images: `features_two_processes.py RANK WORLD FOLDER`.

Writes the features, class scores and moments of this process to FOLDER/RANK-of-WORLD.safetensors.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from processes import connected
from robustok_core import load_registry
from robustok_toolkit.image_features import ExtractedFeatures, Extraction, SharedFeatures


def main(rank: int, world: int, folder: Path) -> None:
    registry = load_registry()
    device = torch.device("cpu")
    extraction = Extraction(networks=SharedFeatures(device), device=device, batch_size=7)
    cache = folder / f"cache-{rank}-of-{world}"  # process 1's stays empty: only process 0 writes
    images = registry.build("dataset", {"use": "fashion_mnist"}).validation
    population = ExtractedFeatures(images, extraction, name="validation images", cache=cache, limit=101)
    network = registry.spec("features", {"use": "fashion_classifier"})
    mean, covariance = population.moments(network)
    tensors = {"features": population.features(network), "logits": population.logits(network)}
    again = ExtractedFeatures(images, extraction, name="again", cache=cache, limit=101)
    tensors |= {"mean": mean, "covariance": covariance, "again": again.features(network)}
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()},
        folder / f"{rank}-of-{world}.safetensors",
    )


if __name__ == "__main__":
    connected(main)
