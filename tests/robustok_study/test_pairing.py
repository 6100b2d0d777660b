"""Arms with one seed are paired: the same initial weights and the same batches in the same order."""

from __future__ import annotations

import pytest

from project import Project, assert_same_weights
from robustok_study.spec import read_study_file

NONE = {"perturbation.use": "none"}
ARMS = [
    {"name": "none", "set": NONE},
    {"name": "never", "set": {"perturbation.beta": 0.0}},  # other settings, so trained anew, but the same arithmetic
    {"name": "faster", "set": {**NONE, "stage.train_tokenizer.optimizer.learning_rate": 4e-3}},
]


@pytest.fixture
def trained(study_file, registry, tmp_path):
    """Trains an arm with a seed."""
    arms = {arm.name: arm for arm in read_study_file(str(study_file(arm=ARMS, claim=[])), registry).arms}

    def train(arm: str, seed: int) -> Project:
        out = tmp_path / "runs"
        return Project.of(arms[arm].at(seed, out).source.table, out).run(until="train_tokenizer")

    return train


def losses(project: Project) -> list[dict[str, float]]:
    """What each step logged of its losses."""
    return [
        {name: value for name, value in line.items() if name.endswith("loss")}
        for line in project.logged("train_tokenizer")
    ]


def test_arms_with_one_seed_start_from_the_same_weights_and_read_the_same_batches(trained):
    none, never, faster, other = trained("none", 0), trained("never", 0), trained("faster", 0), trained("none", 1)
    assert len(losses(none)) > 1
    assert all(losses(none))
    assert losses(never) == losses(none)
    assert_same_weights(never.weights(), none.weights())
    assert losses(faster)[0] == losses(none)[0]  # before the first update
    assert losses(faster)[1:] != losses(none)[1:]
    assert losses(other)[0] != losses(none)[0]
