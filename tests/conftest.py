"""Fixtures that many tests share: the registry, and a recipe small enough to train in a second."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from attrs import field, frozen
from hypothesis import HealthCheck, settings

from robustok_core import Generator, Latents, Recipe, Registry, hookimpl, load_registry, run
from robustok_core.runs.files import read_json

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


@pytest.fixture
def run_on_two(tmp_path: Path) -> Callable[..., Path]:
    """Runs a recipe's table on two CPU processes of `accelerate launch`; returns the run's folder."""

    def run_on_two(table: dict[str, Any], out: Path) -> Path:
        recipe = tmp_path / "on_two.toml"
        recipe.write_text(tomli_w.dumps(table))
        with socket.socket() as free:  # older launchers wait for ever on port 0
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
        command = [sys.executable, *launch, "-m", "robustok_core", "run", str(recipe), "--out", str(out)]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=surroundings, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        folder = out / table["run"]["name"]
        entries = read_json(folder / "run.json")["stages"].values()
        assert {made["processes"] for entry in entries for made in entry["made_with"]} == {2}
        return folder

    return run_on_two


@pytest.fixture
def dying() -> Callable[[Callable[[], Any], int], None]:
    """Calls `action` in another process, which is killed half-way through writing its `part`-th file of a part."""

    def dying(action: Callable[[], Any], part: int) -> None:
        import robustok_toolkit.resumable_shards

        real, written = robustok_toolkit.resumable_shards.write_array, []

        def write_array(file: Path, array: Any) -> None:
            written.append(file)
            if len(written) == part:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.with_name(f".writing-{file.name}").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            real(file, array)

        def act() -> None:
            robustok_toolkit.resumable_shards.write_array = write_array
            action()

        process = multiprocessing.get_context("fork").Process(target=act)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL

    return dying


@frozen(kw_only=True)
class KnownCodesConfig:
    label_dropout: float = 0.0


@frozen(kw_only=True)
class KnownCodesSampling:
    shift: int = field(default=0, metadata={"doc": "added to every code"})


class KnownCodes(Generator):
    """Draws what a test can foresee: token n of sample i has code i + 5 label + n + shift, modulo K.

    Its loss is the mean square distance of the codes from `level`, a matrix of one number that does not decay.
    """

    Config = KnownCodesConfig
    Sampling = KnownCodesSampling
    not_decayed = ("level",)

    def __init__(self, config, space, num_classes):
        super().__init__()
        self.space, self.num_classes, self.knows_null_class = space, num_classes, config.label_dropout > 0
        self.level = torch.nn.Parameter(torch.full((1, 1), 3.0))
        self.decayed = torch.nn.Parameter(torch.ones(1, 1))

    def loss(self, latents, labels, *, draws, progress):
        return {"distance": (latents.codes - self.level).square().mean(), "none": 0.0 * self.decayed.sum()}

    def sample(self, labels, draws, *, guidance, keep=None, sampling=None):
        first = draws.indices + 5 * labels + (sampling or KnownCodesSampling()).shift
        return Latents(codes=(first[:, None] + torch.arange(self.space.num_tokens)) % self.space.codebook_size)


@pytest.fixture
def with_known_codes() -> Registry:
    """All installed plugins, and the generator `known_codes`."""

    class Plugin:
        @hookimpl
        def robustok_register(self, register):
            register("generator", "known_codes", KnownCodes)

    registry = load_registry()
    assert registry.add_plugin(Plugin(), "known").error is None
    return registry


@pytest.fixture
def part_of(generated) -> Callable[..., dict[str, Any]]:
    """A recipe with some stages of the generation recipe, which loads what they need from its run."""

    def part_of(*stages: str, load: tuple[str, ...] = ("tokenizer",), **options: dict[str, Any]) -> dict[str, Any]:
        table = copy.deepcopy(generated[0])
        table["load"] = {name: str(generated[1]) for name in load}
        table["stage"] = [stage | options.get(stage["use"], {}) for stage in table["stage"] if stage["use"] in stages]
        for name in ("tokenizer", "perturbation"):
            del table[name]
        return table

    return part_of
