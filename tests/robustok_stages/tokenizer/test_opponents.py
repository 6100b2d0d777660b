"""The discriminators that main training saves, and their reuse in another training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from project import BATCH_SIZE, STEPS_PER_EPOCH, TABLES, Project, recipe_of
from robustok_core import Recipe
from robustok_core.runs.accelerator import make_accelerator
from robustok_core.runs.context import RunContext
from robustok_core.runs.files import read_json, read_tensors
from robustok_core.runs.folder import RunFolder
from robustok_stages.tokenizer.loss_terms import LossTerms
from robustok_stages.tokenizer.opponents import (
    adopt_opponents,
    has_opponents,
    losses_with_opponent,
    opponent_name,
    save_opponents,
    saved_opponents,
)
from robustok_stages.tokenizer.training_step import TokenizerStep, TokenizerTask
from robustok_training import OptimizerConfig, Trainer, TrainingConfig

LOSSES = {
    "reconstruction": {"use": "reconstruction"},
    "gan": {"use": "adversarial", "start": 0.0, "patch": {"width": 8, "layers": 2}},
}


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    """A tokenizer's artifact from a training with a discriminator."""
    return Project(tmp_path_factory.mktemp("left"), train_tokenizer={"losses": LOSSES}).run().artifact("tokenizer")


@pytest.fixture
def another(registry, tmp_path) -> tuple[TokenizerTask, Trainer]:
    """Another training with such a discriminator, with other weights."""
    recipe = Recipe.from_table(recipe_of(run={"seed": 4}, train_tokenizer={"losses": LOSSES})).resolve(registry)
    accelerator, folder = make_accelerator(recipe, tmp_path), RunFolder(tmp_path)
    stage = "train_tokenizer"
    context = RunContext(recipe=recipe, registry=registry, accelerator=accelerator, stage=stage, folder=folder)
    tokenizer = context.build("tokenizer")
    losses = {name: registry.build("loss", table) for name, table in LOSSES.items()}
    task = TokenizerTask(tokenizer, None, losses, OptimizerConfig())
    return task, Trainer(context, task, context.dataset().train, TrainingConfig(epochs=1, batch_size=BATCH_SIZE))


def test_the_artifact_says_which_opponents_it_comes_with(left):
    assert has_opponents(left)
    assert read_json(left / "component.json")["opponents"] == saved_opponents(left) == ["gan"]


def test_the_artifact_of_a_training_without_opponents_says_so(tmp_path):
    folder = Project(tmp_path, train_tokenizer={"epochs": 1 / STEPS_PER_EPOCH}).run().artifact("tokenizer")
    assert not has_opponents(folder)
    assert read_json(folder / "component.json")["opponents"] == []


def test_the_file_holds_weights_and_optimiser_states_by_the_name_of_the_loss(left, another):
    opponent = another[0].opponents["gan"]
    names = set(read_tensors(left / "opponents.safetensors"))
    weights = {f"module/gan/{name}" for name in opponent.state_dict()}
    moments = {f"optimizer/gan/exp_avg/opponent.{name}" for name, p in opponent.named_parameters() if p.requires_grad}
    assert weights | moments <= names
    assert {name.split("/")[1] for name in names} == {"gan"}


def test_what_is_adopted_is_what_was_saved_bit_for_bit(left, another, tmp_path):
    task, trainer = another
    adopt_opponents(left, task.opponents, trainer)
    (tmp_path / "saved").mkdir()
    save_opponents(tmp_path / "saved", task.opponents, trainer)
    before, after = (read_tensors(folder / "opponents.safetensors") for folder in (left, tmp_path / "saved"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_losses_with_an_opponent_are_known_from_the_recipe(registry):
    (stage,) = Recipe.from_table(recipe_of(train_tokenizer={"losses": LOSSES})).resolve(registry).stages
    assert losses_with_opponent(stage.spec.config.losses) == ["gan"]
    assert opponent_name("gan") == "gan_opponent"


def test_the_networks_of_losses_are_not_parameters_of_the_tokenizers_turn(registry):
    tokenizer = registry.build("tokenizer", TABLES["tokenizer"])
    perturbation = registry.build("perturbation", TABLES["perturbation"])
    terms = LossTerms({name: registry.build("loss", table) for name, table in LOSSES.items()})
    step = TokenizerStep(tokenizer, perturbation, terms)
    assert {id(p) for p in step.parameters()} == {id(p) for p in [*tokenizer.parameters(), *terms.own_parameters()]}
    assert {name.split(".")[0] for name, _ in step.named_modules()} == {"", "tokenizer", "loss_parameters"}
