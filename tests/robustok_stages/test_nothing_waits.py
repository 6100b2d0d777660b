"""A training step reads nothing from the device, which would have to finish its work first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from every_model import GENERATORS, TOKENIZERS, generator_table, is_discrete, save_autoencoder, tokenizer_table
from project import ADVERSARIAL, CONTINUOUS, FLOW, Project
from robustok_core import Draws, Registry
from robustok_core.recipe.structurer import Structurer
from robustok_core.values.spec import Spec
from robustok_stages.costs import image_batch, latent_batch, sketched_losses
from robustok_stages.generator.training_step import GeneratorTask
from robustok_stages.tokenizer.training_step import TokenizerTask
from robustok_training import OptimizerConfig, Task, Trainer
from robustok_training.costs import on_meta
from robustok_training.on_meta import META
from waiting import waits_as_if_queued, waits_on_meta

FEATURES = {"use": "fashion_classifier"}
LOSSES = {
    **ADVERSARIAL,
    "perceptual": {"use": "perceptual", "network": "features", "features": FEATURES},
    "semantic": {"use": "semantic", "teacher": FEATURES},
    "heads": {"use": "adversarial", "start": 0.0, "heads": {"features": FEATURES}},
}
DISCRETE_NOISE = {"use": "top_delta", "beta": 0.25, "delta": 4}


def spec_of(registry: Registry, kind: str, table: dict[str, Any]) -> Spec:
    structurer = Structurer(registry.find)
    spec = structurer.spec(kind, table, (kind,))
    assert not structurer.problems
    return spec


def waits_of(task: Task, batch: Any) -> list[str]:
    """What waits in the second turn of each module; in the first, values of what plugins return are checked."""
    draws, left = Draws.for_part(0, range(len(batch)), 32, META), {}
    for turn in task.trained_modules:
        turn.module.to(META).train()
    for _ in range(2):
        with waits_on_meta() as found:
            for turn in task.trained_modules:
                loss, _, left[turn.name] = turn.module(batch, draws, 0.5, left)
                loss.backward()
    return found


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    save_autoencoder(folder)
    return folder


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_turn_of_a_tokenizer_or_a_discriminator_waits(registry, name, autoencoder):
    tokenizer = spec_of(registry, "tokenizer", tokenizer_table(name, autoencoder)).sketch()
    noise = DISCRETE_NOISE if is_discrete(name) else {"use": "gaussian"}
    losses = sketched_losses({loss: spec_of(registry, "loss", table) for loss, table in LOSSES.items()}, tokenizer)
    perturbation = spec_of(registry, "perturbation", noise).build()
    task = TokenizerTask(tokenizer, perturbation, losses, OptimizerConfig())
    assert waits_of(task, image_batch(8, 32)) == []


@pytest.mark.parametrize("name", GENERATORS)
def test_no_turn_of_a_generator_waits(registry, name, autoencoder):
    of = "conv_vq" if is_discrete(name) else "kl_vae"
    space = spec_of(registry, "tokenizer", tokenizer_table(of, autoencoder)).sketch().space
    generator = on_meta(spec_of(registry, "generator", generator_table(name, space)).sketch(space, 10))
    assert waits_of(GeneratorTask(generator, OptimizerConfig()), latent_batch(space, 8)) == []


@pytest.fixture
def waits_of_steps(monkeypatch) -> list[list[str]]:
    """What waits in each step of a training, from the second on: turns, optimisers, codebooks, averages and means."""
    found: list[list[str]] = []
    step: Callable[..., None] = Trainer._step

    def watched(trainer: Trainer, number: int, batches: list[Any]) -> None:
        with waits_as_if_queued() as waits:
            step(trainer, number, batches)
        found.append(waits)

    monkeypatch.setattr(Trainer, "_step", watched)
    return found


EMA_CODEBOOK = {"use": "vq", "codebook_size": 32, "width": 4, "codebook_update": "ema"}


@pytest.mark.parametrize("changes", [{}, {"quantizer": EMA_CODEBOOK}, {"continuous": True}])
def test_no_step_of_a_tokenizers_training_waits(tmp_path, waits_of_steps, changes):
    stage = {"losses": ADVERSARIAL, "ema_decay": 0.9, "optimizer": {"clip": 1.0}, "log_every": 3, "accumulation": 2}
    other = CONTINUOUS if "continuous" in changes else {"tokenizer": changes, "perturbation": None}
    Project(tmp_path, train_tokenizer=stage, **other).run()
    assert len(waits_of_steps) == 5
    assert waits_of_steps[1:] == [[]] * 4


def test_a_codebook_waits_only_where_it_restarts_dead_codes(tmp_path, waits_of_steps):
    quantizer = {**EMA_CODEBOOK, "restart_threshold": 0.9, "restart_after": 3}
    Project(tmp_path, tokenizer={"quantizer": quantizer}, perturbation=None).run()
    assert [bool(waits) for waits in waits_of_steps[1:]] == [False, True, False, False]


@pytest.mark.parametrize("changes", [{}, {**CONTINUOUS, "generator": FLOW}])
def test_no_step_of_a_generators_training_waits(tmp_path, waits_of_steps, changes):
    stages = ["train_tokenizer", "tokenize", "train_generator"]
    project = Project(tmp_path, stages, train_generator={"ema_decay": 0.9, "epochs": 1}, **changes)
    project.run(until="tokenize")
    waits_of_steps.clear()
    project.run()
    assert waits_of_steps[1:] == [[]] * (len(waits_of_steps) - 1)
    assert len(waits_of_steps) > 3
