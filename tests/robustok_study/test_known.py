"""`robustok study --reuse study.json`: results of a published study, whose runs are not here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest

from left_runs import MEASURED, distance
from robustok_core.runs.files import read_json
from robustok_core.runs.records import read_record
from robustok_core.runs.results import results_of
from robustok_study.known import KnownRun, reused
from robustok_study.plan import make_plan
from robustok_study.record import RunOfStudy, StudyRecord, read_study, write_study
from robustok_study.results import gather
from robustok_study.spec import read_study_file
from studies import finished_job, study_table

ARMS = study_table()["arm"]
OTHER = {"name": "three", "set": {"perturbation": {"beta": 0.5}}}


@pytest.fixture(scope="module")
def finished() -> dict[str, bytes]:
    """Holds the record of a study once one has run."""
    return {}


@pytest.fixture
def published(study_file, command, finished) -> Path:
    """The record of a study of two arms with two seeds; its runs are gone."""
    study_file(seeds=[0, 1])
    if not finished:
        code, _, errors = command("study", "s.toml")
        assert code == 0, errors
        finished["record"] = Path("runs/s/study.json").read_bytes()
        shutil.rmtree("runs")
    Path("published.json").write_bytes(finished["record"])
    return Path("published.json")


def values(record: StudyRecord, arm: str) -> dict[str, dict[str, float]]:
    return {metric.label: dict(metric.arms[arm].by_seed) for metric in record.metrics}


def runs_of(record: StudyRecord, arm: str) -> list[RunOfStudy]:
    return [run for run in record.runs if run.arm == arm]


def test_an_arm_is_added_to_a_published_study_without_running_the_others(published, study_file, command):
    before = read_json(published)
    study_file("more.toml", arm=[*ARMS, OTHER], seeds=[0])
    code, output, _ = command("study", "more.toml", "--reuse", str(published), "--dry-run")
    assert code == 0
    assert re.search(rf"one-seed0 +known +0 of 2 +results of study s \({before['fingerprint']}\)", output)
    assert "left: 1 job" in output
    code, output, errors = command("study", "more.toml", "--reuse", str(published), "--jobs", "1")
    assert code == 0, errors
    assert [path.parent.name for path in Path("runs/more").glob("*/run.json")] == ["three-seed0"]
    record = read_study(Path("runs/more"))
    assert record.missing == []
    for arm in ("one", "two"):
        by_seed = {metric["label"]: metric["arms"][arm]["by_seed"] for metric in before["metrics"]}
        assert values(record, arm) == {label: {"0": of_arm["0"]} for label, of_arm in by_seed.items()}
        assert {run.taken_from for run in runs_of(record, arm)} == {f"s ({before['fingerprint']})"}
        assert all(run.state == "done" and run.seconds == 0.0 and run.made_with for run in runs_of(record, arm))
    assert {run.taken_from for run in runs_of(record, "three")} == {None}
    assert set(record.metrics[0].differences) == {"two", "three"}
    said = f"results taken from the record of study s ({before['fingerprint']}): one-seed0, two-seed0"
    assert said in " ".join(output.split())
    assert said in Path("runs/more/study.md").read_text()

    # What was taken stays so without --reuse, and can be taken from this record in turn, under its first name.
    code, output, _ = command("study", "more.toml")
    assert code == 0
    assert "left" not in output
    assert read_study(Path("runs/more")).runs == record.runs
    study_file(arm=ARMS[:1], claim=[], seeds=[0])
    command("study", "s.toml", "--reuse", "runs/more/study.json")
    assert read_study(Path("runs/s")).runs == runs_of(record, "one")
    assert not list(Path("runs/s").glob("*/run.json"))


def test_a_study_goes_on_from_the_record_of_a_part_that_ran_elsewhere(published, command):
    before = read_json(published)
    for run in before["runs"]:
        if run["seed"] == 1:
            run |= {"state": "new", "results": {}, "seconds": 0.0}
    Path("part.json").write_text(json.dumps(before))
    code, output, errors = command("study", "s.toml", "--reuse", "part.json", "--jobs", "1")
    assert code == 0, errors
    assert "results taken" not in output
    assert sorted(path.parent.name for path in Path("runs/s").glob("*/run.json")) == ["one-seed1", "two-seed1"]
    record, whole = read_study(Path("runs/s")), read_record(StudyRecord, published)
    for arm in ("one", "two"):
        assert {label: by_seed["0"] for label, by_seed in values(record, arm).items()} == {
            label: by_seed["0"] for label, by_seed in values(whole, arm).items()
        }
        assert all(by_seed.keys() == {"0", "1"} for by_seed in values(record, arm).values())
        first, second = runs_of(record, arm)
        assert first.seconds == next(run.seconds for run in runs_of(whole, arm) if run.seed == 0) > 0.0
        assert second.seconds > 0.0
    code, output, errors = command("study", "s.toml", "--dry-run")
    assert (code, "left: 0 jobs" in output) == (0, True), "the part is part of its record now"


def test_what_an_arm_loads_is_made_though_its_results_are_known(published, study_file, command):
    arms = [*ARMS, {"name": "again", "stages": ["evaluate_tokenizer"], "load": {"tokenizer": "one"}}]
    study_file("more.toml", arm=arms, seeds=[0])
    output = command("study", "more.toml", "--reuse", str(published), "--dry-run")[1]
    assert re.search(r"one-seed0 +new", output)
    assert re.search(r"two-seed0 +known", output)


def test_an_arm_that_loads_is_known_together_with_what_it_loads(study_file, registry, tmp_path):
    measures = {"stages": ["evaluate_tokenizer"], "load": {"tokenizer": "one"}}
    arms = [{"name": "one"}, {"name": "two", **measures}, {"name": "three", **measures}]
    psnr = "evaluate_tokenizer/psnr"
    table = {"arm": arms, "seeds": [0, 1], "metrics": {"PSNR": psnr}, "claim": []}
    study = read_study_file(str(study_file(**table)), registry)
    planned = make_plan(study, tmp_path / "s", registry, checks=False)
    record = gather(study, planned.jobs, {})
    whole = [
        attrs.evolve(
            run, state="done", results={psnr: {"value": 3.0}}, stages=run.stages or {"evaluate_tokenizer": run.folder}
        )
        for run in record.runs
    ]

    def known(*left: str, **changes: Any) -> list[str]:
        """The runs that are known where the record lacks the results of some; and none of the others runs."""
        runs = [attrs.evolve(run, state="new", results={}) if run.folder in left else run for run in whole]
        (tmp_path / "record").mkdir(exist_ok=True)
        write_study(tmp_path / "record", attrs.evolve(record, runs=runs))
        study = read_study_file(str(study_file(**table | changes)), registry)
        reuse = reused([tmp_path / "record" / "study.json"], tmp_path / "s")
        plan = make_plan(study, tmp_path / "s", registry, checks=False, reuse=reuse)
        found = [job for job in plan.jobs if job.known is not None]
        assert {job.name for job in found}.isdisjoint(task.job.name for task in plan.tasks)
        stages = {run.folder: run.stages for run in whole}
        assert all(job.stages == stages[job.name] for job in found)
        return [job.name for job in found]

    assert known() == [run.folder for run in whole]
    assert known("three-seed1") == ["one-seed0", "two-seed0", "three-seed0"]  # it loads what the first must make again
    assert known("one-seed0") == ["one-seed1", "two-seed1", "three-seed1"]
    other = {"name": "two", **measures, "set": {"stage.evaluate_tokenizer.pictures": 2}}
    assert known(arm=[arms[0], other, arms[2]]) == []
    assert known(arm=[{"name": "one", "set": {"perturbation.beta": 0.5}}, *arms[1:]]) == []


def test_a_record_without_a_result_that_is_asked_for_is_not_enough(published, study_file, command):
    study_file("more.toml", metrics={"PSNR": "evaluate_tokenizer/psnr"}, claim=[], seeds=[0])
    assert "known" in command("study", "more.toml", "--reuse", str(published), "--dry-run")[1]
    table = read_json(published)
    for run in table["runs"]:
        del run["results"]["evaluate_tokenizer/psnr"]
    published.write_text(json.dumps(table))
    assert "known" not in command("study", "more.toml", "--reuse", str(published), "--dry-run")[1]


def test_results_that_were_measured_otherwise_have_no_verdict(study_file, registry, tmp_path):
    """What they depend on travels with them."""
    claim = {"text": "it falls", "metric": "eval/gfd", "arm": "two", "base": "one", "direction": "lower"}
    study = read_study_file(str(study_file(metrics={"gFD": "eval/gfd"}, claim=[claim])), registry)
    for size, verdict in ((32, "reproduced"), (64, "undecided")):
        recipe = {**MEASURED, "data": {**MEASURED["data"], "image_size": size}}
        jobs = [
            finished_job(
                tmp_path / str(size), arm, seed, {"eval/gfd": distance(value * (1 + seed / 50), 1000)}, recipe=of
            )
            for arm, value, of in (("one", 330.0, recipe), ("two", 300.0, MEASURED))
            for seed in range(3)
        ]
        before = gather(study, jobs, {})
        known = [
            KnownRun(
                seconds=0.0,
                study="s (1)",
                results=results_of(run.results),
                conditions=run.conditions,
                made_with=run.made_with,
            )
            for run in before.runs
        ]
        jobs = [attrs.evolve(job, state="new", known=one) for job, one in zip(jobs, known, strict=True)]
        shutil.rmtree(tmp_path / str(size))
        after = gather(study, jobs, {})
        assert after.claims == before.claims
        assert after.claims[0].verdict == verdict
        assert ("different picture size" in after.claims[0].reason) == (verdict == "undecided")


def test_files_that_are_no_records_are_refused(published, study_file, refused):
    study_file("more.toml")
    Path("results.json").write_text('{"psnr": 3.0}')
    said = refused("study", "more.toml", "--reuse", "results.json")
    assert "results.json: this is no record of a study" in said
    assert "name a run, a folder of runs, or a study's study.json" in said
    table = read_json(published)
    for run in table["runs"]:
        del run["results"]
    published.write_text(json.dumps(table))
    assert "no run in this record holds results" in refused("study", "more.toml", "--reuse", str(published))
    assert "--reuse nowhere: there is no such file or folder" in refused("study", "more.toml", "--reuse", "nowhere")
    Path("folder").mkdir()
    for content, message in (("{", "this is no record of a study"), (published.read_text(), "holds results")):
        Path("folder/study.json").write_text(content)
        assert message in refused("study", "more.toml", "--reuse", "folder", "--dry-run")
    assert "published.json is a file" in refused("run", "r.toml", "--reuse", "published.json")
