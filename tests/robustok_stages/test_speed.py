"""Options of speed change nothing of what a training makes but the last digits of its numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from project import ADVERSARIAL, Project, assert_same_weights
from robustok_core.runs.files import read_json
from robustok_training import Trainer

#: By what is trained: the stages, and changes of the recipe.
TRAININGS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "conv": (["train_tokenizer"], {}),
    "vit": (
        ["train_tokenizer"],
        {
            "tokenizer": {
                "use": "vit_vq",
                "image_size": 32,
                "patch_size": 8,
                "num_latent_tokens": 16,
                "width": 16,
                "depth": 2,
                "num_heads": 2,
                "quantizer": {"use": "vq", "codebook_size": 32, "width": 4},
            }
        },
    ),
    "rar": (
        ["train_tokenizer", "tokenize", "train_generator"],
        {"generator": {"use": "rar", "width": 16, "depth": 2, "num_heads": 2}, "train_generator": {"epochs": 1}},
    ),
}


def training(out: Path, name: str = "conv", **run: Any) -> Project:
    stages, changes = TRAININGS[name]
    project = Project(out, stages, **changes)
    project.table["run"] |= run
    return project


@pytest.fixture
def compiler(monkeypatch) -> list[Any]:
    """Compiles up to the kernels, which take long: test_repeated_blocks.py compiles those. Lists what is compiled."""
    functions: list[Any] = []
    real = torch.compile

    def compile_(function, *, dynamic, options):
        functions.append(function)
        return real(function, dynamic=dynamic, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile_)
    return functions


def losses(project: Project) -> list[float]:
    of = "generator" if project.table["stage"][-1]["use"] == "train_generator" else "tokenizer"
    return [line[f"{of}/loss"] for line in project.logged() if f"{of}/loss" in line]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_compiled_training_has_the_losses_and_the_keys_of_an_eager_one(tmp_path, compiler, name):
    eager, compiled = (training(tmp_path / switch, name) for switch in ("off", "on"))
    compiled.table["stage"][-1]["compile"] = "on"
    for project in (eager, compiled):
        project.run()
        assert bool(compiler) == (project is compiled)
    assert "cannot be compiled" not in compiled.printed
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-3)
    what = "generator" if name == "rar" else "tokenizer"
    shapes = [{key: value.shape for key, value in project.weights(what).items()} for project in (eager, compiled)]
    assert shapes[0] == shapes[1]


class KilledError(Exception):
    """Simulates a kill."""


@pytest.fixture
def killed_in_step(monkeypatch) -> Callable[[int | None], None]:
    """Names the step in which a training is killed; None for no kill."""
    step, at = Trainer._step, list[int | None]([None])

    def kill(trainer: Trainer, number: int, batches: list[Any]) -> None:
        if number == at[0]:
            raise KilledError
        step(trainer, number, batches)

    monkeypatch.setattr(Trainer, "_step", kill)
    return lambda number: at.__setitem__(0, number)


@pytest.mark.parametrize("first", ["on", "off"])
def test_a_training_goes_on_with_and_without_compilation(tmp_path, compiler, killed_in_step, first):
    whole = training(tmp_path / "whole").run()
    project = training(tmp_path / "resumed", compile=first)
    project.table["stage"][0]["checkpoint_every"] = 2
    killed_in_step(3)
    with pytest.raises(KilledError):
        project.run()
    project.table["run"]["compile"] = {"on": "off", "off": "on"}[first]
    killed_in_step(None)
    project.run()
    assert "step 2 of 5" in project.printed
    assert losses(project) == pytest.approx(losses(whole), rel=1e-3)


def test_blocks_computed_again_train_the_same_weights_bit_for_bit(tmp_path):
    options = {"losses": ADVERSARIAL, "ema_decay": 0.9}
    kept = Project(tmp_path / "kept", train_tokenizer=options).run()
    again = Project(tmp_path / "again", train_tokenizer={**options, "activation_checkpointing": True}).run()
    assert_same_weights(kept.weights(), again.weights())
    assert losses(kept) == losses(again)


def test_convolutions_with_channels_last_train_the_same_weights(tmp_path, monkeypatch):
    usual, last = training(tmp_path / "usual"), training(tmp_path / "last", channels_last="on")
    laid_out = []
    run = Trainer.run

    def watched(trainer: Trainer) -> None:
        weights = [p for p in trainer.task.averaged.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
        laid_out.append([p.is_contiguous(memory_format=torch.channels_last) for p in weights])
        run(trainer)

    monkeypatch.setattr(Trainer, "run", watched)
    usual.run()
    last.run()
    assert not any(laid_out[0])
    assert all(laid_out[1])
    assert losses(last) == pytest.approx(losses(usual), rel=1e-3)
    for name, value in usual.weights().items():
        torch.testing.assert_close(last.weights()[name], value, rtol=0.05, atol=5e-3)


def test_a_training_with_channels_last_resumes_bit_for_bit(tmp_path, killed_in_step):
    whole, project = (training(tmp_path / name, channels_last="on") for name in ("whole", "resumed"))
    whole.run()
    project.table["stage"][0]["checkpoint_every"] = 2
    killed_in_step(3)
    with pytest.raises(KilledError):
        project.run()
    killed_in_step(None)
    project.run()
    assert "step 2 of 5" in project.printed
    assert_same_weights(project.weights(), whole.weights())


def test_no_option_of_speed_makes_a_finished_stage_run_again(tmp_path):
    project = training(tmp_path).run()
    before = read_json(project.folder / "run.json")["current"]
    project.table["run"] |= {"compile": "on", "activation_checkpointing": True, "channels_last": "on", "tf32": False}
    project.table["stage"][0] |= {"compile": "on", "activation_checkpointing": True}
    project.run()
    assert read_json(project.folder / "run.json")["current"] == before
    assert len(losses(project)) == 5


def test_what_no_training_can_do_is_refused_before_it_begins(tmp_path):
    assert "run.compile: 'fast' is not one of 'auto', 'on', 'off'" in training(tmp_path, compile="fast").refusal()
    project = Project(tmp_path, train_tokenizer={"compile": True})
    assert "stage.train_tokenizer.compile: True is not one of 'auto', 'on', 'off'" in project.refusal()
