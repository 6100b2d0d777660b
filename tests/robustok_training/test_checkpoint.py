"""Checkpoints on disk: complete or absent, and optimiser states by parameter name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from processes import one_and_two
from robustok_core.errors import RunError
from robustok_core.runs.files import write_tensors
from robustok_training import checkpoint, sharding
from robustok_training.checkpoint import (
    checkpoints,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from robustok_training.optimizer import OptimizerConfig

NAMES = ["weight", "bias"]


def test_a_checkpoint_gives_back_what_was_saved(tmp_path):
    tensors = {"a": torch.tensor([0.1, -0.0]), "b/c": torch.arange(3)}
    save_checkpoint(tmp_path, 7, tensors, {"scaler": None})
    found, values = load_checkpoint(tmp_path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert values == {"step": 7, "scaler": None, "processes": 1, "sharded": False}


def test_the_last_two_checkpoints_are_retained_and_the_newest_is_loaded(tmp_path):
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, step, {"step": torch.tensor(step)}, {})
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000010", "step-000000100"]
    found, values = load_checkpoint(tmp_path)
    assert found["step"] == values["step"] == 100


def test_processes_that_see_a_shared_folder_differently_resume_from_the_same_checkpoint(tmp_path):
    one_and_two(Path(__file__).with_name("checkpoints_seen_otherwise.py"), tmp_path)
    assert [torch.load(file) for file in sorted(tmp_path.glob("*.pt"))] == [[8, 8]] * 3


def test_a_partial_checkpoint_of_a_killed_process_is_ignored(tmp_path):
    save_checkpoint(tmp_path, 4, {"step": torch.tensor(4)}, {})
    (tmp_path / ".writing-step-000000008").mkdir()
    (tmp_path / ".writing-step-000000008" / "state.safetensors").write_bytes(b"half")
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000004"]


def test_there_is_no_checkpoint_before_one_is_written(tmp_path):
    assert load_checkpoint(tmp_path / "nowhere") is None
    assert load_checkpoint(tmp_path) is None


def stepped(steps: int) -> tuple[nn.Linear, torch.optim.Optimizer]:
    """A line and its optimiser after some steps with given gradients."""
    line = nn.Linear(2, 1)
    nn.init.ones_(line.weight)
    nn.init.zeros_(line.bias)
    optimizer = OptimizerConfig(learning_rate=0.1).build(dict(line.named_parameters()))
    for step in range(steps):
        step_once(line, optimizer, step)
    return line, optimizer


def step_once(line: nn.Linear, optimizer: torch.optim.Optimizer, step: int) -> None:
    line(torch.tensor([[1.0 + step, -0.3]])).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_an_optimiser_with_a_loaded_state_takes_the_same_next_step():
    line, optimizer = stepped(3)
    other, fresh = stepped(0)
    other.load_state_dict(line.state_dict())
    load_optimizer_tensors(fresh, NAMES, optimizer_tensors(optimizer, NAMES))
    for both in ((line, optimizer), (other, fresh)):
        step_once(*both, step=3)
    assert torch.equal(line.weight, other.weight)
    assert torch.equal(line.bias, other.bias)


def test_optimiser_states_are_named_after_their_parameters():
    _, optimizer = stepped(1)
    found = optimizer_tensors(optimizer, NAMES)
    assert found.keys() == {f"{key}/{name}" for key in ("exp_avg", "exp_avg_sq", "step") for name in NAMES}
    assert found["exp_avg/weight"].shape == (1, 2)


def test_a_state_for_an_unknown_parameter_is_refused():
    _, optimizer = stepped(1)
    held = optimizer_tensors(optimizer, ["weight", "other"])
    with pytest.raises(RunError, match="unknown parameter 'other'"):
        load_optimizer_tensors(optimizer, NAMES, held)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 9), before=st.integers(1, 5), after=st.integers(1, 5))
def test_any_number_of_processes_reads_the_rows_that_it_will_hold(tmp_path, rows, before, after):
    whole = {"a": torch.arange(rows * 3.0).reshape(rows, 3), "b": torch.arange(rows + 1)}
    files = [tmp_path / f"{rows}-{number}-of-{before}.safetensors" for number in range(before)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "world_size", lambda: before)
        for number, file in enumerate(files):
            patch.setattr(sharding, "rank", lambda number=number: number)
            owned = {name: sharding.own_rows(len(tensor)) for name, tensor in whole.items()}
            write_tensors(file, {name: whole[name][own.start : own.stop].clone() for name, own in owned.items()})
        read = checkpoint._read_shards(files)
        assert all(torch.equal(read[name], tensor) for name, tensor in whole.items())

        patch.setattr(sharding, "world_size", lambda: after)
        patch.setattr(checkpoint, "is_sharded_run", lambda: True)
        patch.setattr(checkpoint, "of_own_rows", lambda found, shape: (found, tuple(shape)))
        for number in range(after):
            patch.setattr(sharding, "rank", lambda number=number: number)
            for name, (found, shape) in checkpoint._read_shards(files).items():
                chunks = whole[name].chunk(after)  # as FSDP divides them
                assert torch.equal(found, chunks[number] if number < len(chunks) else whole[name][:0])
                assert shape == whole[name].shape
