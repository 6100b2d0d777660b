"""The results, each with its direction, the numbers of images, what it means and why it matters."""

from __future__ import annotations

import re

from robustok_core.values.numbers import number_text
from robustok_core.values.result import Result
from robustok_report.meanings import meaning_of
from robustok_toolkit.report_parts import Cell, Section, Table
from robustok_toolkit.reported_run import ReportedRun

#: Results of `compare_decoders` are measured for each decoder: before, or after post-training with a sigma.
OF_DECODER = re.compile(r"(before|sigma[0-9.]+)_(guided_)?(\w+)")
_DIRECTIONS = {True: "higher is better ↑", False: "lower is better ↓", None: ""}


def numbers(run: ReportedRun) -> Section | None:
    """A table for each stage that measured something; what post-training changed has a section of its own."""
    tables = []
    for stage in run.stages:
        prefix = f"{stage.name}/"
        named = {name.removeprefix(prefix): one for name, one in run.results.items() if name.startswith(prefix)}
        rows = [_row(name, result) for name, result in named.items() if OF_DECODER.fullmatch(name) is None]
        if rows:
            tables.append(Table(stage.name, ["number", "value", "images", "what it says"], rows))
    if not tables:
        return None
    why = "Distances depend on the number of images: compare them only at equal numbers."
    return Section("Numbers", tables, why=why)


def _row(name: str, result: Result) -> list[str | Cell]:
    meaning = meaning_of(name)
    return [
        Cell(meaning.name, hint=name if meaning.what else ""),
        Cell(value_text(result, meaning.unit), hint=_DIRECTIONS[result.higher_is_better]),
        images_text(result),
        Cell(meaning.what, hint=meaning.why),
    ]


def value_text(result: Result, unit: str = "") -> str:
    """A result with its spread and unit, where it has them."""
    text = number_text(result.value, 4)
    if isinstance(spread := result.details.get("std"), (int, float)):
        text += f" ± {number_text(spread, 2)}"
    return f"{text} {unit}".strip()


def images_text(result: Result) -> str:
    """How many images a result was measured with, and against how many."""
    if result.num_images is None:
        return ""
    against = "" if not result.num_reference else f" against {result.num_reference:,}"
    return f"{result.num_images:,}{against}"
