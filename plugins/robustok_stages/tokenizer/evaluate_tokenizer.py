"""Stage `evaluate_tokenizer`: measures reconstruction, robustness and codebook usage, and saves a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen, validators

from robustok_core.kinds.cost import Cost, Work
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import LARGEST_CODEBOOK, workers_range
from robustok_core.runs.promises import TokenizerPromise
from robustok_core.values.draws import Draws
from robustok_core.values.images import to_uint8
from robustok_core.values.result import Result
from robustok_core.values.spec import components
from robustok_stages.checks import check_image_size, names_of
from robustok_stages.costs import decoding, encoding, measuring_tokenizer, parameters, tokenizer_of
from robustok_stages.generator.sample_evaluation import say_singular
from robustok_stages.tokenizer.tokenizer_evaluation import check_tokenizer_metrics, measure_tokenizer
from robustok_toolkit.image_features import SharedFeatures
from robustok_toolkit.pictures import save_rows
from robustok_training.batches import class_balanced_order


@frozen(kw_only=True)
class EvaluateTokenizerConfig:
    """Options of `evaluate_tokenizer`."""

    metrics: dict[str, Any] = components(
        "metric",
        doc="what to measure, by name",
        default={
            "psnr": {"use": "psnr"},
            "ssim": {"use": "ssim"},
            "rfd": {"use": "frechet"},
            "pfd": {"use": "pfid"},
            "usage": {"use": "codebook_usage"},
        },
    )
    limit: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(2)),
        metadata={"doc": "number of validation images, class-balanced; default: all"},
    )
    batch_size: int = field(default=100, validator=validators.ge(1), metadata={"doc": "images at once on each process"})
    workers: int = field(
        default=0, validator=workers_range, metadata={"doc": "processes that load images", "result": False}
    )
    pictures: int = field(
        default=16,
        validator=validators.ge(0),
        metadata={"doc": "columns of reconstructions.png; 0 for no picture"},
    )


class EvaluateTokenizer(Stage):
    """Measures the artifact "tokenizer" on the validation images, always in float32."""

    Config = EvaluateTokenizerConfig
    uses = ("data",)
    needs = ("tokenizer",)
    makes = ("tokenizer_pictures",)

    def __init__(self, config: EvaluateTokenizerConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The tokenizer fits the images, and the metrics fit its latent space."""
        tokenizer = context.promise("tokenizer", TokenizerPromise)
        check_image_size(context, tokenizer)
        check_tokenizer_metrics(context, tokenizer, self.config.metrics, "metrics")

    def cost(self, context: StageContext) -> Cost | None:
        """Encoding, decoding and what the metrics compute, of each image."""
        tokenizer = tokenizer_of(context)
        if tokenizer is None:
            return None
        images = len(context.dataset().validation)
        count = min(images, self.config.limit or images)
        metrics, notes = measuring_tokenizer(tokenizer, self.config.metrics)
        work = {"encoding": encoding(tokenizer), "decoding once": decoding(tokenizer), "metrics": metrics}
        return Cost(
            frozen=parameters(tokenizer),
            work=[Work(name=name, images=count, flops=flops) for name, flops in work.items()],
            notes=notes,
        )

    def result_names(self) -> Sequence[str] | None:
        return names_of(self.config.metrics)

    @torch.no_grad()
    def run(self, context: StageContext) -> Mapping[str, Result]:
        """One pass over the validation images for all metrics."""
        tokenizer: Any = context.load("tokenizer")
        networks, images = SharedFeatures(context.device), context.dataset().validation
        say_singular(context, self.config.metrics, networks, min(len(images), self.config.limit or len(images)))
        results = measure_tokenizer(
            context,
            tokenizer,
            self.config.metrics,
            networks=networks,
            limit=self.config.limit,
            seed=context.seed,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
        )
        with context.making("tokenizer_pictures") as folder:
            if folder is not None and self.config.pictures:
                self._save_picture(context, tokenizer, images, folder / "reconstructions.png")
        return results

    def _save_picture(self, context: StageContext, tokenizer: Tokenizer, images: Images, file: Any) -> None:
        """Saves a picture with rows of inputs, reconstructions, and reconstructions from perturbed codes.

        The classes take turns, so that a data set in the order of its classes shows more than the first of them.
        """
        chosen = class_balanced_order(images.labels)[: self.config.pictures]
        batch = images.load(chosen.tolist()).to(context.device)
        latents = tokenizer.encode(batch.images)
        rows = {"input": batch.images, "reconstruction": tokenizer.decode(latents)}
        codebook_size = tokenizer.space.codebook_size
        if codebook_size is not None and codebook_size <= LARGEST_CODEBOOK:  # of more, no neighbours are searched
            delta = max(2, round(0.017 * codebook_size))  # the middle delta of pFID
            table = {"use": "top_delta", "beta": 1.0, "alpha": 0.7, "delta": delta}
            draws = Draws(seed=context.seed, indices=batch.indices, total=len(images))
            perturbed, _ = context.registry.build("perturbation", table).perturb(
                latents, tokenizer.quantizer, draws=draws.child("picture"), progress=0.0
            )
            rows[f"70 % of the tokens perturbed, delta {delta}"] = tokenizer.decode(perturbed)
        save_rows(file, {name: to_uint8(row) for name, row in rows.items()})
