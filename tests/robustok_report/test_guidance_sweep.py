"""The curve of a number over the guidance scale: its points differ in nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from left_runs import MEASURED, distance, leave_run
from robustok_core.runs.devices import device_called
from robustok_report.sections.samples import guidance_sweep
from robustok_toolkit.reported_run import ReportedRun

SAMPLE, EVALUATE = MEASURED["stage"]


@pytest.fixture
def sweep(tmp_path, registry):
    """The parts of a run that samples with each of these scales and options, and measures the samples."""

    def sweep(*samplers: tuple[float, dict[str, Any]], counts: tuple[int, ...] = ()) -> list[Any]:
        stages, results, record = [], {}, {"stages": {}, "current": {}}
        for number, (scale, options) in enumerate(samplers):
            sample = {**copy.deepcopy(SAMPLE), "name": f"sample{number}", "guidance": {"scale": scale}, **options}
            stages += [sample, {**EVALUATE, "name": f"eval{number}"}]
            count = counts[number] if counts else 1000
            results[f"eval{number}/gfd_fashion_classifier"] = distance(10.0 * number, count, 40)
        folder = leave_run(tmp_path / "run", results, recipe={**MEASURED, "stage": stages}, record=record)
        return guidance_sweep(ReportedRun(folder, registry, device_called("cpu")))

    return sweep


def curves(part: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {series.name: (series.x, series.y) for series in part.series}


def test_stages_that_differ_in_the_scale_only_are_one_curve(sweep):
    (chart,) = sweep((3.0, {}), (1.0, {}), (2.0, {}))
    assert chart.title == "gFD over guidance"
    assert curves(chart) == {"eval0, eval1, eval2": ([1.0, 2.0, 3.0], [10.0, 20.0, 0.0])}


def test_other_numbers_of_samples_are_no_points_of_a_curve_and_named(sweep):
    chart, text = sweep((1.0, {}), (2.0, {}), (3.0, {}), counts=(1000, 1000, 50))
    assert curves(chart) == {"eval0, eval1": ([1.0, 2.0], [0.0, 10.0])}
    assert "eval2/gfd_fashion_classifier" in text.text
    assert "eval0" not in text.text


@pytest.mark.parametrize("options", [{"sampling": {"steps": 8}}, {"classes": [1]}, {"precision": "bf16"}])
def test_another_sampler_is_another_curve(sweep, options):
    (chart,) = sweep((1.0, {}), (2.0, {}), (1.0, options), (2.0, options))
    assert curves(chart) == {"eval0, eval1": ([1.0, 2.0], [0.0, 10.0]), "eval2, eval3": ([1.0, 2.0], [20.0, 30.0])}


def test_a_scale_that_was_measured_twice_keeps_its_first_number_and_names_the_other(sweep):
    chart, text = sweep((1.0, {}), (2.0, {}), (1.0, {}))
    assert curves(chart) == {"eval0, eval1": ([1.0, 2.0], [0.0, 10.0])}
    assert "eval2/gfd_fashion_classifier" in text.text


def test_one_scale_is_no_sweep(sweep):
    assert sweep((1.0, {})) == []
