"""The report of several runs: their results side by side, what differs in their recipes, curves, and correlations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from attrs import define, field

from robustok_core.errors import RobustokError
from robustok_core.runs.conditions import differences, read_conditions
from robustok_core.runs.history import RECIPE_FILE, changes_between
from robustok_core.values.numbers import duration_text, number_text
from robustok_core.values.result import Result
from robustok_report.meanings import meaning_of
from robustok_report.page import Page
from robustok_report.sections.overview import flat
from robustok_report.sections.samples import by_class
from robustok_report.sections.training import curve, trainings
from robustok_report.statistics import LEAST_FOR_INTERVAL, correlations, difference
from robustok_study.statistics import Estimate, estimate
from robustok_toolkit.report_parts import Cell, Lines, Part, Pictures, Points, Section, Series, Table, Text
from robustok_toolkit.reported_run import ReportedRun

#: Keys of a recipe that tell runs apart but not what they do.
_SAME_ARM = ("run.name", "run.seed", "run.out", "run.report", "run.trackers")
_SAMPLES = 4
_LEAST_FOR_CORRELATION = 3


@define(kw_only=True)
class Arm:
    """Runs whose recipes differ in nothing but their seeds and names."""

    name: str
    runs: list[ReportedRun] = field(factory=list)

    def values(self, result: str) -> dict[int, float]:
        """A result of its runs, by seed; by position where seeds repeat."""
        held = [run for run in self.runs if result in run.results]
        seeds = [int(run.record.get("seed", -1)) for run in held]
        keys = seeds if len(set(seeds)) == len(seeds) else range(len(held))
        return {key: run.results[result].value for key, run in zip(keys, held, strict=True)}


def compared(runs: Sequence[ReportedRun]) -> Page:
    """The page that compares runs; the first one, or its arm, is what the others are compared with."""
    arms = arms_of(runs)
    missing = [f"{run.name}: {line}" for run in runs for line in run.missing]
    found = []
    makers: Mapping[str, Callable[[], Section | None]] = {
        "Results": lambda: _results(arms),
        "Recipes": lambda: _recipes(arms),
        "Correlations": lambda: _correlations(runs),
        "Training": lambda: _curves(runs),
        "Samples": lambda: _samples(runs, missing),
        "Runs": lambda: _list(arms),
    }
    for name, make in makers.items():
        try:
            section = make()
        except RobustokError as error:
            missing.append(f"the section {name}: {error}")
        else:
            found += [section] if section is not None else []
    title = f"{len(runs)} runs compared"
    arms_text = f" in {len(arms)} arms" if len(arms) < len(runs) else ""
    subtitle = f"{', '.join(run.name for run in runs[:6])}{', …' if len(runs) > 6 else ''}{arms_text}"
    return Page(title=title, subtitle=subtitle, sections=found, missing=missing)


def arms_of(runs: Sequence[ReportedRun]) -> list[Arm]:
    """The runs by arm, in the order of their first runs."""
    arms: dict[tuple[tuple[str, str], ...], Arm] = {}
    names: dict[str, int] = {}
    for run in runs:
        same = tuple((key, value) for key, value in flat(run.table) if key not in _SAME_ARM)
        if same not in arms:
            names[run.name] = names.get(run.name, 0) + 1
            arms[same] = Arm(name=run.name if names[run.name] == 1 else f"{run.name} ({names[run.name]})")
        arms[same].runs.append(run)
    return list(arms.values())


def _results(arms: Sequence[Arm]) -> Section:
    names = list(dict.fromkeys(name for arm in arms for run in arm.runs for name in run.results))
    heads = [f"{arm.name} (n = {len(arm.runs)})" if len(arm.runs) > 1 else arm.name for arm in arms]
    rows = [row for name in names if (row := _row(name, arms)) is not None]
    parts: list[Part] = [Table("Results, and their differences from the first", ["number", *heads], rows)]
    seeded = any(len(arm.runs) > 1 for arm in arms)
    errors = (
        "± is the standard error over seeds; a difference is paired where two arms have the same seeds."
        if seeded
        else "Each arm has one seed, so nothing is known about the errors of these differences."
    )
    parts += [Text(errors, muted=True), *_conditions(arms, names)]
    return Section("Results", parts)


def _row(name: str, arms: Sequence[Arm]) -> list[str | Cell] | None:
    held = [run.results[name] for arm in arms for run in arm.runs if name in run.results]
    direction = next((result.higher_is_better for result in held if result.higher_is_better is not None), None)
    if direction is None:
        return None
    stage, _, metric = name.rpartition("/")
    meaning = meaning_of(metric)
    values = [{seed: value * meaning.factor for seed, value in arm.values(name).items()} for arm in arms]
    estimates = [estimate(list(of_arm.values())) if of_arm else None for of_arm in values]
    known = [found.mean for found in estimates if found is not None]
    # Numbers that depend on how many images there were say nothing about each other where these differ.
    comparable = len({(result.num_images, result.num_reference) for result in held}) == 1
    best = (max if direction else min)(known) if comparable else None
    cells = [
        _cell(found, None if number == 0 or not values[0] or not comparable else difference(of_arm, values[0]), best)
        if found is not None
        else Cell("–")
        for number, (found, of_arm) in enumerate(zip(estimates, values, strict=True))
    ]
    unit = f" [{meaning.unit}]" if meaning.unit else ""
    arrow = "↑" if direction else "↓"
    return [Cell(f"{meaning.name}{unit} {arrow}", hint=f"{stage}/{metric}{_images(held)}"), *cells]


def _images(results: Sequence[Result]) -> str:
    counts = {result.num_images for result in results} - {None}
    return f", {' or '.join(f'{count:,}' for count in sorted(counts))} images" if counts else ""  # type: ignore[type-var]


def _cell(found: Estimate, change: Estimate | None, best: float | None) -> Cell:
    hint = "" if change is None else _with_error(change, signed=True)
    return Cell(_with_error(found), hint=hint, marked=found.mean == best)


def _with_error(found: Estimate, *, signed: bool = False) -> str:
    text = number_text(found.mean, 4)
    text = (f"+{text}" if signed and found.mean > 0 else text).replace("-", "−")
    return text if found.standard_error is None else f"{text} ± {number_text(found.standard_error, 2)}"


def _conditions(arms: Sequence[Arm], names: Sequence[str]) -> list[Part]:
    """A remark for whatever else differs between results that stand in one row."""
    runs = [run for arm in arms for run in arm.runs]
    conditions = [read_conditions(run.folder) for run in runs]
    concerned: dict[str, list[str]] = {}
    for name in names:
        row = [run.results.get(name) for run in runs]
        for key in differences(conditions, name, row):
            concerned.setdefault(key, []).append(name)
        if len({result.num_images for result in row if result is not None}) > 1:
            concerned.setdefault("numbers of images", []).append(name)
    return [
        Text(f"Measured with different {key}, so not comparable: {', '.join(of)}.") for key, of in concerned.items()
    ]


def _recipes(arms: Sequence[Arm]) -> Section | None:
    first = _recipe_text(arms[0].runs[0])
    parts: list[Part] = []
    for arm in arms[1:]:
        lines = [line for line in changes_between(first, _recipe_text(arm.runs[0])) if _tells(line)]
        pairs = [line.partition(": ")[::2] for line in lines]
        parts.append(Table(f"{arm.name}, compared with {arms[0].name}", ["key", "change"], pairs, code=True))
    return Section("Recipes", parts, why="What the author of each arm changed.") if parts else None


def _recipe_text(run: ReportedRun) -> str:
    try:
        return (run.folder / RECIPE_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RobustokError(f"the recipe cannot be read: {error}", where=str(run.folder / RECIPE_FILE)) from error


def _tells(change: str) -> bool:
    return not change.startswith(tuple(f"{key}:" for key in _SAME_ARM))


def _correlations(runs: Sequence[ReportedRun]) -> Section | None:
    """Scatters of each measure of a tokenizer against each of its generator's samples, over the runs that have both."""
    named = {(kind, name) for run in runs for name in run.results if (kind := _kind(name)) is not None}
    across = sorted(name for kind, name in named if kind in "rp")
    up = sorted(name for kind, name in named if kind == "g")
    parts: list[Part] = []
    for one, other in itertools.product(across, up):
        held = [run for run in runs if one in run.results and other in run.results]
        if len(held) >= _LEAST_FOR_CORRELATION:
            parts += _scatter(one, other, held)
    why = "Which measure of a tokenizer foretells how good its generator's samples are."
    return Section("Correlations", parts, why=why) if parts else None


def _kind(name: str) -> str | None:
    """ "r", "p" or "g" for the Fréchet distances of reconstructions, perturbed reconstructions and samples."""
    metric = name.rpartition("/")[2]
    return metric[0] if metric[:1] in "rpg" and metric[1:].startswith(("fid", "fd_")) else None


def _scatter(across: str, up: str, runs: Sequence[ReportedRun]) -> list[Part]:
    x, y = ([run.results[name].value for run in runs] for name in (across, up))
    names = [meaning_of(name.rpartition("/")[2]).name for name in (across, up)]
    chart = Points(
        f"{names[0]} and {names[1]}", x, y, [run.name for run in runs], x=across, y=up, labelled=len(runs) <= 12
    )
    found = []
    for name, one in correlations(x, y).items():
        interval = "" if one.interval is None else f" (95 %: {one.interval[0]:.2f} to {one.interval[1]:.2f})"
        found.append(f"{name} {one.value:.2f}{interval}")
    few = "" if len(runs) >= LEAST_FOR_INTERVAL else "; too few runs for an interval"
    return [chart, Text(f"{names[0]} and {names[1]} of {len(runs)} runs: {', '.join(found)}{few}.".replace("-", "−"))]


def _curves(runs: Sequence[ReportedRun]) -> Section | None:
    """The losses of each training, one line a run."""
    series: dict[str, list[Series]] = {}
    for run in runs:
        for name, lines in trainings(run.log).items():
            keys = dict.fromkeys(key for line in lines for key in line if key.endswith("loss"))
            for key in keys:
                series.setdefault(f"{name}: {key}", []).append(curve(lines, key, run.name))
    parts = [Lines(title, lines, x="step", y="loss", curves=True) for title, lines in series.items() if len(lines) > 1]
    return Section("Training", parts) if parts else None


def _samples(runs: Sequence[ReportedRun], missing: list[str]) -> Section | None:
    """The first samples of each class from each run that has some."""
    parts: dict[str, dict[str, list]] = {}
    for run in runs:
        try:
            rows = by_class(run.artifact("samples"), _SAMPLES) if run.artifacts("samples") else {}
        except RobustokError as error:
            missing.append(f"the samples of {run.name}: {error}")
            continue
        for name, row in rows.items():
            parts.setdefault(name, {})[run.name] = row
    pictures = [Pictures(name, rows) for name, rows in parts.items()]
    return Section("Samples", pictures, why="The same rows of each class from every run.") if pictures else None


def _list(arms: Sequence[Arm]) -> Section:
    rows: list[list[str | Cell]] = []
    for arm in arms:
        for run in arm.runs:
            done = sum(stage.done for stage in run.stages)
            seconds = sum(stage.seconds for stage in run.stages)
            state = f"{done} of {len(run.stages)}"
            rows.append(
                [
                    Cell(run.name, hint=str(run.folder)),
                    arm.name,
                    str(run.record.get("seed", "?")),
                    Cell(state, marked=done < len(run.stages)),
                    duration_text(seconds),
                ]
            )
    return Section("Runs", [Table("Runs", ["run", "arm", "seed", "stages done", "time"], rows)])
