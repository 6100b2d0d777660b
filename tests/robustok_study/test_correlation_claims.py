"""Claims on correlations over a study's arms."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest

from left_runs import distance
from robustok_core import RobustokError
from robustok_core.recipe.registry import Registry
from robustok_core.runs.files import read_json
from robustok_study.checks import results_given, unknown_metrics
from robustok_study.planner import Job
from robustok_study.results import gather
from robustok_study.spec import Study, read_study_file
from studies import finished_job

NAMES = [f"arm{number}" for number in range(12)]
#: gFD of each arm; what follows it but for two neighbours; and what has nothing to do with it.
GFD = [410.0, 395.0, 388.0, 371.0, 360.0, 352.0, 345.0, 330.0, 322.0, 310.0, 301.0, 290.0]
PFD = [value / 2 + (-6.0 if number % 4 == 0 else 6.0) for number, value in enumerate(GFD)]
RFD = [90.0, 120.0, 85.0, 118.0, 93.0, 111.0, 87.0, 116.0, 95.0, 119.0, 88.0, 92.0]
METRICS = {"gFD": "eval/gfd", "pFD": "eval/pfd", "rFD": "eval/rfd"}
PREDICTS = {"text": "pFD predicts gFD", "metric": "pFD", "predicts": "gFD"}


def jobs(
    folder: Path, *, seeds: int = 1, arms: int = 12, without: str | None = None, scaled: bool = False
) -> list[Job]:
    """Finished runs; an arm may lack pFD. Seeds differ by a constant that means take away.

    `scaled`: the codebook of every other arm has twice the size, and so have the deltas of its pFD.
    """
    found = []
    for number, arm in enumerate(NAMES[:arms]):
        for seed in range(seeds):
            shift = 1000.0 * (seed - (seeds - 1) / 2)
            values = {"eval/gfd": GFD[number], "eval/pfd": PFD[number], "eval/rfd": RFD[number]}
            results = {name: distance(value + shift) for name, value in values.items()}
            if scaled:
                cells = {f"alpha0.5_delta{5 * (1 + number % 2)}": PFD[number]}
                results["eval/pfd"] = distance(PFD[number], deltas_scaled_from=1024, cells=cells)
            if arm == without:
                del results["eval/pfd"]
            found.append(finished_job(folder, arm, seed, results))
    return found


def study_of(study_file: Any, registry: Any, *, seeds: int = 1, names: list[str] = NAMES, **claim: Any) -> Any:
    arms = [{"name": name} for name in names]
    table = {"metrics": METRICS, "claim": [], "correlation": [PREDICTS | claim], "seeds": [*range(seeds)]}
    return read_study_file(str(study_file(arm=arms, **table)), registry)


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ({}, "reproduced"),
        ({"better_than": "rFD"}, "reproduced"),
        ({"metric": "rFD"}, "undecided"),
        ({"metric": "rFD", "better_than": "pFD"}, "contradicted"),
        ({"metric": "rFD", "better_than": "pFD", "coefficient": "Pearson"}, "contradicted"),
    ],
)
def test_the_interval_over_arms_decides(study_file, registry, tmp_path, claim, verdict):
    (record,) = gather(study_of(study_file, registry, **claim), jobs(tmp_path), {}).correlations
    assert record.verdict == verdict
    assert "95 % interval" in record.reason
    assert record.low < record.high
    assert list(record.points) == NAMES
    assert (record.rival is None) == ("better_than" not in claim)


def test_an_arm_is_one_point_however_many_seeds_it_has(study_file, registry, tmp_path):
    study = study_of(study_file, registry, better_than="rFD")
    (once,) = gather(study, jobs(tmp_path / "once"), {}).correlations
    study = study_of(study_file, registry, better_than="rFD", seeds=3)
    (thrice,) = gather(study, jobs(tmp_path / "thrice", seeds=3), {}).correlations
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))


def test_too_few_arms_with_results_decide_nothing(study_file, registry, tmp_path):
    study = study_of(study_file, registry)
    (record,) = gather(study, jobs(tmp_path / "nine", arms=9), {}).correlations
    assert (record.verdict, record.reason) == ("undecided", "9 of the 10 arms that a verdict needs at least")
    (record,) = gather(study, jobs(tmp_path / "eleven", without="arm3"), {}).correlations
    assert record.verdict == "reproduced"
    assert "arm3" not in record.points


def test_a_verdict_waits_for_all_runs(study_file, registry, tmp_path):
    """An arm of which a seed failed has another mean, in all metrics at once."""
    found = jobs(tmp_path, seeds=2)
    left = [attrs.evolve(job, state="new", stages=None) if job.name == "arm5-seed1" else job for job in found]
    (record,) = gather(study_of(study_file, registry, seeds=2), left, {}).correlations
    assert record.verdict == "undecided"
    assert record.reason.endswith("12 arms; not finished: arm5")


def test_an_arm_whose_pfid_changes_no_token_in_some_cells_is_left_out(study_file, registry, tmp_path):
    found = jobs(tmp_path, scaled=True)
    results = tmp_path / "arm3-seed0" / "results.json"
    results.write_text(results.read_text().replace("alpha0.5_delta10", "alpha0.5_delta1"))
    (record,) = gather(study_of(study_file, registry), found, {}).correlations
    assert "arm3" not in record.points
    assert record.reason.endswith("11 arms; without arm3, where some cells of pFD change no token")
    assert record.verdict == "reproduced"


def test_a_rival_that_falls_predicts_as_well_as_one_that_rises(study_file, registry, tmp_path):
    found = jobs(tmp_path)
    for number, job in enumerate(found):
        results = read_json(job.folder / "results.json")
        results["eval/rfd"]["value"] = -GFD[number]
        (job.folder / "results.json").write_text(json.dumps(results))
    (record,) = gather(study_of(study_file, registry, better_than="rFD"), found, {}).correlations
    assert (record.rival, record.verdict) == (-1.0, "undecided")
    assert record.high <= 0


def test_a_metric_that_never_changes_has_no_coefficient_in_any_language(study_file, registry, tmp_path):
    found = jobs(tmp_path)
    for job in found:
        results = read_json(job.folder / "results.json")
        results["eval/pfd"]["value"] = 1.0
        (job.folder / "results.json").write_text(json.dumps(results))
    record = gather(study_of(study_file, registry), found, {})
    assert record.correlations[0].value is None
    json.dumps(attrs.asdict(record), allow_nan=False)


def test_what_may_not_be_compared_has_no_verdict(study_file, registry, tmp_path):
    found = jobs(tmp_path)
    (tmp_path / "arm4-seed0" / "results.json").write_text(
        (tmp_path / "arm4-seed0" / "results.json").read_text().replace("1000", "50")
    )
    (record,) = gather(study_of(study_file, registry), found, {}).correlations
    assert record.verdict == "undecided"
    assert "arm4, seed 0: 50" in record.reason


def test_a_value_that_is_not_finite_is_said_with_its_arm(study_file, registry, tmp_path):
    found = jobs(tmp_path)
    results = read_json(tmp_path / "arm4-seed0" / "results.json")
    results["eval/gfd"]["value"] = math.nan
    (tmp_path / "arm4-seed0" / "results.json").write_text(json.dumps(results))
    (record,) = gather(study_of(study_file, registry), found, {}).correlations
    assert (record.verdict, record.reason) == ("undecided", "arm4, seed 0: eval/gfd is not finite")


def test_codebooks_of_different_sizes_may_be_among_the_arms(study_file, registry, tmp_path):
    """The pFD of each has the same cells, scaled by one rule; two of these values are not compared otherwise."""
    study = study_of(study_file, registry)
    found = gather(study, jobs(tmp_path, scaled=True), {})
    assert found.correlations[0].verdict == "reproduced"
    pfd = next(metric for metric in found.metrics if metric.label == "pFD")
    assert "cells" in pfd.problem
    assert [summary.mean for summary in pfd.arms.values()] == PFD
    assert pfd.has_values
    assert not pfd.differences


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"predicts": "gFID"}, "'gFID' is not a metric"),
        ({"predicts": "pFD"}, "it holds eval/pfd, and so does what it should predict"),
        ({"better_than": "gFD"}, "it holds eval/gfd, and so does what it should predict"),
        ({"metric": "eval/pfd - eval/rfd", "predicts": "eval/gfd - eval/rfd"}, "it holds eval/rfd, and so does"),
        ({"better_than": "pFD"}, "a metric is no rival of itself"),
        ({"coefficient": "Kendall"}, "Kendall"),
    ],
)
def test_mistakes_are_found_before_anything_runs(study_file, registry, claim, message):
    with pytest.raises(RobustokError, match=message):
        study_of(study_file, registry, **claim)


def mistakes(study: Study, registry: Registry) -> list[RobustokError]:
    return unknown_metrics(study, results_given({arm.name: arm.recipe.resolve(registry) for arm in study.arms}))


def test_a_correlation_needs_ten_arms_and_metrics_that_they_give(study_file, registry):
    metrics = {"PSNR": "evaluate_tokenizer/psnr", "rFD": "evaluate_tokenizer/rfd_fashion_classifier"}
    correlation = [{"text": "", "metric": "PSNR", "predicts": "rFD"}]
    study = read_study_file(str(study_file(metrics=metrics, correlation=correlation, claim=[])), registry)
    (problem,) = mistakes(study, registry)
    assert problem.what == "2 arms give all that this correlation needs, and a verdict needs 10"
    correlation = [{"text": "", "metric": "PSNR", "predicts": "evaluate_generator/gfd"}]
    study = read_study_file(str(study_file(metrics=metrics, correlation=correlation, claim=[])), registry)
    (problem,) = mistakes(study, registry)
    assert "no arm has a stage 'evaluate_generator'" in problem.what
