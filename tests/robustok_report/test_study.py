"""The report of a study's folder."""

from __future__ import annotations

import pytest

from robustok_core.runs.files import read_json
from robustok_study.record import (
    ArmRecord,
    ClaimRecord,
    MetricRecord,
    RunOfStudy,
    StudyRecord,
    Summary,
    read_study,
    write_study,
)
from robustok_study.statistics import estimate
from robustok_study.verdicts import difference_of, verdict_of

SEEDS = [0, 1, 2]
RFD = {"none": {0: 330.5, 1: 341.4, 2: 322.0}, "beta1": {0: 301.5, 1: 309.25, 2: 297.0}}


def _summary(values: dict[int, float]) -> Summary:
    found = estimate(list(values.values()))
    return Summary(mean=found.mean, standard_error=found.standard_error, by_seed={str(s): v for s, v in values.items()})


@pytest.fixture
def study(tmp_path):
    """A folder with the study.json of two arms."""
    difference = difference_of(RFD["beta1"], RFD["none"], "none")
    verdict, reason = verdict_of(difference, "lower", SEEDS)
    record = StudyRecord(
        name="mine",
        file="mine.toml",
        quick=False,
        recipe="main_train",
        seeds=SEEDS,
        base="none",
        fingerprint="0123abcd",
        written="2026-01-02T03:04:05",
        arms=[
            ArmRecord(name="none", fingerprint="0", changes={"perturbation.use": "none"}),
            ArmRecord(name="beta1", fingerprint="1", changes={"perturbation.beta": 1.0}),
        ],
        runs=[
            RunOfStudy(arm=arm, seed=seed, folder=f"{arm}-seed{seed}", state="done", seconds=60.0)
            for seed in SEEDS
            for arm in RFD
        ],
        metrics=[
            MetricRecord(
                label="rFD",
                metric="evaluate_tokenizer/rfd_a",
                higher_is_better=False,
                num_images=1000,
                arms={arm: _summary(values) for arm, values in RFD.items()},
                differences={"beta1": difference},
            ),
            MetricRecord(label="gFD", metric="evaluate_generator/gfd_a", problem="unequal numbers of images"),
        ],
        claims=[
            ClaimRecord(
                text="it falls",
                metric="rFD",
                expression="evaluate_tokenizer/rfd_a",
                arm="beta1",
                base="none",
                direction="lower",
                than=0.0,
                verdict=verdict,
                reason=reason,
                difference=difference,
            )
        ],
        made_with=[
            {
                "robustok": "1.0",
                "torch": "2",
                "device": "cpu",
                "threads": threads,
                "git_commit": "abc",
                "auto_precision": precision,
            }
            for threads, precision in ((1, "bf16"), (2, "no"), (2, None))
        ],
    )
    write_study(tmp_path, record)
    return tmp_path


def test_a_study_is_shown_with_its_verdicts_means_differences_and_values(study, command):
    code, output, errors = command("report", str(study))
    assert code == 0, errors
    assert f"written to {study / 'report.html'}" in output
    page = (study / "report.html").read_text(encoding="utf-8")
    shown = ["reproduced", "it falls", "331.3 ± ", "302.6 ± 3.6", "-28.7 ± 2.1 *", "rFD (n = 1,000)"]
    shown += ["not compared: unequal numbers of images", "341.4", "297", "perturbation.beta = 1", "beta1-seed2"]
    shown += ["robustok 1.0 (abc), torch 2, on cpu, 1 thread, precision auto: bf16", "0123abcd", "6 of 6 runs done"]
    shown += ["made with different numbers of threads: 1, 2"]
    shown += ["say &#34;auto&#34;, so that differences are not exactly paired: bf16, float32"]
    assert [text for text in shown if text not in page] == []
    assert "What is missing" not in page


def test_what_failed_is_named_and_a_study_without_results_has_a_page(study, command):
    table = read_json(study / "study.json")
    table["runs"][0] |= {"state": "failed", "problem": "the loss is not finite"}
    record = read_study(study)
    failed = [RunOfStudy(**run) for run in table["runs"]]
    write_study(study, StudyRecord(**{**_fields(record), "runs": failed, "metrics": [], "claims": []}))
    assert command("report", str(study))[0] == 0
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "none-seed0 failed: the loss is not finite" in page
    assert "No run is finished yet." in page


def _fields(record: StudyRecord) -> dict:
    return {name: getattr(record, name) for name in StudyRecord.__annotations__}


def test_a_study_among_runs_and_a_damaged_one_are_one_message(study, refused, command):
    assert "this is the folder of a study, not of a run" in refused("report", str(study), str(study))
    (study / "study.json").write_text("{}")
    code, _, errors = command("report", str(study))
    assert code == 1
    assert f"{study / 'study.json'}: name: the key is missing" in errors
