"""docs/results.md says what the kept records of studies say."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from robustok_core.runs.records import read_record
from robustok_study.known import reused
from robustok_study.planner import Job
from robustok_study.record import ClaimRecord, Difference, MetricRecord, StudyRecord, Summary, write_study
from robustok_study.results import gather
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


def test_records_are_of_the_bundled_studies_as_they_are(script):
    for kept in script.records():
        assert script.different(kept) == []
        assert kept.missing == []


@pytest.mark.parametrize("file", sorted((DOCS / "studies").glob("*.json")), ids=lambda file: file.stem)
def test_the_results_that_a_record_keeps_give_its_table_and_its_verdicts_again(file, registry, tmp_path):
    """With all that comparisons depend on: nobody who takes them with --reuse gets another verdict."""
    kept = read_record(StudyRecord, file)
    known = reused([file], tmp_path).runs
    study = read_study_file(kept.name, registry)
    recipe = study.base.recipe
    jobs = [
        Job(
            name=run.folder,
            arm=run.arm,
            seed=run.seed,
            folder=tmp_path / run.folder,
            recipe=recipe,
            stages=run.stages,
            state="new",
            finished={},
            needs=[],
            known=known[frozenset(run.stages.items())],
        )
        for run in kept.runs
    ]
    found = gather(study, jobs, {})
    for part in ("metrics", "claims", "correlations"):
        assert rounded(getattr(found, part)) == rounded(getattr(kept, part)), part


def rounded(value: Any) -> Any:
    """Numbers as texts of six digits, in whatever holds them."""
    if attrs.has(type(value)):
        return rounded(attrs.asdict(value, recurse=False))
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return f"{value:.6g}" if isinstance(value, float) else value


def test_what_a_record_has_otherwise_than_the_study_is_found(script):
    kept = next(record for record in script.records() if record.name == "generation")
    turned = [attrs.evolve(claim, direction="higher") for claim in kept.claims]
    assert script.different(attrs.evolve(kept, claims=turned)) == ["claims"]
    assert script.different(attrs.evolve(kept, fingerprint="f")) == ["arms or seeds"]
    assert script.different(attrs.evolve(kept, metrics=kept.metrics[1:])) == ["metrics"]


def test_a_verdict_stands_with_its_number_and_its_reason(script):
    text = script.written([record()])
    row = "| it falls | **reproduced** | -81.9 ± 1.5 (95 % interval -88.3 to -75.5, 3 seeds) | `claims` |"
    assert row in text.splitlines()


def test_only_bundled_studies_as_they_are_now_are_kept_and_unfinished_ones_apart(script, tmp_path, monkeypatch):
    (generation,) = (kept for kept in script.records() if kept.name == "generation")
    monkeypatch.setattr(script, "RECORDS", tmp_path / "studies")
    undone = [attrs.evolve(run, state="new", results={}) if run.seed == 2 else run for run in generation.runs]
    write_study(tmp_path, attrs.evolve(generation, runs=undone))
    script.keep(tmp_path)
    assert script.records() == []
    begun = tmp_path / "studies" / "begun" / "generation.json"
    assert len(reused([begun], tmp_path / "out").runs) == len([run for run in undone if run.results])
    kept = begun.read_bytes()
    fewer = [attrs.evolve(run, state="new", results={}) if run.seed == 1 else run for run in generation.runs]
    write_study(tmp_path, attrs.evolve(generation, runs=fewer))
    with pytest.raises(ValueError, match=r"begun/generation\.json has results that this record lacks, of \S+-seed1, "):
        script.keep(tmp_path)
    assert begun.read_bytes() == kept
    write_study(tmp_path, attrs.evolve(generation, file="somewhere/generation.toml"))
    script.keep(tmp_path)
    assert script.records() == [generation]
    assert not begun.exists()
    write_study(tmp_path, attrs.evolve(generation, runs=undone))
    with pytest.raises(ValueError, match=r"studies/generation\.json has results that this record lacks"):
        script.keep(tmp_path)
    assert script.records() == [generation]
    write_study(tmp_path, record())
    with pytest.raises(ValueError, match="the study has changed since: arms or seeds, metrics, claims"):
        script.keep(tmp_path)
    for wrong in (record(quick=True), record(name="mine")):
        write_study(tmp_path, wrong)
        with pytest.raises(ValueError, match="no bundled study with results"):
            script.keep(tmp_path)
