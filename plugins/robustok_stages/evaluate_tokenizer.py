"""Stage `evaluate_tokenizer`: reconstruction, robustness and use of the codebook, and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import field, frozen, validators

from robustok_blocks.picture import save_rows
from robustok_blocks.populations import SharedFeatures
from robustok_core.config import components
from robustok_core.distributed import all_sum, rank, world_size
from robustok_core.draws import Draws
from robustok_core.images import from_uint8, to_uint8
from robustok_core.interfaces import Evaluation, EvaluationContext, Images, Metric, Stage, Tokenizer
from robustok_core.loading import evaluation_batches
from robustok_core.progress import StepProgress
from robustok_core.stages import StageContext
from robustok_stages.fitting import check_size, check_tokenizer


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
        metadata={"doc": "only the first images of the validation split; all where left out"},
    )
    batch_size: int = field(default=100, validator=validators.ge(1), metadata={"doc": "images at once on each process"})
    workers: int = field(
        default=0, validator=validators.ge(0), metadata={"doc": "processes that load images", "result": False}
    )
    pictures: int = field(
        default=16,
        validator=validators.ge(0),
        metadata={"doc": "columns of the picture of reconstructions, 0 for none"},
    )


class EvaluateTokenizer(Stage):
    """Measures the artifact "tokenizer" on the validation images; float32, whatever the training's precision."""

    Config = EvaluateTokenizerConfig
    uses = ("data",)
    needs = ("tokenizer",)
    makes = ("tokenizer_pictures",)

    def __init__(self, config: EvaluateTokenizerConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """Sizes fit, where the tokenizer is of this recipe; a loaded one is compared when it is there."""
        if "tokenizer" not in context.recipe.load and context.spec("tokenizer") is not None:
            check_tokenizer(context)

    @torch.no_grad()
    def run(self, context: StageContext) -> Mapping[str, float]:
        """One pass over the validation images for all metrics."""
        tokenizer: Any = context.load("tokenizer")
        check_size(tokenizer, context)
        images = context.dataset().validation
        count = min(len(images), self.config.limit or len(images))
        metrics: dict[str, Metric] = {name: spec.build() for name, spec in self.config.metrics.items()}
        shared = EvaluationContext(
            tokenizer=tokenizer,
            source=images.fingerprint,
            num_images=count,
            cache=context.cache,
            share_features=SharedFeatures(context.device),
            device=context.device,
        )
        for metric in metrics.values():
            metric.start(shared)
        self._measure(context, tokenizer, images, count, metrics)
        results: dict[str, float] = {}
        for metric in metrics.values():
            metric.load_state({name: all_sum(value) for name, value in metric.state().items()})
            results |= metric.compute()
        with context.making("tokenizer_pictures") as folder:
            if folder is not None and self.config.pictures:
                self._draw(context, tokenizer, images, folder / "reconstructions.png")
        return results

    def _measure(
        self, context: StageContext, tokenizer: Tokenizer, images: Images, count: int, metrics: Mapping[str, Metric]
    ) -> None:
        progress = StepProgress(context.console, context.stage, count)
        batches = evaluation_batches(
            images,
            batch_size=self.config.batch_size,
            rank=rank(),
            world=world_size(),
            limit=self.config.limit,
            workers=self.config.workers,
        )
        done = 0
        with progress:
            for loaded in batches:
                batch = loaded.to(context.device)
                draws = Draws(seed=context.seed, indices=batch.indices, total=len(images))
                latents = tokenizer.encode(batch.images)
                drawn = from_uint8(to_uint8(tokenizer.decode(latents)))
                step = Evaluation(batch=batch, latents=latents, images=drawn, tokenizer=tokenizer, draws=draws)
                for metric in metrics.values():
                    metric.update(step)
                done += len(batch) * world_size()
                progress.update(min(done, count), {"images": min(done, count)})

    def _draw(self, context: StageContext, tokenizer: Tokenizer, images: Images, file: Any) -> None:
        """Rows: inputs, reconstructions, reconstructions from perturbed codes."""
        batch = images.load(list(range(min(self.config.pictures, len(images))))).to(context.device)
        latents = tokenizer.encode(batch.images)
        rows = {"input": batch.images, "reconstruction": tokenizer.decode(latents)}
        if tokenizer.space.codebook_size is not None:
            delta = max(2, round(0.017 * tokenizer.space.codebook_size))  # the middle delta of pFID
            table = {"use": "top_delta", "beta": 1.0, "alpha": 0.7, "delta": delta}
            draws = Draws(seed=context.seed, indices=batch.indices, total=len(batch))
            perturbed, _ = context.registry.build("perturbation", table).perturb(
                latents, tokenizer.quantizer, draws=draws.child("picture"), progress=0.0
            )
            rows[f"70 % of the tokens perturbed, delta {delta}"] = tokenizer.decode(perturbed)
        save_rows(file, {name: to_uint8(row) for name, row in rows.items()})
