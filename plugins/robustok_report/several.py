"""The report of several runs: their results side by side, what differs in their recipes, curves, and correlations."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from robustok_core.errors import RobustokError
from robustok_core.runs.conditions import TRAINING_IMAGES, Number, differences, named, read_conditions, why_not
from robustok_core.runs.history import changes_beyond_seed
from robustok_core.values.numbers import duration_text, number_text
from robustok_core.values.result import Result
from robustok_report.arms import Arm, arms_of, recipe_text
from robustok_report.made_sections import made_parts, made_sections
from robustok_report.meanings import meaning_of
from robustok_report.page import Page
from robustok_report.scatters import scatters
from robustok_report.sections.samples import by_class
from robustok_report.sections.training import curve, trainings
from robustok_study.statistics import estimate
from robustok_study.tables import difference_text
from robustok_study.verdicts import best_of, difference_of, signed
from robustok_toolkit.report_parts import Cell, Lines, Part, Pictures, Section, Series, Table, Text
from robustok_toolkit.reported_run import ReportedRun

_SAMPLES = 4


def compared(runs: Sequence[ReportedRun]) -> Page:
    """The page that compares runs; the first one, or its arm, is what the others are compared with."""
    runs = _told_apart(runs)
    arms = arms_of(runs)
    missing = [f"{run.name}: {line}" for run in runs for line in run.missing]
    makers: Mapping[str, Callable[[], Section | None]] = {
        "Results": lambda: _results(arms),
        "Recipes": lambda: _recipes(arms, missing),
        "Correlations": lambda: scatters(arms),
        "Training": lambda: _curves(runs),
        "Samples": lambda: _samples(runs, missing),
        "Runs": lambda: _list(arms),
    }
    title = f"{len(runs)} runs compared"
    arms_text = f" in {len(arms)} arms" if len(arms) < len(runs) else ""
    subtitle = f"{', '.join(run.name for run in runs[:6])}{', …' if len(runs) > 6 else ''}{arms_text}"
    return Page(title=title, subtitle=subtitle, sections=made_sections(makers, missing), missing=missing)


def _told_apart(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """The runs, with names that differ: samples and curves are held by name."""
    found = []
    for run, name in zip(runs, _shown_names([run.folder.resolve() for run in runs]), strict=True):
        found.append(copy.copy(run))
        found[-1].name = name
    return found


def _shown_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many folders above them as tell them apart; a folder's second time has a number."""
    names = {folder: folder.name for folder in folders}
    for depth in range(2, 1 + max(len(folder.parts) for folder in folders)):
        count = Counter(names.values())
        names |= {one: str(Path(*one.parts[-depth:])) for one, name in names.items() if count[name] > 1}
    times: Counter[Path] = Counter()
    shown = []
    for folder in folders:
        times[folder] += 1
        shown.append(names[folder] if times[folder] == 1 else f"{names[folder]} ({times[folder]})")
    return shown


def _results(arms: Sequence[Arm]) -> Section:
    names = list(dict.fromkeys(name for arm in arms for run in arm.runs for name in run.results))
    heads = [f"{arm.name} (n = {len(arm.runs)})" if len(arm.runs) > 1 else arm.name for arm in arms]
    runs = [run for arm in arms for run in arm.runs]
    conditions = [read_conditions(run.folder) for run in runs]
    rows: list[list[str | Cell]] = []
    refused: dict[str, list[str]] = {}
    trained: list[str] = []
    for name in names:
        pairs = zip(conditions, runs, strict=True)
        numbers = [Number(of, name, run.results[name]) if name in run.results else None for of, run in pairs]
        reason = why_not(numbers, [run.name for run in runs])
        if (row := _row(name, arms, comparable=reason is None)) is None:
            continue
        rows.append(row)
        if reason is not None:
            refused.setdefault(reason, []).append(name)
        if found := differences(numbers).get(TRAINING_IMAGES):
            trained.append(named(found, [run.name for run in runs]))
    remarks = [Text(_errors(arms), muted=True)]
    remarks += [Text(f"Not comparable, because of {reason}: {', '.join(of)}.") for reason, of in refused.items()]
    remarks += [Text(f"The runs were trained on different images ({text}).") for text in dict.fromkeys(trained)]
    return Section(
        "Results", [Table("Results, and their differences from the first", ["number", *heads], rows), *remarks]
    )


def _errors(arms: Sequence[Arm]) -> str:
    if all(len(arm.runs) == 1 for arm in arms):
        return "Each arm has one seed: nothing is known about the errors of these differences, and no value is marked."
    return (
        "± is the standard error over seeds. Differences are paired by seed. Marked is what is better than all others, "
        "if the 95 % intervals of the differences exclude 0."
    )


def _row(name: str, arms: Sequence[Arm], *, comparable: bool) -> list[str | Cell] | None:
    held = [run.results[name] for arm in arms for run in arm.runs if name in run.results]
    directions = {result.higher_is_better for result in held} - {None}
    if len(directions) != 1:
        return None
    (higher,) = directions
    stage, _, metric = name.rpartition("/")
    meaning = meaning_of(metric)
    values = {
        number: {seed: value * meaning.factor for seed, value in arm.values(name).items()}
        for number, arm in enumerate(arms)
    }
    known = {str(number): found for number, found in values.items() if found}
    best = best_of(known, higher) if comparable else None
    cells = []
    for number, (arm, found) in enumerate(zip(arms, values.values(), strict=True)):
        hints = [_change(found, values[0])] if number and comparable and found and values[0] else []
        hints += [f"{len(found)} of {len(arm.runs)} runs"] if 0 < len(found) < len(arm.runs) else []
        cells.append(Cell(_mean(found), hint=", ".join(hints), marked=best == str(number)))
    unit = f" [{meaning.unit}]" if meaning.unit else ""
    hint = f"{stage}/{metric}{_images(held)}{'' if comparable else ', not comparable'}"
    return [Cell(f"{meaning.name}{unit} {'↑' if higher else '↓'}", hint=hint), *cells]


def _images(results: Sequence[Result]) -> str:
    counts = {result.num_images for result in results} - {None}
    return f", {' or '.join(f'{count:,}' for count in sorted(counts))} images" if counts else ""  # type: ignore[type-var]


def _mean(values: Mapping[int, float]) -> str:
    if not values:
        return "–"
    found = estimate(list(values.values()))
    text = number_text(found.mean, 4).replace("-", "−")
    return text if found.standard_error is None else f"{text} ± {number_text(found.standard_error, 2)}"


def _change(values: Mapping[int, float], base: Mapping[int, float]) -> str:
    """The difference from the first arm: paired where there are common seeds, else that of the means alone."""
    found = difference_of(values, base, None)
    if found is None:
        means = [estimate(list(each.values())).mean for each in (values, base)]
        return f"{signed(means[0] - means[1])}, no common seed".replace("-", "−")
    text = difference_text(found).removesuffix(" *").replace("-", "−")
    count = len(found.by_seed)
    return text if count == len(values) == len(base) else f"{text} over {count} common seed{'s' if count > 1 else ''}"


def _recipes(arms: Sequence[Arm], missing: list[str]) -> Section | None:
    first = recipe_text(arms[0].runs[0])

    def changes(arm: Arm) -> list[Part]:
        lines = changes_beyond_seed(first, recipe_text(arm.runs[0]))
        pairs = [line.partition(": ")[::2] for line in lines]
        return [Table(f"{arm.name}, compared with {arms[0].name}", ["key", "change"], pairs, code=True)]

    tables = [made_parts(partial(changes, arm), f"what {arm.name} changes", missing) for arm in arms[1:]]
    parts = [part for table in tables for part in table]
    return Section("Recipes", parts, why="What the author of each arm changed.") if parts else None


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
    which: dict[str, None] = {}
    for run in runs:
        try:
            if not run.artifacts("samples"):
                continue
            rows, words = by_class(run.artifact("samples"), _SAMPLES)
        except RobustokError as error:
            missing.append(f"the samples of {run.name}: {error}")
            continue
        which[words] = None
        for name, row in rows.items():
            parts.setdefault(name, {})[run.name] = row
    pictures = [Pictures(name, rows) for name, rows in parts.items()]
    why = f"The first samples of every run, {' or '.join(which)}."
    return Section("Samples", pictures, why=why) if pictures else None


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
