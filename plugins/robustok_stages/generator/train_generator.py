"""Stage `train_generator`: trains a generator on a tokenizer's latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import field, frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.cost import Cost
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.runs.components import save_component
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.precision import Precision
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_stages.checks import check_training, latents_tokenizer, warn
from robustok_stages.costs import in_bf16, latent_batch, weights_bytes
from robustok_stages.generator.sample_evaluation import (
    check_limit,
    check_metrics,
    check_picture_size,
    check_reference,
)
from robustok_stages.generator.training_evaluation import MeasureConfig, TrainingEvaluation
from robustok_stages.generator.training_step import GeneratorTask, validation_loss
from robustok_toolkit.latent_files import LatentRows, LatentsPromise, check_latents_of
from robustok_training import OptimizerConfig, Trainer, TrainingConfig
from robustok_training.batches import measured_steps, steps_per_epoch
from robustok_training.costs import training_cost


@frozen(kw_only=True)
class TrainGeneratorConfig(TrainingConfig):
    """Options of `train_generator`; an epoch is a pass over the images, whatever their number of views."""

    optimizer: OptimizerConfig = field(factory=OptimizerConfig, metadata={"doc": "the generator's optimiser"})
    precision: Precision | None = field(
        default=None,
        metadata={"doc": '"no" (float32), "bf16" or "auto", for this stage only; default: the run\'s precision'},
    )
    measure: MeasureConfig | None = field(
        default=None,
        metadata={
            "doc": "table: sample metrics and validation loss to log during training; default: none. It does not "
            "affect the weights, so changing it does not train a finished generator again",
            "result": False,
        },
    )


class TrainGenerator(Stage):
    """Trains [generator] on the artifact "latents" and writes the artifact "generator"."""

    Config = TrainGeneratorConfig
    uses = ("generator",)
    may_use = ("data",)
    needs = ("latents", "tokenizer")
    makes = ("generator",)

    def __init__(self, config: TrainGeneratorConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The latents are the tokenizer's, the batch fits the data and the processes, and the metrics their images."""
        tokenizer, latents = context.promise("tokenizer", TokenizerPromise), context.promise("latents", LatentsPromise)
        if latents.space != tokenizer.space:
            what = f"the latents ({latents.space.describe()}) are not the tokenizer's ({tokenizer.space.describe()})"
            raise RobustokError(what, where=str(latents.folder or context.location()))
        if (known := latents_tokenizer(latents.tokenizer, tokenizer)) is not None:
            check_latents_of(latents.folder, str(latents.tokenizer), known)
        check_training(context, self.config, self.config.optimizer, latents.num_rows)
        measure = self.config.measure
        if measure is not None:
            reference = check_reference(context, measure.reference, "measure", "reference")
            check_picture_size(context, reference, tokenizer.image_size, "measure", "reference")
            check_limit(context, measure.metrics, reference, measure.limit, "measure", "limit")
            counts = measure.num_samples, reference.limited(measure.limit)
            check_metrics(context, measure.metrics, *counts, "measure", "metrics", reference=reference)
            self._warn_of_no_measurement(context, latents.num_rows, measure.every)

    def _warn_of_no_measurement(self, context: StageContext, num_rows: int, every: float) -> None:
        """Warns if the training ends before the first measurement; the end is what the evaluation stages measure."""
        epoch_steps = steps_per_epoch(range(num_rows), self.config.batch_size)
        if measured_steps(every, epoch_steps) >= self.config.steps(epoch_steps):
            what = f"nothing is measured, because the training ends first (epochs = {self.config.epochs:g})"
            warn(context, RobustokError(what, hint="set a smaller every, or leave measure out"), "measure", "every")

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """The generator's class, latent space and class names."""
        latents, spec = context.promise("latents", LatentsPromise), context.spec("generator")
        sketch: Generator = context.sketch("generator", latents.space, len(latents.class_names))
        promise = GeneratorPromise(
            name=spec.name,
            factory=spec.factory,
            sketch=lambda: sketch,
            space=latents.space,
            class_names=latents.class_names,
            tokenizer=latents.tokenizer,
            stage=context.stage,
        )
        return {"generator": promise}

    def cost(self, context: StageContext) -> Cost:
        """The task's own step, measured."""
        latents = context.promise("latents", LatentsPromise)
        generator: Generator = context.sketch("generator", latents.space, len(latents.class_names))

        cost = training_cost(
            context,
            GeneratorTask(generator, self.config.optimizer),
            lambda count: latent_batch(latents.space, count),
            self.config,
            latents.num_rows,
            bf16=in_bf16(context, self.config.precision),
        )
        notes = () if self.config.measure is None else ("what `measure` samples during the training is not counted",)
        return attrs.evolve(cost, disk={**cost.disk, "generator": weights_bytes(generator)}, notes=notes)

    def result_names(self) -> Sequence[str]:
        return ["parameters", "steps", "validation_loss"]

    def run(self, context: StageContext) -> Mapping[str, float]:
        """Trains, writes the artifact, and returns size, steps and validation loss."""
        tokenizer = context.load("tokenizer")
        fingerprint = latent_fingerprint(tokenizer)
        rows = LatentRows(context.inputs["latents"], "train", tokenizer=fingerprint)
        held_out = LatentRows(context.inputs["latents"], "validation", tokenizer=fingerprint)
        generator: Generator = context.build("generator", rows.space, rows.num_classes)
        if rows.mean is not None and rows.std is not None:
            generator.observe(rows.mean, rows.std)
        measure, precision, evaluation = self.config.measure, self.config.precision, None
        if measure is not None:
            evaluation = TrainingEvaluation(context, measure, tokenizer, held_out, self.config.batch_size, precision)
        task = GeneratorTask(generator, self.config.optimizer, evaluation, precision)
        every = 0.0 if measure is None else measure.every
        trainer = Trainer(context, task, rows, self.config, measure_every=every)
        trainer.run()
        kept: Any = trainer.kept().eval()
        spec = context.spec("generator")
        with context.making("generator") as folder:
            if folder is not None:
                save_component(
                    folder,
                    "generator",
                    spec.table(),
                    kept,
                    fingerprint=context.fingerprint,
                    run=context.run_name,
                    tokenizer=fingerprint,
                    class_names=list(rows.class_names),
                )
        return {
            "parameters": float(sum(p.numel() for p in generator.parameters() if p.requires_grad)),
            "steps": float(trainer.total),
            "validation_loss": validation_loss(context, kept, held_out, self.config.batch_size, precision),
        }
