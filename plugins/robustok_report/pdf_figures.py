"""Figures for papers: the same data as on the page, drawn by matplotlib as vectors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import singledispatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from robustok_core.errors import RobustokError
from robustok_core.runs.files import new_file, writing
from robustok_core.values.printable import printable
from robustok_report.plotly_figures import COLOURS
from robustok_toolkit.new_files import require_place
from robustok_toolkit.report_parts import FIGURES, Bars, Figure, Heatmap, Lines, Points, Section

#: Inches: a column of a two-column paper.
_WIDTH, _HEIGHT = 3.4, 2.4
#: Inches of a row of a legend below its figure.
_ROW = 0.14
#: The dashes of lines and the symbols of points, one of each for all lines that go through the colours once.
_DASHES = ("-", "--", ":", "-.")
_SYMBOLS = ("o", "s", "D", "^", "X")
#: Real fonts in the file, so that a journal accepts it; no date, so that the same run gives the same file.
_STYLE: Any = {"pdf.fonttype": 42, "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}


def require_figures(folder: Path) -> None:
    """Raises RobustokError if matplotlib is not installed, or a folder for figures could not be written."""
    if find_spec("matplotlib") is None:
        hint = "pip install 'robustok[plots]'"
        raise RobustokError("figures as PDF need matplotlib, which is not installed", hint=hint)
    require_place(folder / "figure.pdf")


def save_figures(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Writes each figure of the sections as FOLDER/SECTION-TITLE.pdf and returns the files.

    Raises:
        RobustokError: as `require_figures`.
    """
    require_figures(folder)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(_STYLE):
        for name, part in _named(sections):
            figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
            draw(part, figure.add_subplot())
            files.append(folder / f"{name}.pdf")
            with new_file(files[-1]) as unfinished:
                figure.savefig(unfinished, format="pdf", metadata={"CreationDate": None})
    return files


def _named(sections: Sequence[Section]) -> Iterator[tuple[str, Figure]]:
    taken: dict[str, int] = {}
    for section in sections:
        for part in section.parts:
            if isinstance(part, FIGURES):
                name = re.sub(r"[^a-z0-9.]+", "-", f"{section.title} {part.title}".lower()).strip("-.") or "figure"
                taken[name] = taken.get(name, 0) + 1
                yield name if taken[name] == 1 else f"{name}-{taken[name]}", part


def _text(name: str) -> str:
    """A name as it is: matplotlib sets what stands between two $ as mathematics, and hides what begins with _."""
    shown = printable(name).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


@singledispatch
def draw(figure: Any, axes: Any) -> None:  # noqa: ARG001  # what is registered below uses them
    """Draws the data of a figure into matplotlib's axes."""
    raise TypeError(f"a report cannot draw a {type(figure).__name__}")


@draw.register
def _(figure: Lines, axes: Any) -> None:
    """All points of the lines."""
    for number, series in enumerate(figure.series):
        turn, symbol = number // len(COLOURS), _SYMBOLS[number // len(COLOURS) % len(_SYMBOLS)]
        style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "label": _text(series.name), "linewidth": 1.2}
        style |= {"linestyle": _DASHES[turn % len(_DASHES)], "markersize": 3}
        if series.error is None:
            axes.plot(series.x, series.y, marker=symbol if figure.marked(series) else None, **style)
        else:
            axes.errorbar(series.x, series.y, series.error, marker=symbol, capsize=2, **style)
    if figure.log:
        axes.set_yscale("log")
    if figure.mark is not None:
        axes.axvline(figure.mark[0], linestyle=":", color="black", linewidth=0.8)
    if len(figure.series) > len(COLOURS):  # too many to lie over the lines
        rows = math.ceil(len(figure.series) / 2)
        axes.figure.set_figheight(_HEIGHT + rows * _ROW)
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=6, frameon=False)
    elif len(figure.series) > 1:
        axes.legend(frameon=False)
    axes.set(xlabel=_text(figure.x), ylabel=_text(figure.y or figure.title))


@draw.register
def _(figure: Points, axes: Any) -> None:
    """A scatter, with the names of its points where they are wanted."""
    colours = COLOURS[0] if figure.colours is None else list(figure.colours)
    drawn = axes.scatter(figure.across, figure.up, c=colours, s=12 if figure.labelled else 6, cmap="viridis")
    if figure.colours is not None:
        axes.figure.colorbar(drawn, label=_text(figure.colour))
    for name, across, up in zip(figure.names, figure.across, figure.up, strict=True) if figure.labelled else ():
        axes.annotate(_text(name), (across, up), textcoords="offset points", xytext=(3, 3), fontsize=6)
    axes.set(xlabel=_text(figure.x), ylabel=_text(figure.y))


@draw.register
def _(figure: Bars, axes: Any) -> None:
    """Bars at their positions."""
    positions = [_text(at) if isinstance(at, str) else at for at in figure.positions]
    axes.bar(positions, figure.heights, color=COLOURS[0])
    axes.set(xlabel=_text(figure.x), ylabel=_text(figure.y))


@draw.register
def _(figure: Heatmap, axes: Any) -> None:
    """Cells with their numbers."""
    drawn = axes.imshow(figure.values, aspect="auto", cmap="viridis", origin="lower")
    axes.set_xticks(range(len(figure.columns)), [_text(name) for name in figure.columns])
    axes.set_yticks(range(len(figure.rows)), [_text(name) for name in figure.rows])
    low, high = drawn.get_clim()
    for row, values in enumerate(figure.values):
        for column, value in enumerate(values):
            colour = "white" if value < (low + high) / 2 else "black"
            axes.text(column, row, f"{value:.4g}", ha="center", va="center", color=colour, fontsize=6)
    axes.figure.colorbar(drawn)
    axes.set(xlabel=_text(figure.x), ylabel=_text(figure.y))
