"""Tasks as processes: what is made instead, and what is given up, when a task fails."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from project import recipe_of
from robustok_core import Recipe
from robustok_core.errors import Interrupted
from robustok_core.runs.files import read_json
from robustok_study.jobs import Jobs
from robustok_study.plan import Task
from robustok_study.planner import Job
from robustok_study.slots import Slot

GOOD = recipe_of(["train_tokenizer"])
#: Refused at once, as a process that dies at its start.
BAD = recipe_of(["train_tokenizer"], train_tokenizer={"epochs": 0})


def job(name: str, table: dict, out: Path, needs: tuple[str, ...] = ()) -> Job:
    return Job(
        name=name,
        arm=name,
        seed=0,
        folder=out / name,
        recipe=Recipe.from_table({**table, "run": {**table["run"], "name": name}}),
        stages=None,
        state="new",
        finished=[],
        needs=needs,
    )


@pytest.fixture
def outcome(tmp_path):
    """Runs tasks, two at once; returns what became of each, in the order in which they ended."""

    def run(tasks: list[Task]) -> list[tuple[str, str]]:
        ended: list[tuple[str, str]] = []

        def note(task, failure):
            ended.append((task.title, "" if failure is None else failure.what))

        slots = [Slot(f"slot {number}", {"OMP_NUM_THREADS": "1"}) for number in range(2)]
        Jobs(tmp_path, slots, lambda line: None, note).run(tasks)
        return ended

    return run


def test_what_a_failed_job_should_have_made_is_made_by_one_that_needs_it_while_others_wait(tmp_path, outcome):
    maker = Task(job=job("maker", BAD, tmp_path), until="train_tokenizer", after=[])
    rest = Task(job=maker.job, until=None, after=[maker])
    heirs = [Task(job=job(name, GOOD, tmp_path), until=None, after=[maker]) for name in ("two", "three")]
    found = outcome([maker, rest, *heirs])
    assert found[0][0] == "maker until train_tokenizer"
    assert "epochs" in found[0][1]
    assert found[1] == ("maker", "not started, because maker until train_tokenizer failed")
    assert found[2:] == [("two", ""), ("three", "")]
    assert [_taken(tmp_path / name) for name in ("two", "three")] == [None, str((tmp_path / "two").resolve())]


def test_what_ends_while_the_others_stop_is_said(tmp_path):
    """One has failed, and one is done; the third is asked to stop, which is no failure."""
    long = recipe_of(["train_tokenizer"], train_tokenizer={"epochs": 100000})
    tasks = [
        Task(job=job(name, table, tmp_path), until=None, after=[])
        for name, table in (("bad", BAD), ("good", GOOD), ("long", long))
    ]
    ended: dict[str, bool] = {}

    def say(line: str) -> None:
        if line.startswith("long: started"):
            os.kill(os.getpid(), signal.SIGTERM)
        if line.startswith("stopping 3 jobs"):  # before they are asked to
            processes = [one.process for one in jobs._running]
            while [process.poll() is None for process in processes] != [False, False, True]:
                time.sleep(0.1)

    slots = [Slot(f"slot {number}", {"OMP_NUM_THREADS": "1"}) for number in range(3)]
    jobs = Jobs(tmp_path, slots, say, lambda task, failure: ended.update({task.title: failure is None}))
    with pytest.raises(Interrupted):
        jobs.run(tasks)
    assert ended == {"bad": False, "good": True}


def _taken(run: Path) -> str | None:
    (entry,) = read_json(run / "run.json")["stages"].values()
    return entry.get("taken_from")


def test_after_two_failures_of_a_shared_stage_the_others_are_given_up(tmp_path, outcome):
    maker = Task(job=job("maker", BAD, tmp_path), until=None, after=[])
    two, three = (Task(job=job(name, BAD, tmp_path), until=None, after=[maker]) for name in ("two", "three"))
    loads = Task(job=job("loads", GOOD, tmp_path, needs=("maker",)), until=None, after=[maker])
    reasons = dict(outcome([maker, two, three, loads]))
    assert "epochs" in reasons["two"]
    assert reasons["three"] == "not started, because maker and two failed"
    assert reasons["loads"] == "not started, because maker failed"  # what it loads is that job's only
    assert not (tmp_path / "three").exists()
