"""The training loop with toy tasks: what it promises to every stage."""

from __future__ import annotations

import contextlib
import gc
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from project import recipe_of
from robustok_core import Draws, Recipe, RunError
from robustok_core.kinds.dataset import Rows
from robustok_core.runs.accelerator import make_accelerator
from robustok_core.runs.context import RunContext
from robustok_core.runs.files import read_tensors
from robustok_core.runs.folder import RunFolder
from robustok_core.values.batches import Batch
from robustok_training import OptimizerConfig, Task, TrainedModule, Trainer, TrainingConfig

#: 2 epochs of 4 steps.
CONFIG: dict[str, Any] = {"epochs": 2, "batch_size": 6, "log_every": 1}
STEPS = 8


@frozen(kw_only=True, eq=False)
class PointBatch(Batch):
    """`points` (B, 3) and `targets` (B, 1)."""

    points: Tensor
    targets: Tensor


class Points(Rows):
    """24 points in space and a linear function of them."""

    labels = torch.zeros(24, dtype=torch.int64)
    fingerprint = "points"

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> PointBatch:
        rows = torch.tensor(indices)
        points = Draws.for_rows(1, 24).normal(3)[rows]
        targets = points @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.25
        return PointBatch(points=points, targets=targets, labels=self.labels[rows], indices=rows)


class LineStep(nn.Module):
    """Fits a line by least squares and leaves the squared errors (B, 1)."""

    def __init__(self, noise: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.dropout = nn.Dropout(dropout)
        self.noise = noise

    def forward(self, batch: PointBatch, draws: Draws, progress: float, earlier: Mapping[str, Any]):
        points = self.dropout(batch.points + self.noise * draws.child("noise").normal(3))
        errors = (self.line(points) - batch.targets).square()
        return errors.mean(), {}, errors.detach()


class CriticStep(nn.Module):
    """Learns to predict the line's squared errors."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Linear(3, 1)

    def forward(self, batch: PointBatch, draws: Draws, progress: float, earlier: Mapping[str, Any]):
        return (self.critic(batch.points) - earlier["line"]).square().mean(), {}, None


class Watched(nn.Module):
    """Takes a module's turn and calls `watch(batch, progress, earlier)` before; leaves `leave(batch)`."""

    def __init__(self, watch: Callable[..., None], leave: Callable[[PointBatch], Any] = lambda batch: None) -> None:
        super().__init__()
        self.step = LineStep()
        self.watch, self.leave = watch, leave

    def forward(self, batch: PointBatch, draws: Draws, progress: float, earlier: Mapping[str, Any]):
        self.watch(batch, progress, dict(earlier))
        loss, logs, _ = self.step(batch, draws, progress, earlier)
        return loss, logs, self.leave(batch)


class StepsTask(Task):
    """Calls `act(number)` after each step, counted from 1."""

    def __init__(self, trained_modules: Sequence[TrainedModule], act: Callable[[int], None], done: int = 0) -> None:
        super().__init__(trained_modules)
        self._act, self._done = act, done

    def after_step(self, draws: Draws) -> None:
        self._done += 1
        self._act(self._done)


def nothing(*_: Any) -> None:
    """Watches nothing."""


@pytest.fixture
def context(registry, tmp_path) -> RunContext:
    """The context of a stage "fit" in a run's folder."""
    stage = {"use": "train_tokenizer", "name": "fit", "epochs": 1, "batch_size": 2}
    recipe = Recipe.from_table(recipe_of([stage])).resolve(registry)
    accelerator = make_accelerator(recipe, tmp_path)
    folder = RunFolder(tmp_path)
    return RunContext(
        recipe=recipe, registry=registry, accelerator=accelerator, stage="fit", fingerprint="f", folder=folder
    )


def trained(name: str, module: nn.Module, **options: Any) -> TrainedModule:
    return TrainedModule(
        name=name, module=module, **{"optimizer": OptimizerConfig(learning_rate=0.1, clip=1.0), **options}
    )


def lines(context: RunContext) -> list[dict[str, Any]]:
    """The logged lines, without timings."""
    found = [json.loads(line) for line in (context.folder.path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in found]


def seeded_modules(seed: int) -> list[TrainedModule]:
    torch.manual_seed(seed)
    return [trained("line", LineStep(noise=0.3, dropout=0.2)), trained("critic", CriticStep(), start=0.25)]


class KilledError(Exception):
    """Simulates a kill: the trainer writes nothing more."""


def kill_at(step: int) -> Callable[[int], None]:
    def act(number: int) -> None:
        if number == step:
            raise KilledError

    return act


@pytest.mark.parametrize("step", [2, 5, 6, 8])
def test_a_killed_training_resumes_bit_for_bit(context, step):
    config = TrainingConfig(**CONFIG, accumulation=2, ema_decay=0.8, checkpoint_every=3)
    whole, resumed = context.part("whole"), context.part("resumed")
    uninterrupted = Trainer(whole, Task(seeded_modules(1)), Points(), config)
    uninterrupted.run()
    expected = [{**line, "fingerprint": ""} for line in lines(context)]
    with pytest.raises(KilledError):
        Trainer(resumed, StepsTask(seeded_modules(1), kill_at(step)), Points(), config).run()
    # A checkpoint replaces whatever state the modules had.
    goes_on = Trainer(resumed, Task(seeded_modules(1 if step <= 3 else 2)), Points(), config)
    goes_on.run()
    assert states(goes_on).keys() == states(uninterrupted).keys()
    different = [name for name, value in states(goes_on).items() if not torch.equal(value, states(uninterrupted)[name])]
    assert not different
    assert [{**line, "fingerprint": ""} for line in lines(context)[STEPS:]] == expected


def states(trainer: Trainer) -> dict[str, Tensor]:
    """The weights of both modules and of the average, and the optimisers' states."""
    held = {f"kept/{name}": value for name, value in trainer.kept().state_dict().items()}
    for name, module in trainer.task.modules.items():
        held |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
        held |= {f"{name}/{key}": value for key, value in trainer.optimizer_state(name).items()}
    return held


def test_the_micro_batches_of_a_step_give_the_gradient_of_the_whole_batch(context):
    found = []
    for accumulation in (1, 3):
        torch.manual_seed(0)
        task = Task([trained("line", LineStep(noise=0.3))])
        config = TrainingConfig(**CONFIG, accumulation=accumulation)
        Trainer(context.part(str(accumulation)), task, Points(), config).run()
        found.append(task.averaged.line.weight.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    for one, three in zip(lines(context)[:STEPS], lines(context)[STEPS:], strict=True):
        for name in ("line/loss", "line/gradient_norm"):
            assert three[name] == pytest.approx(one[name], rel=1e-5)


def test_the_average_begins_with_the_first_step_and_moves_by_a_share_of_each(context):
    step, seen = LineStep(), []
    task = StepsTask([trained("line", step)], lambda _: seen.append(step.line.weight.detach().clone()))
    trainer = Trainer(context, task, Points(), TrainingConfig(**CONFIG, ema_decay=0.75))
    trainer.run()
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.75 * expected + 0.25 * weight
    torch.testing.assert_close(trainer.kept().line.weight.detach(), expected)
    assert len(seen) == STEPS
    assert torch.equal(step.line.weight, seen[-1])


def test_without_an_average_the_last_weights_are_kept(context):
    task = Task([trained("line", LineStep())])
    assert Trainer(context, task, Points(), TrainingConfig(**CONFIG)).kept() is task.averaged


def test_every_step_uses_the_rate_at_its_start(context):
    optimizer = OptimizerConfig(learning_rate=0.1, warmup=0.25, final_learning_rate=0.01)
    Trainer(context, Task([trained("line", LineStep(), optimizer=optimizer)]), Points(), TrainingConfig(**CONFIG)).run()
    found = [line["line/learning_rate"] for line in lines(context)]
    assert found == [optimizer.rate_at(step / STEPS) for step in range(STEPS)]
    assert found[:3] == [0.0, 0.05, 0.1]


def test_a_later_start_delays_training_and_its_schedule_covers_the_rest(context):
    critic, seen = CriticStep(), []
    optimizer = OptimizerConfig(learning_rate=0.1, warmup=0.5)
    late = trained("critic", critic, optimizer=optimizer, start=0.5, active=lambda progress: progress >= 0.5)
    first = critic.critic.weight.detach().clone()
    task = StepsTask([trained("line", LineStep()), late], lambda _: seen.append(critic.critic.weight.detach().clone()))
    Trainer(context, task, Points(), TrainingConfig(**CONFIG)).run()
    changed = [not torch.equal(weight, before) for weight, before in zip(seen, [first, *seen], strict=False)]
    assert changed == [False] * 5 + [True] * 3, "the fifth step is the first of its warm-up, with a rate of 0"
    rates = [line["critic/learning_rate"] for line in lines(context)][4:]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.05])
    assert ["critic/loss" in line for line in lines(context)] == [False] * 4 + [True] * 4


def test_what_a_module_leaves_reaches_those_after_it_on_its_own_micro_batch_only(context):
    seen: list[tuple[PointBatch, dict[str, Any]]] = []

    def note(batch: PointBatch, progress: float, earlier: dict[str, Any]) -> None:
        seen.append((batch, earlier))

    first = trained("first", Watched(note, lambda batch: batch.indices))
    second = trained("second", Watched(note, lambda batch: batch.points), active=lambda progress: progress >= 0.5)
    third = trained("third", Watched(note))
    config = TrainingConfig(**CONFIG, accumulation=3)
    Trainer(context, Task([first, second, third]), Points(), config).run()
    early, late = 4 * 6, 4 * 9
    assert len(seen) == early + late
    for place, (batch, earlier) in enumerate(seen):
        turn = place // 3 % 2 * 2 if place < early else (place - early) // 3 % 3
        expected: dict[str, Any] = {0: {}, 1: {"first": batch.indices}}.get(turn, {"first": batch.indices})
        if turn == 2 and place >= early:
            expected["second"] = batch.points
        assert list(earlier) == list(expected)
        assert all(torch.equal(earlier[name], value) for name, value in expected.items())


class Left:
    """An object whose deletion can be observed."""


def test_what_was_left_is_dropped_when_the_step_is_done(context):
    alive: list[int] = []
    references: list[weakref.ref[Left]] = []

    def leave(_: PointBatch) -> Left:
        left = Left()
        references.append(weakref.ref(left))
        return left

    def count(*_: Any) -> None:
        alive.append(sum(reference() is not None for reference in references))

    modules = [trained("first", Watched(nothing, leave)), trained("second", Watched(count))]
    Trainer(context, StepsTask(modules, count), Points(), TrainingConfig(**CONFIG, accumulation=2)).run()
    assert alive == [2, 2, 0] * STEPS


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_holds_the_modules_and_optimisers_of_a_training_that_has_ended(context, killed):
    """The accelerator lives as long as the run, which may train many more."""
    waiting = Trainer(context.part("other"), Task(seeded_modules(1)), Points(), TrainingConfig(**CONFIG))
    modules = seeded_modules(0)
    held = [weakref.ref(trained_module.module) for trained_module in modules]
    trainer = Trainer(context, StepsTask(modules, kill_at(4 if killed else 0)), Points(), TrainingConfig(**CONFIG))
    with pytest.raises(KilledError) if killed else contextlib.nullcontext():
        trainer.run()
    held += [weakref.ref(prepared.optimizer.optimizer) for prepared in trainer._prepared.values()]
    assert all(reference() is not None for reference in held)
    assert {key.partition("/")[0] for key in trainer.optimizer_state("line")} == {"exp_avg", "exp_avg_sq", "step"}
    assert trainer.kept() is modules[0].module
    del trainer, modules
    gc.collect()
    assert [reference() for reference in held] == [None] * 4
    assert len(context.accelerator._optimizers) == 2  # those that wait are held as before
    waiting.run()
    assert context.accelerator._optimizers == context.accelerator._models == []


def test_the_gradient_of_a_module_does_not_reach_the_one_before_it(context):
    """Least squares gives bit-identical weights with and without a critic."""
    found = []
    for count in (1, 2):
        torch.manual_seed(0)
        modules = [trained("line", LineStep()), trained("critic", CriticStep())][:count]
        Trainer(context.part(str(count)), Task(modules), Points(), TrainingConfig(**CONFIG)).run()
        found.append(modules[0].module.line.weight.detach())
    assert torch.equal(*found)


class SpoiltStep(LineStep):
    """Its loss, or the gradient of it alone, is not finite: from the fifth step on, or from the sixth."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, batch: PointBatch, draws: Draws, progress: float, earlier: Mapping[str, Any]):
        loss, logs, left = super().forward(batch, draws, progress, earlier)
        if progress >= 0.5 and self.what == "loss":
            loss = loss * float("inf")
        elif progress > 0.5 and self.what == "gradient":
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss, logs, left


@pytest.mark.parametrize(
    ("what", "message"),
    [("loss", "line/loss is not finite at step 5"), ("gradient", "line.weight of 'line' is not finite after step 6")],
)
def test_a_value_that_is_not_finite_stops_the_training_and_is_not_saved(context, what, message):
    config = TrainingConfig(**CONFIG, checkpoint_every=2)
    modules = [trained("line", SpoiltStep(what), optimizer=OptimizerConfig(learning_rate=0.1))]
    with pytest.raises(RunError, match=message) as caught:
        Trainer(context, Task(modules), Points(), config).run()
    assert caught.value.where == "stage fit"
    assert [path.name for path in sorted(context.checkpoints.glob("step-*"))] == ["step-000000002", "step-000000004"]
    assert "earlier checkpoints are kept" in caught.value.hint


def test_earlier_checkpoints_are_mentioned_only_where_there_are_some(context):
    modules = [trained("line", SpoiltStep("loss"), optimizer=OptimizerConfig(learning_rate=0.1))]
    with pytest.raises(RunError, match="is not finite") as caught:
        Trainer(context, Task(modules), Points(), TrainingConfig(**CONFIG, checkpoint_every=100)).run()
    assert "checkpoints" not in caught.value.hint


def test_a_gradient_is_clipped_and_its_norm_before_clipping_is_logged(context):
    torch.manual_seed(0)
    task = Task([trained("line", LineStep(), optimizer=OptimizerConfig(learning_rate=1e-9, clip=1e-3))])
    config = TrainingConfig(**{**CONFIG, "epochs": 0.25})
    trainer = Trainer(context, task, Points(), config)
    trainer.run()
    state = trainer.optimizer_state("line")
    gradients = [state[f"exp_avg/line.{name}"] / (1 - 0.9) for name in ("weight", "bias")]
    (line,) = lines(context)
    assert torch.cat([gradient.flatten() for gradient in gradients]).norm() == pytest.approx(1e-3, rel=1e-3)
    assert line["line/gradient_norm"] > 0.1


def test_a_module_without_a_parameter_to_train_is_refused(context):
    with pytest.raises(RunError, match="'line' has no parameter to train"):
        Trainer(context, Task([trained("line", LineStep().requires_grad_(False))]), Points(), TrainingConfig(**CONFIG))


def test_an_adopted_optimiser_state_is_where_training_begins(context):
    config = TrainingConfig(**CONFIG)
    before = Trainer(context.part("a"), Task([trained("line", LineStep())]), Points(), config)
    before.run()
    after = Trainer(context.part("b"), Task([trained("line", LineStep())]), Points(), config)
    after.adopt_optimizer_state("line", before.optimizer_state("line"))
    after.run()
    assert before.optimizer_state("line")["step/line.weight"] == STEPS
    assert after.optimizer_state("line")["step/line.weight"] == 2 * STEPS


def test_the_module_to_keep_is_measured_between_epochs_and_not_at_the_end(context):
    class Measured(Task):
        def measure(self, kept: nn.Module) -> Mapping[str, float]:
            return {"bias": kept.line.bias.item()}

    trainer = Trainer(
        context, Measured([trained("line", LineStep())]), Points(), TrainingConfig(**CONFIG), measure_every=0.5
    )
    trainer.run()
    assert [line["step"] for line in lines(context) if "bias" in line] == [2, 4, 6]


def test_a_checkpoint_holds_modules_average_and_optimiser_states_by_name(context):
    config = TrainingConfig(**CONFIG, ema_decay=0.5)
    Trainer(context, Task([trained("line", LineStep())]), Points(), config).run()
    (checkpoint,) = context.checkpoints.iterdir()
    names = set(read_tensors(checkpoint / "state.safetensors"))
    assert {"module/line/line.weight", "module/average/module.line.weight", "optimizer/line/exp_avg/line.bias"} <= names
    assert {name.split("/")[0] for name in names} == {"module", "optimizer"}


def test_the_time_is_counted_by_phase(context):
    trainer = Trainer(context, Task([trained("line", LineStep())]), Points(), TrainingConfig(**CONFIG))
    trainer.run()
    assert trainer.seconds.keys() == {"data", "forward", "backward", "optimizer", "other"}
    assert all(seconds > 0.0 for seconds in trainer.seconds.values())
