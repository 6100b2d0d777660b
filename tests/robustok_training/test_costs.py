"""What a plan says of a training is what the real one takes: operations by torch's counter, memory by its profiler."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from project import ADVERSARIAL, CONTINUOUS, FLOW, Project
from robustok_core import Recipe
from robustok_core.runs.assumed import Launch
from robustok_core.runs.costing import plan_costs
from robustok_core.runs.files import read_tensors
from robustok_training.trainer import Trainer
from robustok_training.training_state import TrainingState

SMALL = {"width": 64, "depth": 2, "num_heads": 2}
#: By the stage that is planned and trained: tokenizers with and without a discriminator, and generators of both kinds.
TRAININGS = {
    "discrete": ("train_tokenizer", {}),
    "adversarial": ("train_tokenizer", {"train_tokenizer": {"losses": ADVERSARIAL}}),
    "continuous": ("train_tokenizer", CONTINUOUS),
    "maskgit": ("train_generator", {}),
    "rar recomputed": (
        "train_generator",
        {"generator": {"use": "rar", **SMALL}, "train_generator": {"activation_checkpointing": True}},
    ),
    "rar": ("train_generator", {"generator": {"use": "rar", **SMALL}}),
    "flow": ("train_generator", {**CONTINUOUS, "generator": FLOW}),
}
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
#: The attention of CPUs, which torch's counter leaves out, by its formulas for that of GPUs.
ON_CPU = {
    _forward: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    _backward: lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v),
}


@pytest.fixture
def taken(monkeypatch) -> Iterator[dict[str, list[float]]]:
    """The operations of every turn of a training, and the most bytes at once that it allocates."""
    found: dict[str, list[float]] = {"flops": [], "bytes": []}
    turn = Trainer._turn

    def measured(trainer, prepared, *arguments):
        for parameter in prepared.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        with (
            FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter,
            profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
        ):
            turn(trainer, prepared, *arguments)
        events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
        now = peak = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            now += event.nbytes()
            peak = max(peak, now)
        found["flops"].append(counter.get_total_flops())
        found["bytes"].append(peak)

    monkeypatch.setattr(Trainer, "_turn", measured)
    return found


@pytest.mark.parametrize("name", TRAININGS)
def test_a_plan_is_within_a_tenth_of_the_real_training(name, taken, tmp_path):
    stage, changes = TRAININGS[name]
    stages = ["train_tokenizer"] if stage == "train_tokenizer" else ["train_tokenizer", "tokenize", stage]
    project = Project(tmp_path, stages, **changes)
    cost = next(one.cost for one in plan_costs(Recipe.from_table(project.table)) if one.name == stage)
    if stage == "train_generator":
        Project(tmp_path, stages, **changes).run(until="tokenize")
        taken["flops"].clear()
        taken["bytes"].clear()
    results = project.run().results
    assert sum(taken["flops"]) == pytest.approx(cost.work[0].total, rel=0.1)
    # In the first turn, memory is freed that was taken before; the profiler does not count that, and finds too much.
    assert max(taken["bytes"][1:]) == pytest.approx(cost.memory.per_image * cost.memory.images, rel=0.1)
    assert cost.steps == results[f"{stage}/steps"].value
    assert cost.memory.images == project.stage(stage)["batch_size"]


def test_weights_gradients_and_checkpoints_have_the_sizes_of_the_real_ones(tmp_path):
    options = {"checkpoint_every": 1, "ema_decay": 0.5}
    project = Project(tmp_path, train_tokenizer={"losses": ADVERSARIAL, **options})
    (stage,) = plan_costs(Recipe.from_table(project.table))
    cost = stage.cost
    sizes: list[int] = []
    save = TrainingState.save

    def saved(state, *arguments):
        save(state, *arguments)
        held = [read_tensors(file) for file in state.folder.rglob("*.safetensors")]
        sizes.append(sum(tensor.nbytes for tensors in held for tensor in tensors.values()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "save", saved)
        project.run()
    assert max(sizes) == pytest.approx(cost.disk["checkpoints"], rel=0.01)
    assert sum(tensor.nbytes for tensor in project.weights().values()) == cost.disk["tokenizer"]
    trained = project.results["train_tokenizer/parameters"].value
    assert cost.trained > trained  # the discriminator's, too
    fixed = cost.memory.fixed
    assert fixed["weights"] == fixed["gradients"] == 4 * cost.trained == fixed["optimiser"] // 2


def test_work_that_starts_later_is_counted_from_then_on(tmp_path):
    def flops(**options):
        losses = {**ADVERSARIAL, "adversarial": {**ADVERSARIAL["adversarial"], **options}}
        (stage,) = plan_costs(Recipe.from_table(Project(tmp_path, train_tokenizer={"losses": losses}).table))
        return stage.cost.work[0].flops

    always, never, later = flops(start=0.0), flops(start=1.0), flops(start=0.75)
    assert always > never
    assert later == pytest.approx(never + 0.25 * (always - never), rel=1e-3)


def test_more_processes_hold_fewer_images_each_and_the_buckets_of_gradients(tmp_path):
    recipe = Recipe.from_table(Project(tmp_path).table)
    (one,), (four,) = plan_costs(recipe), plan_costs(recipe, launch=Launch(processes=4))
    assert one.cost.memory.images == 4 * four.cost.memory.images
    assert one.cost.work[0].total == pytest.approx(four.cost.work[0].total, rel=0.01)


def test_blocks_computed_again_take_less_memory_and_more_operations(tmp_path):
    def cost(**options):
        tokenizer = {"num_res_blocks": 4}
        project = Project(tmp_path, tokenizer=tokenizer, train_tokenizer=options)
        (stage,) = plan_costs(Recipe.from_table(project.table))
        return stage.cost

    kept, again = cost(), cost(activation_checkpointing=True)
    assert again.memory.per_image < 0.75 * kept.memory.per_image
    assert 1.1 * kept.work[0].flops < again.work[0].flops < 1.4 * kept.work[0].flops
    assert again.memory.fixed == kept.memory.fixed
