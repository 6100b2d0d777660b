"""The results, each with its direction, the numbers of images, what it means and why it matters."""

from __future__ import annotations

from robustok_core.values.numbers import number_text
from robustok_core.values.result import Result
from robustok_report.meanings import meaning_of, of_decoder
from robustok_toolkit.report_parts import Cell, Fact, Facts, Part, Section, Table
from robustok_toolkit.reported_run import ReportedRun

#: The numbers that are shown large, in this order, as far as they were measured.
_TELLING = (
    *("PSNR", "rFID", "rFD", "pFID", "pFD", "noise pFD", "rank pFD"),
    *("Colour error", "Codebook usage", "gFID", "gFD"),
)


def numbers(run: ReportedRun) -> Section | None:
    """The measured numbers, the most telling ones first and large; what post-training changed has its own section."""
    shown = {name: one for name, one in run.results.items() if of_decoder(name.partition("/")[2]) is None}
    measured = [_row(name, result) for name, result in shown.items() if result.higher_is_better is not None]
    counts = [_count(name, result) for name, result in shown.items() if result.higher_is_better is None]
    if not measured and not counts:
        return None
    parts: list[Part] = [Facts(facts)] if (facts := _told(shown)) else []
    if measured:
        parts.append(Table("Measured", ["number", "value", "images", "what it says"], measured))
    if counts:
        parts.append(Table("Counted", ["number", "value", "what it is"], counts, folded=True))
    return Section(
        "Numbers", parts, why="Distances depend on the number of images: compare them only at equal numbers."
    )


def _told(results: dict[str, Result]) -> list[Fact]:
    """A tile for each telling number, of the first stage that measured it; one for each network that it looks with."""
    first: dict[str, tuple[str, Result]] = {}
    for name, result in results.items():
        stage, _, metric = name.partition("/")
        if result.higher_is_better is not None and meaning_of(metric).name in _TELLING:
            first.setdefault(metric, (stage, result))
    order = sorted(first, key=lambda metric: _TELLING.index(meaning_of(metric).name))
    return [_fact(metric, *first[metric]) for metric in order]


def _fact(metric: str, stage: str, result: Result) -> Fact:
    meaning = meaning_of(metric)
    images = f"{count:,} images" if (count := images_of(result)) else ""
    hint = ", ".join(filter(None, [direction(result), images, f"{stage}/{metric}"]))
    return Fact(meaning.name, value_text(result, meaning.unit), hint)


def _row(name: str, result: Result) -> list[str | Cell]:
    meaning = meaning_of(name.partition("/")[2])
    return [
        Cell(meaning.name, hint=name),
        Cell(value_text(result, meaning.unit), hint=direction(result)),
        _images(result),
        Cell(meaning.what, hint=meaning.why),
    ]


def _count(name: str, result: Result) -> list[str | Cell]:
    meaning = meaning_of(name.partition("/")[2])
    images = f"{count:,} images" if (count := images_of(result)) is not None else ""
    return [Cell(meaning.name, hint=name), Cell(value_text(result, meaning.unit), hint=images), meaning.what]


def direction(result: Result) -> str:
    """Which way a result is better, in words; empty if neither way is."""
    return {True: "higher is better ↑", False: "lower is better ↓"}.get(result.higher_is_better, "")  # type: ignore[arg-type]


def value_text(result: Result, unit: str = "") -> str:
    """A result with its spread and unit, where it has them; a share as a percentage."""
    factor = 100 if unit == "%" else 1
    text = number_text(result.value * factor, 4)
    if isinstance(spread := result.details.get("std"), (int, float)):
        text += f" ± {number_text(spread * factor, 2)}"
    return f"{text} {unit}".strip().replace("-", "−")


def images_of(result: Result) -> int | None:
    """How many images a result was measured with; means over images do not depend on it, and have it in the details."""
    counted = result.num_images if result.num_images is not None else result.details.get("num_images")
    return counted if isinstance(counted, int) else None


def _images(result: Result) -> Cell:
    """How many images a result was measured with, and against how many."""
    if (count := images_of(result)) is None:
        return Cell("")
    return Cell(f"{count:,}", hint=f"against {result.num_reference:,}" if result.num_reference else "")
