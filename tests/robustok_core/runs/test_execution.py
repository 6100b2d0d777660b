"""What an interrupted stage says about going on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from project import Project
from robustok_core.errors import Interrupted
from robustok_core.runs.manifest import recorded_folder
from robustok_training.trainer import Trainer

STARTS, RESUMES = "starts this stage again", "resumes from the last checkpoint"


def a_checkpoint(folder: Path) -> None:
    with recorded_folder(folder / "step-000000001") as aside:
        (aside / "state.json").touch()


def half_a_checkpoint(folder: Path) -> None:
    (folder / ".writing-step-000000001").mkdir(parents=True)
    (folder / ".writing-step-000000001" / "manifest.json").touch()


def a_damaged_checkpoint(folder: Path) -> None:
    with recorded_folder(folder / "damaged-step-000000001") as aside:
        (aside / "state.json").touch()


def a_shard(folder: Path) -> None:
    half_a_shard(folder)
    (folder / "train-0-5.manifest.json").touch()


def half_a_shard(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "train-0-5.codes.npy").touch()


def a_step_that_was_not_finite(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "not_finite.json").touch()


@pytest.mark.parametrize(
    ("leave", "effect"),
    [
        (a_checkpoint, RESUMES),
        (a_shard, RESUMES),
        (half_a_checkpoint, STARTS),
        (a_damaged_checkpoint, STARTS),
        (half_a_shard, STARTS),
        (a_step_that_was_not_finite, STARTS),
    ],
)
def test_the_hint_says_whether_there_is_something_to_resume_from(
    tmp_path, monkeypatch, leave: Callable[[Path], None], effect: str
):
    def stop(trainer: Trainer) -> None:
        leave(trainer.context.checkpoints)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", stop)
    project = Project(tmp_path)
    with pytest.raises(Interrupted) as caught:
        project.run()
    assert caught.value.hint == f"the same command {effect}: {project.folder}"
