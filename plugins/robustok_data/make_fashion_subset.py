"""Writes the embedded subset: `python -m robustok_data.make_fashion_subset SOURCE.npz OUT.npz`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustok_training.batches import class_balanced_order

NUM_TRAIN = 12_000
NUM_VALIDATION = 2_000


def subset(arrays: Mapping[str, NDArray[np.uint8]], train: int, validation: int) -> dict[str, Any]:
    """The first images of each split in `class_balanced_order`; deterministic."""
    chosen: dict[str, Any] = {}
    for split, count in (("train", train), ("val", validation)):
        labels = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64))
        rows = class_balanced_order(labels)[:count].numpy()
        for name in (f"{split}_images", f"{split}_labels"):
            chosen[name] = arrays[name][rows]
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads SOURCE, writes OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the full Fashion-MNIST: train_images, train_labels, val_…")
    parser.add_argument("out", type=Path, help="output file for the class-balanced subset")
    paths = parser.parse_args(arguments)
    with np.load(paths.source) as source:
        np.savez_compressed(paths.out, **subset(source, NUM_TRAIN, NUM_VALIDATION))


if __name__ == "__main__":
    main()
