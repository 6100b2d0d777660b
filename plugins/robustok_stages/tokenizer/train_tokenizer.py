"""Stage `train_tokenizer`: main training of a tokenizer, with or without perturbation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import field, frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.cost import Cost
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.components import save_component
from robustok_core.runs.promises import TokenizerPromise
from robustok_core.values.spec import components
from robustok_stages.checks import check_image_size, check_training
from robustok_stages.costs import changes_of, image_batch, in_bf16, sketched_losses, weights_bytes
from robustok_stages.tokenizer.loss_terms import build_losses, check_losses
from robustok_stages.tokenizer.opponents import losses_with_opponent, save_opponents
from robustok_stages.tokenizer.training_step import TokenizerTask
from robustok_training import OptimizerConfig, Trainer, TrainingConfig
from robustok_training.costs import training_cost


@frozen(kw_only=True)
class TrainTokenizerConfig(TrainingConfig):
    """Options of `train_tokenizer`."""

    optimizer: OptimizerConfig = field(factory=OptimizerConfig, metadata={"doc": "the tokenizer's optimiser"})
    losses: dict[str, Any] = components(
        "loss", doc="the terms of the loss, by name", default={"reconstruction": {"use": "reconstruction"}}
    )

    def __attrs_post_init__(self) -> None:
        if not self.losses:
            raise ValueError("losses: there is no term, so there is nothing to train (default: reconstruction)")


class TrainTokenizer(Stage):
    """Trains [tokenizer] on [data] with [perturbation] and writes the artifact "tokenizer".

    The artifact's folder also holds the discriminators and their optimiser states
    (opponents.safetensors), which post-training can reuse.
    """

    Config = TrainTokenizerConfig
    uses = ("data", "tokenizer")
    may_use = ("perturbation",)
    makes = ("tokenizer",)

    def __init__(self, config: TrainTokenizerConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The image sizes, the perturbation, the losses and the batch fit the tokenizer, the data and the processes."""
        tokenizer = context.sketch("tokenizer")
        check_image_size(context, self._promise(tokenizer))
        # Before the perturbation, whose check takes memory for every image of a batch.
        check_training(context, self.config, self.config.optimizer, len(context.dataset().train))
        if context.has("perturbation"):
            try:
                context.spec("perturbation").build().check(tokenizer.space, self.config.batch_size)
            except RobustokError as error:
                where = f"{context.location(table='perturbation')}: [perturbation]"
                raise RobustokError(error.what, where=where, hint=error.hint) from error
        check_losses(context, self.config.losses, tokenizer)

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """The tokenizer's space, and the losses whose discriminators are saved with it."""
        tokenizer = context.sketch("tokenizer")
        return {"tokenizer": attrs.evolve(self._promise(tokenizer), stage=context.stage, sketch=lambda: tokenizer)}

    def cost(self, context: StageContext) -> Cost:
        """The task's own step, measured."""
        tokenizer = context.sketch("tokenizer")
        losses = sketched_losses(self.config.losses, tokenizer)
        perturbation = context.spec("perturbation").build() if context.has("perturbation") else None
        cost = training_cost(
            context,
            TokenizerTask(tokenizer, perturbation, losses, self.config.optimizer),
            lambda count: image_batch(count, tokenizer.image_size),
            self.config,
            len(context.dataset().train),
            bf16=in_bf16(context),
            changes=changes_of(self.config.losses),
        )
        return attrs.evolve(cost, disk={**cost.disk, "tokenizer": weights_bytes(tokenizer)})

    def _promise(self, tokenizer: Tokenizer) -> TokenizerPromise:
        opponents = losses_with_opponent(self.config.losses)
        return TokenizerPromise(
            space=tokenizer.space, image_size=tokenizer.image_size, opponents=opponents, post_trained=False
        )

    def result_names(self) -> Sequence[str]:
        return ["parameters", "steps"]

    def run(self, context: StageContext) -> Mapping[str, float]:
        """Trains, writes the artifact, and returns the number of parameters and steps."""
        tokenizer = context.build("tokenizer")
        losses = build_losses(self.config.losses, tokenizer, context.seed)
        perturbation = context.spec("perturbation").build() if context.has("perturbation") else None
        task = TokenizerTask(tokenizer, perturbation, losses, self.config.optimizer)
        trainer = Trainer(context, task, context.dataset().train, self.config)
        trainer.run()
        self._save(context, task, trainer)
        parameters = sum(p.numel() for p in tokenizer.parameters() if p.requires_grad)
        return {"parameters": float(parameters), "steps": float(trainer.total)}

    def _save(self, context: StageContext, task: TokenizerTask, trainer: Trainer) -> None:
        spec = context.spec("tokenizer")
        with context.making("tokenizer") as folder:
            if folder is None:
                return
            save_component(
                folder,
                "tokenizer",
                spec.table(),
                trainer.kept(),
                fingerprint=context.fingerprint,
                run=context.run_name,
                opponents=list(task.opponents),
            )
            save_opponents(folder, task.opponents, trainer)
