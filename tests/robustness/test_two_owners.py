"""Two processes and one run: of one training, one is killed; of two commands, one has the folder."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from commands import run_and_act
from processes import launcher
from project import Project, assert_same_weights, contents
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
    # torch's launcher may ask the other process to stop before it notices
    assert said[0].startswith(
        (
            "error on process 1: another process of this run has stopped (",
            "error on process 1: stopped in stage 'train_",
        )
    )
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
        for reading, out in ((("sample", project.folder), "new"), (("encode", project.folder, image), "new.npz")):
            assert "this run has no finished" in refused(*reading, "--out", out)
        refused("compare", project.folder, project.folder)
        assert command("history", project.folder)[0] == 0
        assert command("verify", project.folder)[0] == 0
        assert contents(project.folder) == before

    project = during_a_run(act)
    assert project.artifact("tokenizer").is_dir()
