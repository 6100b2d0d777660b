"""What the 15 cells of pFID cost together, against 15 separate reconstruction distances. Prints one JSON object.

    python benchmarks/pfid.py
    python benchmarks/pfid.py --images 1000 --features fashion_classifier

A separate distance encodes the images, perturbs and decodes them in its cell, and looks at both sides. Together
they are encoded once and the real side is looked at once; a cell repeats only decoding and looking at the result.
Both run in turn on each batch in one process, so that what else the machine does meets both. The tokenizer is
conv_vq's small one with random weights: what it draws costs the same as what a trained one draws.
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
    """Wall and processor seconds of what it ran."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    def run(self, work: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor
        return result


def evaluation(tokenizer: Any, batch: ImageBatch, count: int) -> Evaluation:
    """A batch as the evaluation stage makes it, but for the plain reconstructions, which pFID does not read."""
    latents = tokenizer.encode(batch.images)
    draws = Draws(seed=0, indices=batch.indices, total=count)
    return Evaluation(batch=batch, latents=latents, images=batch.images, tokenizer=tokenizer, draws=draws)


def started(registry: Registry, table: Mapping[str, Any], context: EvaluationContext) -> Any:
    """A pFID metric at the beginning of a pass."""
    metric: Metric = registry.build("metric", table)
    metric.start(context)
    return metric


@torch.no_grad()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both ways over the same images."""
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
    separate = [started(registry, one, context) for one in single]
    network(images.load(range(2)).images)  # warms up

    ours, theirs = Clock(), Clock()
    for rows in torch.arange(options.images).split(options.batch):
        batch = images.load(rows.tolist())
        ours.run(lambda batch=batch: together.update(evaluation(tokenizer, batch, options.images)))
        for metric in separate:
            theirs.run(lambda batch=batch, metric=metric: metric.update(evaluation(tokenizer, batch, options.images)))
    pass_ratio = ours.processor / theirs.processor
    found = cell_values(ours.run(together.compute))
    expected = [cell_values(theirs.run(metric.compute)) for metric in separate]
    differences = [abs(found[name] - value) / value for one in expected for name, value in one.items()]
    return {
        "cells": len(cells),
        "images": options.images,
        "together_seconds": round(ours.wall, 2),
        "separate_seconds": round(theirs.wall, 2),
        "ratio": round(ours.wall / theirs.wall, 3),
        "ratio_of_processor_time": round(ours.processor / theirs.processor, 3),
        "ratio_of_processor_time_before_the_distances": round(pass_ratio, 3),  # what many images come to
        "target": 0.55,
        "parts_ms_per_image": parts(tokenizer, network, images.load(range(options.batch))),
        "largest_relative_difference": max(differences),
    }


def cell_values(results: Mapping[str, Result]) -> Mapping[str, float]:
    """The distances of the cells alone, of a metric's one result."""
    (result,) = results.values()
    return result.details["cells"]


def parts(tokenizer: Any, network: Features, batch: ImageBatch) -> dict[str, float]:
    """What the ratio is made of."""
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
    parser.add_argument("--images", type=int, default=192, help="images of the pass (192)")
    parser.add_argument("--batch", type=int, default=64, help="images at once (64)")
    parser.add_argument("--features", default="efficientnet_lite0", help="the judge (efficientnet_lite0)")
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
