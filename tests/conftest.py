"""Fixtures that many tests share: the registry, and a recipe small enough to train in a second."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from robustok_core import Recipe, Registry, load_registry, run

torch.set_num_threads(int(os.environ.get("ROBUSTOK_TEST_THREADS", "1")))
# The same examples in every run, however slow the machine.
settings.register_profile(
    "robustok", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("robustok")

TINY_RECIPE: dict[str, Any] = {
    "run": {"name": "tiny", "seed": 3, "precision": "no"},  # the same on every machine
    "data": {"use": "fashion_mnist", "train_limit": 80, "validation_limit": 40},
    "tokenizer": {
        "use": "conv_vq",
        "image_size": 32,
        "channels": 8,
        "channel_multipliers": [1, 1],
        "num_res_blocks": 1,
        "attention": False,
        "norm_groups": 4,
        "stem_patch": 4,
        "z_channels": 8,
        "quantizer": {"use": "vq", "codebook_size": 32, "width": 4},
    },
    "perturbation": {"use": "top_delta", "beta": 0.25, "delta": 4},
    "stage": [
        {
            "use": "train_tokenizer",
            "epochs": 3,
            "batch_size": 16,
            "log_every": 1,
            "optimizer": {"learning_rate": 2e-3},
        }
    ],
}


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All installed plugins."""
    return load_registry()


@pytest.fixture(scope="session")
def one_and_two() -> Callable[[Path, Path], None]:
    """Runs `SCRIPT RANK WORLD FOLDER` as the one process of a world of one, and as both of a world of two."""

    def run(script: Path, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen([sys.executable, script, rank, world, folder], env=environment, stderr=subprocess.PIPE)
            for rank, world in (("0", "1"), ("0", "2"), ("1", "2"))
        ]
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()

    return run


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., dict[str, Any]]:
    """Returns the tiny recipe's table, with keys of its training stage changed."""

    def make(**stage: Any) -> dict[str, Any]:
        table = copy.deepcopy(TINY_RECIPE)
        table["stage"][0] |= stage
        return table

    return make


@pytest.fixture(scope="session")
def generation_recipe(tiny_recipe) -> Callable[..., dict[str, Any]]:
    """Returns a recipe from the tiny tokenizer to samples, with keys of its stages changed: `sample={"grid": 0}`."""

    def make(**stages: dict[str, Any]) -> dict[str, Any]:
        table = tiny_recipe(epochs=1)
        table["generator"] = {"use": "maskgit", "width": 16, "depth": 1, "num_heads": 2}
        table["stage"] += [
            {"use": "tokenize", "views": "flip", "batch_size": 16, "part_size": 32},
            {"use": "train_generator", "epochs": 3, "batch_size": 16, "log_every": 1},
            {"use": "sample", "num_samples": 24, "part_size": 10, "sampling": {"steps": 2}},
        ]
        for stage in table["stage"]:
            stage |= stages.pop(stage["use"], {})
        assert not stages
        return table

    return make


@pytest.fixture(scope="session")
def continuous() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Returns a recipe's table with a `kl_vae` of the tiny tokenizer's size in its place, and no perturbation."""

    def make(table: dict[str, Any]) -> dict[str, Any]:
        size = {name: value for name, value in table["tokenizer"].items() if name not in ("quantizer", "attention")}
        tokenizer = size | {"use": "kl_vae", "width": 4}
        return {name: value for name, value in table.items() if name != "perturbation"} | {"tokenizer": tokenizer}

    return make


@pytest.fixture(scope="session")
def generated(generation_recipe, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """The recipe from tokenizer to samples, and the folder of its run; not to be changed."""
    table = generation_recipe()
    out = tmp_path_factory.mktemp("generated")
    run(Recipe.from_table(table), out=out)
    return table, out / table["run"]["name"]
