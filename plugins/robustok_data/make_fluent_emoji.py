"""Writes the embedded file: `python -m robustok_data.make_fluent_emoji SOURCE.npz OUT.npz` (a few minutes)."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from robustok_data.fluent_emoji import COLUMNS, SIDE, SPLITS

_WHITE = 255


def sheet_of(images: NDArray[np.uint8], *, effort: int = 100) -> NDArray[np.uint8]:
    """The bytes of one lossless WebP image that holds images (n, SIDE, SIDE, 3) in rows of COLUMNS.

    Args:
        images: the last row is filled up with white ones. effort: 0 (fast) to 100 (small).
    """
    blank = np.full((-len(images) % COLUMNS, SIDE, SIDE, 3), _WHITE, np.uint8)
    pixels = rearrange(np.concatenate([images, blank]), "(r k) h w c -> (r h) (k w) c", k=COLUMNS)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "webp", lossless=True, quality=effort, method=6 if effort else 0)
    return np.frombuffer(written.getvalue(), np.uint8)


def coded(arrays: Mapping[str, NDArray[Any]], *, effort: int = 100) -> dict[str, Any]:
    """The arrays to write: each split's images become a sheet; its labels and names, and the classes, stay."""
    chosen: dict[str, Any] = {"class_names": arrays["class_names"]}
    for split in SPLITS:
        chosen[f"{split}_sheet"] = sheet_of(arrays[f"{split}_images"], effort=effort)
        chosen[f"{split}_labels"] = arrays[f"{split}_labels"].astype(np.uint8)
        chosen[f"{split}_names"] = arrays[f"{split}_names"]
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads SOURCE, writes OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="train_images (n, 64, 64, 3), train_labels, train_names, val_…")
    parser.add_argument("out", type=Path, help="output file, with each split's images as one lossless WebP")
    parser.add_argument("--effort", type=int, default=100, help="of the compression, 0 (fast) to 100 (small)")
    options = parser.parse_args(arguments)
    with np.load(options.source) as source:
        np.savez_compressed(options.out, **coded(source, effort=options.effort))


if __name__ == "__main__":
    main()
