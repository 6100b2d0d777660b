"""The record of a study from its runs' folders: what may not be compared has no verdict."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import attrs
import pytest

from left_runs import MEASURED, distance
from robustok_core import RobustokError
from robustok_core.runs.conditions import NUM_IMAGES
from robustok_study.planner import Job, state_of
from robustok_study.results import gather
from robustok_study.spec import read_study_file
from robustok_study.tables import caveats, gaps, write_markdown
from studies import finished_job

CLAIM = {"text": "it falls", "metric": "eval/gfd", "arm": "two", "base": "one", "direction": "lower"}
VALUES = {"one": [330.0, 340.0, 326.0], "two": [300.0, 312.0, 295.0]}


def job(folder: Path, arm: str, seed: int, value: float, *, num_images: int = 1000, image_size: int = 32) -> Job:
    """A finished run of an arm with one distance."""
    recipe = copy.deepcopy(MEASURED)
    recipe["data"]["image_size"] = image_size
    return finished_job(folder, arm, seed, {"eval/gfd": distance(value, num_images)}, recipe=recipe)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"image_size": 64}, "different picture size (one, seed 0: 32 x 32, two, seed 1: 64 x 64)"),
        ({"num_images": 500}, f"different {NUM_IMAGES} (one, seed 0: 1,000, two, seed 1: 500)"),
    ],
)
def test_a_claim_on_numbers_that_may_not_be_compared_has_no_verdict(study_file, registry, tmp_path, change, reason):
    study = read_study_file(str(study_file(metrics={"gFD": "eval/gfd"}, claim=[CLAIM])), registry)
    jobs = [
        job(tmp_path, arm, seed, value, **(change if (arm, seed) == ("two", 1) else {}))
        for arm, values in VALUES.items()
        for seed, value in enumerate(values)
    ]
    record = gather(study, jobs, {})
    (metric,), (claim,) = record.metrics, record.claims
    if reason is None:
        assert (claim.verdict, metric.problem) == ("reproduced", None)
        assert metric.differences["two"].significant
        return
    assert claim.verdict == "undecided"
    assert metric.problem == f"eval/gfd was measured with {reason}"
    assert claim.reason == metric.problem.replace("one, seed 0", "two, seed 0")  # its arm comes first
    assert claim.difference is None
    assert not metric.arms
    assert not metric.differences


def test_a_study_names_each_commit_and_machine_and_what_auto_came_to_once(study_file, registry, tmp_path):
    study = read_study_file(str(study_file(metrics={"gFD": "eval/gfd"}, claim=[])), registry)
    made_with = [
        {"robustok": "1", "git_commit": None, "device": "cpu", "auto_precision": "bf16", "cpus": 2},
        {"robustok": "1", "git_commit": None, "device": "cpu", "auto_precision": "bf16", "cpus": 4},
        {"robustok": "1", "git_commit": None, "device": "cpu", "auto_precision": None},
        {"robustok": "1", "device": "cpu"},
    ]
    jobs = [
        finished_job(tmp_path, arm, seed, {"eval/gfd": distance(value)}, made_with=made_with)
        for arm, values in VALUES.items()
        for seed, value in enumerate(values)
    ]
    assert gather(study, jobs, {}).made_with == [
        {"robustok": "1", "device": "cpu", "auto_precision": "bf16"},
        {"robustok": "1", "device": "cpu"},
    ]


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (("Ryzen (AVX2)", "Ryzen (AVX2)"), []),
        (("Ryzen (AVX2)", "Ryzen (AVX512)"), ["different devices, so that differences are not exactly paired"]),
        (("x86_64", "Ryzen (AVX2)"), ["not all are known by name, so that differences may not be exactly paired"]),
        (("x86_64", "NVIDIA H200"), ["different devices, so that differences are not exactly paired"]),
        (("x86_64", "aarch64 (DEFAULT)"), ["different devices, so that differences are not exactly paired"]),
        (
            ("aarch64", "aarch64 (DEFAULT)"),
            ["not all are known by name, so that differences may not be exactly paired"],
        ),
    ],
)
def test_runs_of_different_devices_are_not_exactly_paired(study_file, registry, tmp_path, devices, said):
    study = read_study_file(str(study_file(metrics={"gFD": "eval/gfd"}, claim=[])), registry)
    jobs = [
        finished_job(tmp_path, arm, seed, {"eval/gfd": distance(value)}, made_with=[{"device": device}])
        for (arm, values), device in zip(VALUES.items(), devices, strict=True)
        for seed, value in enumerate(values)
    ]
    shown = list(caveats(gather(study, jobs, {})))
    assert len(shown) == len(said)
    assert all(f"{why}: {', '.join(sorted(devices))}" in line for line, why in zip(shown, said, strict=True))


def test_different_versions_of_robustok_and_torch_are_said_where_they_are_known(study_file, registry, tmp_path):
    study = read_study_file(str(study_file(metrics={"gFD": "eval/gfd"}, claim=[])), registry)

    def shown(made_with: list[dict[str, str]]) -> list[str]:
        return list(caveats(attrs.evolve(gather(study, [], {}), made_with=made_with)))

    same = {"robustok": "1", "git_commit": "a", "torch": "2.6"}
    assert shown([same, same, {"device": "cpu"}, {"robustok": "1"}]) == []
    assert shown([same, {**same, "git_commit": "b"}]) == ["made with different commits of robustok: a, b"]
    commits = [{"robustok": "1", "git_commit": commit, "torch": "2.6"} for commit in "dcba"]
    assert shown([*commits, {"robustok": "2", "torch": "2.7"}]) == [
        "made with different versions of robustok: 1, 2",
        "made with different commits of robustok: a, b, c, ...",
        "made with different versions of torch: 2.6, 2.7",
    ]


def test_a_claim_on_two_differences_decides_their_difference(study_file, registry, tmp_path):
    """What one arm gains beyond what another pair gains."""
    arms = [{"name": name} for name in ("one", "two", "three", "four")]
    values = {**VALUES, "three": [200.0, 210.0, 190.0], "four": [195.0, 206.0, 184.0]}
    claim = {**CLAIM, "beyond": {"arm": "four", "base": "three"}}
    study = read_study_file(str(study_file(arm=arms, metrics={"gFD": "eval/gfd"}, claim=[claim])), registry)
    jobs = [job(tmp_path, arm, seed, value) for arm, of in values.items() for seed, value in enumerate(of)]
    (found,) = gather(study, jobs, {}).claims
    assert found.difference.by_seed == pytest.approx({"0": -30 + 5, "1": -28 + 4, "2": -31 + 6})
    assert (found.verdict, found.beyond) == ("reproduced", {"arm": "four", "base": "three"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beyond": {"arm": "four", "base": "one"}}, "no arm is called 'four'"),
        ({"beyond": {"arm": "one", "base": "one"}}, "an arm cannot be compared with itself"),
        ({"beyond": {"arm": "two", "base": "one"}}, "this is the pair of arms of the claim itself"),
        ({"beyond": {"arm": "two", "base": "one"}, "base": None}, "name a base, too"),
    ],
)
def test_mistakes_in_a_claim_on_two_differences(study_file, registry, change, message):
    claim = {key: value for key, value in (CLAIM | change).items() if value is not None}
    with pytest.raises(RobustokError, match=message):
        read_study_file(str(study_file(metrics={"gFD": "eval/gfd"}, claim=[claim])), registry)


def test_gains_that_are_equal_up_to_rounding_decide_nothing(study_file, registry, tmp_path):
    arms = [{"name": name} for name in ("one", "two", "three", "four")]
    one, three = [500.1, 512.7, 498.3], [4000.7, 891.2, 195.9]
    values = {"one": one, "two": [x - 19.8 for x in one], "three": three, "four": [x - 19.8 for x in three]}
    claim = {**CLAIM, "beyond": {"arm": "four", "base": "three"}}
    study = read_study_file(str(study_file(arm=arms, metrics={"gFD": "eval/gfd"}, claim=[claim])), registry)
    jobs = [job(tmp_path, arm, seed, value) for arm, of in values.items() for seed, value in enumerate(of)]
    (found,) = gather(study, jobs, {}).claims
    assert len(set(found.difference.by_seed.values())) > 1
    assert found.reason == "all seeds gave the same number, so they are no repetitions"


def test_an_arm_without_a_finite_value_is_left_out_and_said(study_file, registry, tmp_path):
    arms = [{"name": name} for name in ("one", "two", "three")]
    claims = [CLAIM, {**CLAIM, "base": "three"}]
    study = read_study_file(str(study_file(arm=arms, metrics={"gFD": "eval/gfd"}, claim=claims)), registry)
    jobs = [job(tmp_path, arm, seed, value) for arm, of in VALUES.items() for seed, value in enumerate(of)]
    jobs += [job(tmp_path, "three", seed, float("nan")) for seed in range(3)]
    record = gather(study, jobs, {})
    assert record.claims[1].reason == "three, seed 0: eval/gfd is not finite"
    (metric,) = record.metrics
    assert set(metric.arms) == {"one", "two"}
    assert set(metric.differences) == {"two"}
    assert metric.left_out == {"three": "seed 0: eval/gfd is not finite"}
    assert "gFD: the arm three is left out: seed 0: eval/gfd is not finite" in list(gaps(record))


def test_the_table_says_which_seeds_an_arm_lacks(study_file, registry, tmp_path):
    study = read_study_file(str(study_file(metrics={"gFD": "eval/gfd"}, claim=[])), registry)
    jobs = [job(tmp_path, arm, seed, value) for arm, of in VALUES.items() for seed, value in enumerate(of)]
    write_markdown(tmp_path, gather(study, [one for one in jobs if one.name != "two-seed1"], {}))
    rows = [line.split(" | ")[-1] for line in (tmp_path / "study.md").read_text().splitlines() if "| gFD" in line]
    rows += [line.split(" | ")[-1] for line in (tmp_path / "study.md").read_text().splitlines() if "| two |" in line]
    assert rows == ["330, 340, 326 |", "300, –, 295 |"]


def test_a_run_whose_results_are_damaged_is_not_done(study_file, registry, tmp_path):
    """It is run again, which writes them again."""
    one = job(tmp_path, "one", 0, 1.0)
    assert state_of(one.folder, one.stages) == "done"
    results = one.folder / "results.json"
    results.write_text(results.read_text()[:-20])
    assert state_of(one.folder, one.stages) == "begun"


def test_a_claim_looks_at_its_own_arms_only(study_file, registry, tmp_path):
    arms: list[dict[str, Any]] = [{"name": name} for name in ("one", "two", "three")]
    study = read_study_file(str(study_file(arm=arms, metrics={"gFD": "eval/gfd"}, claim=[CLAIM])), registry)
    jobs = [job(tmp_path, arm, seed, value) for arm, of in VALUES.items() for seed, value in enumerate(of)]
    jobs.append(job(tmp_path, "three", 0, 10.0, num_images=50))
    record = gather(study, jobs, {})
    assert record.claims[0].verdict == "reproduced"
    assert "three, seed 0: 50" in record.metrics[0].problem
