"""The rule by which claims are decided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robustok_study.verdicts import best_of, difference_of, verdict_of

NUMBERS = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=1, max_size=6)


def decided(differences, direction="lower", than=0.0):
    base = dict.fromkeys(range(len(differences)), 50.0)
    arm = {seed: 50.0 + value for seed, value in enumerate(differences)}
    return verdict_of(difference_of(arm, base, "base", than), direction, list(base))[0]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([-30.0, -35.0, -24.0], "reproduced"),
        ([30.0, 35.0, 24.0], "contradicted"),
        ([-30.0, 35.0, 24.0], "undecided"),
        ([-1.0, -30.0, -2.0], "undecided"),  # all fall, but the interval reaches 0
        ([-30.0, -31.0], "undecided"),  # two seeds are not enough
        ([-5.0, -5.0, -5.0], "undecided"),  # no repetitions
        ([0.3 - 0.2, 0.5 - 0.4, 0.8 - 0.7], "undecided"),  # nor these: they differ by rounding
    ],
)
def test_three_seeds_whose_interval_excludes_zero_decide(differences, verdict):
    opposite = {"reproduced": "contradicted", "contradicted": "reproduced"}
    assert decided(differences) == verdict
    assert decided(differences, "higher") == opposite.get(verdict, verdict)


def test_the_interval_is_compared_with_what_the_claim_says():
    assert decided([0.18, 0.20, 0.21], than=0.25) == "reproduced"
    assert decided([0.30, 0.31, 0.33], than=0.25) == "contradicted"


def test_only_seeds_that_both_arms_have_are_paired():
    difference = difference_of({0: 1.0, 1: 2.0, 2: 9.0}, {0: 0.5, 2: 1.0, 3: 7.0}, "base")
    assert difference.by_seed == {"0": 0.5, "2": 8.0}
    assert verdict_of(difference, "higher", [0, 1, 2, 3]) == ("undecided", "2 of 4 seeds are done")
    assert verdict_of(difference, "higher", [0, 2])[1] == "2 of the 3 seeds that a verdict needs at least"


def test_a_verdict_waits_for_all_seeds_of_the_study():
    difference = difference_of({0: -1.0, 1: -1.5, 2: -1.2}, None, None)
    verdict, reason = verdict_of(difference, "lower", range(10))
    assert verdict == "undecided"
    assert reason.endswith(", 3 seeds; 3 of 10 seeds are done")


def test_differences_of_differences_that_are_equal_up_to_rounding_decide_nothing():
    gains = {0: (500.1 - 480.3) - (4000.7 - 3980.9), 1: (512.7 - 492.9) - (3891.2 - 3871.4), 2: (1.4e-14 + 3e-14)}
    assert len(set(gains.values())) == 3
    difference = difference_of(gains, None, None, size=4000.7)
    assert difference.standard_error == 0
    assert verdict_of(difference, "higher", [0, 1, 2])[0] == "undecided"


def test_without_a_base_the_metric_itself_is_what_is_claimed():
    difference = difference_of({0: -1.0, 1: -1.5, 2: -1.2}, None, None)
    assert difference.by_seed == {"0": -1.0, "1": -1.5, "2": -1.2}
    assert verdict_of(difference, "lower", [0, 1, 2])[0] == "reproduced"


def test_an_undecided_claim_says_what_more_seeds_would_probably_make_of_it():
    base = {0: 0.0, 1: 0.0, 2: 0.0}
    for direction, likely in (("lower", "contradicted"), ("higher", "reproduced")):
        reason = verdict_of(difference_of({0: 0.9, 1: 1.2, 2: 0.1}, base, "base"), direction, [0, 1, 2])[1]
        assert reason.endswith(f"; if mean and spread stay, about 7 seeds would make it {likely}, 4 times in 5")


def test_without_results_nothing_is_decided():
    assert difference_of({}, {0: 1.0}, "base") is None
    assert verdict_of(None, "lower", [0])[0] == "undecided"


@given(NUMBERS)
def test_a_verdict_agrees_with_the_paired_t_test(differences):
    verdict = decided(differences)
    if len(differences) < 3 or len(set(differences)) == 1:
        assert verdict == "undecided"
        return
    p = stats.ttest_1samp(differences, 0.0).pvalue
    if abs(p - 0.05) > 1e-9:
        assert (verdict != "undecided") == (p < 0.05)
        if verdict != "undecided":
            assert (verdict == "reproduced") == (sum(differences) < 0)


ONE, TWO = {0: 330.0, 1: 340.0, 2: 326.0}, {0: 300.0, 1: 312.0, 2: 295.0}


@pytest.mark.parametrize(
    ("values", "higher", "best"),
    [
        ({"one": ONE, "two": TWO}, False, "two"),
        ({"one": ONE, "two": TWO}, True, "one"),
        ({"one": ONE, "two": TWO}, None, None),
        ({"one": ONE}, False, None),
        ({"one": {0: 1.0}, "two": {0: 1.0001}}, False, None),  # one seed: nothing is known about the error
        ({"one": ONE, "two": TWO, "three": {0: 299.0, 1: 314.0, 2: 295.0}}, False, None),  # as good within its error
        ({"one": ONE, "two": {seed + 3: value for seed, value in TWO.items()}}, False, None),  # no common seed
        ({"one": ONE, "two": {**TWO, 2: float("nan")}}, False, None),
        ({"one": {0: 5.0, 1: 5.0}, "two": {0: 4.0, 1: 4.0}}, False, None),  # no repetitions
    ],
)
def test_the_best_is_better_than_all_others_beyond_the_errors(values, higher, best):
    assert best_of(values, higher) == best


def test_the_best_is_better_in_the_seeds_that_are_paired_too():
    """Its mean is the highest because of seeds that the other one lacks; where both ran, it is worse."""
    values = {"a": {0: 1.0, 1: 1.1, 2: 1.2, 3: 90.0, 4: 90.0}, "b": {0: 2.0, 1: 2.11, 2: 2.2}}
    assert best_of(values, True) is None
