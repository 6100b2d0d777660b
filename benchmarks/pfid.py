"""Measures the cost of pFID's 15 cells together against 15 separate distances. Prints one JSON object.

    python benchmarks/pfid.py
    python benchmarks/pfid.py --images 1000 --features fashion_classifier

A separate distance encodes the images, perturbs and decodes them in its cell, and extracts features of both sides.
Together, images are encoded once and real features are extracted once; a cell repeats only decoding and extracting
features of the result. Both run alternately on each batch in one process, so that other load affects both equally.
The tokenizer is conv_vq's small one with random weights, whose images cost the same as a trained one's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from robustok_core import (
    Draws,
    Evaluation,
    EvaluationContext,
    Features,
    ImageBatch,
    Metric,
    Registry,
    Result,
    load_registry,
)
from robustok_core.values.images import from_uint8, to_uint8
from robustok_tokenizers.conv_vq import SMALL


class Clock:
    """Accumulates wall and processor time of the functions it runs."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    def run(self, work: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor
        return result


def evaluation(tokenizer: Any, batch: ImageBatch, count: int) -> Evaluation:
    """A batch like the evaluation stage's, but without reconstructions of clean latents, which pFID does not read."""
    latents = tokenizer.encode(batch.images)
    draws = Draws(seed=0, indices=batch.indices, total=count)
    return Evaluation(batch=batch, latents=latents, images=batch.images, tokenizer=tokenizer, draws=draws)


def started(registry: Registry, table: Mapping[str, Any], context: EvaluationContext) -> Any:
    """Builds a pFID metric and starts a pass."""
    metric: Metric = registry.build("metric", table)
    metric.start(context)
    return metric


@torch.no_grad()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures both on the same images."""
    registry = load_registry()
    quantizer = {"use": "vq", "codebook_size": options.codebook_size, "width": 16}
    tokenizer = registry.build("tokenizer", {"use": "conv_vq", **SMALL, "quantizer": quantizer}).eval()
    images = registry.build("dataset", {"use": "fashion_mnist"}).validation
    network: Features = registry.build("features", {"use": options.features})
    context = EvaluationContext(
        tokenizer=tokenizer,
        source=images.fingerprint,
        num_images=options.images,
        cache=None,
        share_features=lambda _: network,
        device=torch.device("cpu"),
    )
    table = {"use": "pfid", "features": {"use": options.features}}
    together = started(registry, table, context)
    cells = list(together.sums)
    single = [{**table, "alphas": [cell.alpha], "deltas": [cell.delta]} for cell in cells]
    separate = [started(registry, table, context) for table in single]
    network(images.load(range(2)).images)  # warms up

    ours, theirs = Clock(), Clock()
    for rows in torch.arange(options.images).split(options.batch):
        batch = images.load(rows.tolist())
        ours.run(lambda batch=batch: together.update(evaluation(tokenizer, batch, options.images)))
        for metric in separate:
            theirs.run(lambda batch=batch, metric=metric: metric.update(evaluation(tokenizer, batch, options.images)))
    pass_ratio = ours.processor / theirs.processor
    values = cell_values(ours.run(together.compute))
    expected = [cell_values(theirs.run(metric.compute)) for metric in separate]
    differences = [abs(values[name] - value) / value for cell in expected for name, value in cell.items()]
    return {
        "cells": len(cells),
        "images": options.images,
        "together_seconds": round(ours.wall, 2),
        "separate_seconds": round(theirs.wall, 2),
        "ratio": round(ours.wall / theirs.wall, 3),
        "ratio_of_processor_time": round(ours.processor / theirs.processor, 3),
        "ratio_of_processor_time_before_the_distances": round(pass_ratio, 3),  # the limit for many images
        "target": 0.55,
        "parts_ms_per_image": parts(tokenizer, network, images.load(range(options.batch))),
        "largest_relative_difference": max(differences),
    }


def cell_values(results: Mapping[str, Result]) -> Mapping[str, float]:
    """The distance of each cell, from a metric's only result."""
    (result,) = results.values()
    return result.details["cells"]


def parts(tokenizer: Any, network: Features, batch: ImageBatch) -> dict[str, float]:
    """Processor milliseconds per image of each operation."""
    latents = tokenizer.encode(batch.images)
    work: dict[str, Callable[[], Any]] = {
        "encode": lambda: tokenizer.encode(batch.images),
        "decode": lambda: from_uint8(to_uint8(tokenizer.decode(latents))),
        "features": lambda: network(batch.images),
    }
    spent = {}
    for name, run in work.items():
        clock = Clock()
        clock.run(run)
        spent[name] = round(1000 * clock.processor / len(batch), 3)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=192, help="number of images (192)")
    parser.add_argument("--batch", type=int, default=64, help="images per batch (64)")
    parser.add_argument("--features", default="efficientnet_lite0", help="feature network (efficientnet_lite0)")
    parser.add_argument("--codebook-size", type=int, default=512, help="K (512)")
    parser.add_argument("--threads", type=int, default=1, help="threads (1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    report = measure(options)
    report["machine"] = {"cores": os.cpu_count(), "processor": platform.machine(), "torch": torch.__version__}
    json.dump({**report, "options": vars(options)}, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
