"""Two processes and one run: of one training, one is killed; of two commands, one has the folder."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import run_and_act
from processes import launcher
from project import Project, assert_same_weights, contents, registry_with
from robustok_core import RunError, hookimpl
from robustok_training.progress import StepProgress

TRAINED = {"log_every": 2, "checkpoint_every": 4, "epochs": 2}  # 10 steps


def test_when_one_of_two_processes_is_killed_the_other_says_so_and_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    calm = Project(tmp_path / "calm", train_tokenizer=TRAINED).run_on_two()
    project = Project(tmp_path / "killed", train_tokenizer=TRAINED)
    done = run_and_act(project, "train_tokenizer", 3, signal.SIGKILL, "self", rank=0, launch=launcher())
    assert done.returncode not in (0, 130)
    assert "exitcode  : -9" in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("error on process 1: process 0 of this run (pid ")
    project.run_on_two()
    assert_same_weights(project.weights(), calm.weights())
    assert [line["step"] for line in project.logged()] == [line["step"] for line in calm.logged()]


@pytest.fixture
def during_a_run(tmp_path, monkeypatch) -> Callable[[Callable[[Project], None]], Project]:
    """Runs a project in a thread, and calls a function in the middle of its training."""
    reached, released = threading.Event(), threading.Event()
    real = StepProgress.update

    def update(self, done, values=None):
        real(self, done, values)
        reached.set()
        released.wait(60)

    monkeypatch.setattr(StepProgress, "update", update)

    def during(act: Callable[[Project], None]) -> Project:
        project = Project(tmp_path / "runs", train_tokenizer={"epochs": 0.4})
        thread = threading.Thread(target=project.run)
        thread.start()
        try:
            assert reached.wait(60)
            act(project)
        finally:
            released.set()
            thread.join()
        return project

    return during


def test_a_second_command_on_a_folder_is_refused_and_reading_ones_say_what_is_missing(
    during_a_run, refused, command, tmp_path
):
    def act(project: Project) -> None:
        before = contents(project.folder)
        assert "another command is using this folder" in refused("run", project.folder)
        (image := tmp_path / "image.png").touch()
        assert "this run trained a tokenizer and no generator" in refused("sample", project.folder, "--out", "new")
        assert "this run has no finished" in refused("encode", project.folder, image, "--out", "new.npz")
        refused("compare", project.folder, project.folder)
        assert command("history", project.folder)[0] == 0
        assert command("verify", project.folder)[0] == 0
        assert contents(project.folder) == before

    project = during_a_run(act)
    assert project.artifact("tokenizer").is_dir()


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def moved_and_replaced(folder: Path) -> None:
    moved(folder)
    shutil.copytree(folder.with_name("elsewhere"), folder)


@pytest.mark.parametrize("act", [moved, moved_and_replaced])
def test_a_run_whose_folder_is_moved_or_replaced_stops_and_writes_nothing_into_another(act, tmp_path):
    class Mover:
        @hookimpl
        def robustok_step_logged(self, folder, stage, step, values):
            if step == 4:
                act(folder)
                there.update(contents(folder) if folder.exists() else {})

    there: dict[str, bytes] = {}
    calm = Project(tmp_path / "calm", train_tokenizer=TRAINED).run()
    project = Project(tmp_path / "runs", train_tokenizer=TRAINED)
    with pytest.raises(RunError, match="this folder was moved, removed or replaced while a run wrote to it"):
        project.run(registry=registry_with(Mover()))
    left = contents(project.folder) if project.folder.exists() else {}
    assert not [name for name in left if left[name] != there.get(name) and not name.startswith("checkpoints")]
    if project.folder.exists():
        shutil.rmtree(project.folder)
    project.folder.with_name("elsewhere").rename(project.folder)
    project.run()
    assert_same_weights(project.weights(), calm.weights())
    assert [line["step"] for line in project.logged()] == [line["step"] for line in calm.logged()]
