"""The plan of a study: which job makes what others share."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustok_core import Recipe, RobustokError
from robustok_core.recipe.source import Source, bundled_studies
from robustok_study.plan import _tasks, make_plan
from robustok_study.planner import Job
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


def test_an_arm_is_checked_before_what_it_loads_is_made(tmp_path, registry):
    """Else its mistake shows once the arms before it have run, hours later."""
    study = bundled_studies()["study/rounds"].read_text()
    wrong = study.replace("set.stage.make_pairs.another_round = true", "")
    (tmp_path / "rounds.toml").write_text(wrong)
    with pytest.raises(RobustokError, match="arm 'round2': this tokenizer is already post-trained") as caught:
        make_plan(read_study_file(str(tmp_path / "rounds.toml"), registry), tmp_path / "out", registry)
    assert "make pairs of it first, with another_round = true" in str(caught.value)
    (tmp_path / "rounds.toml").write_text(study)
    make_plan(read_study_file(str(tmp_path / "rounds.toml"), registry), tmp_path / "out", registry)


def test_an_arm_that_loads_what_another_one_does_not_have_is_refused(study_file, registry):
    arms = [{"name": "one"}, {"name": "two", "stages": ["evaluate_tokenizer"], "load": {"tokenizer": "one"}}]
    loads = {"tokenizer": "two", "generator": "two"}
    arms.append({"name": "three", "recipe": "main_train", "stages": ["sample"], "load": loads})
    study = read_study_file(str(study_file(arm=arms, claim=[], metrics=None)), registry)
    with pytest.raises(RobustokError, match=r"s\.toml:\d+: arm 'three' loads the generator of .*'two', which has none"):
        make_plan(study, Path("runs/s"), registry)


def test_a_generator_fits_the_tokenizer_of_another_arm_only_if_both_arms_train_it_alike(tmp_path, registry):
    study = bundled_studies()["study/transfer"].read_text()
    generator = next(line for line in study.splitlines() if line.startswith("set.generator = "))
    (tmp_path / "transfer.toml").write_text(study.replace(generator, f"{generator}\nset.perturbation.beta = 0.5"))
    with pytest.raises(RobustokError, match="trained on the latents of another tokenizer"):
        make_plan(read_study_file(str(tmp_path / "transfer.toml"), registry), tmp_path / "out", registry)
    (tmp_path / "transfer.toml").write_text(study)
    plan = make_plan(read_study_file(str(tmp_path / "transfer.toml"), registry), tmp_path / "out", registry)
    assert {job.stages is None for job in plan.jobs if "-after" in job.arm} == {True}


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
