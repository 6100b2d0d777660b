"""A task from its smallest form, and the stage that the package's docstring shows."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import robustok_training
from project import BATCH_SIZE, STEPS_PER_EPOCH, TABLES, Project
from robustok_core import Draws, load_registry
from robustok_core.runs.files import read_json, read_tensors
from robustok_training import OptimizerConfig, Task, TrainedModule


def module(name: str) -> TrainedModule:
    return TrainedModule(name=name, module=nn.Linear(2, 1), optimizer=OptimizerConfig())


def test_a_task_by_default_holds_its_trained_modules_and_averages_the_first():
    first, second = module("first"), module("second")
    task = Task([first, second])
    assert task.modules == {"first": first.module, "second": second.module}
    assert task.averaged is first.module


def test_a_task_may_hold_more_than_it_trains_and_average_a_part():
    trained, model, other = module("step"), nn.Linear(1, 1), nn.BatchNorm1d(1)
    task = Task([trained], modules={"model": model, "other": other}, averaged=model)
    assert task.modules == {"model": model, "other": other}
    assert task.averaged is model


@pytest.mark.parametrize("names", [[], ["same", "same"]])
def test_trained_modules_with_equal_names_are_an_error(names):
    with pytest.raises(AssertionError, match="names of trained modules must differ"):
        Task([module(name) for name in names])


def test_a_task_does_nothing_after_a_step_and_measures_nothing_unless_a_subclass_does():
    task = Task([module("only")])
    assert task.after_step(Draws.for_rows(0, 1)) is None
    assert task.measure(task.averaged) == {}


def test_a_models_turn_is_its_loss_and_the_model_is_what_is_kept():
    model, draws = nn.Linear(2, 1), Draws.for_rows(0, 3)

    def mean(model, batch, draws):
        return model(batch).mean() + draws.uniform().sum()

    task = Task.of_model(model, mean, OptimizerConfig())
    (trained,) = task.trained_modules
    loss, logs, left = trained.module(torch.ones(3, 2), draws, 0.0, {})
    assert loss == model(torch.ones(3, 2)).mean() + draws.uniform().sum()
    assert (logs, left) == ({}, None)
    assert trained.name == "model"
    assert task.averaged is model


def test_parameters_of_the_loss_are_trained_and_saved_in_checkpoints():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    task = Task.of_model(nn.Linear(2, 1), Scaled(), OptimizerConfig())
    assert {parameter.numel() for parameter in task.trained_modules[0].module.parameters()} == {2, 1}
    assert any(name.endswith("scale") for held in task.modules.values() for name in held.state_dict())


def shown_stage(folder: Path) -> ModuleType:
    """The module in the docstring of robustok_training."""
    code = "\n".join(line for line in robustok_training.__doc__.splitlines() if not line or line.startswith("    "))
    (folder / "shown_stage.py").write_text(textwrap.dedent(code), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("shown_stage", folder / "shown_stage.py")
    shown = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shown)
    return shown


def test_the_stage_of_the_docstring_is_a_whole_plugin_of_at_most_50_lines_and_trains(tmp_path):
    registry = load_registry()
    assert registry.add_plugin(shown_stage(tmp_path), "probe").error is None
    assert len((tmp_path / "shown_stage.py").read_text().strip().splitlines()) <= 50
    stage = {"use": "train_probe", "epochs": 4, "batch_size": BATCH_SIZE, "ema_decay": 0.5, "log_every": 1}
    project = Project(tmp_path, [stage], data=TABLES["data"]).run(registry=registry)
    steps = 4 * STEPS_PER_EPOCH
    assert read_json(project.folder / "results.json") == {"train_probe/steps": {"value": steps}}
    weights = read_tensors(project.artifact("probe") / "probe.safetensors")
    assert {name: tuple(value.shape) for name, value in weights.items()} == {"1.weight": (10, 3072), "1.bias": (10,)}
    assert len([line for line in project.logged() if "model/loss" in line]) == steps


def test_the_public_names_are_loaded_at_their_first_use():
    code = (
        "import sys, robustok_training\n"
        "assert 'torch' not in sys.modules\n"
        "assert set(robustok_training.__all__) <= set(dir(robustok_training))\n"
        "from robustok_training import *\n"
        "assert Trainer.__module__ == 'robustok_training.trainer'\n"
        "assert [name for name in robustok_training.__all__ if name not in globals()] == []\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Trainr'"):
        robustok_training.Trainr  # noqa: B018
