"""Stage `post_train`: adapts the decoder to a generator's latents (paper section 4), with a control.

The tokenizer is trained once for each sigma of the pairs, with the same images in the same order and the same noise.
Sigma = 1 is the control: fine-tuning on clean latents alone is known to help (Yang et al. 2025, l-DeTok), so only the
difference from the control is the effect of generated latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
from attrs import field, frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.cost import Cost
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.runs.components import COMPONENT_FILE, load_component, read_component, save_component
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.main_process import from_main
from robustok_core.runs.manifest import folder_damage, recorded_folder, set_aside
from robustok_core.runs.promises import TokenizerPromise
from robustok_core.values.spec import components
from robustok_stages.checks import (
    check_image_size,
    check_made_by,
    check_made_of,
    check_main_trained,
    check_training,
    warn,
)
from robustok_stages.costs import (
    changes_of,
    image_batch,
    in_bf16,
    latents_in,
    sketched_losses,
    tokenizer_of,
    weights_bytes,
)
from robustok_stages.post_training.training_step import DecoderTask
from robustok_stages.tokenizer.loss_terms import build_losses, check_losses
from robustok_stages.tokenizer.opponents import (
    adopt_opponents,
    has_opponents,
    losses_with_opponent,
    opponent_misfit,
    opponent_tensors,
    save_opponents,
    saved_opponents,
)
from robustok_toolkit.decoder_files import DecodersPromise, write_decoders
from robustok_toolkit.latent_files import read_index
from robustok_toolkit.pair_files import CONTROL, PairBatch, PairRows, PairsPromise, label_of, made_of_pairs, sigmas_of
from robustok_training import OptimizerConfig, Trainer, TrainingConfig
from robustok_training.costs import training_cost


@frozen(kw_only=True)
class PostTrainConfig(TrainingConfig):
    """Options of `post_train`; an epoch is a pass over the pairs."""

    MOVED: ClassVar[Mapping[str, str]] = {
        "compare": "its options are now those of the stage `compare_decoders`: add it after this stage",
        "keep": "it is now an option of the stage `compare_decoders`: add it after this stage",
    }

    optimizer: OptimizerConfig = field(
        factory=OptimizerConfig,
        metadata={"doc": "the decoder's optimiser; the paper halves main training's rate and sets weight decay to 0"},
    )
    losses: dict[str, Any] = components(
        "loss", doc="the terms of the loss, by name, as in main training", default={"l2": {"use": "reconstruction"}}
    )
    discriminator: Literal["reuse", "fresh"] = field(
        default="reuse",
        metadata={
            "doc": '"reuse" main training\'s (in another round: that of the round before) with its optimiser state, '
            'or "fresh" if there is none; then set the loss term\'s discriminator_start = 0 and a later start, so that '
            "it learns before it affects the decoder"
        },
    )

    def __attrs_post_init__(self) -> None:
        if not self.losses:
            raise ValueError("losses: there is no term, so there is nothing to train (default: l2)")

    @property
    def reused(self) -> list[str]:
        """The losses whose discriminators are reused."""
        return losses_with_opponent(self.losses) if self.discriminator == "reuse" else []


class PostTrain(Stage):
    """Trains the modules of the artifact "tokenizer" that [post_trainer] selects, on the artifact "pairs".

    Writes the artifact "decoders": one tokenizer per sigma of the pairs, each with its own decoder.
    """

    Config = PostTrainConfig
    uses = ("data", "post_trainer")
    needs = ("tokenizer", "pairs")
    makes = ("decoders",)

    def __init__(self, config: PostTrainConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The pairs were made as [post_trainer] says, batch and losses fit, and discriminators to reuse exist."""
        tokenizer, pairs = context.promise("tokenizer", TokenizerPromise), context.promise("pairs", PairsPromise)
        check_main_trained(context, tokenizer, pairs.made_of)
        check_image_size(context, tokenizer)
        check_made_by(context, pairs.post_trainer, "pairs were made", "make other pairs")
        check_made_of(context, tokenizer, pairs.made_of, "pairs were not made")
        check_training(context, self.config, self.config.optimizer, pairs.num_rows)
        check_losses(context, self.config.losses, tokenizer_of(context))
        self._check_opponents(context, tokenizer)
        self._warn_of_idle(context)

    def _check_opponents(self, context: StageContext, tokenizer: TokenizerPromise) -> None:
        """Checks that every discriminator to reuse is stored with the tokenizer, or will be, if that is known yet."""
        reused, available = self.config.reused, tokenizer.opponents
        if tokenizer.folder is not None:  # whatever is recorded, the file counts
            available = saved_opponents(tokenizer.folder) if has_opponents(tokenizer.folder) else ()
        if available is None:  # `adopt_opponents` checks them when the run comes to it
            return
        if reused and not available:
            source = "the tokenizer" if tokenizer.folder is None else str(tokenizer.folder)
            hint = 'set discriminator = "fresh", discriminator_start = 0 and a later start, so that it learns first'
            error = RobustokError(f"{source} has no discriminator to reuse", hint=hint)
            raise context.located(error, "discriminator")
        for name in reused:
            if name not in available:
                what = f"the tokenizer has no opponent for a loss {name!r}, only for {', '.join(available)}"
                raise context.located(RobustokError(what, hint="give the loss the same name"), "losses", name)
        held = tokenizer.opponent_weights if tokenizer.folder is None else opponent_tensors(tokenizer.folder)
        for name in reused:
            if wrong := opponent_misfit(self.config.losses[name], name, held):
                what = f"the discriminator of {name!r} with the tokenizer is another one than this: {wrong}"
                hint = 'describe the same network, or set discriminator = "fresh"'
                raise context.located(RobustokError(what, hint=hint), "losses", name)

    def _warn_of_idle(self, context: StageContext) -> None:
        """Warns of discriminators that have learned already and do not affect the decoder from the beginning."""
        for name in self.config.reused:
            start = getattr(self.config.losses[name].config, "start", 0.0)
            if start > 0.0:
                what = f"the discriminator is reused, but idle in the first {start:.0%} of the training"
                hint = "set start = 0.0, as in the paper: it has learned already"
                warn(context, RobustokError(what, hint=hint), "losses", name, "start")

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """One decoder per sigma of the pairs."""
        pairs = context.promise("pairs", PairsPromise)
        promise = DecodersPromise(
            sigmas=pairs.sigmas,
            post_trainer=_as_the_pairs(context, pairs.post_trainer),
            made_of=pairs.made_of,
            opponents=losses_with_opponent(self.config.losses),
        )
        return {"decoders": promise}

    def cost(self, context: StageContext) -> Cost | None:
        """The task's own step, measured, for one decoder after the other."""
        tokenizer, pairs = tokenizer_of(context), context.promise("pairs", PairsPromise)
        if tokenizer is None:
            return None
        losses, post_trainer = sketched_losses(self.config.losses, tokenizer), context.build("post_trainer")
        opponents = [loss.opponent for loss in losses.values() if loss.opponent is not None]
        weights = weights_bytes(tokenizer) + 3 * sum(map(weights_bytes, opponents))  # with Adam's two moments

        def batch_of(count: int) -> PairBatch:
            real, latents = image_batch(count, tokenizer.image_size), latents_in(tokenizer.space, count)
            return PairBatch(images=real.images, labels=real.labels, indices=real.indices, latents=latents)

        cost = training_cost(
            context,
            DecoderTask(tokenizer, post_trainer.trained(tokenizer), losses, self.config.optimizer),
            batch_of,
            self.config,
            pairs.num_rows,
            bf16=in_bf16(context),
            changes=changes_of(self.config.losses),
            trainings=len(pairs.sigmas),
        )
        return attrs.evolve(cost, disk={**cost.disk, "decoders": len(pairs.sigmas) * weights})

    def run(self, context: StageContext) -> Mapping[str, float]:
        """Trains the decoders that are not trained yet, and writes all of them."""
        made_of = made_of_pairs(context.inputs["pairs"])
        post_trainer = _as_the_pairs(context, read_index(context.inputs["pairs"]).post_trainer or {})
        trained = {sigma: self._trained(context, sigma) for sigma in sigmas_of(context.inputs["pairs"])}
        with context.making("decoders") as folder:
            if folder is not None:
                write_decoders(folder, trained, seed=context.seed, post_trainer=post_trainer, made_of=made_of)
        return {"decoders": float(len(trained))}

    def _trained(self, context: StageContext, sigma: float) -> Path:
        """The folder of the tokenizer trained on the pairs of a sigma; trains it if needed."""
        done = context.checkpoints / f"{label_of(sigma)}-trained"
        if self._is_trained(context, done):
            return done
        context.say(f"{context.stage}: sigma = {sigma:g}{' (control)' if sigma == CONTROL else ''}")
        tokenizer: Any = load_component(context.registry, context.inputs["tokenizer"]).to(context.device)
        frozen_part = latent_fingerprint(tokenizer)
        rows = PairRows(context.inputs["pairs"], sigma, context.dataset().train, tokenizer=frozen_part)
        losses = build_losses(self.config.losses, tokenizer, context.seed)
        post_trainer: PostTrainer = context.build("post_trainer")
        task = DecoderTask(tokenizer, post_trainer.trained(tokenizer), losses, self.config.optimizer)
        trainer = Trainer(context.part(label_of(sigma)), task, rows, self.config)
        if self.config.discriminator == "reuse" and task.opponents:
            adopt_opponents(context.inputs["tokenizer"], task.opponents, trainer)
        trainer.run()
        kept: Any = trainer.kept()
        if latent_fingerprint(kept) != frozen_part:
            raise RunError("post-training changed weights outside the decoder", where=f"stage {context.stage}")
        self._save(context, done, task, trainer, sigma)
        return done

    def _is_trained(self, context: StageContext, folder: Path) -> bool:
        """Whether this tokenizer was trained before and is as it was written; a damaged one is set aside."""

        def look() -> bool:
            if folder.exists() and (damage := folder_damage(folder, recorded=context.manifests)):
                kept = set_aside(folder)
                context.say(f"{damage}; it is trained again, and what was there is set aside as {kept.name}")
            return (folder / COMPONENT_FILE).is_file()

        return from_main(look)

    def _save(self, context: StageContext, folder: Path, task: DecoderTask, trainer: Trainer, sigma: float) -> None:
        if context.accelerator.is_main_process:
            before = read_component(context.inputs["tokenizer"])
            about: dict[str, Any] = {"fingerprint": context.fingerprint, "run": context.run_name}
            about |= {"post_trained": sigma, "opponents": list(task.opponents)}
            if before.is_post_trained is False or before.rounds is not None:
                about["rounds"] = [*(before.rounds or []), sigma]
            with recorded_folder(folder) as aside:
                save_component(aside, "tokenizer", before.table, trainer.kept(), **about)
                save_opponents(aside, task.opponents, trainer)  # for another round
        context.accelerator.wait_for_everyone()


def _as_the_pairs(context: StageContext, of_pairs: Mapping[str, Any]) -> dict[str, Any]:
    """The table of the post-trainer, with all options of the sampler, which the pairs know without a generator."""
    return {**context.spec("post_trainer").table(), **of_pairs}
