"""Whoever stops a run, and whenever: it says so, exits with 130, and goes on as if it had not been stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import robustok_core.runs.interrupt
from commands import run_and_act
from processes import in_a_process_that_dies, kill, launcher
from project import COLOURS, POST_TRAINING, TO_SAMPLES, Project, assert_same_weights, contents
from robustok_core.errors import Interrupted
from robustok_core.runs.files import read_json
from robustok_training.progress import StepProgress

LOGGED_IN_PAIRS = {"log_every": 2, "checkpoint_every": 4, "epochs": 2, "workers": 2}  # 10 steps


def states(project: Project) -> list[str]:
    return [entry["state"] for entry in read_json(project.folder / "run.json")["stages"].values()]


def lines(project: Project) -> list[dict[str, Any]]:
    """metrics.jsonl without timings."""
    return [{key: line[key] for key in line if key != "images_per_second"} for line in project.logged()]


@pytest.fixture
def at_progress(monkeypatch) -> Iterator[Callable[..., None]]:
    """Calls a function when a stage reports its progress for the n-th time."""
    real = StepProgress.update

    def set_up(title: str, count: int, act: Callable[[], None]) -> None:
        seen = []

        def update(self: Any, done: int, values: Any = None) -> None:
            real(self, done, values)
            if self._title.startswith(title):
                seen.append(done)
                if len(seen) == count:
                    act()

        monkeypatch.setattr(StepProgress, "update", update)

    return set_up


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("whole"), train_tokenizer=LOGGED_IN_PAIRS).run()


@pytest.mark.parametrize("step", [1, 3, 4, 9, 10], ids="step {}".format)
@pytest.mark.parametrize("act", [ask, kill], ids=["SIGTERM", "SIGKILL"])
def test_the_log_and_the_weights_are_those_of_a_run_that_was_not_stopped(
    uninterrupted, tmp_path, at_progress, step, act
):
    project = Project(tmp_path, train_tokenizer={**LOGGED_IN_PAIRS, "workers": 0})
    at_progress("train_tokenizer", step, act)
    if act is kill:
        in_a_process_that_dies(project.run)
    else:
        with pytest.raises(Interrupted, match=f"stopped at step {step} of 10; a checkpoint is saved"):
            project.run()
        assert states(project) == ["interrupted"]
    at_progress("", 0, act)  # not again
    project.run()
    assert lines(project) == lines(uninterrupted)
    assert_same_weights(project.weights(), uninterrupted.weights())


def test_a_signal_to_the_whole_group_leaves_the_loaders_to_the_main_process(uninterrupted, tmp_path):
    project = Project(tmp_path, train_tokenizer=LOGGED_IN_PAIRS)
    done = run_and_act(project, "train_tokenizer", 3, signal.SIGTERM, "group")
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("error: stopped at step 3 of 10; a checkpoint is saved\n  hint: ")
    assert len(done.stderr.splitlines()) == 2
    assert states(project) == ["interrupted"]
    project.run()
    assert lines(project) == lines(uninterrupted)
    assert_same_weights(project.weights(), uninterrupted.weights())


def test_every_stage_answers_at_once_and_goes_on(trained, tmp_path, at_progress):
    stages = [*TO_SAMPLES, "evaluate_tokenizer", "evaluate_generator", *POST_TRAINING]
    project = Project(tmp_path, stages, evaluate_generator={"metrics": {"gfd": COLOURS}})
    asked: list[float] = []
    for number, stage in enumerate(stages):
        at_progress(
            "samples in" if stage == "evaluate_generator" else stage, 1, lambda: (asked.append(time.monotonic()), ask())
        )
        with pytest.raises(Interrupted, match="stopped") as caught:
            project.run()
        assert time.monotonic() - asked[-1] < 30, stage
        assert str(project.folder) in caught.value.hint
        assert states(project)[: number + 2] == [*["done"] * number, "interrupted", "new"][: len(stages)], stage
    at_progress("", 0, ask)  # not again
    project.run()
    for artifact in ("tokenizer", "latents", "generator", "samples"):
        of_stage = "train_tokenizer" if artifact == "tokenizer" else None
        made = contents(project.artifact(artifact, stage=of_stage))
        assert made == contents(trained.artifact(artifact, stage=of_stage)), artifact


def test_a_second_signal_ends_a_training_at_once(tmp_path, at_progress, monkeypatch):
    monkeypatch.setattr(robustok_core.runs.interrupt, "_ONE_REQUEST", 0.0)
    project = Project(tmp_path)
    at_progress("train_tokenizer", 2, lambda: (ask(), ask()))
    with pytest.raises(Interrupted, match="stopped in stage 'train_tokenizer'") as caught:
        project.run()
    assert "starts this stage again" in caught.value.hint
    assert states(project) == ["interrupted"]


def kill_a_loader() -> None:
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)


@pytest.mark.parametrize("step", [1, 3])
def test_a_loader_that_is_killed_for_memory_is_said_to_be(tmp_path, at_progress, step):
    project = Project(tmp_path, train_tokenizer={**LOGGED_IN_PAIRS, "workers": 1})
    at_progress("train_tokenizer", step, kill_a_loader)
    said = project.refusal()
    assert said.startswith("data loader: a process that loads images was killed or has failed (SIGKILL) (")
    assert "memory" in said
    assert states(project) == ["failed"]


def test_two_processes_stop_at_the_same_step_and_say_so_once(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    project = Project(tmp_path, train_tokenizer=LOGGED_IN_PAIRS)
    done = run_and_act(project, "train_tokenizer", 3, signal.SIGTERM, "launcher", launch=launcher())
    assert done.returncode != 0
    assert done.stderr.count("a checkpoint is saved") == 1, done.stderr
    assert states(project) == ["interrupted"]
    project.run_on_two()
    assert [line["step"] for line in lines(project)] == [line["step"] for line in lines(uninterrupted)]
    assert lines(project)[-1]["tokenizer/loss"] == pytest.approx(lines(uninterrupted)[-1]["tokenizer/loss"], rel=1e-2)
