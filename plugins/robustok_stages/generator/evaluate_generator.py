"""Stage `evaluate_generator`: compares samples with real images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen, validators

from robustok_core.kinds.cost import Cost, Work
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.recipe.validators import workers_range
from robustok_core.values.download import named_path
from robustok_core.values.result import Result
from robustok_core.values.spec import components
from robustok_stages.checks import names_of
from robustok_stages.costs import features
from robustok_stages.generator.sample_evaluation import (
    DATA_SPLITS,
    SampleEvaluation,
    check_limit,
    check_metrics,
    check_picture_size,
    check_reference,
    limit_field,
    reference_field,
)
from robustok_toolkit.image_files import open_images
from robustok_toolkit.sample_files import SamplesPromise


@frozen(kw_only=True)
class EvaluateGeneratorConfig:
    """Options of `evaluate_generator`."""

    metrics: dict[str, Any] = components(
        "sample_metric",
        doc="what to measure, by name",
        default={
            "gfd": {"use": "frechet"},
            "inception_score": {"use": "inception_score"},
            "precision_recall": {"use": "precision_recall"},
            "kid": {"use": "kid"},
        },
    )
    reference: str = reference_field()
    limit: int | None = limit_field()
    batch_size: int = field(default=100, validator=validators.ge(1), metadata={"doc": "images at once on each process"})
    workers: int = field(
        default=0, validator=workers_range, metadata={"doc": "processes that load images", "result": False}
    )


class EvaluateGenerator(Stage):
    """Measures the artifact "samples" against real images, always in float32."""

    Config = EvaluateGeneratorConfig
    may_use = ("data",)
    needs = ("samples",)

    def __init__(self, config: EvaluateGeneratorConfig) -> None:
        self.config = config

    @classmethod
    def files(cls, config: EvaluateGeneratorConfig) -> Iterable[Path]:
        return named_path(config.reference, *DATA_SPLITS)

    def check(self, context: StageContext) -> None:
        """The reference exists, and it and the samples have enough images for the metrics."""
        config = self.config
        reference = check_reference(context, config.reference, "reference")
        check_limit(context, config.metrics, reference, config.limit, "limit")
        samples = context.promise("samples", SamplesPromise)
        check_picture_size(context, reference, samples.image_size, "reference")
        counts = samples.num_samples, reference.limited(config.limit)
        check_metrics(context, config.metrics, *counts, "metrics", reference=reference)

    def cost(self, context: StageContext) -> Cost:
        """The features of the samples and of the real images."""
        config, samples = self.config, context.promise("samples", SamplesPromise)
        real = check_reference(context, config.reference, "reference").limited(config.limit)
        notes = [] if real is not None else [f"the images of {config.reference} are not counted: how many is not known"]
        flops = features(config.metrics.values(), samples.image_size)
        return Cost(work=[Work(name="features", images=samples.num_samples + (real or 0), flops=flops)], notes=notes)

    def result_names(self) -> Sequence[str] | None:
        return names_of(self.config.metrics)

    def run(self, context: StageContext) -> Mapping[str, Result]:
        """Each network processes every image once."""
        images = open_images(context.inputs["samples"] / "samples.npz")
        evaluation = SampleEvaluation(
            context,
            self.config.metrics,
            reference=self.config.reference,
            limit=self.config.limit,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
        )
        evaluation.note(len(images))
        return evaluation.compare(images, "samples", say=context.say)
