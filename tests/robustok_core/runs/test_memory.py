"""A batch that does not fit the memory: the message says what would."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import torch
from attrs import frozen

from processes import forked
from project import BATCH_SIZE, Project
from robustok_core import Recipe
from robustok_core.kinds.cost import Cost, Memory
from robustok_core.kinds.loss import Reconstruction
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.context import RunContext
from robustok_core.runs.costing import plan_costs
from robustok_core.runs.memory import USABLE, MemoryRanOutError, with_what_fits
from robustok_core.runs.runner import RecipeRun
from robustok_losses.reconstruction import PixelReconstruction


@frozen
class Options:
    accumulation: int = 1


def message(
    images: int, capacity: float, *, config: object = Options(), memory: bool = True, divided: bool = False
) -> str:
    cost = Cost(memory=Memory(fixed={"weights": 100}, per_image=10, images=images) if memory else None)
    about = {"divided": divided, "stage": "train", "config": config, "where": "r.toml:3"}
    error = MemoryRanOutError("CUDA out of memory", hint="use less")
    return str(with_what_fits(error, lambda: cost, capacity=capacity, **about))


def test_the_micro_batch_that_fits_divides_the_batch():
    assert "by `robustok plan`, 8 fit: set accumulation = 2 (the same step)" in message(16, 200.0)
    assert "by `robustok plan`, 7 fit: set accumulation = 3 (the same step)" in message(18, 195.0)
    assert "by `robustok plan`, 7 fit: set accumulation = 6 (the same step)" in message(18, 195.0, config=Options(2))
    assert "activation_checkpointing = true" in message(16, 200.0)


def test_where_not_even_one_image_fits_the_weights_can_be_divided():
    said = message(16, 110.0)
    assert "not one image fits beside weights and optimiser" in said
    assert "recipes/cluster/fsdp_8.yaml" in said
    said = message(16, 110.0, divided=True)
    assert "divide the weights among more GPUs; activation_checkpointing" in said


def test_what_a_plan_does_not_know_is_not_said():
    assert message(16, 200.0, memory=False) == "r.toml:3: CUDA out of memory (use less)"
    assert "use smaller batches" in message(16, 200.0, config=object())


REAL = PixelReconstruction.forward


def forward(self: PixelReconstruction, step: Reconstruction) -> torch.Tensor:
    if step.images.is_meta:  # a plan
        return REAL(self, step)
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_device_without_memory_gives_one_message_with_a_batch_that_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(PixelReconstruction, "forward", forward)
    project = Project(tmp_path)
    (stage,) = plan_costs(Recipe.from_table(project.table))
    assert stage.cost is not None
    memory = stage.cost.memory
    assert memory is not None
    capacity = (sum(memory.fixed.values()) + 5.5 * memory.per_image) / USABLE
    monkeypatch.setattr("robustok_core.runs.execution.capacity_of", lambda device: capacity)
    said = project.refusal()
    assert re.search(rf"memory ran out in stage 'train_tokenizer', with {BATCH_SIZE} images at once on a device", said)
    fits, accumulation = map(int, re.findall(r"`robustok plan`, (\d+) fit: set accumulation = (\d+)", said)[0])
    assert (fits, accumulation) == (5, 4)


def run_out_of_memory(project: Project) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
    said = project.refusal()
    assert "memory ran out in stage 'train_tokenizer', with 80 images at once" in said, said
    assert "set accumulation = " in said


def test_a_machine_without_memory_gives_the_same_message(tmp_path):
    large = {"channels": 64, "image_size": 256}
    project = Project(tmp_path, tokenizer=large, data={"image_size": 256}, train_tokenizer={"batch_size": 80})
    forked(lambda: run_out_of_memory(project))


def test_a_run_with_divided_weights_is_planned_as_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(RunContext, "processes", 2)
    monkeypatch.setenv("FSDP_VERSION", "2")
    project, held = Project(tmp_path), []
    for divides in ("false", "true"):
        monkeypatch.setenv("ACCELERATE_USE_FSDP", divides)
        registry = load_registry()
        run = RecipeRun(Recipe.from_table(project.table).resolve(registry), registry, tmp_path, False, None)
        held.append(run.plan().stages[0].cost().memory.fixed)
    assert "gathered blocks" not in held[0]
    assert "gathered blocks" in held[1]
    assert held[1]["optimiser"] < held[0]["optimiser"]
