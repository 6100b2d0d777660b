"""Several runs: arms, differences, recipes, correlations."""

from __future__ import annotations

from typing import Any

import pytest

from left_runs import MEASURED, distance, leave_run
from project import Project
from robustok_core import Result
from robustok_core.runs.devices import device_called
from robustok_core.runs.run_record import write_run
from robustok_report.arms import arms_of
from robustok_report.several import compared
from robustok_toolkit.report_parts import Cell, Points
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


@pytest.fixture
def opened(tmp_path, registry):
    """Opens the folder of a run with these results, whose recipe has this beta."""

    def opened(
        name: str, results: dict[str, Result], *, seed: int | None = 0, beta: float = 0.1, **data: Any
    ) -> ReportedRun:
        recipe = {**MEASURED, "perturbation": {"use": "top_delta", "beta": beta}}
        recipe["data"] = {**recipe["data"], **data}
        return ReportedRun(
            leave_run(tmp_path / name, results, seed=seed, recipe=recipe), registry, device_called("cpu")
        )

    return opened


def results_of(runs: list[ReportedRun]) -> tuple[list[Cell], str]:
    """The cells of the only row of results, and the remarks below the table."""
    table, *remarks = {section.title: section for section in compared(runs).sections}["Results"].parts
    (row,) = table.rows
    return list(row), "\n".join(remark.text for remark in remarks)


ONE, TWO = [330.0, 340.0, 326.0], [300.0, 312.0, 295.0]


def arms(opened, one, two, **changes) -> list[ReportedRun]:
    found = [opened(f"one-seed{seed}", {"eval/gfd": distance(value)}, seed=seed) for seed, value in enumerate(one)]
    return found + [
        opened(f"two-seed{seed}", {"eval/gfd": distance(value)}, seed=seed, beta=0.5, **changes)
        for seed, value in enumerate(two)
    ]


def test_a_mark_and_a_paired_difference_are_those_of_compare_group(opened):
    cells, remarks = results_of(arms(opened, ONE, TWO))
    assert [(cell.text, cell.hint, cell.marked) for cell in cells[1:]] == [
        ("332 ± 4.2", "", False),
        ("302.3 ± 5", "−29.7 ± 0.88", True),
    ]
    assert "Differences are paired by seed" in remarks


def test_nothing_is_marked_within_its_error(opened):
    cells, _ = results_of(arms(opened, ONE, [331.0, 338.0, 326.5]))
    assert [cell.marked for cell in cells] == [False] * 3
    assert cells[2].hint.startswith("−")


def test_runs_of_one_seed_have_differences_without_an_error_and_no_mark(opened):
    cells, remarks = results_of(arms(opened, [1.0], [1.0001]))
    assert [cell.marked for cell in cells] == [False] * 3
    assert cells[2].hint == "+0.0001"
    assert "nothing is known about the errors" in remarks


@pytest.mark.parametrize(
    ("change", "what"), [({"image_size": 64}, "different picture size"), ({"use": "npz"}, "different data.use")]
)
def test_what_was_measured_otherwise_has_no_difference_no_mark_and_a_remark(opened, change, what):
    cells, remarks = results_of(arms(opened, ONE, TWO, **change))
    assert [(cell.hint, cell.marked) for cell in cells[1:]] == [("", False)] * 2
    assert "not comparable" in cells[0].hint
    assert f"Not comparable, because of {what} (one-seed0: " in remarks
    assert remarks.endswith("eval/gfd.")


def test_unequal_numbers_of_images_have_no_difference_and_no_mark(opened):
    runs = arms(opened, ONE, [])
    runs += [opened(f"two-seed{i}", {"eval/gfd": distance(v, 50)}, seed=i, beta=0.5) for i, v in enumerate(TWO)]
    cells, remarks = results_of(runs)
    assert [(cell.hint, cell.marked) for cell in cells[1:]] == [("", False)] * 2
    assert "different numbers of images (one-seed0: 1,000, two-seed0: 50): eval/gfd" in remarks


def test_other_training_images_are_told_and_may_be_compared(opened, tmp_path):
    runs = arms(opened, ONE, TWO)
    for run in runs:
        write_run(run.folder, {**run.record, "data": {"train": run.name[:3], "validation": "v"}})
    cells, remarks = results_of(runs)
    assert cells[2].marked
    assert "The runs were trained on different images (one-seed0: one, two-seed0: two)" in remarks
    assert "Not comparable" not in remarks


def test_one_seed_twice_is_another_arm_and_never_paired_by_its_place(opened):
    runs = [
        opened(name, {"eval/gfd": distance(value)}, seed=seed, beta=beta)
        for name, value, seed, beta in (("a", 1.0, 0, 0.1), ("b", 3.0, 0, 0.1), ("c", 7.0, 0, 0.5), ("d", 9.0, 1, 0.5))
    ]
    assert [[run.name for run in arm.runs] for arm in arms_of(runs)] == [["a"], ["b"], ["c", "d"]]
    cells, _ = results_of(runs)
    assert [cell.hint for cell in cells[2:]] == ["+2", "+6 over 1 common seed"]


def test_runs_whose_seeds_are_not_recorded_are_not_repetitions(opened):
    runs = [opened(name, {"eval/gfd": distance(value)}, seed=None) for name, value in (("a", 1.0), ("b", 2.0))]
    assert len(arms_of(runs)) == 2
    cells, _ = results_of(runs)
    assert cells[2].hint == "+1, no common seed"


def test_an_arm_some_of_whose_runs_lack_a_result_says_so(opened):
    runs = arms(opened, ONE, TWO)
    runs.append(opened("two-seed3", {}, seed=3, beta=0.5))
    cells, _ = results_of(runs)
    assert cells[2].hint == "−29.7 ± 0.88, 3 of 4 runs"


def test_seeds_that_load_from_runs_of_their_seeds_are_one_arm_here_as_in_compare(tmp_path, registry):
    runs = []
    for name, place in (("a-seed0", "runs/t-seed0"), ("a-seed1", "runs/t-seed1"), ("a-seed2", "runs/u-seed2")):
        recipe = {**MEASURED, "load": {"tokenizer": {"path": place}}}
        folder = leave_run(tmp_path / name, {"eval/gfd": distance(1.0)}, seed=int(name[-1]), recipe=recipe)
        runs.append(ReportedRun(folder, registry, device_called("cpu")))
    assert [len(arm.runs) for arm in arms_of(runs)] == [2, 1]


def pair(gfd: float, rfd: float, count: int = 1000) -> dict[str, Result]:
    names = ("eval/gfd_fashion_classifier", "eval/rfd_fashion_classifier")
    return {name: distance(value, count) for name, value in zip(names, (gfd, rfd), strict=True)}


def correlations_of(runs: list[ReportedRun]) -> list[Any]:
    sections = {section.title: section for section in compared(runs).sections}
    return list(sections["Correlations"].parts) if "Correlations" in sections else []


def test_a_scatter_shows_runs_of_equal_numbers_of_images_and_names_the_others(opened):
    runs = [opened(f"r{i}", pair(10.0 * i, float(i)), seed=i, beta=i / 10) for i in range(1, 4)]
    runs += [
        opened(name, pair(1.0, 99.0, count), beta=0.9, seed=9) for name, count in (("many", 5000), ("huge", 50000))
    ]
    chart, text, *left_out = correlations_of(runs)
    assert (chart.names, chart.across, chart.up) == (["r1", "r2", "r3"], [1.0, 2.0, 3.0], [10.0, 20.0, 30.0])
    assert text.text.startswith("rFD and gFD, runs like r1 of 3 runs: Pearson 1.00, Spearman 1.00; too few")
    assert [part.text for part in left_out] == [
        "rFD and gFD: left out many, because of different numbers of images (r1: 1,000, many: 5,000).",
        "rFD and gFD: left out huge, because of different numbers of images (r1: 1,000, huge: 50,000).",
    ]


def test_runs_none_of_which_may_be_compared_have_no_scatter(opened):
    runs = [opened(f"r{i}", pair(10.0 * i, float(i), 1000 * i), seed=i, beta=i / 10) for i in range(1, 4)]
    parts = correlations_of(runs)
    assert [type(part).__name__ for part in parts] == ["Text"] * 3
    assert parts[0].text == "rFD and gFD: no scatter, because no 3 of these runs may be compared."


def test_other_data_makes_a_scatter_of_its_own(opened):
    runs = [opened(f"r{i}", pair(10.0 * i, float(i)), seed=i, beta=i / 10) for i in range(1, 4)]
    runs += [opened(f"q{i}", pair(-i, float(i)), seed=i, beta=i / 10, use="npz") for i in range(1, 4)]
    charts = [part for part in correlations_of(runs) if isinstance(part, Points)]
    assert [chart.names for chart in charts] == [["r1", "r2", "r3"], ["q1", "q2", "q3"]]


def test_numbers_that_are_not_finite_are_left_out_of_a_scatter_by_name(opened):
    runs = [opened(f"r{i}", pair(10.0 * i, float(i)), seed=i, beta=i / 10) for i in range(1, 4)]
    runs.append(opened("bad", pair(float("inf"), 1.0), beta=0.9))
    text, chart, _ = correlations_of(runs)
    assert text.text == "Left out, because a number is not finite: bad."
    assert chart.names == ["r1", "r2", "r3"]


def test_runs_whose_folders_are_called_alike_are_told_apart_by_the_folders_above(opened):
    names = ["a/main_train", "b/main_train", "b/other", "c/x/deep", "d/x/deep"]
    runs = [opened(name, pair(10.0 * i, float(i)), seed=0, beta=i / 10) for i, name in enumerate(names)]
    shown = ["a/main_train", "b/main_train", "other", "c/x/deep", "d/x/deep"]
    sections = {section.title: section for section in compared(runs).sections}
    assert list(sections["Results"].parts[0].columns) == ["number", *shown]
    assert [part.title for part in sections["Recipes"].parts] == [
        f"{name}, compared with {shown[0]}" for name in shown[1:]
    ]
    assert list(correlations_of(runs)[0].names) == shown
    assert [row[0].text for row in sections["Runs"].parts[0].rows] == shown


def test_a_run_named_twice_has_samples_and_curves_of_both(as_reported):
    page = compared([as_reported, as_reported])
    sections = {section.title: section for section in page.sections}
    both = ["tiny", "tiny (2)"]
    assert all(list(part.rows) == both for part in sections["Samples"].parts)
    assert all([series.name for series in part.series] == both for part in sections["Training"].parts)
    assert page.subtitle == "tiny, tiny (2)"
    assert as_reported.name == "tiny"


def test_a_recipe_that_cannot_be_read_costs_no_comparison_of_the_others(opened):
    runs = [opened(name, {"eval/gfd": distance(1.0)}, beta=beta) for name, beta in (("a", 0.1), ("b", 0.2), ("c", 0.3))]
    (runs[1].folder / "recipe.toml").unlink()
    page = compared(runs)
    remark, table = {section.title: section for section in page.sections}["Recipes"].parts
    assert remark.text.startswith("What b changes cannot be shown: ")
    assert [list(row) for row in table.rows] == [["perturbation.beta", "0.1 -> 0.3"]]
    assert any(line.startswith("what b changes: ") for line in page.missing)
