"""Measures the speed of loading images against a plain torch Dataset: `python benchmarks/data_loader.py`.

Both read the embedded Fashion-MNIST in one process and return the same tensors; repetitions alternate, so
that other load affects both equally. Prints JSON: images per second (median and range of the repetitions),
the loading rate relative to what training consumes, and the share of a training step that loading takes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from robustok_data.arrays import read_npz
from robustok_data.fashion_mnist import EMBEDDED, FashionMNIST, FashionMNISTConfig
from robustok_training.batches import training_batches


class PlainImages(Dataset[tuple[Tensor, int]]):
    """The simplest implementation: one image per item, batched by torch's default collate."""

    def __init__(self) -> None:
        arrays = read_npz(EMBEDDED, ["train_images", "train_labels"])
        self.images, self.labels = np.asarray(arrays["train_images"]), np.asarray(arrays["train_labels"])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = F.pad(torch.from_numpy(self.images[index]), [2, 2, 2, 2]).float() / 127.5 - 1
        return image.expand(3, 32, 32), int(self.labels[index])


def plain(batch_size: int, workers: int) -> Iterator[Tensor]:
    """Batches of images (B, 3, 32, 32), epoch after epoch."""
    loader = DataLoader(
        PlainImages(), batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        for images, _ in loader:
            yield images


def ours(batch_size: int, workers: int) -> Iterator[Tensor]:
    """The same batches from robustok's loader."""
    steps = training_batches(
        FashionMNIST(FashionMNISTConfig()).train,
        seed=0,
        global_batch=batch_size,
        accumulation=1,
        rank=0,
        world=1,
        start_step=0,
        total_steps=2**40,
        workers=workers,
    )
    return (batch.images for (batch,) in steps)


def check_equal() -> None:
    """Checks that both return the same image for an index."""
    batch = FashionMNIST(FashionMNISTConfig()).train.load(range(64))
    expected = torch.stack([PlainImages()[index][0] for index in range(64)])
    torch.testing.assert_close(batch.images, expected, atol=1e-6, rtol=0)


def rate(batches: Iterator[Tensor], seconds: float) -> float:
    """Images per second."""
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        count += len(next(batches))
    return count / passed


def measured(
    loaders: dict[str, Callable[[int, int], Iterator[Tensor]]], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Images per second in each repetition, by loader."""
    running = {name: loader(options.batch_size, options.workers) for name, loader in loaders.items()}
    for batches in running.values():
        rate(batches, options.seconds / 2)  # starts the workers and fills caches
    rates: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(options.repeats):
        for name, batches in running.items():
            rates[name].append(rate(batches, options.seconds))
    return rates


def report(rates: dict[str, list[float]], options: argparse.Namespace) -> dict[str, object]:
    """The report to print."""
    medians = {name: median(values) for name, values in rates.items()}
    needed = options.step_images_per_second
    return {
        "images_per_second": {name: round(value) for name, value in medians.items()},
        "range": {name: [round(min(values)), round(max(values))] for name, values in rates.items()},
        "times_as_fast_as_plain": round(medians["robustok"] / medians["plain"], 2),
        "needed_images_per_second": needed,
        "times_what_a_step_needs": {name: round(value / needed, 2) for name, value in medians.items()},
        "loading_share_of_a_step": {name: round(needed / value, 5) for name, value in medians.items()},
        "settings": {**vars(options), "threads": torch.get_num_threads(), "cores": os.cpu_count()},
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()},
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64, help="images per batch")
    parser.add_argument("--workers", type=int, default=0, help="worker processes of either loader")
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of a repetition")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each measurement")
    parser.add_argument(
        "--step-images-per-second", type=float, default=400.0, help="images per second that training consumes"
    )
    options = parser.parse_args()
    check_equal()
    rates = measured({"robustok": ours, "plain": plain}, options)
    json.dump(report(rates, options), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
