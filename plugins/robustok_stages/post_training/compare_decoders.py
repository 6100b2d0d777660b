"""What post-training changed: the same latents drawn by the decoder before and by each decoder after.

So the difference is paired: its error is much smaller than that of either distance. The sigma to keep is chosen
on one half of the held-out images, and the results are those of the other half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.context import StageContext
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.values.batches import ImageBatch, LatentBatch
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.guidance import Guidance
from robustok_core.values.images import to_uint8
from robustok_core.values.latents import Latents
from robustok_core.values.spec import components
from robustok_stages.fitting import located, read_sampling
from robustok_stages.generator.sample_evaluation import check_metrics, say_singular
from robustok_stages.tokenizer.tokenizer_evaluation import measure_tokenizer, started_metrics
from robustok_toolkit.directions import higher_is_better
from robustok_toolkit.generating import ImagesInMemory, decode_to_uint8, generate, labels_of
from robustok_toolkit.image_features import ExtractedFeatures, SharedFeatures, gather_shares
from robustok_toolkit.latent_arrays import from_array, no_latents, to_array
from robustok_toolkit.pair_files import split_of
from robustok_toolkit.pictures import save_rows
from robustok_training.batches import class_balanced_order
from robustok_training.distributed import rank, world_size

BEFORE = "before"


@frozen(kw_only=True)
class CompareConfig:
    """How the tokenizers before and after post-training are compared."""

    num_samples: int = field(
        default=5000, validator=validators.ge(2), metadata={"doc": "samples that every decoder draws, of all classes"}
    )
    guidance: Guidance = field(
        factory=lambda: Guidance(scale=2.0),
        metadata={"doc": "table: guidance of a second set of samples beside the unguided one; scale 1 for none"},
    )
    sampling: dict[str, Any] = field(factory=dict, metadata={"doc": "table: options of the generator's sampler"})
    metrics: dict[str, Any] = components(
        "sample_metric",
        doc="what to measure of samples; the first result chooses sigma",
        default={"gfd": {"use": "frechet"}},
    )
    tokenizer_metrics: dict[str, Any] = components(
        "metric",
        doc="what to measure of reconstructions: what post-training cost",
        default={"rfd": {"use": "frechet"}, "pfd": {"use": "pfid"}},
    )
    limit: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(2)),
        metadata={"doc": "only the first validation images for tokenizer_metrics; all where left out"},
    )
    batch_size: int = field(default=100, validator=validators.ge(1), metadata={"doc": "images at once on each process"})
    pictures: int = field(
        default=10, validator=validators.ge(1), metadata={"doc": "columns of the pictures of samples and of sigma"}
    )


class SomeImages(Images):
    """Those of other images that stand at `rows` (m,) int64."""

    def __init__(self, images: Images, rows: Tensor) -> None:
        self._images, self._rows = images, rows

    @property
    def labels(self) -> Tensor:
        return self._images.labels[self._rows]

    @property
    def fingerprint(self) -> str:
        return fingerprint_of([self._images.fingerprint, self._rows.tolist()])

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        return self._images.load(self._rows[torch.as_tensor(indices, dtype=torch.int64)].tolist(), draws)


def balanced_halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The places (m,) int64 of labels (n,), in two halves that hold each class equally often, to within one."""
    by_class = labels.argsort(stable=True)
    return by_class[0::2].sort().values, by_class[1::2].sort().values


def check_counts(context: StageContext, config: CompareConfig) -> None:
    """Refuses metrics that want more images than there are samples or images of a half of the held-out ones."""
    count = min(map(len, balanced_halves(context.dataset().validation.labels)))
    check_metrics(context, config.metrics, config.num_samples, count, "compare", "metrics")


def check_comparison(context: StageContext, config: CompareConfig, generator: Generator, tokenizer: Tokenizer) -> None:
    """Refuses before the training what could not be measured after it, and says where samples are too few.

    Raises:
        RobustokError: the generator cannot be sampled so, a metric does not fit the tokenizer, or a network of one
            cannot be had.
    """
    try:
        generator.check_guidance(config.guidance)
    except RobustokError as error:
        raise located(context, error, "compare", "guidance", "scale") from error
    read_sampling(context, type(generator), config.sampling, "compare", "sampling")
    networks = SharedFeatures(context.device)
    started_metrics(context, tokenizer, config.tokenizer_metrics, networks=networks, limit=config.limit)
    halves = balanced_halves(context.dataset().validation.labels)
    count = min(config.num_samples, *map(len, halves))
    for spec in config.metrics.values():
        if hasattr(spec.config, "features"):
            networks(spec.config.features)  # where it cannot be had, this is the time to say so
    say_singular(context, config.metrics, networks, count)


class Comparison:
    """Measures tokenizers that share their latents. Use `results` first, then `best` and `draw`.

    Args:
        context: of the stage; its artifact "generator" makes the samples.
        config: what is measured.
    """

    def __init__(self, context: StageContext, config: CompareConfig) -> None:
        self._context, self._config = context, config
        self._networks = SharedFeatures(context.device)
        self._generator: Generator = context.load("generator")
        self._tokenizers: dict[str, Tokenizer] = {}
        self._selection: dict[str, float] = {}
        held_out = context.dataset().validation
        halves = [SomeImages(held_out, rows) for rows in balanced_halves(held_out.labels)]
        self._chosen_on, self._reported_on = (self._population(half, "held-out images") for half in halves)

    def results(self, before: Tokenizer, after: Mapping[float, Tokenizer]) -> dict[str, float]:
        """All results, `ARM_NAME` and, of guided samples, `ARM_guided_NAME`; arms are before and each sigma."""
        self._tokenizers = {BEFORE: before, **{split_of(sigma): tokenizer for sigma, tokenizer in after.items()}}
        results: dict[str, float] = {}
        for arm, tokenizer in self._tokenizers.items():
            self._context.say(f"{self._context.stage}: measuring {arm}")
            results |= {f"{arm}_{name}": value for name, value in self._of_samples(arm, tokenizer).items()}
            of_tokenizer = measure_tokenizer(
                self._context,
                tokenizer,
                self._config.tokenizer_metrics,
                networks=self._networks,
                limit=self._config.limit,
                batch_size=self._config.batch_size,
                workers=0,
            )
            results |= {f"{arm}_{name}": value for name, value in of_tokenizer.items()}
        return results

    def best(self, sigmas: Sequence[float]) -> float:
        """The sigma below 1 whose first sample metric is the best on the selection half, unguided; 1 if alone."""
        below = [sigma for sigma in sigmas if sigma < 1.0] or list(sigmas)
        return min(below, key=lambda sigma: self._selection[split_of(sigma)])

    def better_than(self, kept: float) -> list[str]:
        """Of before and the control, what had a better first metric on the selection half than the sigma kept."""
        others = {BEFORE: "the tokenizer before", split_of(1.0): "the control"}
        return [
            said
            for arm, said in others.items()
            if arm in self._selection and self._selection[arm] < self._selection[split_of(kept)]
        ]

    def _of_samples(self, arm: str, tokenizer: Tokenizer) -> dict[str, float]:
        results: dict[str, float] = {}
        metrics = {name: spec.build() for name, spec in self._config.metrics.items()}
        for prefix, latents in self._latents.items():
            pictures = self._population(self._drawn(tokenizer, latents), f"samples, {arm}")
            for number, metric in enumerate(metrics.values()):
                found = metric.compute(pictures, self._reported_on)
                results |= {prefix + name: value for name, value in found.items()}
                if number == 0 and not prefix:
                    result, value = next(iter(metric.compute(pictures, self._chosen_on).items()))
                    self._selection[arm] = -value if higher_is_better(result, metric.higher_is_better) else value
        return results

    @cached_property
    def _latents(self) -> dict[str, Latents]:
        """This process's share of the samples: unguided, and guided where the generator and the options allow it."""
        found = {"": self._sampled(Guidance())}
        if self._config.guidance.active:
            found["guided_"] = self._sampled(self._config.guidance)
        return found

    @property
    def _shares(self) -> tuple[Tensor, ...]:
        return torch.arange(self._config.num_samples).tensor_split(world_size())

    def _sampled(self, guidance: Guidance) -> Latents:
        own, context = self._shares[rank()], self._context
        parts = generate(
            self._generator,
            labels_of(range(self._generator.num_classes), own),
            Draws(seed=derive_seed(context.seed, "compare"), indices=own, total=self._config.num_samples),
            guidance=guidance,
            sampling=read_sampling(context, type(self._generator), self._config.sampling, "compare", "sampling"),
            batch_size=self._config.batch_size,
        )
        space, where = self._generator.space, f"stage {context.stage}"
        arrays = (to_array(part, space, maker="generator", where=where) for part in parts)
        return from_array(np.concatenate([no_latents(space), *arrays]), space, "samples")

    def _drawn(self, tokenizer: Tokenizer, latents: Latents) -> ImagesInMemory:
        some, size = self._config.batch_size, tokenizer.image_size
        batches = (latents[start : start + some].to(self._context.device) for start in range(0, len(latents), some))
        none = torch.empty(0, 3, size, size, dtype=torch.uint8)  # with fewer samples than processes
        pixels = [none, *(decode_to_uint8(tokenizer, batch).cpu() for batch in batches)]
        labels = labels_of(range(self._generator.num_classes), torch.arange(self._config.num_samples))
        return ImagesInMemory(gather_shares(torch.cat(pixels), [len(share) for share in self._shares]), labels)

    def _population(self, images: Images, name: str) -> ExtractedFeatures:
        context = self._context
        return ExtractedFeatures(
            images, name=name, networks=self._networks, device=context.device, batch_size=self._config.batch_size
        )

    @torch.no_grad()
    def draw(self, folder: Path) -> None:
        """Writes samples.png, the same latents by every decoder, and sigma.png, the same images along sigma."""
        some = self._latents["guided_" if "guided_" in self._latents else ""][: self._config.pictures]
        rows = {
            arm: decode_to_uint8(tokenizer, some.to(self._context.device))
            for arm, tokenizer in self._tokenizers.items()
        }
        save_rows(folder / "samples.png", rows)
        save_rows(folder / "sigma.png", self._along_sigma())

    def _along_sigma(self) -> dict[str, Tensor]:
        """What the generator makes of held-out images at each sigma, before and after."""
        context, before = self._context, self._tokenizers[BEFORE]
        post_trainer: PostTrainer = context.build("post_trainer")
        images = context.dataset().validation
        places = class_balanced_order(images.labels)[: self._config.pictures]
        batch = images.load(places.tolist()).to(context.device)
        encoded = before.encode(batch.images)
        real = Latents(codes=encoded.codes) if encoded.codes is not None else Latents(vectors=encoded.vectors)
        rows = {"real": to_uint8(batch.images)}
        for arm, after in self._tokenizers.items():
            if arm == BEFORE:
                continue
            draws = Draws(seed=derive_seed(context.seed, "picture"), indices=batch.indices, total=len(images))
            pair = post_trainer.pair(
                before,
                self._generator,
                LatentBatch(latents=real, labels=batch.labels, indices=batch.indices),
                draws=draws,
                sigma=float(arm.removeprefix("sigma")),
            )
            rows |= {f"{arm}, before": decode_to_uint8(before, pair), f"{arm}, after": decode_to_uint8(after, pair)}
        return rows
