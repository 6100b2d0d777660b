"""Measurements while a generator trains, comparable between runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import field, frozen, validators

from robustok_core.kinds.dataset import Rows
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.stage import StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.precision import Precision
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.guidance import Guidance
from robustok_core.values.spec import components, sampler_options
from robustok_stages.generator.sample_evaluation import SampleEvaluation, limit_field, reference_field
from robustok_stages.generator.training_step import validation_loss
from robustok_toolkit.generating import ImagesInMemory, decode_and_gather, generate, labels_of, own_share


@frozen(kw_only=True)
class MeasureConfig:
    """What is measured while a generator trains."""

    every: float = field(
        default=1.0,
        validator=validators.gt(0.0),
        metadata={"doc": "epochs between measurements; none at the end"},
    )
    num_samples: int = field(
        default=1000, validator=validators.ge(2), metadata={"doc": "number of samples, of all classes in turn"}
    )
    guidance: Guidance = field(factory=Guidance, metadata={"doc": "table: guidance for the samples"})
    sampling: Any = sampler_options(doc="table: options of the generator's sampler")
    metrics: dict[str, Any] = components(
        "sample_metric", doc="what to measure, by name", default={"gfd": {"use": "frechet"}}
    )
    reference: str = reference_field()
    limit: int | None = limit_field()
    batch_size: int = field(
        default=100, validator=validators.ge(1), metadata={"doc": "samples at once on each process"}
    )


class TrainingEvaluation:
    """Samples the generator that would be kept, decodes and compares, with the same random numbers every time.

    Args:
        context: the stage's context. config: what is measured.
        tokenizer: decodes the samples. held_out: latents of the validation split.
        batch_size: for the validation loss.
        precision: of the generator; None for the run's.
    """

    def __init__(
        self,
        context: StageContext,
        config: MeasureConfig,
        tokenizer: Tokenizer,
        held_out: Rows,
        batch_size: int,
        precision: Precision | None = None,
    ) -> None:
        self._context, self._config, self._tokenizer = context, config, tokenizer
        self._held_out, self._batch_size, self._precision = held_out, batch_size, precision
        self._evaluation = SampleEvaluation(
            context,
            config.metrics,
            reference=config.reference,
            limit=config.limit,
            batch_size=config.batch_size,
            keys=("measure", "reference"),
        )
        self._evaluation.note(config.num_samples)

    def __call__(self, generator: Generator) -> Mapping[str, float]:
        """The validation loss and the results of the sample metrics, by name."""
        loss = validation_loss(self._context, generator, self._held_out, self._batch_size, self._precision)
        results = self._evaluation.compare(self._samples(generator), "samples")
        return {"validation_loss": loss, **{name: result.value for name, result in results.items()}}

    def _samples(self, generator: Generator) -> ImagesInMemory:
        """Makes all samples; each process generates its share."""
        count, config = self._config.num_samples, self._config
        rows = own_share(count)
        labels = labels_of(range(generator.num_classes), torch.arange(count))
        of_run: Precision = "bf16" if self._context.accelerator.mixed_precision == "bf16" else "no"
        latents = generate(
            generator,
            labels[rows],
            Draws(seed=derive_seed(self._context.seed, "measure"), indices=rows, total=count),
            guidance=config.guidance,
            sampling=config.sampling,
            batch_size=config.batch_size,
            precision=of_run if self._precision is None else self._precision,
        )
        return decode_and_gather(self._tokenizer, latents, labels)
