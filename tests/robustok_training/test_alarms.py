from __future__ import annotations

import pytest
import torch

from project import Project
from robustok_stages.tokenizer.training_step import used_share
from robustok_training.alarms import PATIENCE, SATURATED, SPIKE, Agreeing, Alarms, LossSpike

LONG = {"epochs": 8, "log_every": 1}


def warnings(alarm, values, name="loss", progress=0.5) -> list[int]:
    """The lines at which it warns."""
    alarms = Alarms([alarm])
    return [line for line, value in enumerate(values) if alarms.see({name: value}, progress)]


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([1.0] * 10 + [SPIKE + 0.1], [10]),
        ([1.0] * 10 + [SPIKE - 0.1], []),
        ([1.0] * 10 + [9.0, 1.0, 1.0, 9.0], [10]),  # once
        ([1.0, 9.0], []),  # too early to know what is usual
        ([10.0 / (line + 1) for line in range(30)], []),  # a loss that falls
        ([0.0] * 10 + [1.0], []),  # a term that begins
    ],
)
def test_a_loss_far_above_the_lines_before_is_a_spike(values, lines):
    assert warnings(LossSpike("loss"), values) == lines


def test_a_number_must_stay_below_its_threshold_for_some_lines():
    low, high = SATURATED / 2, SATURATED * 2
    agreeing = [low] * PATIENCE
    assert warnings(Agreeing("loss", SATURATED, "{value}"), [*agreeing, *agreeing]) == [PATIENCE - 1]
    assert warnings(Agreeing("loss", SATURATED, "{value}"), [*agreeing[1:], high, *agreeing[1:]]) == []
    assert warnings(Agreeing("loss", SATURATED, "{value}", since=0.6), agreeing) == []
    assert warnings(Agreeing("other", SATURATED, "{value}"), agreeing) == []


def test_used_codes_are_a_share_of_those_that_a_micro_batch_could_use():
    assert used_share(torch.tensor([[0, 1, 1], [2, 2, 2]]), 100) == pytest.approx(3 / 6)
    assert used_share(torch.tensor([[0, 1, 1], [2, 2, 2]]), 4) == pytest.approx(3 / 4)
    assert used_share(torch.tensor([[5]]), 2**40) == 1.0


def test_a_codebook_that_collapses_is_warned_of_once(tmp_path):
    quantizer = {"use": "vq", "width": 4, "codebook_update": "gradient", "restart_threshold": 0.0, "codebook_size": 64}
    training = {**LONG, "optimizer": {"learning_rate": 0.02}}
    run = Project(tmp_path, tokenizer={"quantizer": quantizer}, train_tokenizer=training).run()
    lines = [line for line in run.printed.splitlines() if "of the codes that a micro-batch could use" in line]
    assert len(lines) == 1
    assert lines[0].startswith("train_tokenizer: step ")


def test_a_training_that_works_has_no_warning(tmp_path):
    assert "train_tokenizer: step" not in Project(tmp_path, train_tokenizer=LONG).run().printed
