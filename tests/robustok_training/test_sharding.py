"""Weights divided among two processes: losses, weights and checkpoints of one process, and of two that share none."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from accelerate.utils import is_torch_version

from processes import AtStep, two_forked
from project import ADVERSARIAL, Project, registry_with
from robustok_core import Recipe
from robustok_core.errors import Interrupted
from robustok_core.runs.assumed import Launch
from robustok_core.runs.costing import plan_costs
from robustok_core.runs.files import read_json, read_rows, read_tensors
from robustok_training import checkpoint

pytestmark = pytest.mark.skipif(is_torch_version("<", "2.7.0"), reason="needs torch 2.7")

STOP = 3
STAGES = ("train_tokenizer", "tokenize", "train_generator", "make_pairs", "post_train")
QUANTIZER = {"use": "vq", "codebook_size": 32, "width": 4, "codebook_update": "ema"}
TRAINED = {
    "losses": ADVERSARIAL,
    "epochs": 1.2,  # 6 steps
    "ema_decay": 0.9,
    "accumulation": 2,
    "checkpoint_every": 4,
    "optimizer": {"learning_rate": 2e-3, "clip": 1.0},
}
TOKENIZER: dict[str, Any] = {
    "tokenizer": {"quantizer": {**QUANTIZER, "restart_threshold": 0.2, "restart_after": 2}},
    "train_tokenizer": TRAINED,
}
GENERATOR: dict[str, Any] = {
    "generator": {"dropout": 0.0},  # which draws other numbers on every process
    "train_generator": {
        "measure": {"num_samples": 10, "metrics": {}, "sampling": {"steps": 2}},
        "ema_decay": 0.5,
        "epochs": 2,
    },
}
#: Sums are made in another order, which later changes the code of a vector between two codewords.
TOLERANCE, TOLERANCE_LATER = 1e-3, 5e-2
DIFFERENT = {"images_per_second", "stage", "fingerprint", "used_codes"}


@attrs.frozen
class Two:
    """What two processes and one made of the same recipes, by name, and what was printed; `folder` holds notes."""

    one: dict[str, Project]
    two: dict[str, Project]
    said: dict[str, str]
    folder: Path


def stopped(project: Project) -> Project:
    """Runs a project in this process until it is asked to stop."""
    ask = AtStep(STOP, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        project.run(registry=registry_with(ask))
    return project


def rows_read(folder: Path, name: str) -> Callable[..., dict[str, torch.Tensor]]:
    """Reads rows of a checkpoint, and notes from which files this process took any."""

    def read(file: Path, rows: dict[str, slice]) -> dict[str, torch.Tensor]:
        tensors = read_rows(file, rows)
        if any(len(tensor) for tensor in tensors.values()):
            with (folder / f"{name}-{os.environ['RANK']}.read").open("a") as notes:
                notes.write(f"{file.name}\n")
        return tensors

    return read


def run_all(projects: dict[str, Project], asked: list[tuple[str, bool, int]], folder: Path) -> None:
    """Runs projects as one of two processes, with weights that are divided or not, until a step or to the end."""
    torch.distributed.destroy_process_group = lambda group=None: None  # the processes stay connected for the next run
    for name, sharded, stop in asked:
        os.environ |= {"ACCELERATE_USE_FSDP": str(sharded), "FSDP_VERSION": "2"}
        checkpoint.read_rows = rows_read(folder, name)
        stopping = AtStep(stop, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with contextlib.suppress(Interrupted):
            projects[name].run(registry=registry_with(stopping))
        if os.environ["RANK"] == "0":
            (folder / f"{name}.txt").write_text(projects[name].printed)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Two:
    folder = tmp_path_factory.mktemp("two")
    whole = Project(folder / "whole", STAGES, **TOKENIZER, **GENERATOR).run()
    tokenizer = lambda name: Project(folder / name, **TOKENIZER)  # noqa: E731
    generator = whole.later(folder / "generator", ["train_generator"], load=("tokenizer", "latents"))
    generator.table["stage"][0]["activation_checkpointing"] = True  # gathers divided blocks again
    decoders = whole.later(folder / "decoders", ["post_train"], load=("tokenizer", "pairs"))
    projects = {
        "tokenizer": tokenizer("tokenizer"),
        "generator": generator,
        "decoders": decoders,
        "resumed": tokenizer("resumed"),
        "from one": stopped(tokenizer("from one")),
        "copied from one": tokenizer("copied from one"),
        "to one": tokenizer("to one"),
        "copied to one": tokenizer("copied to one"),
    }
    shutil.copytree(projects["from one"].out, projects["copied from one"].out)
    asked = [
        ("tokenizer", True, 0),
        ("generator", True, 0),
        ("decoders", True, 0),
        ("resumed", True, STOP),
        ("resumed", True, 0),
        ("from one", True, 0),
        ("copied from one", False, 0),
        ("to one", True, STOP),
        ("copied to one", False, STOP),
    ]
    ended = two_forked(lambda: run_all(projects, asked, folder), folder / "said")
    assert [code for code, _ in ended] == [0, 0], ended
    said = {name: (folder / f"{name}.txt").read_text() for name, _, _ in asked}
    for name in ("to one", "copied to one"):
        said[name] = projects[name].run().printed
    one = dict.fromkeys(projects, whole)
    return Two(one, projects, said, folder)


def assert_same_lines(made: Two, name: str, stage: str) -> None:
    first, second = made.one[name].logged(stage), made.two[name].logged(stage)
    assert [line["step"] for line in second] == [line["step"] for line in first] != []
    for one, two in zip(first, second, strict=True):
        tolerance = TOLERANCE if one["step"] <= STOP else TOLERANCE_LATER
        for value in one.keys() - DIFFERENT:
            assert two[value] == pytest.approx(one[value], rel=tolerance, abs=1e-4), (one["step"], value)


@pytest.mark.parametrize(
    ("name", "stage"),
    [("tokenizer", "train_tokenizer"), ("generator", "train_generator"), ("decoders", "post_train")],
)
def test_sharded_trainings_have_the_losses_of_one_process(made, name, stage):
    assert_same_lines(made, name, stage)


def test_the_artifact_has_whole_weights_and_the_codebook_of_one_process(made):
    one, two = (by["tokenizer"].weights("tokenizer", stage="train_tokenizer") for by in (made.one, made.two))
    assert one.keys() == two.keys()
    for name in one:
        apart = (two[name] - one[name]).float().norm() / one[name].float().norm().clamp(min=1e-3)
        assert apart < TOLERANCE_LATER, name


def test_each_process_writes_its_rows_into_a_checkpoint(made):
    project = made.two["resumed"]
    (*_, newest) = sorted(next(project.folder.glob("checkpoints/*")).iterdir())
    files = [newest / f"shard-{number:05d}-of-00002.safetensors" for number in (0, 1)]
    assert all(file.is_file() for file in files)
    assert {file.name for file in files} <= read_json(newest / "manifest.json")["files"].keys()


@pytest.mark.parametrize(("name", "stage"), [("resumed", "train_tokenizer"), ("generator", "train_generator")])
def test_a_plan_counts_what_one_of_the_processes_holds(made, name, stage):
    project = made.two[name]
    recipe = Recipe.from_table(project.table)
    costs = plan_costs(recipe, launch=Launch(processes=2, divides_weights=True))
    cost = next(one.cost for one in costs if one.name == stage)
    newest = max(path for path in project.folder.glob(f"checkpoints/{stage}*/*") if path.is_dir())
    held = [file for file in newest.glob("*.safetensors") if not file.name.startswith("shard-00001")]
    tensors = [tensor for file in held for tensor in read_tensors(file).values()]
    fixed = cost.memory.fixed
    planned = fixed["weights"] + fixed["optimiser"] + fixed["average of the weights"]
    assert planned == pytest.approx(sum(tensor.nbytes for tensor in tensors), rel=0.02)


def test_a_sharded_training_resumes_bit_for_bit(made):
    whole, resumed = made.two["tokenizer"], made.two["resumed"]
    one, two = whole.weights(), resumed.weights()
    assert not [name for name in one if not torch.equal(one[name], two[name])]
    of_both = [[{**line, "images_per_second": 0} for line in project.logged()] for project in (whole, resumed)]
    assert of_both[0] == of_both[1]
    assert "processes, goes on" not in made.said["resumed"]


def test_a_process_reads_only_its_own_rows_of_a_checkpoint(made):
    for rank in (0, 1):
        assert (made.folder / f"resumed-{rank}.read").read_text() == f"shard-{rank:05d}-of-00002.safetensors\n"


@pytest.mark.parametrize("name", ["from one", "copied from one", "to one", "copied to one"])
def test_another_number_of_processes_goes_on_with_the_same_images_and_losses_and_says_so(made, name):
    before, after = (1, 2) if "from" in name else (2, 1)
    assert f"saved by {before} process" in made.said[name]
    assert f"goes on with {after}: the same images in the same order" in made.said[name]
    assert_same_lines(made, name, "train_tokenizer")
