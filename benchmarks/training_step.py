"""Measures the share of training time that is spent outside the model: `python benchmarks/training_step.py`.

Runs the training stage of a recipe for a number of steps in a temporary folder, with the whole schedule
compressed into them (so discriminators start as in the recipe). Reports the time of each phase, the
share outside forward, backward and optimiser (loading, logging, checkpoints), which should stay below
10 %, and images per second. The steps before the first logged line are warm-up and not counted. On a GPU,
set CUDA_LAUNCH_BLOCKING=1, because phases are timed with the host's clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs
import harness

import robustok_stages.tokenizer.train_tokenizer
from robustok_core import Recipe, RobustokError, hookimpl, load_registry, run
from robustok_core.recipe.recipe import ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.recipe.source import parse_override
from robustok_training.batches import steps_per_epoch
from robustok_training.trainer import Trainer

TARGET = 0.10
MODEL = ("forward", "backward", "optimizer")


class Stopwatch:
    """A plugin that records the trainer's phase times whenever a line is logged."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.notes: list[tuple[int, dict[str, float]]] = []

    def watch(self, *arguments: Any) -> Trainer:
        """Creates the trainer for the stage, and holds on to it."""
        self.trainer = Trainer(*arguments)
        return self.trainer

    @hookimpl
    def robustok_step_logged(self, step: int) -> None:
        """Records the number of steps so far and the seconds of each phase."""
        assert self.trainer is not None
        self.notes.append((step, dict(self.trainer.seconds)))


def resolve(options: argparse.Namespace, registry: Registry) -> tuple[ResolvedRecipe, Any]:
    """The recipe with only its training stage, shortened to the given steps, and that stage's configuration."""
    changes = dict(parse_override(change) for change in options.changes)
    whole = Recipe.load(options.recipe, overrides=changes).resolve(registry)
    training = [stage for stage in whole.stages if stage.spec.name == "train_tokenizer"]
    if not training:
        raise RobustokError("the recipe has no stage train_tokenizer", where=options.recipe)
    stage = training[0]
    epoch = steps_per_epoch(whole.tables["data"].build().train, stage.spec.config.batch_size)
    config = attrs.evolve(
        stage.spec.config, epochs=(options.warm_up + options.steps) / epoch, log_every=options.warm_up
    )
    stage = attrs.evolve(stage, spec=attrs.evolve(stage.spec, config=config))
    return attrs.evolve(whole, stages=[stage]), config


def measure(recipe: ResolvedRecipe, registry: Registry) -> Stopwatch:
    """Runs the training."""
    stopwatch = Stopwatch()
    registry.add_plugin(stopwatch, "stopwatch")
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(robustok_stages.tokenizer.train_tokenizer, "Trainer", stopwatch.watch),
    ):
        run(recipe, registry=registry, out=Path(folder))
    return stopwatch


def phases(stopwatch: Stopwatch, batch_size: int) -> dict[str, object]:
    """What each phase took."""
    (first, before), (last, after) = stopwatch.notes[0], stopwatch.notes[-1]
    seconds = {phase: after[phase] - before[phase] for phase in after}
    total = sum(seconds.values())
    outside = 1 - sum(seconds[phase] for phase in MODEL) / total
    return {
        "share_outside_the_model": round(outside, 4),
        "target": TARGET,
        "met": outside < TARGET,
        "images_per_second": round((last - first) * batch_size / total, 1),
        "milliseconds_per_step": {phase: round(1000 * value / (last - first), 3) for phase, value in seconds.items()},
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    quick = {"steps": 2, "warm_up": 1, "changes": ["stage.train_tokenizer.batch_size=8"]}
    parser = harness.Parser(__doc__, {"steps": 200, "warm_up": 20}, quick=quick)
    parser.add_argument("recipe", nargs="?", default="main_train", help="a recipe file or a bundled recipe")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="set a key of the recipe"
    )
    options = parser.options(arguments)
    if min(options.steps, options.warm_up) < 1:
        parser.error("--steps and --warm-up must be at least 1")
    registry, report = load_registry(), harness.Report(options)
    try:
        recipe, config = resolve(options, registry)
        report.found |= phases(measure(recipe, registry), config.batch_size)
    except RobustokError as error:
        sys.exit(f"error: {error}")
    return report.finish()


if __name__ == "__main__":
    main()
