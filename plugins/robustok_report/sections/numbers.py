"""The results, each with its direction, the numbers of images, what it means and why it matters."""

from __future__ import annotations

import re

from robustok_core.values.numbers import number_text
from robustok_core.values.result import Result
from robustok_report.meanings import meaning_of
from robustok_toolkit.report_parts import Cell, Fact, Facts, Part, Section, Table
from robustok_toolkit.reported_run import ReportedRun

#: Results of `compare_decoders` are measured for each decoder: before, or after post-training with a sigma.
OF_DECODER = re.compile(r"(before|sigma[0-9.]+)_(guided_)?(\w+)")
#: The numbers that are shown large, in this order, as far as they were measured.
_TELLING = ("PSNR", "rFID", "rFD", "pFID", "pFD", "noise pFD", "Colour error", "Codebook usage", "gFID", "gFD")


def numbers(run: ReportedRun) -> Section | None:
    """The measured numbers, the most telling ones first and large; what post-training changed has its own section."""
    measured: list[list[str | Cell]] = []
    counts: list[list[str | Cell]] = []
    told: dict[str, Fact] = {}
    for name, result in run.results.items():
        metric = name.partition("/")[2]
        if OF_DECODER.fullmatch(metric) is not None:
            continue
        meaning = meaning_of(metric)
        if result.higher_is_better is None:
            counts.append([Cell(meaning.name, hint=name), value_text(result, meaning.unit), meaning.what])
            continue
        measured.append(_row(name, result))
        if meaning.name in _TELLING:
            told[meaning.name] = Fact(meaning.name, value_text(result, meaning.unit), _direction(result))
    if not measured and not counts:
        return None
    parts: list[Part] = [Facts([told[name] for name in _TELLING if name in told])] if told else []
    if measured:
        parts.append(Table("Measured", ["number", "value", "images", "what it says"], measured))
    if counts:
        parts.append(Table("Counted", ["number", "value", "what it is"], counts, folded=True))
    return Section(
        "Numbers", parts, why="Distances depend on the number of images: compare them only at equal numbers."
    )


def _row(name: str, result: Result) -> list[str | Cell]:
    meaning = meaning_of(name.partition("/")[2])
    return [
        Cell(meaning.name, hint=name),
        Cell(value_text(result, meaning.unit), hint=_direction(result)),
        _images(result),
        Cell(meaning.what, hint=meaning.why),
    ]


def _direction(result: Result) -> str:
    return {True: "higher is better ↑", False: "lower is better ↓"}.get(result.higher_is_better, "")  # type: ignore[arg-type]


def value_text(result: Result, unit: str = "") -> str:
    """A result with its spread and unit, where it has them; a share as a percentage."""
    factor = 100 if unit == "%" else 1
    text = number_text(result.value * factor, 4)
    if isinstance(spread := result.details.get("std"), (int, float)):
        text += f" ± {number_text(spread * factor, 2)}"
    return f"{text} {unit}".strip().replace("-", "−")


def _images(result: Result) -> Cell:
    """How many images a result was measured with, and against how many."""
    if result.num_images is None:
        return Cell("")
    return Cell(f"{result.num_images:,}", hint=f"against {result.num_reference:,}" if result.num_reference else "")
