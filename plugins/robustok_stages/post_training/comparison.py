"""Compares the decoders before and after post-training on the same latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.kinds.dataset import Images
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.stage import StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.batches import ImageBatch, LatentBatch
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.guidance import Guidance
from robustok_core.values.images import to_uint8
from robustok_core.values.latents import Latents
from robustok_core.values.result import Result, add_results
from robustok_core.values.spec import components, sampler_options
from robustok_stages.generator.sample_evaluation import say_singular
from robustok_stages.tokenizer.tokenizer_evaluation import measure_tokenizer
from robustok_toolkit.generating import (
    ImagesInMemory,
    decode_and_gather,
    decode_to_uint8,
    generate,
    labels_of,
    own_share,
)
from robustok_toolkit.image_features import ExtractedFeatures, Extraction, SharedFeatures
from robustok_toolkit.latent_arrays import from_array, no_latents, to_array
from robustok_toolkit.pair_files import CONTROL, label_of
from robustok_toolkit.pictures import save_rows
from robustok_toolkit.some_images import SomeImages
from robustok_training.batches import balanced_halves, class_balanced_order

BEFORE = "before"


@frozen(kw_only=True)
class ComparisonConfig:
    """What is measured for each decoder."""

    num_samples: int = field(
        default=5000, validator=validators.ge(2), metadata={"doc": "number of samples to decode, of all classes"}
    )
    guidance: Guidance = field(
        factory=lambda: Guidance(scale=2.0),
        metadata={"doc": "table: guidance for a second set of samples, besides the unguided one; scale 1 for none"},
    )
    sampling: Any = sampler_options(doc="table: options of the generator's sampler")
    metrics: dict[str, Any] = components(
        "sample_metric",
        doc="what to measure on samples; the first result chooses sigma",
        default={"gfd": {"use": "frechet"}},
    )
    tokenizer_metrics: dict[str, Any] = components(
        "metric",
        doc="what to measure on reconstructions, to see what post-training costs",
        default={"rfd": {"use": "frechet"}, "pfd": {"use": "pfid"}},
    )
    pair_metrics: dict[str, Any] = components(
        "metric",
        doc="what to measure on held-out images decoded from the generator's versions of their latents, made like the "
        "pairs; with every decoder, at every sigma below 1",
        default={},
    )
    limit: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(2)),
        metadata={
            "doc": "number of validation images for tokenizer_metrics and pair_metrics, class-balanced; default: all"
        },
    )
    batch_size: int = field(default=100, validator=validators.ge(1), metadata={"doc": "images at once on each process"})
    pictures: int = field(
        default=10, validator=validators.ge(1), metadata={"doc": "columns of samples.png and sigma.png"}
    )


class _MadeOnce:
    """The latents that `make` gives for a batch, made once: every decoder reads the same batches."""

    def __init__(self, make: Callable[[ImageBatch], Latents]) -> None:
        self._make = make
        self._made: dict[tuple[int, ...], Latents] = {}

    def __call__(self, batch: ImageBatch) -> Latents:
        images = tuple(batch.indices.tolist())
        if images not in self._made:
            self._made[images] = self._make(batch).to("cpu")
        return self._made[images].to(batch.images.device)


class Comparison:
    """Measures tokenizers that share a latent space. Call `results` first, then `best` and `save_pictures`.

    Args:
        context: the stage's context; its artifact "generator" makes the samples.
        options: what is measured.
        before: the tokenizer after main training. after: the post-trained tokenizers, by sigma.
        seed: for samples and perturbations.
    """

    def __init__(
        self,
        context: StageContext,
        options: ComparisonConfig,
        before: Tokenizer,
        after: Mapping[float, Tokenizer],
        *,
        seed: int,
    ) -> None:
        self._context, self._options, self._before, self._after, self._seed = context, options, before, after, seed
        self._extraction = Extraction(
            networks=SharedFeatures(context.device), device=context.device, batch_size=options.batch_size
        )
        self._generator: Generator = context.load("generator")
        self._post_trainer: PostTrainer = context.build("post_trainer")
        self._selection: dict[str, float] = {}
        held_out = context.dataset().validation
        halves = [SomeImages(held_out, rows) for rows in balanced_halves(held_out.labels)]
        self._chosen_on, self._reported_on = (self._features(half, "held-out images") for half in halves)
        say_singular(context, options.metrics, self._extraction.networks, min(options.num_samples, *map(len, halves)))

    @property
    def _tokenizers(self) -> dict[str, Tokenizer]:
        return {BEFORE: self._before, **{label_of(sigma): tokenizer for sigma, tokenizer in self._after.items()}}

    def results(self) -> dict[str, Result]:
        """All results; DECODER is "before" or "sigma0.9".

        `DECODER_NAME`; `DECODER_guided_NAME` for guided samples; `DECODER_on_sigma0.9_NAME` for pairs of that sigma.
        The details of each hold "decoder", "sigma" (None for "before") and "guided"; those of pairs "pairs_sigma" too.
        """
        results: dict[str, Result] = {}
        for label, tokenizer in self._tokenizers.items():
            self._context.say(f"{self._context.stage}: measuring {label}")
            results |= self._sample_results(label, tokenizer)
            results |= self._reconstruction_results(label, tokenizer)
        return results | self._pair_results()

    def best(self) -> float:
        """The sigma below 1 with the best first sample metric, unguided, on the selection half; 1 if there is none."""
        below = [sigma for sigma in self._after if sigma < CONTROL] or list(self._after)
        return min(below, key=lambda sigma: self._selection[label_of(sigma)])

    def better_than(self, kept: float) -> list[str]:
        """Which of "before" and the control have a better first metric on the selection half than the kept sigma."""
        others = {BEFORE: "the tokenizer before", label_of(CONTROL): "the control"}
        known, limit = self._selection, self._selection.get(label_of(kept))
        return [name for label, name in others.items() if limit is not None and label in known and known[label] < limit]

    def _sample_results(self, label: str, tokenizer: Tokenizer) -> dict[str, Result]:
        results: dict[str, Result] = {}
        metrics = {name: spec.build() for name, spec in self._options.metrics.items()}
        for prefix, latents in self._latents.items():
            samples = self._features(self._decoded(tokenizer, latents), f"samples, {label}")
            measured: dict[str, Result] = {}
            for number, (key, metric) in enumerate(metrics.items()):
                add_results(measured, key, metric.compute(samples, self._reported_on))
                if number == 0 and not prefix:
                    first = next(iter(metric.compute(samples, self._chosen_on).values()))
                    self._selection[label] = -first.value if first.higher_is_better else first.value
            guided = bool(prefix)
            results |= {f"{label}_{prefix}{n}": self._labelled(r, label, guided=guided) for n, r in measured.items()}
        return results

    def _reconstruction_results(self, label: str, tokenizer: Tokenizer) -> dict[str, Result]:
        of_tokenizer = self._measured(tokenizer, self._options.tokenizer_metrics)
        return {f"{label}_{name}": self._labelled(result, label) for name, result in of_tokenizer.items()}

    def _pair_results(self) -> dict[str, Result]:
        results: dict[str, Result] = {}
        for sigma in (sigma for sigma in self._after if sigma < CONTROL and self._options.pair_metrics):
            self._context.say(f"{self._context.stage}: measuring pairs of held-out images, sigma = {sigma:g}")
            pairs = _MadeOnce(partial(self._pair, sigma))
            for label, tokenizer in self._tokenizers.items():
                on_pairs = self._measured(tokenizer, self._options.pair_metrics, pairs)
                for name, result in on_pairs.items():
                    labelled = self._labelled(result, label)
                    details = {**labelled.details, "pairs_sigma": sigma}
                    results[f"{label}_on_{label_of(sigma)}_{name}"] = attrs.evolve(labelled, details=details)
        return results

    def _measured(
        self,
        tokenizer: Tokenizer,
        metrics: Mapping[str, Any],
        latents_of: Callable[[ImageBatch], Latents] | None = None,
    ) -> dict[str, Result]:
        return measure_tokenizer(
            self._context,
            tokenizer,
            metrics,
            networks=self._extraction.networks,
            limit=self._options.limit,
            seed=self._seed,
            batch_size=self._options.batch_size,
            workers=0,
            latents_of=latents_of,
        )

    def _pair(self, sigma: float, batch: ImageBatch) -> Latents:
        """The generator's versions of held-out images: the same for every decoder and batch size."""
        held_out = self._context.dataset().validation
        return self._post_trainer.pair(
            self._before,
            self._generator,
            LatentBatch(
                latents=self._before.encode(batch.images).without_features(),
                labels=batch.labels,
                indices=batch.indices,
            ),
            draws=Draws(seed=derive_seed(self._seed, "picture"), indices=batch.indices, total=len(held_out)),
            sigma=sigma,
        )

    def _labelled(self, result: Result, label: str, *, guided: bool = False) -> Result:
        """A result with its decoder, and whether the samples are guided, in its details."""
        sigma = next((sigma for sigma in self._after if label_of(sigma) == label), None)
        about = {"decoder": label, "sigma": sigma, "guided": guided}
        return attrs.evolve(result, details={**result.details, **about})

    @cached_property
    def _latents(self) -> dict[str, Latents]:
        """This process's share of the samples: unguided, and guided if the options ask for it."""
        latents = {"": self._sampled(Guidance())}
        if self._options.guidance.active:
            latents["guided_"] = self._sampled(self._options.guidance)
        return latents

    def _sampled(self, guidance: Guidance) -> Latents:
        rows = own_share(self._options.num_samples)
        batches = generate(
            self._generator,
            labels_of(range(self._generator.num_classes), rows),
            Draws(seed=derive_seed(self._seed, "compare"), indices=rows, total=self._options.num_samples),
            guidance=guidance,
            sampling=self._options.sampling,
            batch_size=self._options.batch_size,
        )
        space, where = self._generator.space, f"stage {self._context.stage}"
        arrays = (to_array(batch, space, maker="generator", where=where) for batch in batches)
        return from_array(np.concatenate([no_latents(space), *arrays]), space, "samples")

    def _decoded(self, tokenizer: Tokenizer, latents: Latents) -> ImagesInMemory:
        size = self._options.batch_size
        batches = (latents[start : start + size].to(self._context.device) for start in range(0, len(latents), size))
        labels = labels_of(range(self._generator.num_classes), torch.arange(self._options.num_samples))
        return decode_and_gather(tokenizer, batches, labels)

    def _features(self, images: Images, name: str) -> ExtractedFeatures:
        return ExtractedFeatures(images, self._extraction, name=name)

    @torch.no_grad()
    def save_pictures(self, folder: Path) -> None:
        """Saves samples.png (the same latents from every decoder) and sigma.png (the same images at every sigma)."""
        latents = self._latents["guided_" if "guided_" in self._latents else ""][: self._options.pictures]
        latents = latents.to(self._context.device)
        rows = {label: decode_to_uint8(tokenizer, latents) for label, tokenizer in self._tokenizers.items()}
        save_rows(folder / "samples.png", rows)
        save_rows(folder / "sigma.png", self._along_sigma())

    def _along_sigma(self) -> dict[str, Tensor]:
        """Rows for sigma.png: pairs of held-out images at each sigma, decoded before and after post-training."""
        images = self._context.dataset().validation
        chosen = class_balanced_order(images.labels)[: self._options.pictures]
        batch = images.load(chosen.tolist()).to(self._context.device)
        rows = {"real": to_uint8(batch.images)}
        for sigma, after in self._after.items():
            pair = self._pair(sigma, batch)
            rows[f"{label_of(sigma)}, before"] = decode_to_uint8(self._before, pair)
            rows[f"{label_of(sigma)}, after"] = decode_to_uint8(after, pair)
        return rows
