"""What a section of a report holds; a plugin returns a `Section` from the hook `robustok_report_section(run)`.

    from robustok_core import hookimpl
    from robustok_toolkit.report_parts import Lines, Section, Series

    @hookimpl
    def robustok_report_section(run):
        lengths = [line["length"] for line in run.log if "length" in line]
        return Section("Length", [Lines("Length", [Series("length", range(len(lengths)), lengths)], x="line")])

All text is shown as it is: `<` and `&` need no care, except in `Html`. A figure is data, which the page and the PDF
files draw alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

#: One picture: uint8 (H, W, 3).
Pixels: TypeAlias = NDArray[np.uint8]


def _numbers(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]


@frozen
class Text:
    """A paragraph. A `muted` one is a remark."""

    text: str
    muted: bool = field(default=False, kw_only=True)


@frozen
class Html:
    """Markup that goes into the page as it is: escape what you put into it."""

    markup: str


@frozen
class Fact:
    """A number that is shown large: its name, its value as text, and a hint."""

    name: str
    value: str
    hint: str = ""


@frozen
class Facts:
    """A few numbers side by side."""

    facts: Sequence[Fact]


@frozen
class Cell:
    """A cell of a table: a text, its `hint` below it, and whether it is `marked`; `code` is a command to copy."""

    text: str
    hint: str = field(default="", kw_only=True)
    marked: bool = field(default=False, kw_only=True)
    code: bool = field(default=False, kw_only=True)


@frozen
class Table:
    """Rows below the names of their columns; the first cell of a row is its name.

    A `folded` table is closed until a reader opens it; `code` sets its cells in a monospaced font.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    folded: bool = field(default=False, kw_only=True)
    code: bool = field(default=False, kw_only=True)


@frozen
class Series:
    """A named line; `error` is its standard error at each point."""

    name: str
    x: Sequence[float] = field(converter=_numbers)
    y: Sequence[float] = field(converter=_numbers)
    error: Sequence[float] | None = field(default=None, kw_only=True)


@frozen
class Lines:
    """Curves over a common axis. `curves` adds the switches for a logarithmic axis and smoothing."""

    title: str
    series: Sequence[Series]
    x: str = field(kw_only=True)
    y: str = field(default="", kw_only=True)
    log: bool = field(default=False, kw_only=True)
    curves: bool = field(default=False, kw_only=True)
    markers: bool = field(default=False, kw_only=True)
    mark: tuple[float, str] | None = field(default=None, kw_only=True)


@frozen
class Points:
    """Points with their names, coloured by `colours` where given."""

    title: str
    across: Sequence[float] = field(converter=_numbers)
    up: Sequence[float] = field(converter=_numbers)
    names: Sequence[str]
    x: str = field(kw_only=True)
    y: str = field(kw_only=True)
    colours: Sequence[float] | None = field(default=None, kw_only=True)
    colour: str = field(default="", kw_only=True)
    labelled: bool = field(default=False, kw_only=True)


@frozen
class Bars:
    """Bars at positions, without gaps where there are many."""

    title: str
    positions: Sequence[Any]
    heights: Sequence[float] = field(converter=_numbers)
    x: str = field(kw_only=True)
    y: str = field(kw_only=True)


@frozen
class Heatmap:
    """A number for each pair of a row and a column, written into its cell."""

    title: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float]]
    x: str = field(kw_only=True)
    y: str = field(kw_only=True)


@frozen
class Pictures:
    """Rows of pictures by caption, and the names of their columns; pictures are shrunk to fit, never cropped."""

    title: str
    rows: Mapping[str, Sequence[Pixels]]
    columns: Sequence[str] = ()


@frozen
class BeforeAfter:
    """Pairs of pictures by row, laid over each other: one slider uncovers the second of every pair."""

    title: str
    before: Mapping[str, Sequence[Pixels]]
    after: Mapping[str, Sequence[Pixels]]
    names: tuple[str, str] = ("before", "after")


Figure: TypeAlias = Lines | Points | Bars | Heatmap
#: The same, to ask whether a part is one.
FIGURES = (Lines, Points, Bars, Heatmap)
Part: TypeAlias = "Text | Html | Facts | Table | Pictures | BeforeAfter | Figure"


@frozen
class Section:
    """A part of a report under its own heading; `why` says in a sentence what it is for."""

    title: str
    parts: Sequence[Part]
    why: str = field(default="", kw_only=True)
