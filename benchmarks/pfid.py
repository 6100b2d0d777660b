"""Measures the cost of pFID's 15 cells together against 15 separate distances.

    python benchmarks/pfid.py
    python benchmarks/pfid.py --images 1000 --features fashion_classifier

A separate distance encodes the images, perturbs and decodes them in its cell, and extracts features of both sides.
Together, images are encoded once and real features are extracted once; a cell repeats only decoding and extracting
features of the result. A round is a batch.
The tokenizer is conv_vq's small one with random weights, whose images cost the same as a trained one's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import harness
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
def measure(report: harness.Report) -> None:
    """Measures both on the same images."""
    options, registry = report.options, load_registry()
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
    single = [{**table, "alphas": [cell.alpha], "deltas": [cell.delta]} for cell in together.perturbations]
    separate = [started(registry, each, context) for each in single]
    network(images.load(range(2)).images)  # warms up
    batches = [images.load(rows.tolist()) for rows in torch.arange(options.images).split(options.batch)]
    turns: dict[str, Iterator[ImageBatch]] = {name: iter(batches) for name in ("separate", "together")}

    def update(name: str, metrics: list[Any]) -> None:
        batch = next(turns[name])
        for metric in metrics:
            metric.update(evaluation(tokenizer, batch, options.images))

    ways = {"separate": lambda: update("separate", separate), "together": lambda: update("together", [together])}
    passes = harness.compare(ways, rounds=len(batches), warm_up=0)
    report.compared("pFID's pass over images", passes, amount=options.images / len(batches), unit="images")
    ends = {
        "separate": lambda: [cell_values(metric.compute()) for metric in separate],
        "together": lambda: cell_values(together.compute()),
    }
    distances = harness.compare(ends, rounds=1, warm_up=0)
    report.compared("pFID's distances", distances)
    expected, values = distances.results["separate"], distances.results["together"]
    totals = [sum(itertools.chain(passes.seconds[name], distances.seconds[name])) for name in ways]
    report.found["share_of_the_cost"] = round(totals[1] / totals[0], 3)
    report.found["cells"] = len(single)
    report.found["largest_relative_difference"] = max(
        abs(values[name] - value) / value for cell in expected for name, value in cell.items()
    )
    parts(report, tokenizer, network, batches[0])


def cell_values(results: Mapping[str, Result]) -> Mapping[str, float]:
    """The distance of each cell, from a metric's only result."""
    (result,) = results.values()
    return result.details["cells"]


def parts(report: harness.Report, tokenizer: Any, network: Features, batch: ImageBatch) -> None:
    """Each operation by itself."""
    latents = tokenizer.encode(batch.images)
    for name, run in {
        "encode": lambda: tokenizer.encode(batch.images),
        "decode": lambda: from_uint8(to_uint8(tokenizer.decode(latents))),
        "features": lambda: network(batch.images),
    }.items():
        report.compared(name, harness.compare({name: run}, rounds=1), amount=len(batch), unit="images")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    quick = {"images": 8, "batch": 4, "features": "fashion_classifier", "codebook_size": 512}
    parser = harness.Parser(__doc__, {"images": 192, "batch": 64, "codebook_size": 512, "threads": 1}, quick=quick)
    parser.add_argument("--features", default="efficientnet_lite0", help="feature network (efficientnet_lite0)")
    report = harness.Report(parser.options(arguments))
    torch.manual_seed(0)
    measure(report)
    return report.finish()


if __name__ == "__main__":
    main()
