"""pFID cell by cell, and how close perturbed latents come to generated ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from robustok_core.values.numbers import number_text
from robustok_report.meanings import meaning_of
from robustok_report.sections.numbers import OF_DECODER
from robustok_toolkit.report_parts import Heatmap, Lines, Part, Section, Series, Text
from robustok_toolkit.reported_run import ReportedRun

_CELL = re.compile(r"alpha(?P<alpha>[0-9.e-]+)_(?P<other>[a-z]+?)(?P<value>[0-9.e-]+)")
_AXES = {"delta": "δ, nearest codes that a token may become", "noise": "noise, in standard deviations"}


def robustness(run: ReportedRun) -> Section | None:
    """A heat map for each result with cells, and the latent MMD over α."""
    parts: list[Part] = []
    for name, result in run.results.items():
        stage, _, metric = name.partition("/")
        cells = result.details.get("cells")
        if isinstance(cells, Mapping) and OF_DECODER.fullmatch(metric) is None:
            parts += _heat(f"{meaning_of(metric).name} by strength ({stage})", cells)
        if metric == "latent_mmd" and isinstance(result.details.get("by_alpha"), Mapping):
            parts += _mmd(result.details["by_alpha"], result.details)
    why = "How much worse reconstructions get when latents are wrong in the way a generator's are."
    return Section("Robustness", parts, why=why) if parts else None


def _heat(title: str, cells: Mapping[str, float]) -> list[Part]:
    found = {name: match for name in cells if (match := _CELL.fullmatch(name))}
    if not found:
        return []
    rows = sorted({match["alpha"] for match in found.values()}, key=float)
    columns = sorted({match["value"] for match in found.values()}, key=float)
    other = next(iter(found.values()))["other"]
    by_place = {(match["alpha"], match["value"]): float(cells[name]) for name, match in found.items()}
    values = [[by_place.get((row, column), float("nan")) for column in columns] for row in rows]
    return [Heatmap(title, columns, rows, values, x=_AXES.get(other, other), y="α, share of the tokens")]


def _mmd(by_alpha: Mapping[str, float], details: Mapping[str, object]) -> list[Part]:
    alphas = sorted(by_alpha, key=float)
    values = [float(by_alpha[alpha]) for alpha in alphas]
    best = alphas[values.index(min(values))]
    series = Series("perturbed against generated", [float(alpha) for alpha in alphas], values)
    chart = Lines(
        "Distance of perturbed latents to generated latents",
        [series],
        x="α, share of the tokens that are perturbed",
        y="MMD",
        markers=True,
        mark=(float(best), f"α = {best}"),
    )
    strength = f" with δ = {details['delta']}" if "delta" in details else ""
    text = (
        f"Latents of real images{strength} come closest to generated ones at α = {best} "
        f"(MMD {number_text(min(values), 3)}; {number_text(values[0], 3)} at α = {alphas[0]})."
    )
    return [chart, Text(text)]
