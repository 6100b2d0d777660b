"""Figures for papers: names are set as they are."""

from __future__ import annotations

import pytest

from robustok_report.pdf_figures import draw, save_figures
from robustok_toolkit.report_parts import Bars, Heatmap, Lines, Points, Section, Series

#: The first is a mistake to matplotlib's mathematics, the second is mathematics, the third is hidden by a legend.
NAMES = [r"a$\frac$b", "price: $5_and$", "_private"]

mpl_figure = pytest.importorskip("matplotlib.figure", reason="matplotlib, which draws the figures, is missing")


def named(name: str) -> list:
    return [
        Lines(name, [Series(name, [0, 1], [0, 1]), Series("other", [0, 1], [1, 0])], x=name, y=name),
        Points(name, [0, 1], [0, 1], [name, name], x=name, y=name, colours=[0, 1], colour=name, labelled=True),
        Bars(name, [name, "b"], [1, 2], x=name, y=name),
        Heatmap(name, [name, "b"], [name], [[1.0, 2.0]], x=name, y=name),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_can_be_drawn_with_any_name(tmp_path, name):
    files = save_figures([Section(name, named(name))], tmp_path)
    assert len(files) == 4
    assert all(file.read_bytes().startswith(b"%PDF") for file in files)


@pytest.mark.parametrize("name", NAMES)
def test_a_legend_has_every_name_as_it_is(name):
    axes = mpl_figure.Figure().add_subplot()
    draw(named(name)[0], axes)
    text, other = axes.get_legend().get_texts()
    shown, mathematics = text._preprocess_math(text.get_text())
    assert (shown.strip(), mathematics) == (name, False)
    assert other.get_text() == "other"


def test_all_points_of_a_long_curve_are_drawn():
    """The page draws the extremes of each run of neighbours; a vector figure has room for all."""
    axes = mpl_figure.Figure().add_subplot()
    draw(Lines("l", [Series("l", range(10_000), range(10_000))], x="x"), axes)
    assert len(axes.lines[0].get_xdata()) == 10_000


@pytest.mark.parametrize("points", [1, 2])
def test_twenty_lines_or_points_are_told_apart(points):
    axes = mpl_figure.Figure(layout="constrained").add_subplot()
    draw(Lines("l", [Series(f"arm {i}", range(points), [i] * points) for i in range(20)], x="x"), axes)
    looks = {
        (line.get_color(), line.get_marker() if points == 1 else line.get_linestyle()) for line in axes.get_lines()
    }
    assert len(looks) == 20


def test_errors_do_not_make_lines_alike():
    axes = mpl_figure.Figure(layout="constrained").add_subplot()
    draw(Lines("l", [Series(f"arm {i}", [0, 1], [i, i], error=[1, 1]) for i in range(20)], x="x"), axes)
    lines = [container.lines[0] for container in axes.containers]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 20


def test_a_long_legend_covers_no_line():
    figure = mpl_figure.Figure(figsize=(3.4, 2.4), layout="constrained")
    axes = figure.add_subplot()
    draw(Lines("l", [Series(f"arm {i}", [0, 1], [i, i]) for i in range(20)], x="x"), axes)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 20
    assert legend.get_window_extent().y1 <= axes.get_tightbbox().y0
    assert axes.get_window_extent().height > figure.dpi  # an inch is left for the lines
