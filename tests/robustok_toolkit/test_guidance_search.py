from __future__ import annotations

import math

import attrs
import pytest

from robustok_core import Result
from robustok_core.recipe.source import parse_override
from robustok_core.values.guidance import Guidance
from robustok_toolkit.guidance_search import GuidanceSearch, best_of, recipe_line


def searched(cost, *, higher_is_better: bool = False) -> GuidanceSearch:
    search = GuidanceSearch(lambda guidance: Result(cost(guidance), higher_is_better=higher_is_better))
    list(search.run())
    return search


def far_from(best: Guidance):
    """A cost that is 0 at one guidance only, and grows with the difference of each option."""

    def cost(guidance: Guidance) -> float:
        numbers = [abs(getattr(guidance, name) - getattr(best, name)) for name in ("scale", "start", "stop")]
        return sum(numbers) + 0.6 * (guidance.schedule != best.schedule)

    return cost


def test_the_scale_is_found_between_those_of_the_list_and_larger_ones_are_not_tried_in_vain():
    search = searched(far_from(Guidance(scale=1.8)))
    assert search.best.guidance == Guidance(scale=1.75)
    scales = [trial.guidance.scale for trial in search.trials if trial.what == "scale"]
    assert scales == [1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 1.75, 2.25]  # after two worse ones, those around the best


@pytest.mark.parametrize(
    "best", [Guidance(scale=3.0, schedule="cosine"), Guidance(scale=2.0, start=0.25, stop=0.75), Guidance(scale=1.5)]
)
def test_schedules_and_intervals_are_found_where_they_are_better(best):
    assert searched(far_from(best)).best.guidance == best


def test_without_gain_from_guidance_nothing_but_scales_is_tried():
    search = searched(lambda guidance: guidance.scale)
    assert search.best.guidance == Guidance()
    assert {trial.what for trial in search.trials} == {"scale"}


def test_all_scales_that_are_named_are_tried_once_however_many_are_worse():
    search = GuidanceSearch(lambda guidance: Result(far_from(Guidance())(guidance), higher_is_better=False))
    list(search.run([1.0, 4.0, 2.0, 6.0, 2.0, 8.0]))
    scales = [trial.guidance.scale for trial in search.trials if trial.what == "scale"]
    assert scales == [1.0, 2.0, 4.0, 6.0, 8.0, 1.5]


@pytest.mark.parametrize(("higher_is_better", "best"), [(False, Guidance()), (True, Guidance(scale=2.0))])
def test_of_equal_results_the_first_is_the_best(higher_is_better, best):
    values = {Guidance(): 1.0, Guidance(scale=2.0): 3.0, Guidance(scale=3.0): 3.0, Guidance(scale=4.0): 1.0}
    results = {guidance: Result(value, higher_is_better=higher_is_better) for guidance, value in values.items()}
    assert best_of(results) == best


def test_higher_is_better_where_the_metric_says_so():
    search = searched(lambda guidance: -far_from(Guidance(scale=2.0))(guidance), higher_is_better=True)
    assert search.best.guidance == Guidance(scale=2.0)


def test_no_guidance_is_measured_twice():
    seen = []
    search = GuidanceSearch(lambda guidance: Result(seen.append(guidance) or guidance.start - guidance.scale))
    list(search.run([1.0, 2.0]))
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    "guidance",
    [
        Guidance(),
        Guidance(scale=2.25, schedule="cosine", power=2.5, start=0.25, stop=0.75),
        Guidance(scale=2.25, start=0.25, guide_first=True),
    ],
)
def test_the_line_for_a_recipe_is_toml_and_gives_the_same_guidance(guidance):
    key, table = parse_override(recipe_line(guidance).replace(" = ", "=", 1))
    assert key == "guidance"
    assert Guidance(**table) == guidance
    assert table.keys() == {"scale"} | {
        name for name, value in attrs.asdict(guidance).items() if value != getattr(Guidance(), name)
    }
    assert math.isfinite(table["scale"])
