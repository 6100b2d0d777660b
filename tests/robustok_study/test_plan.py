"""The plan of a study: which job makes what others share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustok_core import Recipe, RobustokError
from robustok_core.kinds.stage import Stage
from robustok_core.recipe.source import Source, bundled_studies
from robustok_stages.tokenizer.train_tokenizer import TrainTokenizer
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
    wrong = study.replace("set.stage.make_pairs.another_round = true", "", 1)
    (tmp_path / "rounds.toml").write_text(wrong)
    with pytest.raises(RobustokError, match="arm 'round2': this tokenizer is already post-trained") as caught:
        make_plan(read_study_file(str(tmp_path / "rounds.toml"), registry), tmp_path / "out", registry)
    assert "set another_round = true in the stage that makes the pairs" in str(caught.value)


def test_pairs_of_one_arm_train_another_but_not_a_tokenizer_that_it_trains_itself(tmp_path, registry):
    study = bundled_studies()["study/rounds"].read_text()
    third = study[study.index('[[arm]]\nname = "round3"') : study.index("[[claim]]")]
    arm = """[[arm]]
name = "round3"
stages = ["post_train", "compare_decoders"]
load = { tokenizer = "round1", pairs = "round2", generator = "round1" }

"""
    (tmp_path / "rounds.toml").write_text(study.replace(third, arm))
    make_plan(read_study_file(str(tmp_path / "rounds.toml"), registry), tmp_path / "out", registry)
    own = arm.replace('["post', '["train_tokenizer", "post').replace(' tokenizer = "round1",', "")
    (tmp_path / "rounds.toml").write_text(study.replace(third, own))
    with pytest.raises(RobustokError, match="'round3': these pairs were not made with the tokenizer in stage train"):
        make_plan(read_study_file(str(tmp_path / "rounds.toml"), registry), tmp_path / "out", registry)


def test_an_arm_is_not_checked_where_a_stage_does_not_say_what_it_makes(study_file, registry, monkeypatch):
    monkeypatch.setattr(TrainTokenizer, "plan", Stage.plan)
    arms = [{"name": "one", "stages": ["train_tokenizer"]}, measuring("two", "one")]
    study = read_study_file(str(study_file(arm=arms, claim=[], metrics=None)), registry)
    assert [job.name for job in make_plan(study, Path("runs/s"), registry).jobs[:2]] == ["one-seed0", "two-seed0"]


def test_components_that_two_arms_will_make_must_fit_each_other(tmp_path, registry):
    study = bundled_studies()["study/transfer"].read_text()
    generator = next(line for line in study.splitlines() if line.startswith("set.generator = "))
    other = f"{generator}\nset.tokenizer.quantizer.codebook_size = 256"
    (tmp_path / "transfer.toml").write_text(study.replace(generator, other))
    with pytest.raises(RobustokError, match=r": arms 'gpt-after', 'gpt-after-control': .*K=256"):
        make_plan(read_study_file(str(tmp_path / "transfer.toml"), registry), tmp_path / "out", registry)


def loading(name: str, **load: str) -> dict[str, Any]:
    """An arm that measures or decodes with what others made."""
    return {"name": name, "recipe": "main_train", "stages": ["sample"], "load": load}


def measuring(name: str, of: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "stages": ["evaluate_tokenizer"], "load": {"tokenizer": of}, **changes}


def refusal(study_file, registry, *arms: dict[str, Any], **changes: Any) -> str:
    file = study_file(arm=list(arms), claim=[], **{"metrics": None, **changes})
    with pytest.raises(RobustokError) as caught:
        make_plan(read_study_file(str(file), registry), Path("runs/s"), registry)
    return str(caught.value)


def test_an_arm_that_loads_what_another_one_does_not_have_is_refused(study_file, registry):
    message = refusal(study_file, registry, {"name": "one"}, loading("two", tokenizer="one", generator="one"))
    where = f"s.toml:{line_of('generator = ')}: arm 'two': it loads the generator of arm 'one', which has none"
    assert f"{where} (it has: tokenizer, tokenizer_pictures)" in message


def test_a_mistake_is_said_once_with_the_arms_that_have_it(study_file, registry):
    """Not of those that load from them, nor of those for which the same line is right."""
    wrong = {"name": "bad", "set": {"data.train_limit": 20}}
    arms = [{"name": "one"}, wrong, measuring("two", "bad"), measuring("three", "two"), measuring("four", "bad@1")]
    message = refusal(study_file, registry, *arms, set={"stage.train_tokenizer.batch_size": 32})
    (line,) = message.splitlines()
    assert line.startswith(f"s.toml:{line_of('batch_size')}: arm 'bad': stage.train_tokenizer.batch_size: ")


def test_a_circle_is_said_with_the_file_and_with_other_mistakes(study_file, registry):
    arms = [measuring("one", "two"), measuring("two", "one"), {"name": "three"}]
    message = refusal(study_file, registry, *arms, metrics={"PSNR": "evaluate_tokenizer/pnsr"})
    assert "s.toml: arms load from each other: one, two" in message
    assert "evaluate_tokenizer/pnsr: no arm measures it" in message


def line_of(text: str) -> int:
    """The number of the first line of the study with this text."""
    return next(number for number, line in enumerate(Path("s.toml").read_text().splitlines(), 1) if text in line)


def test_a_job_that_loads_two_artifacts_of_one_run_waits_for_it_once(tmp_path, registry):
    plan = make_plan(read_study_file("transfer", registry), tmp_path, registry, checks=False)
    assert {tuple(job.needs) for job in plan.jobs if job.arm == "rar-after"} == {(f"rar-seed{n}",) for n in range(3)}


def test_images_are_decoded_once_for_all_arms_with_one_data_set_and_never_for_a_look(study_file, registry, monkeypatch):
    data = {"use": "fashion_mnist", "train_limit": 20, "validation_limit": 10}
    arms = [{"name": "one", "set": {"data": data}}, {"name": "two", "set": {"data": data, "perturbation.beta": 0.5}}]
    study = read_study_file(str(study_file(arm=arms, claim=[])), registry)
    images = type(registry.build("dataset", data).train)
    load, decoded = images.load, []
    monkeypatch.setattr(images, "load", lambda self, rows, *more: decoded.extend(rows) or load(self, rows, *more))
    make_plan(study, Path("runs/s"), registry, checks=False)
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
