"""The weight of guidance over the sampling steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustok_core import Guidance

shares = st.floats(0, 1, exclude_max=True)


@given(shares)
def test_a_constant_schedule_has_the_scale_everywhere(done):
    assert Guidance(scale=3.0).weight(done) == 3.0


@pytest.mark.parametrize(("done", "weight"), [(0.0, 1.0), (0.25, 1.5), (0.5, 2.0)])
def test_a_linear_schedule_grows_from_1_to_the_scale(done, weight):
    assert Guidance(scale=3.0, schedule="linear").weight(done) == pytest.approx(weight)


@given(shares, st.floats(0.1, 4))
def test_a_cosine_schedule_is_that_of_rar(done, power):
    expected = 1 + (3 - 1) * (1 - math.cos(math.pi * done**power)) / 2
    assert Guidance(scale=3.0, schedule="cosine", power=power).weight(done) == pytest.approx(expected)


@given(st.sampled_from(["constant", "linear", "cosine"]), shares, shares)
def test_guidance_never_weakens_while_it_lasts(schedule, first, second):
    guidance = Guidance(scale=3.0, schedule=schedule)
    early, late = sorted((first, second))
    assert guidance.weight(early) <= guidance.weight(late)


def test_outside_of_its_interval_there_is_none():
    guidance = Guidance(scale=3.0, start=0.25, stop=0.75)
    assert [guidance.weight(done) for done in (0.0, 0.25, 0.5, 0.75)] == [1.0, 3.0, 3.0, 1.0]


def test_the_first_step_can_be_guided_before_the_interval():
    guidance = Guidance(scale=3.0, start=0.5, guide_first=True)
    assert [guidance.weight(done) for done in (0.0, 0.25, 0.5)] == [3.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("options", "active"),
    [
        ({}, False),
        ({"scale": 2.0}, True),
        ({"scale": 0.5}, True),
        ({"scale": 1.0, "start": 0.5, "schedule": "cosine"}, False),
        ({"scale": 2.0, "start": 1.0, "guide_first": True}, True),
    ],
)
def test_guidance_is_active_if_it_changes_anything(options, active):
    assert Guidance(**options).active == active


@pytest.mark.parametrize("options", [{"scale": -1.0}, {"scale": math.inf}, {"power": 0.0}, {"start": 1.5}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Guidance(**options)


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"power": 1.5}, 'schedule = "linear" or "cosine"'),
        ({"guide_first": True}, 'schedule = "constant" and a start above 0'),
        ({"guide_first": True, "start": 0.5, "schedule": "cosine"}, 'schedule = "constant" and a start above 0'),
        ({"start": 0.7, "stop": 0.3}, "a start below stop, or guide_first = true"),
        ({"start": 1.0}, "a start below stop, or guide_first = true"),
    ],
)
def test_options_without_effect_on_the_weight_are_refused(options, needs):
    with pytest.raises(ValueError, match=f"(has|have) an effect only with {needs}"):
        Guidance(scale=2.0, **options)
