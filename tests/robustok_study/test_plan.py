"""The plan of a study: which job makes what others share."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustok_core import Recipe, RobustokError
from robustok_core.recipe.source import Source
from robustok_study.plan import Job, _tasks, _without_stale, make_plan
from robustok_study.slots import make_slots
from robustok_study.spec import read_study_file


def job(name: str, stages: str | None, needs: tuple[str, ...] = (), state="new") -> Job:
    """A job whose stages are letters; equal letters have equal fingerprints."""
    return Job(
        name=name,
        arm=name,
        seed=0,
        folder=Path(name),
        recipe=Recipe(source=Source(), default_name=name),
        stages=None if stages is None else {letter.lower(): letter for letter in stages},
        state=state,
        finished=[],
        needs=needs,
    )


def described(jobs: list[Job], done: set[str] = frozenset()) -> list[tuple[str, list[str]]]:
    return [(task.title, [before.title for before in task.after]) for task in _tasks(jobs, set(done))]


def test_the_first_job_makes_a_shared_stage_and_others_wait_for_that_stage_only():
    assert described([job("one", "AB"), job("two", "AC"), job("three", "AD")]) == [
        ("one until a", []),
        ("one", ["one until a"]),
        ("two", ["one until a"]),
        ("three", ["one until a"]),
    ]


def test_a_job_whose_last_stage_is_shared_is_one_task():
    assert described([job("one", "A"), job("two", "AB")]) == [("one", []), ("two", ["one"])]


def test_chains_of_shared_stages_wait_for_the_job_that_makes_each():
    assert described([job("one", "AX"), job("two", "ABY"), job("three", "ABC")]) == [
        ("one until a", []),
        ("one", ["one until a"]),
        ("two until b", ["one until a"]),
        ("two", ["two until b"]),
        ("three", ["one until a", "two until b"]),
    ]


def test_what_is_done_is_neither_made_nor_waited_for():
    assert described([job("one", "AB", state="done"), job("two", "AC"), job("three", "AD")], {"a-A", "b-B"}) == [
        ("two", []),
        ("three", []),
    ]


def test_a_job_that_loads_from_another_comes_after_it():
    assert described([job("two", None, ("one",)), job("one", "A")]) == [("one", []), ("two", ["one"])]


def test_what_an_arm_loads_is_not_known_while_that_must_be_made_anew():
    """Its results are of the old artifact: until the new one is there, it is not done."""
    jobs = [job("one", "A"), job("two", "B", ("one",), state="done"), job("three", "C", ("two",), state="done")]
    assert [(each.name, each.stages, each.state) for each in _without_stale(jobs)] == [
        ("one", {"a": "A"}, "new"),
        ("two", None, "begun"),
        ("three", None, "begun"),
    ]
    assert described(_without_stale(jobs)) == [("one", []), ("two", ["one"]), ("three", ["two"])]
    jobs[0] = job("one", "A", state="done")
    assert _without_stale(jobs) == jobs


def test_jobs_that_load_from_each_other_are_refused():
    with pytest.raises(RobustokError, match="load from each other: one, two"):
        described([job("one", None, ("two",)), job("two", None, ("one",))])


def test_a_circle_is_refused_with_the_file(study_file, registry):
    arms = [
        {"name": name, "stages": ["evaluate_tokenizer"], "load": {"tokenizer": other}}
        for name, other in (("one", "two"), ("two", "one"))
    ]
    with pytest.raises(RobustokError, match=r"s\.toml: arms load from each other: one, two"):
        make_plan(read_study_file(str(study_file(arm=arms)), registry), Path("runs/s"), registry)


def test_arms_with_one_tokenizer_share_it_seed_by_seed(study_file, registry):
    plan = make_plan(read_study_file(str(study_file()), registry), Path("runs/s"), registry)
    assert [job.name for job in plan.jobs] == [f"{arm}-seed{seed}" for seed in range(3) for arm in ("one", "two")]
    shared = {task.job.name: dict(task.shared) for task in plan.tasks if task.until is None}
    assert shared == {
        f"{arm}-seed{seed}": {"train_tokenizer": f"one-seed{seed}"} if arm == "two" else {}
        for seed in range(3)
        for arm in ("one", "two")
    }


def test_an_arm_may_run_some_stages_on_the_tokenizer_of_another_arm_and_seed(study_file, registry):
    arms = [{"name": "one"}, {"name": "two", "stages": ["evaluate_tokenizer"], "load": {"tokenizer": "one@0"}}]
    plan = make_plan(read_study_file(str(study_file(arm=arms)), registry), Path("runs/s"), registry)
    assert {job.name: list(job.needs) for job in plan.jobs if job.arm == "two"} == {
        f"two-seed{seed}": ["one-seed0"] for seed in range(3)
    }
    arms[1]["load"] = {"tokenizer": "one@4"}
    with pytest.raises(RobustokError, match="loads the tokenizer of seed 4, which is not one of the study's"):
        make_plan(read_study_file(str(study_file(arm=arms)), registry), Path("runs/s"), registry)


def test_a_job_that_loads_two_artifacts_of_one_run_waits_for_it_once(tmp_path, registry):
    plan = make_plan(read_study_file("transfer", registry), tmp_path, registry, check_images=False)
    assert {tuple(job.needs) for job in plan.jobs if job.arm == "rar-after"} == {(f"rar-seed{n}",) for n in range(3)}


def test_images_are_decoded_once_for_all_arms_with_one_data_set_and_never_for_a_look(study_file, registry, monkeypatch):
    data = {"use": "fashion_mnist", "train_limit": 20, "validation_limit": 10}
    arms = [{"name": "one", "set": {"data": data}}, {"name": "two", "set": {"data": data, "perturbation.beta": 0.5}}]
    study = read_study_file(str(study_file(arm=arms, claim=[])), registry)
    images = type(registry.build("dataset", data).train)
    load, decoded = images.load, []
    monkeypatch.setattr(images, "load", lambda self, rows, *more: decoded.extend(rows) or load(self, rows, *more))
    make_plan(study, Path("runs/s"), registry, check_images=False)
    assert decoded == []
    make_plan(study, Path("runs/s"), registry)
    assert len(decoded) == 20 + 10


def test_jobs_divide_the_cores_and_have_devices_of_their_own(monkeypatch):
    monkeypatch.setattr("robustok_study.slots._cores", lambda: 8)
    assert [slot.environment["OMP_NUM_THREADS"] for slot in make_slots(None, None, 3)] == ["2"] * 3
    assert [slot.environment["OMP_NUM_THREADS"] for slot in make_slots(2, 1, 3)] == ["1"] * 2
    monkeypatch.setattr("robustok_study.slots._devices", lambda: ["0", "3"])
    slots = make_slots(None, None, 6)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "3"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RobustokError, match="cannot be started on several processes"):
        make_slots(None, None, 6)
