"""The page: sections as one HTML file that loads nothing and needs no network."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import Any

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from robustok_core import __version__
from robustok_core.values.numbers import finite_only
from robustok_core.values.printable import printable, printable_lines
from robustok_report.embedding import LARGEST, data_uri
from robustok_report.plotly_figures import plotly_figure, remark
from robustok_toolkit import report_parts
from robustok_toolkit.report_parts import FIGURES, Cell, Pictures, Section

#: Sides in pixels of small pictures, which the page enlarges without smoothing.
_PIXELATED = 64
#: A page with more pictures embeds them smaller, so that a comparison of many runs can still be mailed.
_MANY, _LARGEST_OF_MANY = 400, 128


@frozen(kw_only=True)
class Page:
    """What a page shows: its title, a line below it, its sections, and what is missing from them."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    missing: Sequence[str]

    def html(self) -> str:
        """The whole file. The same content gives the same text.

        A section that cannot be written, because a plugin filled it wrongly, is named among what is missing.
        """
        many = sum(map(_count_pictures, self.sections)) > _MANY
        environment = _environment(_LARGEST_OF_MANY if many else LARGEST)
        template = environment.get_template("section.html")
        missing, written, contents = list(self.missing), [], []
        for number, section in enumerate(self.sections):
            anchor = f"section-{number}"
            try:
                written.append(Markup(template.render(section=section, anchor=anchor)))
            except Exception as error:  # its parts may hold anything
                missing.append(f"the section {section.title}, which cannot be shown: {type(error).__name__}: {error}")
            else:
                contents.append((anchor, section.title))
        return environment.get_template("page.html").render(
            page=self,
            missing=missing,
            written=written,
            contents=contents,
            style=Markup(_file("page.css")),
            script=Markup(_file("page.js")),
            plotly=Markup(_plotly()) if self.has_figures else None,
            version=__version__,
        )

    @property
    def has_figures(self) -> bool:
        """Whether a section has a figure, so that plotly.js is needed."""
        return any(isinstance(part, FIGURES) for section in self.sections for part in section.parts)


def _count_pictures(section: Section) -> int:
    try:
        rows = [row for part in section.parts if isinstance(part, Pictures) for row in part.rows.values()]
        return sum(map(len, rows))
    except Exception:  # its parts may hold anything; it is named when it is written
        return 0


def _file(name: str) -> str:
    return files("robustok_report").joinpath("page", name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """plotly.js, which must not end the element that holds it."""
    from plotly.offline import get_plotlyjs

    return re.sub(r"</(script)", r"<\\/\1", get_plotlyjs(), flags=re.IGNORECASE)


def _environment(largest: int) -> Environment:
    numbers = itertools.count()
    environment = Environment(
        loader=PackageLoader("robustok_report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "picture": partial(_picture, largest=largest),
        "figure": _figure,
        "cell": _cell,
        "shown": printable,
        "shown_lines": printable_lines,
    }
    environment.filters |= {"breakable": _breakable, "remark": remark}
    environment.globals["next_number"] = lambda: next(numbers)
    environment.tests["of_type"] = lambda part, name: isinstance(part, getattr(report_parts, name))
    return environment


def _breakable(text: str) -> Markup:
    """A text that may be broken after a slash or an underscore."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(text))))


def _picture(pixels: Any, *, largest: int) -> Mapping[str, Any]:
    height, width = pixels.shape[:2]
    return {
        "uri": data_uri(pixels, largest),
        "width": width,
        "height": height,
        "small": max(height, width) <= _PIXELATED,
    }


def _figure(figure: Any) -> Markup:
    """The figure as JSON within a script element: no text in it can end the element."""
    text = json.dumps(finite_only(plotly_figure(figure)), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _cell(cell: str | Cell) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(str(cell))
