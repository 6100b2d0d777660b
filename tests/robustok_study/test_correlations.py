"""Correlations over runs, and how well they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from robustok_study.correlations import correlations, lead

ACROSS, UP = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 3.0, 2.0, 5.0, 4.0, 9.0]


def test_coefficients_are_scipys_and_intervals_those_of_runs_drawn_again():
    across = [4.1, 1.2, 9.7, 5.5, 3.0, 8.2, 6.6, 2.3, 7.4, 10.1, 0.4, 11.9]
    up = [3.0, 2.2, 7.1, 8.4, 1.9, 6.0, 9.3, 4.4, 5.2, 10.7, 2.8, 9.9]
    found = correlations(across, up, range(12))
    rng = np.random.default_rng(1)
    draws = rng.integers(0, 12, (8000, 12))
    for name, of in (("Pearson", pearsonr), ("Spearman", spearmanr)):
        assert found[name].value == pytest.approx(of(across, up).statistic)
        drawn = [of(np.take(across, draw), np.take(up, draw)).statistic for draw in draws]
        assert found[name].interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)


def test_seeds_of_one_arm_are_no_independent_points():
    """Each arm three times: nothing more is known, so the interval stays."""
    once = correlations(ACROSS, UP, range(6))
    thrice = correlations(ACROSS * 3, UP * 3, [*range(6)] * 3)
    for name, found in thrice.items():
        assert found.value == pytest.approx(once[name].value)
        assert found.interval == pytest.approx(once[name].interval)


@pytest.mark.parametrize(
    ("across", "up", "arms"),
    [
        (ACROSS[:3], UP[:3], [0, 1, 2]),
        ([1.0] * 5 + [2.0], [3.0] * 5 + [9.0], [*range(6)]),  # two different points: always on a line
        (ACROSS, [1.0, 1.0, 1.0, 2.0, 2.0, 3.0], [*range(6)]),
        (ACROSS, UP, [0, 0, 1, 1, 2, 2]),  # three arms
    ],
)
def test_too_few_different_points_have_no_interval(across, up, arms):
    assert [found.interval for found in correlations(across, up, arms).values()] == [None, None]


def test_a_measure_that_never_changes_has_no_correlation():
    for found in correlations([1.0] * 6, ACROSS, range(6)).values():
        assert math.isnan(found.value)
        assert found.interval is None


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        correlations([*ACROSS[:5], math.nan], UP, range(6))


@pytest.mark.parametrize("coefficient", ["Pearson", "Spearman"])
def test_a_lead_is_the_difference_of_two_coefficients_over_the_same_arms(coefficient):
    rival = [2.0, 1.0, 6.0, 3.0, 5.0, 4.0]
    found = lead(ACROSS, rival, UP, range(6), coefficient)
    own, others = (correlations(row, UP, range(6))[coefficient] for row in (ACROSS, rival))
    assert found.value == pytest.approx(own.value - others.value)
    assert found.interval[0] < found.value < found.interval[1]
    none = lead(ACROSS, [2 * value for value in ACROSS], UP, range(6), coefficient)
    assert [none.value, *none.interval] == pytest.approx([0, 0, 0], abs=1e-12), "what both have in common cancels"
