"""Scatters of each measure of a tokenizer against each of its generator's samples, over runs that may be compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from robustok_core.runs.conditions import (
    TRAINING_IMAGES,
    Number,
    comparable_groups,
    differences,
    named,
    read_conditions,
)
from robustok_report.arms import Arm
from robustok_report.meanings import frechet_of, meaning_of
from robustok_study.correlations import correlations
from robustok_toolkit.report_parts import Part, Points, Section, Text
from robustok_toolkit.reported_run import ReportedRun

_LEAST = 3


def scatters(arms: Sequence[Arm]) -> Section | None:
    """Which measure of a tokenizer predicts how good its generator's samples are."""
    runs = {run.folder: (run, number) for number, arm in enumerate(arms) for run in arm.runs}
    conditions = {folder: read_conditions(folder) for folder in runs}
    kinds = {name: frechet_of(name.rpartition("/")[2]) for run, _ in runs.values() for name in run.results}
    across = sorted(name for name, kind in kinds.items() if kind in ("r", "p"))
    up = sorted(name for name, kind in kinds.items() if kind == "g")
    parts: list[Part] = []
    for names in itertools.product(across, up):
        held = [folder for folder, (run, _) in runs.items() if all(name in run.results for name in names)]
        if len(held) < _LEAST:
            continue
        pairs = [[Number(conditions[folder], name, runs[folder][0].results[name]) for folder in held] for name in names]
        parts += _parts(pairs, [runs[folder] for folder in held])
    why = "Which measure of a tokenizer predicts how good its generator's samples are."
    return Section("Correlations", parts, why=why) if parts else None


def _parts(pairs: list[list[Number]], runs: Sequence[tuple[ReportedRun, int]]) -> Iterator[Part]:
    """A scatter for each group of runs whose numbers may be compared, and what was left out."""
    finite = [place for place in range(len(runs)) if all(math.isfinite(row[place].result.value) for row in pairs)]
    pairs = [[row[place] for place in finite] for row in pairs]
    title = " and ".join(meaning_of(row[0].name.rpartition("/")[2]).name for row in pairs) if finite else ""
    if len(finite) < len(runs):
        others = ", ".join(run.name for place, (run, _) in enumerate(runs) if place not in finite)
        yield Text(f"Left out, because a number is not finite: {others}.", muted=True)
    if len(finite) < _LEAST:
        return
    runs = [runs[place] for place in finite]
    groups = comparable_groups(pairs, may_differ=(TRAINING_IMAGES,))
    shown = [group for group in groups if len(group) >= _LEAST]
    for group in shown:
        which = f", runs like {runs[group[0]][0].name}" if len(groups) > 1 else ""
        yield from _scatter(title + which, [[row[place] for place in group] for row in pairs], [runs[i] for i in group])
    for group in groups:
        if group not in shown:
            yield Text(_left_out(title, pairs, [run.name for run, _ in runs], group, groups[0]), muted=True)


def _left_out(
    title: str, pairs: list[list[Number]], names: Sequence[str], group: Sequence[int], largest: Sequence[int]
) -> str:
    if group is largest:
        return f"{title}: no scatter, because no {_LEAST} of these runs may be compared."
    places = [largest[0], group[0]]
    found: dict[str, list[str]] = {}
    for row in pairs:
        found |= differences([row[place] for place in places])
    found.pop(TRAINING_IMAGES, None)
    reasons = [f"{key} ({named(values, [names[place] for place in places])})" for key, values in found.items()]
    who = ", ".join(names[place] for place in group)
    return f"{title}: left out {who}, because of different {'; '.join(reasons)}."


def _scatter(title: str, pairs: list[list[Number]], runs: Sequence[tuple[ReportedRun, int]]) -> list[Part]:
    across, up = ([number.result.value for number in row] for row in pairs)
    arms = [arm for _, arm in runs]
    chart = Points(
        title,
        across,
        up,
        [run.name for run, _ in runs],
        x=pairs[0][0].name,
        y=pairs[1][0].name,
        labelled=len(runs) <= 12,
    )
    found = []
    for name, one in correlations(across, up, arms).items():
        if math.isnan(one.value):
            return [chart, Text(f"{title}: no coefficient, because one of them is the same in all runs.")]
        interval = "" if one.interval is None else f" (95 %: {one.interval[0]:.2f} to {one.interval[1]:.2f})"
        found.append((f"{name} {one.value:.2f}{interval}", one.interval))
    few = "" if all(interval for _, interval in found) else "; too few different points for an interval"
    count = len(set(arms))
    of = f"{len(runs)} runs" + (f" in {count} arms" if count < len(runs) else "")
    text = f"{title} of {of}: {', '.join(text for text, _ in found)}{few}."
    return [chart, Text(text.replace("-", "−"))]
