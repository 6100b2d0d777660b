"""Measures a tokenizer with all metrics in one pass over the validation images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.kinds.stage import StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.promises import TokenizerPromise
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.images import from_uint8, to_uint8
from robustok_core.values.latents import Latents
from robustok_core.values.result import Result, add_results
from robustok_core.values.spec import Spec
from robustok_stages.checks import check_each, check_held_latents
from robustok_stages.costs import SketchedFeatures
from robustok_stages.networks import check_networks
from robustok_toolkit.image_features import Networks
from robustok_training.batches import evaluation_batches
from robustok_training.distributed import all_sum, rank, world_size
from robustok_training.progress import StepProgress


def check_tokenizer_metrics(
    context: StageContext, tokenizer: TokenizerPromise, metrics: Mapping[str, Spec], *keys: str
) -> None:
    """Checks that the metrics in this stage's option `keys` fit the tokenizer's latent space and images, and the
    training images.

    Raises:
        ProblemsError: if any does not, or if a network that it uses cannot be used.
    """
    num_train, sketches = len(context.dataset().train), SketchedFeatures()

    def check(name: str, metric: Metric, spec: Spec) -> None:
        metric.check(tokenizer.space)
        metric.check_image_size(tokenizer.image_size)
        metric.check_train_images(num_train)
        check_held_latents(context, tokenizer.space, metric.held_latents(num_train), *keys, name)
        check_networks(spec, sketches)

    check_each(context, {name: partial(check, name, spec.build(), spec) for name, spec in metrics.items()}, *keys)


def started_metrics(
    context: StageContext,
    tokenizer: Tokenizer,
    metrics: Mapping[str, Spec],
    *,
    networks: Networks,
    limit: int | None,
) -> list[Metric]:
    """Builds metrics and starts a pass; for arguments and errors see `measure_tokenizer`."""
    images = context.dataset().validation
    shared = EvaluationContext(
        tokenizer=tokenizer,
        source=images.fingerprint,
        num_images=min(len(images), limit or len(images)),
        cache=context.cache,
        share_features=networks,
        device=context.device,
        train=context.dataset().train,
    )
    built: list[Metric] = [spec.build() for spec in metrics.values()]
    for metric in built:
        metric.start(shared)
    return built


@torch.no_grad()
def measure_tokenizer(
    context: StageContext,
    tokenizer: Tokenizer,
    metrics: Mapping[str, Spec],
    *,
    networks: Networks,
    limit: int | None,
    seed: int,
    batch_size: int,
    workers: int,
    latents_of: Callable[[ImageBatch], Latents] | None = None,
) -> dict[str, Result]:
    """The results of all metrics by name.

    Args:
        context: the stage's context.
        tokenizer: in eval mode. metrics: by name. networks: shared with the stage's other measurements.
        limit: measure only the first `limit` images of `class_balanced_order`.
        seed: of the perturbations, the same for every tokenizer. batch_size: images at once on each process.
        workers: processes that load images.
        latents_of: the latents to decode for a batch, if not the tokenizer's own.

    Raises:
        RobustokError: if a metric does not fit the tokenizer, or its network is not available.
    """
    images = context.dataset().validation
    count = min(len(images), limit or len(images))
    built = started_metrics(context, tokenizer, metrics, networks=networks, limit=limit)
    batches = evaluation_batches(
        images, batch_size=batch_size, rank=rank(), world=world_size(), limit=limit, workers=workers
    )
    done = 0
    with StepProgress(context.console, context.stage, count) as progress:
        for loaded in batches:
            batch = loaded.to(context.device)
            latents = tokenizer.encode(batch.images) if latents_of is None else latents_of(batch)
            step = Evaluation(
                batch=batch,
                latents=latents,
                images=from_uint8(to_uint8(tokenizer.decode(latents))),
                tokenizer=tokenizer,
                draws=Draws(seed=seed, indices=batch.indices, total=len(images)),
            )
            for metric in built:
                metric.update(step)
            done += len(batch) * world_size()
            progress.update(min(done, count), {"images": min(done, count)})
    results: dict[str, Result] = {}
    with StepProgress(context.console, f"{context.stage}: results", len(built)) as progress:
        for number, (key, metric) in enumerate(zip(metrics, built, strict=True), start=1):
            metric.load_state({name: all_sum(value) for name, value in metric.state().items()})
            add_results(results, key, metric.compute())
            progress.update(number, {})
    return results
