"""pFID cell by cell, and how close perturbed latents come to generated ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from robustok_core.values.numbers import number_text
from robustok_core.values.result import Result
from robustok_report.meanings import frechet_of, meaning_of, of_decoder
from robustok_toolkit.report_parts import Fact, Facts, Heatmap, Lines, Part, Section, Series, Text
from robustok_toolkit.reported_run import ReportedRun

_NUMBER = r"\d[\d.]*(?:e[-+]?\d+)?"
_CELL = re.compile(rf"alpha(?P<alpha>{_NUMBER})(_(?P<other>[a-z]+)(?P<value>{_NUMBER}))?")
_ALPHA = "α, share of the tokens"
_AXES = {"delta": "δ, nearest codes", "noise": "noise, standard deviations"}


def robustness(run: ReportedRun) -> Section | None:
    """A heat map for each result with cells, and the latent MMD over α."""
    parts: list[Part] = []
    for name, result in run.results.items():
        stage, _, metric = name.partition("/")
        cells = result.details.get("cells")
        if isinstance(cells, Mapping) and of_decoder(metric) is None:
            title = f"{meaning_of(metric).name} by strength" + (f" ({name})" if _is_one_of_several(run, name) else "")
            parts += [*_heat(title, cells), *_rise(meaning_of(metric).name, result, _clean(run, stage, metric))]
        if metric == "latent_mmd" and isinstance(result.details.get("by_alpha"), Mapping):
            parts += _mmd(result.details["by_alpha"], result.details)
    why = "How much worse reconstructions get when latents are wrong in the way a generator's are."
    return Section("Robustness", parts, why=why) if parts else None


def _is_one_of_several(run: ReportedRun, name: str) -> bool:
    """Whether another result has the same name for people, of another stage or in other features."""
    named = [meaning_of(other.partition("/")[2]).name for other in run.results]
    return named.count(meaning_of(name.partition("/")[2]).name) > 1


def _clean(run: ReportedRun, stage: str, perturbed: str) -> Result | None:
    """The same stage's distance without perturbation, in the features in which `perturbed` ends."""
    found = {
        features: result
        for name, result in run.results.items()
        for of_stage, _, metric in [name.partition("/")]
        if of_stage == stage and frechet_of(metric) == "r"
        for features in [metric[1:].removeprefix("fd")]  # "fid", or "_efficientnet_lite0"
        if perturbed.endswith(features)
    }
    return found[max(found, key=len)] if found else None


def _rise(name: str, perturbed: Result, clean: Result | None) -> list[Part]:
    if clean is None:
        return []
    rise = (perturbed.value / clean.value - 1) * 100 if clean.value else math.nan
    share = f"{'+' if rise > 0 else ''}{number_text(rise, 2)}".replace("-", "−") if clean.value else "?"
    values = f"{number_text(perturbed.value, 4)} instead of {number_text(clean.value, 4)}"
    return [Facts([Fact(f"{name} compared with no perturbation", f"{share} %", values)])]


def _heat(title: str, cells: Mapping[str, float]) -> list[Part]:
    found = {name: match for name in cells if (match := _CELL.fullmatch(name))}
    if not found:
        return []
    if all(match["other"] is None for match in found.values()):  # a perturbation of one strength
        points = sorted((float(match["alpha"]), float(cells[name])) for name, match in found.items())
        series = Series(title, [alpha for alpha, _ in points], [value for _, value in points])
        return [Lines(title, [series], x=_ALPHA, y="distance", markers=True)]
    rows = sorted({match["alpha"] for match in found.values()}, key=float)
    columns = sorted({match["value"] for match in found.values()}, key=float)
    other = next(iter(found.values()))["other"]
    by_place = {(match["alpha"], match["value"]): float(cells[name]) for name, match in found.items()}
    values = [[by_place.get((row, column), float("nan")) for column in columns] for row in rows]
    return [Heatmap(title, columns, rows, values, x=_AXES.get(other, other), y=_ALPHA)]


def _mmd(by_alpha: Mapping[str, float], details: Mapping[str, object]) -> list[Part]:
    alphas = sorted(by_alpha, key=float)
    values = [float(by_alpha[alpha]) for alpha in alphas]
    best = min(alphas, key=lambda alpha: float(by_alpha[alpha]))
    series = Series("perturbed against generated", [float(alpha) for alpha in alphas], values)
    chart = Lines(
        "Distance of perturbed latents to generated latents",
        [series],
        x="α, share of the tokens that are perturbed",
        y="MMD²",
        markers=True,
        mark=(float(best), f"α = {best}"),
    )
    strength = f" with δ = {details['delta']}" if "delta" in details else ""
    other = max({0, len(alphas) - 1} - {alphas.index(best)}, default=None)  # the end of the curve, else its start
    beside = "" if other is None else f"; {number_text(values[other], 3)} at α = {alphas[other]}"
    text = (
        f"Latents of real images{strength} come closest to generated ones at α = {best} "
        f"(MMD² {number_text(min(values), 3)}{beside})."
    ).replace("-", "−")
    if float(best) == 0:
        text += " So this measure sees no errors in the generated latents that such a perturbation would imitate."
    return [chart, Text(text)]
