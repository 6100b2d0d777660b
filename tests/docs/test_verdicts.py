"""docs/results.md says what the kept records of studies say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import attrs
import pytest

from robustok_study.record import ClaimRecord, Difference, MetricRecord, StudyRecord, Summary, write_study
from robustok_study.spec import read_study_file

DOCS = Path(__file__).parents[2] / "docs"
DIFFERENCE = Difference(
    base="none",
    mean=-81.9,
    standard_error=1.5,
    low=-88.3,
    high=-75.5,
    significant=True,
    seeds_needed=None,
    by_seed={"0": -81.0, "1": -84.0, "2": -80.7},
)


@pytest.fixture(scope="module")
def script() -> Any:
    """docs/verdicts.py."""
    spec = importlib.util.spec_from_file_location("verdicts", DOCS / "verdicts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(**changes: Any) -> StudyRecord:
    """Of a study with one claim."""
    found = StudyRecord(
        name="claims",
        file="somewhere/claims.toml",
        quick=False,
        recipe="tokenizer",
        seeds=[0, 1, 2],
        base="none",
        fingerprint="f",
        written="2026-01-01",
        arms=[],
        runs=[],
        metrics=[
            MetricRecord(
                label="pFD - rFD",
                metric="a/pfd - a/rfd",
                num_images=2000,
                arms={"beta1": Summary(mean=19.5, standard_error=1.1, by_seed={})},
                differences={"beta1": DIFFERENCE},
            )
        ],
        claims=[
            ClaimRecord(
                text="it falls",
                metric="pFD - rFD",
                expression="a/pfd - a/rfd",
                arm="beta1",
                base="none",
                direction="lower",
                than=0.0,
                verdict="reproduced",
                reason="95 % interval -88.3 to -75.5, 3 seeds",
                difference=DIFFERENCE,
            )
        ],
    )
    return attrs.evolve(found, **changes)


def test_the_page_says_what_the_records_say(script):
    """Run python docs/verdicts.py if this fails."""
    page = script.PAGE.read_text()
    assert script.with_part(page, script.written(script.records())) == page


def test_records_are_of_the_bundled_studies_as_they_are(script, registry):
    for kept in script.records():
        study = read_study_file(kept.name, registry)
        assert [arm.name for arm in kept.arms] == [arm.name for arm in study.arms]
        assert [claim.text for claim in kept.claims] == [claim.config.text for claim in study.claims]
        assert kept.missing == []


def test_a_verdict_stands_with_its_number_and_its_reason(script):
    text = script.written([record()])
    row = "| it falls | **reproduced** | -81.9 ± 1.5 (95 % interval -88.3 to -75.5, 3 seeds) | `claims` |"
    assert row in text.splitlines()


def test_only_finished_bundled_studies_are_kept(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "RECORDS", tmp_path / "studies")
    write_study(tmp_path, record())
    script.keep(tmp_path)
    (kept,) = script.records()
    assert kept == record(file="recipes/study/claims.toml")
    for wrong in (record(quick=True), record(name="mine")):
        write_study(tmp_path, wrong)
        with pytest.raises(ValueError, match="no finished bundled study"):
            script.keep(tmp_path)
