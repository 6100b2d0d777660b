"""Several runs: arms, differences, recipes, correlations."""

from __future__ import annotations

import pytest

from project import Project
from robustok_core.runs.devices import device_called
from robustok_report.arms import arms_of
from robustok_report.correlations import correlations
from robustok_report.several import compared
from robustok_toolkit.reported_run import ReportedRun

EVALUATED = ("train_tokenizer", {"use": "evaluate_tokenizer", "metrics": {"psnr": {"use": "psnr"}}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory, registry) -> list[ReportedRun]:
    """Two seeds of one arm, and one of another."""
    out = tmp_path_factory.mktemp("arms")
    projects = [
        Project(out, EVALUATED, run={"name": name, "seed": seed}, perturbation={"beta": beta}).run()
        for name, seed, beta in (("a0", 0, 0.25), ("a1", 1, 0.25), ("b0", 0, 0.5))
    ]
    return [ReportedRun(project.folder, registry, device_called("cpu")) for project in projects]


def test_runs_that_differ_in_seed_and_name_only_are_one_arm(runs):
    assert [[run.name for run in arm.runs] for arm in arms_of(runs)] == [["a0", "a1"], ["b0"]]


def test_the_page_shows_means_differences_and_what_the_recipes_differ_in(runs):
    sections = {section.title: section for section in compared(runs).sections}
    table = sections["Results"].parts[0]
    psnr = [run.results["evaluate_tokenizer/psnr"].value for run in runs]
    cell, other = next(row for row in table.rows if row[0].text.startswith("PSNR"))[1:]
    assert cell.text.startswith(f"{(psnr[0] + psnr[1]) / 2:.4g}")
    assert "±" in cell.text
    assert other.text.startswith(f"{psnr[2]:.4g}")
    assert "±" not in other.text
    assert [list(row) for row in sections["Recipes"].parts[0].rows] == [["perturbation.beta", "0.25 -> 0.5"]]
    assert {"Training", "Runs"} <= sections.keys()


def test_correlations_are_scipys_and_their_interval_holds_them():
    from scipy.stats import pearsonr, spearmanr

    across, up = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 3.0, 2.0, 5.0, 4.0, 9.0]
    found = correlations(across, up, range(6))
    assert found["Pearson"].value == pytest.approx(pearsonr(across, up).statistic)
    assert found["Spearman"].value == pytest.approx(spearmanr(across, up).statistic)
    for one in found.values():
        low, high = one.interval
        assert -1 <= low < one.value < high <= 1 + 1e-9
    assert correlations(across[:3], up[:3], range(3))["Pearson"].interval is None, "too few runs for an interval"


def test_a_measure_that_never_changes_has_no_correlation():
    found = correlations([1.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], range(6))
    assert found["Pearson"].value != found["Pearson"].value
    assert found["Pearson"].interval is None
