"""How much worse reconstructions get."""

from __future__ import annotations

import pytest

from robustok_core.values.result import Result
from robustok_metrics.noise_pfd import NoiseCell
from robustok_metrics.rank_pfd import RankCell
from robustok_report.sections.robustness import robustness
from robustok_toolkit.report_parts import Facts, Heatmap


def fd(value: float, **cells: float) -> Result:
    return Result(value, higher_is_better=False, num_images=40, details={"cells": cells} if cells else {})


@pytest.mark.parametrize(
    ("clean", "perturbed"),
    [("rfd_a", "pfd_a"), ("rfd_a", "noise_pfd_a"), ("rfd_a", "noise_pfd_gaussian_a"), ("rfid", "pfid")],
)
def test_each_kind_of_perturbation_is_compared_with_none_in_the_same_features(as_reported, clean, perturbed):
    cells = {NoiseCell(alpha=0.5, level=0.5).name: 10.0, NoiseCell(alpha=0.5, level=1e-6).name: 20.0}
    others = {"rfd_b": fd(1.0), "rfd_other_a": fd(2.0)} if clean != "rfid" else {"rfd_b": fd(1.0)}
    results = {clean: fd(10.0), **others, perturbed: fd(15.0, **cells)}
    as_reported.results = {f"evaluate_tokenizer/{name}": result for name, result in results.items()}
    heat, rise = robustness(as_reported).parts
    assert isinstance(heat, Heatmap)
    assert (heat.rows, heat.columns, heat.values) == (["0.5"], ["1e-06", "0.5"], [[20.0, 10.0]])
    assert isinstance(rise, Facts)
    assert (rise.facts[0].value, rise.facts[0].hint) == ("+50 %", "15 instead of 10")


def test_a_perturbation_of_one_strength_has_a_curve(as_reported):
    cells = {RankCell(alpha=alpha).name: 10 * alpha for alpha in (0.9, 0.5)}
    as_reported.results = {"evaluate_tokenizer/rank_pfd_a": fd(7.0, **cells)}
    (curve,) = robustness(as_reported).parts
    assert (curve.title, curve.series[0].x, curve.series[0].y) == ("rank pFD by strength", [0.5, 0.9], [5.0, 9.0])


def test_heat_maps_of_two_networks_tell_which_they_are(as_reported):
    cells = {"alpha0.5_delta2": 1.0}
    as_reported.results = {f"evaluate_tokenizer/pfd_{name}": fd(1.0, **cells) for name in "ab"}
    titles = [part.title for part in robustness(as_reported).parts]
    assert titles == ["pFD by strength (evaluate_tokenizer/pfd_a)", "pFD by strength (evaluate_tokenizer/pfd_b)"]


@pytest.mark.parametrize(
    ("by_alpha", "words"),
    [
        ({"0": 0.3, "0.5": 0.1, "1": 0.2}, "at α = 0.5 (MMD² 0.1; 0.2 at α = 1)."),
        ({"0": 0.3456, "0.5": 0.31, "1": 0.3}, "at α = 1 (MMD² 0.3; 0.346 at α = 0)."),
        ({"0": 0.1, "1": 0.2}, "at α = 0 (MMD² 0.1; 0.2 at α = 1). So this measure sees no errors"),
        ({"1": 0.2}, "at α = 1 (MMD² 0.2)."),
    ],
)
def test_the_best_strength_is_compared_with_another_one(as_reported, by_alpha, words):
    result = Result(min(by_alpha.values()), details={"by_alpha": by_alpha})
    as_reported.results = {"latent_mmd/latent_mmd": result}
    _, text = robustness(as_reported).parts
    assert words in text.text
