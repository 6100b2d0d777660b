"""A step that became not finite is kept, and a replay names the loss term, the image and the module."""

from __future__ import annotations

import pytest
import torch
from attrs import frozen

from project import Project, contents, registry_with
from robustok_core import Loss
from robustok_core.runs.files import read_json
from robustok_training.not_finite import NotFinite, forget, recorded

BAD = 17  # an image of the training split


@frozen(kw_only=True)
class BadImageConfig:
    weight: float = 1.0


class NanLoss(Loss):
    """Not a number for one image."""

    Config = BadImageConfig
    compares_images = True

    def __init__(self, config: BadImageConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, step):
        errors = (step.images - step.batch.images).square().mean((1, 2, 3))
        return torch.where(step.batch.indices == BAD, torch.nan, errors).mean()


class NanGradientLoss(NanLoss):
    """Zero for one image, with a gradient that is not a number."""

    def forward(self, step):
        errors = (step.images - step.batch.images).square().sum((1, 2, 3))
        return (errors * (step.batch.indices != BAD)).sqrt().mean()


def failing(tmp_path, loss, **options) -> tuple[Project, dict]:
    losses = {"reconstruction": {"use": "reconstruction"}, "bad": {"use": "bad"}}
    project = Project(tmp_path, train_tokenizer={"losses": losses, "log_every": 5, **options})
    return project, {"registry": registry_with(loss={"bad": loss})}


def record_of(project: Project) -> dict:
    (file,) = (project.folder / "checkpoints").rglob("not_finite.json")
    return read_json(file)


@pytest.mark.parametrize("every", [0, 1])
def test_a_loss_that_is_not_a_number_for_one_image(tmp_path, every):
    project, options = failing(tmp_path, NanLoss, accumulation=2, checkpoint_every=every)
    said = project.refusal(**options)
    record = record_of(project)
    assert BAD in record["images"]
    assert len(record["images"]) == 8
    assert f"first in micro-batch {record['micro_batch']} of process 0 of step {record['step']}" in said
    assert "--replay finds the image and the module" in said
    kept = any((project.folder / "checkpoints").rglob("step-*"))
    assert ("earlier checkpoints are kept" in said) == kept
    before = (project.folder / "metrics.jsonl").read_bytes() if every else b""
    found = project.refusal(replay=True, **options)
    assert f"step {record['step']}, micro-batch {record['micro_batch']} of process 0: loss/bad not finite" in found
    assert f"for image {BAD}; first in the output of loss_bad (NanLoss)" in found
    assert not every or (project.folder / "metrics.jsonl").read_bytes() == before


def test_a_gradient_that_is_not_a_number_for_one_image(tmp_path):
    project, options = failing(tmp_path, NanGradientLoss)
    said = project.refusal(**options)
    assert "not finite" in said
    found = project.refusal(replay=True, **options)
    assert f"the loss finite and its gradient not, for image {BAD}; first in the gradient of MulBackward0" in found


def test_a_replay_of_a_run_that_has_not_failed_is_refused(tmp_path):
    project = Project(tmp_path)
    assert "there is no such run" in project.refusal(replay=True)
    assert not project.folder.exists()
    before = contents(project.run().folder)
    assert "every stage is done: no training stopped" in project.refusal(replay=True)
    project.table["perturbation"]["beta"] = 0.5
    assert "'train_tokenizer', has not stopped because of a value" in project.refusal(replay=True)
    assert contents(project.folder) == before


def test_a_step_that_was_not_finite_is_kept_until_the_training_has_passed_it(tmp_path):
    record = NotFinite(
        what="", step=100, process=None, micro_batch=None, images=[], stage_seed=0, step_seed=0, torch_seed=0
    )
    record.write(tmp_path)
    forget(tmp_path, 60)
    assert recorded(tmp_path) == record
    forget(tmp_path, 100)
    assert recorded(tmp_path) is None


def test_a_training_that_passes_the_step_forgets_it(tmp_path, monkeypatch):
    project, options = failing(tmp_path, NanLoss)
    project.refusal(**options)
    monkeypatch.setattr(NanLoss, "forward", lambda self, step: step.images.square().mean())
    assert "everything was finite" in project.refusal(replay=True, **options)
    project.run(**options)
    assert not list(project.folder.rglob("not_finite.json"))
