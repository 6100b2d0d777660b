"""A throw-away project for a test: a recipe that trains in about a second, and the folder of its run."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from rich.console import Console

from processes import launcher
from robustok_core import Recipe, Registry, Result, RobustokError, hookimpl, load_registry, run
from robustok_core.runs.checking import check
from robustok_core.runs.components import load_component
from robustok_core.runs.files import read_json, read_tensors
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.manifest import MANIFEST, write_manifest
from robustok_core.runs.plan import Plan

Table = dict[str, Any]

NAME = "tiny"
TRAIN_IMAGES, VALIDATION_IMAGES, NUM_CLASSES, IMAGE_SIZE = 80, 40, 10, 32
BATCH_SIZE = 16
STEPS_PER_EPOCH = TRAIN_IMAGES // BATCH_SIZE
CODEBOOK_SIZE, NUM_TOKENS, WIDTH = 32, 16, 4
GENERATOR_EPOCHS = 3
NUM_SAMPLES, NUM_PAIRS = 24, 48

CONV = {
    "image_size": IMAGE_SIZE,
    "channels": 8,
    "channel_multipliers": [1, 1],
    "num_res_blocks": 1,
    "norm_groups": 4,
    "stem_patch": 4,  # with one halving, a grid of 4 x 4 tokens
    "z_channels": 8,
}
#: A tokenizer with a continuous space, of the same size as the default one. A perturbation of codes does not fit it.
CONTINUOUS: Table = {"tokenizer": {"use": "kl_vae", "width": WIDTH, **CONV}, "perturbation": None}
FLOW: Table = {"use": "flow_transformer", "width": 16, "depth": 1, "num_heads": 2}
ADVERSARIAL: Table = {
    "reconstruction": {"use": "reconstruction"},
    "adversarial": {"use": "adversarial", "start": 0.0, "patch": {"width": 8, "layers": 2}},
}
COLOURS: Table = {"use": "frechet", "features": {"use": "fashion_classifier"}}

#: What a recipe of a test says unless the test changes it: its tables, and the options of its stages.
TABLES: dict[str, Table] = {
    "data": {"use": "fashion_mnist", "train_limit": TRAIN_IMAGES, "validation_limit": VALIDATION_IMAGES},
    "tokenizer": {
        "use": "conv_vq",
        **CONV,
        "attention": False,
        "quantizer": {"use": "vq", "codebook_size": CODEBOOK_SIZE, "width": WIDTH},
    },
    "perturbation": {"use": "top_delta", "beta": 0.25, "delta": 4},
    "generator": {"use": "maskgit", "width": 16, "depth": 1, "num_heads": 2},
    "post_trainer": {"use": "decoder", "sampling": {"steps": 2}},
}
STAGES: dict[str, Table] = {
    "train_tokenizer": {
        "epochs": 1,
        "batch_size": BATCH_SIZE,
        "log_every": 1,
        "optimizer": {"learning_rate": 2e-3},
    },
    "tokenize": {"views": "flip", "batch_size": BATCH_SIZE, "part_size": 32},
    "train_generator": {"epochs": GENERATOR_EPOCHS, "batch_size": BATCH_SIZE, "log_every": 1},
    "sample": {"num_samples": NUM_SAMPLES, "part_size": 10, "sampling": {"steps": 2}},
    "make_pairs": {"sigma": [0.5], "num_pairs": NUM_PAIRS, "batch_size": BATCH_SIZE, "part_size": BATCH_SIZE},
    "post_train": {"epochs": 2, "batch_size": BATCH_SIZE, "log_every": 1},
    "compare_decoders": {
        "num_samples": 20,
        "metrics": {"gfd": COLOURS},
        "tokenizer_metrics": {"psnr": {"use": "psnr"}},
        "sampling": {"steps": 2},
        "pictures": 4,
    },
}
#: From images to samples, and from a trained generator to a better decoder.
TO_SAMPLES = ("train_tokenizer", "tokenize", "train_generator", "sample")
POST_TRAINING = ("make_pairs", "post_train", "compare_decoders")


def recipe_of(
    stages: Iterable[str | Mapping[str, Any]] = ("train_tokenizer",),
    *,
    load: Mapping[str, str | Path] | None = None,
    **changes: Any,
) -> Table:
    """A recipe of these stages with the tables that they use.

    Args:
        stages: names, for stages with the options above, or whole tables.
        load: the table [load].
        changes: keys by the name of a table or stage: `perturbation={"beta": 0.5}`. As with `extends`, a table that
            names another component replaces the default one. None removes a table.
    """
    chosen = [{"use": stage, **STAGES.get(stage, {})} if isinstance(stage, str) else dict(stage) for stage in stages]
    used = {name for stage in chosen for name in _used_by(stage["use"])}
    # The same numbers on every machine, and no report, which only some tests look at.
    table: Table = {"run": {"name": NAME, "seed": 3, "precision": "no", "report": False}}
    if load:
        table["load"] = {name: str(place) for name, place in load.items()}
    table |= {name: TABLES[name] for name in TABLES if name in used} | {"stage": chosen}
    return changed(table, changes)


@functools.cache
def _used_by(stage: str) -> tuple[str, ...]:
    kind = load_registry().find("stage", stage)
    return (*getattr(kind, "uses", ()), *getattr(kind, "may_use", ()))


def changed(table: Table, changes: Mapping[str, Any]) -> Table:
    """A copy of a recipe with keys of its tables and stages changed, as `recipe_of` says."""
    table = copy.deepcopy(table)
    stages = {stage.get("name", stage["use"]): stage for stage in table["stage"]}
    for name, change in copy.deepcopy(dict(changes)).items():
        if name in stages:
            stages[name].update(change)
        elif change is None:
            table.pop(name, None)
        else:
            table[name] = change if "use" in change else table.get(name, {}) | change
    return table


def registry_with(*plugins: Any, **components: Any) -> Registry:
    """All installed plugins, these, and one that provides these components: `generator={"mine": Mine}`."""

    class Plugin:
        @hookimpl
        def robustok_register(self, register):
            for kind, named in components.items():
                for name, component in named.items():
                    register(kind, name, component)

    registry = load_registry()
    for number, plugin in enumerate((*plugins, Plugin())):
        assert registry.add_plugin(plugin, f"test{number}").error is None
    return registry


class Project:
    """A recipe, and the folder in which it runs.

    Attributes:
        out: the folder of runs.
        table: the recipe, which a test may change before the next run.
        results: those of the last run, by "stage/metric".
        printed: what the last run printed.
    """

    def __init__(self, out: Path, stages: Iterable[str | Mapping[str, Any]] = ("train_tokenizer",), **changes: Any):
        self.out = out
        self.table = recipe_of(stages, **changes)
        self.results: dict[str, Result] = {}
        self.printed = ""

    @classmethod
    def of(cls, table: Table, out: Path) -> Project:
        """A project of a recipe that is there already."""
        project = cls(out, [])
        project.table = table
        return project

    def run(self, **options: Any) -> Project:
        """Runs the recipe in this process; the options are those of `robustok_core.run`."""
        printed = io.StringIO()
        try:
            self.results = run(
                Recipe.from_table(self.table), out=self.out, console=Console(file=printed, width=250), **options
            )
        finally:
            self.printed = printed.getvalue()
        return self

    def check(self, registry: Registry | None = None, **options: Any) -> Plan:
        """Makes all checks of a run; the options are those of `robustok_core.runs.checking.check`."""
        return check(Recipe.from_table(self.table), registry=registry, **options)

    def refusal(self, **options: Any) -> str:
        """Runs a recipe that must be refused; returns the message."""
        with pytest.raises(RobustokError) as caught:
            self.run(**options)
        return str(caught.value)

    def run_on_two(self) -> Project:
        """Runs the recipe on two CPU processes of `accelerate launch`."""
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out.with_name(f"{self.out.name}.toml")
        file.write_text(tomli_w.dumps(self.table))
        command = [sys.executable, *launcher(), "-m", "robustok_core", "run", str(file), "--out", str(self.out)]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=surroundings, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "warning" not in done.stderr.lower(), done.stderr[-3000:]
        self.printed = done.stdout
        entries = read_json(self.folder / "run.json")["stages"].values()
        assert {made["processes"] for entry in entries for made in entry["made_with"]} == {2}
        return self

    def later(
        self,
        out: Path,
        stages: Sequence[str | Mapping[str, Any]],
        *,
        load: Sequence[str] = ("tokenizer",),
        **changes: Any,
    ) -> Project:
        """Another project of some stages, as they are here, that loads artifacts from this one's run."""
        project = Project(out, stages, load=dict.fromkeys(load, self.folder))
        project.table |= {
            name: self.table[name] for name in project.table.keys() & self.table.keys() & {"run", *TABLES}
        }
        own = {stage["use"]: stage for stage in self.table["stage"]}
        project.table["stage"] = [
            own.get(stage["use"], stage) if name == stage["use"] else stage
            for name, stage in zip(stages, project.table["stage"], strict=True)
        ]
        project.table = changed(project.table, changes)
        return project

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.out / self.table["run"]["name"]

    def stage(self, name: str) -> Table:
        """A stage's table."""
        return next(stage for stage in self.table["stage"] if stage.get("name", stage["use"]) == name)

    def artifact(self, name: str, *, stage: str | None = None) -> Path:
        """The folder of the last artifact of this name, or of the one that a stage made."""
        if stage is None:
            return find_artifact(self.folder, name)
        return self.folder / "artifacts" / f"{name}-{read_json(self.folder / 'run.json')['current'][stage]}"

    def weights(self, name: str = "tokenizer", *, stage: str | None = None) -> dict[str, torch.Tensor]:
        """The weights of a component that the run made."""
        return read_tensors(self.artifact(name, stage=stage) / "model.safetensors")

    def component(self, name: str = "tokenizer", *, stage: str | None = None) -> Any:
        """A component that the run made, in eval mode."""
        return load_component(load_registry(), self.artifact(name, stage=stage))

    def dataset(self) -> Any:
        """The data set."""
        return load_registry().build("dataset", self.table["data"])

    def logged(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, of one stage or all."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if stage in (None, line["stage"])]


def assert_same_weights(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> None:
    """Fails unless both have the same tensors, bit for bit."""
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their path in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def record_as_it_is(artifact: Path) -> None:
    """Writes the manifest of an artifact that a test changed, as if it had been made so."""
    write_manifest(artifact / MANIFEST, (file for file in sorted(artifact.rglob("*")) if file.is_file()))


def line_of(file: Path, key: str) -> str:
    """Where a message places a key of a recipe: "r.toml:3: "."""
    lines = file.read_text().splitlines()
    return f"{file.name}:{next(number for number, line in enumerate(lines, start=1) if line.startswith(key))}: "
