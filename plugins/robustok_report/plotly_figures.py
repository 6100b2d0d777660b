"""Figures for the page: the data of a figure as plotly.js draws it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

from robustok_toolkit.report_parts import Bars, Heatmap, Lines, Points

#: Okabe and Ito's colours, which people with any colour vision tell apart; dark enough for lines on white.
COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#a3457b", "#8a6d00", "#3a8fc4", "#444444")
SCALE = "Viridis"
_INK, _AXIS, _GRID = "#475467", "#98a2b3", "#e7eaee"
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
#: A curve with more points is thinned out: no screen shows more.
MOST_POINTS = 600


@singledispatch
def plotly_figure(figure: Any) -> dict[str, Any]:
    """The `data` and `layout` of a figure, as JSON values."""
    raise TypeError(f"a report cannot draw a {type(figure).__name__}")


def _layout(x: str, y: str, **more: Any) -> dict[str, Any]:
    ticks = {"ticks": "outside", "tickcolor": _AXIS, "exponentformat": "power"}
    axis = {"gridcolor": _GRID, "zeroline": False, "linecolor": _AXIS, **ticks}
    return {
        "font": {"family": _FONT, "size": 13, "color": _INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "xaxis": {**axis, "title": {"text": _plain(x)}, "automargin": True},
        "yaxis": {**axis, "title": {"text": _plain(y)}, "automargin": True},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "hoverlabel": {"font": {"family": _FONT}},
        "showlegend": False,
    } | more


def _plain(text: str) -> str:
    """A text in which plotly finds no markup of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def thinned(values: Sequence[float]) -> list[float]:
    """At most `MOST_POINTS` of the values, the first and the last among them."""
    if len(values) <= MOST_POINTS:
        return list(values)
    step = (len(values) - 1) / (MOST_POINTS - 1)
    return [values[round(number * step)] for number in range(MOST_POINTS)]


@plotly_figure.register
def _(figure: Lines) -> dict[str, Any]:
    mode = "lines+markers" if figure.markers else "lines"
    data: list[dict[str, Any]] = []
    for number, series in enumerate(figure.series):
        colour = COLOURS[number % len(COLOURS)]
        dash = ("solid", "dash", "dot")[number // len(COLOURS) % 3]
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": mode,
            "name": _plain(series.name),
            "x": thinned(series.x),
            "y": thinned(series.y),
            "line": {"color": colour, "width": 2, "dash": dash},
        }
        if series.error is not None:
            trace["error_y"] = {"array": thinned(series.error), "thickness": 1, "width": 3}
        data.append(trace)
    layout = _layout(figure.x, figure.y, hovermode="x unified", showlegend=len(data) > 1)
    if figure.log:
        layout["yaxis"]["type"] = "log"
    if figure.mark is not None:
        at, label = figure.mark
        layout["shapes"] = [
            {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot"}}
        ]
        layout["annotations"] = [
            {
                "x": at,
                "y": 1,
                "yref": "paper",
                "text": _plain(label),
                "showarrow": False,
                "xanchor": "left",
                "xshift": 6,
            }
        ]
    return {"data": data, "layout": layout}


@plotly_figure.register
def _(figure: Points) -> dict[str, Any]:
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
    trace = {
        "type": "bar",
        "x": list(figure.positions),
        "y": figure.heights,
        "marker": {"color": COLOURS[0], "line": {"width": 0}},
    }
    return {"data": [trace], "layout": _layout(figure.x, figure.y, bargap=0.05)}


@plotly_figure.register
def _(figure: Heatmap) -> dict[str, Any]:
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
