"""What the page of a report holds, read from its text."""

from __future__ import annotations

import html
import json
import re
from typing import Any

_CHART = re.compile(
    r'<figure class="chart">\s*<h3>(.*?)</h3>.*?<script type="application/json">(.*?)</script>', re.DOTALL
)


def figures_of(page: str) -> dict[str, dict[str, Any]]:
    """The figures of a page as plotly.js gets them, by title."""
    return {html.unescape(title): json.loads(text, parse_constant=_refuse) for title, text in _CHART.findall(page)}


def _refuse(name: str) -> None:
    raise ValueError(f"a browser's JSON.parse does not know {name}")


def rows_of(page: str, title: str) -> dict[str, list[str]]:
    """The table of this title: the texts of each row's other cells, without hints, by the text of its first one."""
    table = re.search(rf"<h3>{re.escape(html.escape(title))}</h3>.*?</table>", page, re.DOTALL)
    assert table is not None, f"the page has no table {title!r}"
    rows = re.findall(r"<tr>(.*?)</tr>", table[0].partition("<tbody>")[2], re.DOTALL)
    texts = [
        [html.unescape(one.strip()) for one in re.findall(r"<span[^>]*>(.*?)</span>", row, re.DOTALL)] for row in rows
    ]
    return {html.unescape(first): list(map(html.unescape, others)) for first, *others in texts}


def missing(page: str) -> str:
    """What the page names as missing; empty if it lacks nothing."""
    found = re.search(r'<section class="missing".*?</section>', page, flags=re.DOTALL)
    return html.unescape(found[0]) if found else ""
