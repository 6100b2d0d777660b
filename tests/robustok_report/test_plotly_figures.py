"""Figures for the page: what is drawn of long curves, and what is said of the rest."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report_pages import figures_of
from robustok_report.page import Page
from robustok_report.plotly_figures import MOST_POINTS, extremes, plotly_figure, remark
from robustok_toolkit.report_parts import Bars, BeforeAfter, Heatmap, Lines, Pictures, Points, Section, Series


def curve(values) -> Lines:
    return Lines("Loss", [Series("loss", range(len(values)), values)], x="step", curves=True)


def html_of(*parts, title="a run") -> str:
    return Page(title=title, subtitle="", sections=[Section("One", parts)], missing=[]).html()


def test_a_spike_of_a_long_curve_is_drawn():
    values = [1.0] * 50_000
    values[12_345] = 1e6
    values[44_444] = -1e6
    (drawn,) = plotly_figure(curve(values))["data"]
    assert len(drawn["y"]) <= MOST_POINTS
    assert dict(zip(drawn["x"], drawn["y"], strict=True)).items() >= {12_345: 1e6, 44_444: -1e6}.items()


@given(st.integers(1, 9000), st.integers(0, 2**32))
def test_what_is_drawn_of_a_curve_is_in_order_and_has_its_extremes(length, seed):
    values = np.random.default_rng(seed).normal(size=length).tolist()
    drawn = extremes(values)
    assert drawn == sorted(set(drawn))
    assert len(drawn) <= max(MOST_POINTS, 2)
    assert {values.index(min(values)), values.index(max(values))} <= set(drawn)


def test_smoothing_starts_from_means_and_not_from_extremes():
    """A curve that jumps between 0 and 9, mostly 0: its extremes have the mean 4.5."""
    (drawn,) = plotly_figure(curve([9.0 if step % 9 == 0 else 0.0 for step in range(9 * MOST_POINTS)]))["data"]
    assert np.mean(drawn["meta"]["y"]) == pytest.approx(1.0)
    assert np.mean(drawn["meta"]["x"]) == pytest.approx((9 * MOST_POINTS - 1) / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ([1.0], "lines+markers"),
        ([1.0, math.nan, 2.0], "lines+markers"),
        ([1.0, 2.0, math.nan, 3.0], "lines"),
        ([], "lines+markers"),
    ],
)
def test_a_point_without_neighbours_is_marked_since_no_line_shows_it(values, mode):
    (drawn,) = plotly_figure(curve(values))["data"]
    assert drawn["mode"] == mode


def test_a_short_curve_is_drawn_whole_and_nothing_is_remarked():
    values = [math.sin(step) for step in range(MOST_POINTS)]
    (drawn,) = plotly_figure(curve(values))["data"]
    assert (drawn["y"], remark(curve(values))) == (values, "")
    assert "meta" not in drawn


def test_what_is_not_drawn_is_said():
    said = remark(curve([1.0] * 10_000 + [math.inf, math.nan]))
    assert said.startswith("Of 10,002 points, the smallest and the largest of each 11 neighbours are drawn.")
    assert said.endswith("2 values are not finite, and are gaps.")
    assert "Of 10,002 points" in html_of(curve([1.0] * 10_002))


@pytest.mark.parametrize(
    "figure",
    [
        curve([1.0, -math.inf, math.inf, math.nan]),
        Points("p", [-math.inf], [math.nan], ["a"], x="x", y="y", colours=[math.inf]),
        Bars("b", [1], [-math.inf], x="x", y="y"),
        Heatmap("h", ["a"], ["b"], [[-math.inf]], x="x", y="y"),
    ],
)
def test_a_number_that_json_does_not_have_is_a_gap(figure):
    """`figures_of` refuses NaN and Infinity, as a browser does."""
    (drawn,) = figures_of(html_of(figure)).values()
    assert "null" in json.dumps(drawn["data"])


def test_names_that_look_like_numbers_stay():
    names = ["NaN-safe", "Infinity war"]
    page = html_of(Lines("l", [Series(name, [0, 1], [0, 1]) for name in names], x="x"))
    (drawn,) = figures_of(page).values()
    assert [one["name"] for one in drawn["data"]] == names


@pytest.mark.parametrize("part", [Pictures("none", {}), BeforeAfter("none", {}, {})])
def test_pictures_of_nothing_cost_no_section(part):
    page = html_of(part)
    assert "What is missing" not in page
    assert "<h3>none</h3>" in page


def test_a_page_with_very_many_pictures_embeds_them_smaller():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    one, many = (html_of(Pictures("p", {"row": [noise] * count})) for count in (1, 401))
    assert len(many) < 401 * len(one) / 3


@pytest.mark.parametrize("points", [1, 2])
def test_twenty_lines_or_points_are_told_apart(points):
    """A point alone shows no dash."""
    lines = Lines("l", [Series(f"arm {i}", range(points), [i] * points) for i in range(20)], x="x")
    drawn = plotly_figure(lines)["data"]
    looks = {
        (trace["line"]["color"], trace["marker"]["symbol"] if points == 1 else trace["line"]["dash"]) for trace in drawn
    }
    assert len(looks) == 20
