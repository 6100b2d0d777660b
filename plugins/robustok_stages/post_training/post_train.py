"""Stage `post_train`: adapts the decoder to a generator's latents (paper section 4), beside a control.

Each sigma of the pairs is an arm: the same tokenizer is trained on its pairs, with the same images in the
same order and the same noise. Sigma = 1 is the control: fine-tuning on clean latents alone is known to help
(Yang et al. 2025, l-DeTok), so only the difference from it belongs to what the generator made.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import field, frozen, validators
from torch import nn

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.loss import Loss
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.stage import Stage
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.components import COMPONENT_FILE, WEIGHTS_FILE, load_component, save_component
from robustok_core.runs.context import StageContext
from robustok_core.runs.files import new_folder, read_json, write_json
from robustok_core.runs.fingerprints import content_fingerprint, fingerprint_of
from robustok_core.runs.folder import find_artifact
from robustok_core.values.draws import seeded
from robustok_core.values.spec import components, plain
from robustok_stages.fitting import (
    check_generator,
    check_not_post_trained,
    check_sampling,
    check_size,
    check_training,
    loaded_file,
    loaded_folder,
    located,
    maker,
    rows_of,
)
from robustok_stages.post_training.compare_decoders import CompareConfig, Comparison, check_comparison, check_counts
from robustok_stages.post_training.make_pairs import MakePairsConfig
from robustok_stages.post_training.training_step import DecoderTask
from robustok_stages.tokenizer.opponents import (
    adopt_opponents,
    has_opponents,
    losses_with_opponent,
    saved_opponents,
)
from robustok_stages.tokenizer.tokenizer_evaluation import check_tokenizer_metrics
from robustok_stages.tokenizer.train_tokenizer import TrainTokenizerConfig
from robustok_toolkit.generating import check_fits
from robustok_toolkit.latent_files import INDEX, read_index
from robustok_toolkit.latent_fingerprint import latent_fingerprint
from robustok_toolkit.pair_files import PairRows, sigmas_of, split_of
from robustok_training import OptimizerConfig, Trainer, TrainingConfig


@frozen(kw_only=True)
class PostTrainConfig(TrainingConfig):
    """Options of `post_train`; an epoch is a pass over the pairs."""

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
            "doc": '"reuse" main training\'s, with its optimiser state; "fresh" where there is none: it learns first '
            "from the term's `discriminator_start`, which set to 0, and the decoder feels it from its `start`"
        },
    )
    keep: float | None = field(
        default=None,
        validator=validators.optional(validators.and_(validators.ge(0.0), validators.le(1.0))),
        metadata={
            "doc": "the sigma whose decoder becomes the artifact; left out: the best below 1 on the selection images"
        },
    )
    compare: CompareConfig = field(metadata={"doc": "table: how before and after are compared", "table": {}})

    def __attrs_post_init__(self) -> None:
        if not self.losses:
            raise ValueError("losses: there is no term, so there is nothing to train for (left out: l2)")
        if not self.compare.metrics and self.keep is None:
            raise ValueError("compare.metrics: the first one chooses the sigma to keep, and there is none; or set keep")


class PostTrain(Stage):
    """Trains what [post_trainer] names of the artifact "tokenizer" on the artifact "pairs".

    Leaves the artifact "tokenizer", post-trained, and "post_training": the tokenizers of all arms and the pictures.
    """

    Config = PostTrainConfig
    uses = ("data", "post_trainer")
    needs = ("tokenizer", "generator", "pairs")
    makes = ("tokenizer", "post_training")

    def __init__(self, config: PostTrainConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The batch fits the processes, the sampler its options, and a discriminator is there to be reused."""
        check_not_post_trained(loaded_file(context, "tokenizer"), str(loaded_folder(context, "tokenizer")))
        self._check_pairs(context)
        check_training(context, self.config, self.config.optimizer, self._pairs(context))
        check_generator(context)
        check_sampling(context, self.config.compare.guidance, self.config.compare.sampling, "compare")
        check_counts(context, self.config.compare)
        check_tokenizer_metrics(context, self.config.compare.tokenizer_metrics, "compare", "tokenizer_metrics")
        load = context.recipe.load.get("tokenizer")
        if load is not None and load.importer is None:
            self._check_opponents(context, find_artifact(Path(load.path), "tokenizer"))
        elif load is not None and self._reused():
            raise located(context, _no_opponents(load.path), "discriminator")
        elif load is None:
            self._check_losses(context)

    def _pairs(self, context: StageContext) -> Sized:
        """As many as there will be of each sigma; the training images where that is not known."""
        made = maker(context, "pairs")
        images = context.dataset().train
        if made is not None and isinstance(made.spec.config, MakePairsConfig):
            return range(made.spec.config.num_pairs or len(images))
        return rows_of(context, "pairs") or images

    def _check_pairs(self, context: StageContext) -> None:
        """Pairs of the sigma to keep will be there, and those of [load] are what [post_trainer] says."""
        made = maker(context, "pairs")
        if made is not None and isinstance(made.spec.config, MakePairsConfig):
            self._check_keep(context, made.spec.config.sigmas)
        loaded = loaded_file(context, "pairs", INDEX).get("post_trainer", {})
        table = context.recipe.tables["post_trainer"].table()
        for name, value in loaded.items():
            if value != table.get(name):
                what = f"the pairs of [load] were made with {name} = {value!r}, not {table.get(name)!r}"
                where = context.recipe.source.place(("post_trainer", name))
                raise RobustokError(what, where=where, hint="set the same in [post_trainer], or make other pairs")

    def _check_keep(self, context: StageContext, sigmas: Sequence[float]) -> None:
        if self.config.keep is not None and split_of(self.config.keep) not in map(split_of, sigmas):
            what = f"there are no pairs of sigma {self.config.keep:g}"
            raise located(context, RobustokError(what, hint=f"sigmas: {', '.join(map(str, sigmas))}"), "keep")

    def _check_losses(self, context: StageContext) -> None:
        """Main training, where it is a stage of this recipe, will leave every discriminator that is to be reused."""
        made = maker(context, "tokenizer")
        if made is None or not isinstance(made.spec.config, TrainTokenizerConfig):
            return
        left, reused = losses_with_opponent(made.spec.config.losses), self._reused()
        if reused and not left:
            raise located(context, _no_opponents(f"the tokenizer of stage {made.name!r}"), "discriminator")
        for name in reused:
            if name not in left:
                raise _other_name(context, name, left)

    def _reused(self) -> list[str]:
        """The losses whose discriminators go on."""
        return losses_with_opponent(self.config.losses) if self.config.discriminator == "reuse" else []

    def _check_opponents(self, context: StageContext, tokenizer: Path) -> None:
        if self._reused() and not has_opponents(tokenizer):
            raise located(context, _no_opponents(str(tokenizer)), "discriminator")

    def run(self, context: StageContext) -> Mapping[str, float]:
        """Trains every arm, compares them with what was before, keeps one."""
        before: Tokenizer = context.load("tokenizer")
        check_size(before, context)
        self._check_origin(context)
        self._check_generator(context, before)
        self._check_opponents(context, context.inputs["tokenizer"])
        sigmas = sigmas_of(context.inputs["pairs"])
        self._check_keep(context, sigmas)
        arms = self._arms(context)
        folders = {sigma: self._arm(context, arms, sigma) for sigma in sigmas}
        comparison = Comparison(context, self.config.compare)
        results = comparison.results(before, {s: self._tokenizer(context, folder) for s, folder in folders.items()})
        kept = comparison.best(sigmas) if self.config.keep is None else float(f"{self.config.keep:g}")
        for other in comparison.better_than(kept):
            context.say(
                f"{context.stage}: on the selection images {other} is better than sigma = {kept:g}, which is kept"
            )
        self._leave(context, folders, kept, comparison)
        return {**results, "kept_sigma": kept}

    def _check_origin(self, context: StageContext) -> None:
        """The tokenizer is of main training, and the pairs were made with it and this generator."""
        tokenizer = context.inputs["tokenizer"]
        check_not_post_trained(read_json(tokenizer / COMPONENT_FILE), str(tokenizer))
        made_with = read_index(context.inputs["pairs"])
        for name in ("tokenizer", "generator"):
            if made_with[f"{name}_weights"] != content_fingerprint(context.inputs[name] / WEIGHTS_FILE):
                what = f"these pairs were made with another {name} than {context.inputs[name]}"
                raise RobustokError(what, where=str(context.inputs["pairs"]), hint=f"load the {name} that made them")

    def _check_generator(self, context: StageContext, tokenizer: Tokenizer) -> None:
        generator = context.load("generator")
        check_fits(generator, context.inputs["generator"], tokenizer)
        check_comparison(context, self.config.compare, generator, tokenizer)

    def _arms(self, context: StageContext) -> str:
        """The fingerprint of what the arms learn: another way to compare them trains none of them again."""
        changes_nothing = ("compare", "keep", "log_every", "checkpoint_every", "workers")
        inputs = context.inputs
        arms = fingerprint_of(
            {
                "stage": [context.stage, {k: v for k, v in plain(self.config).items() if k not in changes_nothing}],
                "post_trainer": context.recipe.tables["post_trainer"].table(),
                "run": [context.recipe.run.seed, context.recipe.run.precision],
                "tokenizer": content_fingerprint(inputs["tokenizer"]),
                "pairs": content_fingerprint(inputs["pairs"]),  # latents.json has the hash of every part
            }
        )
        if context.accelerator.is_main_process:
            write_json(
                context.checkpoints / "arms.json", {"arms": str(context.folder.checkpoints(context.stage, arms))}
            )
        return arms

    def _arm(self, context: StageContext, arms: str, sigma: float) -> Path:
        """The folder of the tokenizer that was trained on the pairs of a sigma; trains it where it is not there."""
        arm = attrs.evolve(context, fingerprint=f"{arms}-{split_of(sigma)}")
        done = context.folder.checkpoints(context.stage, arms) / split_of(sigma)
        if (done / COMPONENT_FILE).is_file():
            return done
        context.say(f"{context.stage}: sigma = {sigma:g}{' (control)' if sigma == 1 else ''}")
        tokenizer = self._tokenizer(context, context.inputs["tokenizer"])
        frozen_part = latent_fingerprint(tokenizer)
        rows = PairRows(context.inputs["pairs"], sigma, context.dataset().train, tokenizer=frozen_part)
        losses = self._losses(context, tokenizer)
        post_trainer: PostTrainer = context.build("post_trainer")
        task = DecoderTask(tokenizer, post_trainer.trained(tokenizer), losses, self.config.optimizer)
        trainer = Trainer(arm, task, rows, self.config)
        if self.config.discriminator == "reuse" and task.opponents:
            self._adopt(context, task, trainer)
        trainer.run()
        kept: Any = trainer.kept()
        if latent_fingerprint(kept) != frozen_part:
            raise RunError("post-training changed what stands in front of the decoder", where=f"stage {context.stage}")
        self._save(context, done, kept, sigma)
        return done

    def _losses(self, context: StageContext, tokenizer: Tokenizer) -> dict[str, Loss]:
        losses = {}
        for name, spec in self.config.losses.items():
            with seeded(context.seed, "init", name):
                losses[name] = spec.build()
                losses[name].prepare(tokenizer)
        return losses

    def _adopt(self, context: StageContext, task: DecoderTask, trainer: Trainer) -> None:
        """Puts main training's discriminators, and the state of their optimisers, in place of new ones."""
        left = saved_opponents(context.inputs["tokenizer"])
        for name in task.opponents:
            if name not in left:
                raise _other_name(context, name, left)
        adopt_opponents(context.inputs["tokenizer"], task.opponents, trainer)

    def _tokenizer(self, context: StageContext, folder: Path) -> Any:
        return load_component(context.registry, folder).to(context.device)

    def _save(self, context: StageContext, folder: Path, tokenizer: nn.Module, sigma: float) -> None:
        if context.accelerator.is_main_process:
            table = read_json(context.inputs["tokenizer"] / COMPONENT_FILE)["table"]
            about = {"fingerprint": context.fingerprint, "run": context.recipe.run.name, "post_trained": sigma}
            with new_folder(folder) as aside:
                save_component(aside, "tokenizer", table, tokenizer, **about)
        context.accelerator.wait_for_everyone()

    def _leave(self, context: StageContext, folders: Mapping[float, Path], kept: float, comparison: Comparison) -> None:
        with context.making("post_training") as folder:
            if folder is not None:
                for sigma, source in folders.items():
                    _copy(source, folder / split_of(sigma))
                comparison.draw(folder)
        with context.making("tokenizer") as folder:
            if folder is not None:
                _copy(folders[kept], folder)


def _copy(source: Path, target: Path) -> None:
    """The files of a component; no byte is written twice where links work."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        try:
            (target / file.name).hardlink_to(file)
        except OSError:
            shutil.copyfile(file, target / file.name)


def _other_name(context: StageContext, name: str, known: Sequence[str]) -> RobustokError:
    what = f"main training has no opponent of a loss {name!r}; it has of {', '.join(known)}"
    return located(context, RobustokError(what, hint="give the loss the same name"), "losses", name)


def _no_opponents(tokenizer: str) -> RobustokError:
    hint = 'set discriminator = "fresh", discriminator_start = 0 and a later start of the term: it then learns first'
    return RobustokError(f"{tokenizer} comes without a discriminator that could be reused", hint=hint)
