"""Figures for the page: the data of a figure as plotly.js draws it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustok_toolkit.report_parts import Bars, Figure, Heatmap, Lines, Points, Series

#: Okabe and Ito's colours, which people with any colour vision tell apart; dark enough for lines on white.
COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#a3457b", "#8a6d00", "#3a8fc4", "#444444")
#: The dashes of lines and the symbols of points, one of each for all lines that go through the colours once.
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
SCALE = "Viridis"
_INK, _AXIS, _GRID = "#475467", "#98a2b3", "#e7eaee"
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
#: Of a curve with more points, the smallest and the largest of each run of neighbours are drawn: no screen shows more.
MOST_POINTS = 2000
#: Characters of a line of an axis' title.
_TITLE_WIDTH = 28


@singledispatch
def plotly_figure(figure: Any) -> dict[str, Any]:
    """The `data` and `layout` of a figure, as JSON values."""
    raise TypeError(f"a report cannot draw a {type(figure).__name__}")


def remark(figure: Figure) -> str:
    """What the page does not draw of a figure's data, for the line below it; empty where it draws all."""
    if not isinstance(figure, Lines):
        return ""
    lines = []
    if longest := max((len(series.y) for series in figure.series if len(series.y) > MOST_POINTS), default=0):
        lines.append(
            f"Of {longest:,} points, the smallest and the largest of each {_run_length(longest)} neighbours are drawn."
        )
    if lost := sum(not math.isfinite(value) for series in figure.series for value in series.y):
        lines.append(f"{lost:,} values are not finite, and are gaps.")
    return " ".join(lines)


def _layout(x: str, y: str, **more: Any) -> dict[str, Any]:
    """The layout of a figure with our fonts and axes; `more` overrides it."""
    ticks = {"ticks": "outside", "tickcolor": _AXIS, "exponentformat": "power"}
    axis = {"gridcolor": _GRID, "zeroline": False, "linecolor": _AXIS, **ticks}
    return {
        "font": {"family": _FONT, "size": 13, "color": _INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "xaxis": {**axis, "title": {"text": _wrapped(x)}, "automargin": True},
        "yaxis": {**axis, "title": {"text": _wrapped(y)}, "automargin": True},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "hoverlabel": {"font": {"family": _FONT}},
        "showlegend": False,
    } | more


def _plain(text: str) -> str:
    """A text in which plotly finds no markup of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _wrapped(title: str) -> str:
    """The title of an axis in lines that fit a phone: plotly cuts off what is longer than its figure."""
    return "<br>".join(map(_plain, textwrap.wrap(title, _TITLE_WIDTH)))


def _run_length(count: int) -> int:
    """How many neighbours of a long curve are drawn as their smallest and their largest."""
    return math.ceil(count / (MOST_POINTS // 2))


def extremes(values: Sequence[float]) -> list[int]:
    """Places of at most `MOST_POINTS` values, in order: of the smallest and the largest of each run of neighbours."""
    if len(values) <= MOST_POINTS:
        return list(range(len(values)))
    array, length = np.asarray(values, np.float64), _run_length(len(values))
    runs = [(start, array[start : start + length]) for start in range(0, len(array), length)]
    return [place for start, run in runs for place in sorted({start + _first(run, -1), start + _first(run, 1)})]


def _first(run: NDArray[np.float64], sign: int) -> int:
    """The place of the largest (1) or smallest (-1) finite value; the first place if there is none."""
    return int(np.argmax(np.where(np.isfinite(run), sign * run, -np.inf)))


def _mean_curve(series: Series) -> dict[str, list[float]]:
    """The means of each run of neighbours of a long curve: what smoothing must start from."""
    length = _run_length(len(series.y))
    starts = range(0, len(series.y), length)
    means = [
        [float(np.mean(run[np.isfinite(run)])) if np.isfinite(run).any() else math.nan for run in runs]
        for runs in ([np.asarray(of[start : start + length]) for start in starts] for of in (series.x, series.y))
    ]
    return {"x": means[0], "y": means[1]}


@plotly_figure.register
def _(figure: Lines) -> dict[str, Any]:
    """Lines, thinned out where they are long; `meta` of a trace holds its means then."""
    layout = _layout(figure.x, figure.y, hovermode="x unified", showlegend=len(figure.series) > 1)
    if figure.log:
        layout["yaxis"]["type"] = "log"
    if figure.mark is not None:
        at, label = figure.mark
        layout["shapes"] = [
            {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot"}}
        ]
        note = {"x": at, "y": 1, "yref": "paper", "text": _plain(label), "showarrow": False, "xanchor": "left"}
        layout["annotations"] = [{**note, "xshift": 6}]
    return {"data": [_trace(figure, number) for number in range(len(figure.series))], "layout": layout}


def _trace(figure: Lines, number: int) -> dict[str, Any]:
    """The `number`-th line of a figure, in its colour, dash and symbol."""
    series = figure.series[number]
    drawn = extremes(series.y)
    turn = number // len(COLOURS)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if figure.marked(series) else "lines",
        "name": _plain(series.name),
        "x": [series.x[place] for place in drawn],
        "y": [series.y[place] for place in drawn],
        "line": {"color": COLOURS[number % len(COLOURS)], "width": 2, "dash": _DASHES[turn % len(_DASHES)]},
        "marker": {"symbol": _SYMBOLS[turn % len(_SYMBOLS)]},
    }
    if len(drawn) < len(series.y):
        trace["meta"] = _mean_curve(series)
    if series.error is not None:
        trace["error_y"] = {"array": [series.error[place] for place in drawn], "thickness": 1, "width": 3}
    return trace


@plotly_figure.register
def _(figure: Points) -> dict[str, Any]:
    """A scatter, with the names of its points beside them or under the pointer."""
    marker: dict[str, Any] = {"size": 10 if figure.labelled else 8, "color": COLOURS[0], "opacity": 0.85}
    if figure.colours is not None:
        bar = {"title": {"text": _plain(figure.colour), "side": "right"}, "thickness": 12, "outlinewidth": 0}
        marker |= {"color": list(figure.colours), "colorscale": SCALE, "colorbar": bar}
    trace = {
        "type": "scatter",
        "mode": "markers+text" if figure.labelled else "markers",
        "x": figure.across,
        "y": figure.up,
        "text": [_plain(name) for name in figure.names],
        "textposition": "top center",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
        "cliponaxis": False,
    }
    layout = _layout(figure.x, figure.y)
    if figure.labelled:
        layout["margin"] = {"l": 8, "r": 40, "t": 28, "b": 8}
    if not figure.x and not figure.y:  # a map: only distances mean something
        layout["xaxis"] |= {"showticklabels": False, "ticks": "", "showline": False}
        layout["yaxis"] |= {"showticklabels": False, "ticks": "", "showline": False, "scaleanchor": "x"}
    return {"data": [trace], "layout": layout}


@plotly_figure.register
def _(figure: Bars) -> dict[str, Any]:
    """Bars at their positions."""
    trace = {
        "type": "bar",
        "x": list(figure.positions),
        "y": figure.heights,
        "marker": {"color": COLOURS[0], "line": {"width": 0}},
    }
    return {"data": [trace], "layout": _layout(figure.x, figure.y, bargap=0.05)}


@plotly_figure.register
def _(figure: Heatmap) -> dict[str, Any]:
    """Cells with their numbers."""
    trace = {
        "type": "heatmap",
        "x": list(figure.columns),
        "y": list(figure.rows),
        "z": [list(row) for row in figure.values],
        "colorscale": SCALE,
        "reversescale": False,
        "texttemplate": "%{z:.4~g}",
        "hovertemplate": f"{_plain(figure.x)} %{{x}}<br>{_plain(figure.y)} %{{y}}<br>%{{z:.5~g}}<extra></extra>",
        "xgap": 2,
        "ygap": 2,
        "colorbar": {"thickness": 12, "outlinewidth": 0},
    }
    layout = _layout(figure.x, figure.y)
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"type": "category", "showgrid": False, "ticks": ""}
    return {"data": [trace], "layout": layout}
