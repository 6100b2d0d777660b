"""Means, intervals and how many seeds are needed, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from robustok_study.statistics import Estimate, estimate, seeds_needed

VALUES = [-30.4, -34.8, -23.7]


def test_mean_error_and_interval_are_those_of_scipy():
    found = estimate(VALUES)
    assert found.count == 3
    assert found.mean == pytest.approx(np.mean(VALUES))
    assert found.standard_error == pytest.approx(stats.sem(VALUES))
    low, high = stats.t.interval(0.95, df=2, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_interval_of_three_seeds_by_hand():
    """1, 2, 3: mean 2, standard deviation 1; t for 2 degrees of freedom is 4.3027."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.standard_error == pytest.approx(1 / math.sqrt(3))
    assert found.high == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-4)


@pytest.mark.parametrize("values", [VALUES, [-1.0, 2.0, 0.5], [3.0, 3.1, 2.9, 3.0]])
def test_an_interval_excludes_zero_where_the_t_test_is_significant(values):
    assert estimate(values).excludes(0.0) == bool(stats.ttest_1samp(values, 0.0).pvalue < 0.05)


def test_one_seed_has_no_error_and_excludes_nothing():
    assert estimate([5.0]) == Estimate(count=1, mean=5.0)
    assert not estimate([5.0]).excludes(0.0)


@pytest.mark.parametrize("values", [[0.1, 0.1, 0.1], [0.3 - 0.2, 0.5 - 0.4, 0.8 - 0.7]])
def test_numbers_of_all_seeds_that_are_equal_but_for_rounding_exclude_nothing(values):
    assert not estimate(values).excludes(0.0)


def test_rounding_is_measured_by_what_was_subtracted():
    rest = [0.1 + 0.2 - 0.3, 0.0, 0.7 + 0.1 - 0.8]
    assert len(set(rest)) == 3
    assert estimate(rest).standard_error
    assert not estimate(rest, size=0.8).standard_error


@pytest.mark.parametrize(("values", "count"), [([0.9, 1.2, 0.1], 7), ([-1.0, 2.0, 0.5], 73), ([10.0, 11.0, 12.0], 3)])
def test_with_the_seeds_needed_four_of_five_studies_decide(values, count):
    """Simulated: studies of so many seeds whose mean and spread are those of the values."""
    assert seeds_needed(values) == count
    rng = np.random.default_rng(0)

    def decided(n: int) -> float:
        drawn = rng.normal(np.mean(values), np.std(values, ddof=1), (20_000, n))
        return np.mean(stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05)

    assert decided(count) > 0.79
    assert count == 3 or decided(count - 1) < 0.81


def test_no_number_of_seeds_is_proposed_for_a_difference_that_is_lost_in_the_noise():
    assert seeds_needed([1.0, -1.0, 0.001]) is None
    assert seeds_needed([2.0, 2.0]) is None


@pytest.mark.parametrize("values", [[math.inf, 1.0, 2.0], [math.nan, 1.0, 2.0], [math.inf, -math.inf]])
def test_numbers_that_are_not_finite_decide_nothing(values):
    found = estimate(values)
    assert not math.isfinite(found.mean)
    assert (found.standard_error, found.low, found.high) == (None, None, None)
    assert not found.excludes(0.0)
    assert seeds_needed(values) is None
