"""Measures the speed of loading images against a plain torch Dataset: `python benchmarks/data_loader.py`.

Both read the embedded Fashion-MNIST and return the same tensors. Also reported: the loading rate relative to what
training consumes, and the share of a training step that loading takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import harness
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
    images = PlainImages()
    expected = torch.stack([images[index][0] for index in range(64)])
    torch.testing.assert_close(batch.images, expected, atol=1e-6, rtol=0)


def load(batches: Iterator[Tensor], count: int) -> None:
    for _ in range(count):
        next(batches)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    sizes = {"batch_size": 64, "workers": 0, "batches": 400}
    parser = harness.Parser(__doc__, sizes, quick={"batch_size": 4, "batches": 3})
    parser.add_argument(
        "--step-images-per-second", type=float, default=400.0, help="images per second that training consumes"
    )
    options = parser.options(arguments)
    check_equal()
    running = {name: loader(options.batch_size, options.workers) for name, loader in (("plain", plain), ("ours", ours))}
    ways = {name: partial(load, batches, options.batches) for name, batches in running.items()}
    found, amount = harness.compare(ways, rounds=options.rounds), options.batches * options.batch_size
    report = harness.Report(options)
    report.compared("loading", found, amount=amount, unit="images")
    rate, needed = found.rates(amount)["ours"].median, options.step_images_per_second
    report.found["times_what_a_step_needs"] = round(rate / needed, 2)
    report.found["loading_share_of_a_step"] = round(needed / rate, 5)
    return report.finish()


if __name__ == "__main__":
    main()
