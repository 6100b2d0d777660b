"""What the tests of the stages share: a run on two processes."""

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

from robustok_core import Generator, Latents, Registry, hookimpl, load_registry
from robustok_core.files import read_json


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
        import robustok_stages.parts

        real, written = robustok_stages.parts.write_array, []

        def write_array(file: Path, array: Any) -> None:
            written.append(file)
            if len(written) == part:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.with_name(f".writing-{file.name}").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            real(file, array)

        def act() -> None:
            robustok_stages.parts.write_array = write_array
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
