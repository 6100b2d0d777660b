"""Samples by class, and what guidance does to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from robustok_core.runs.conditions import GUIDANCE_SCALE, Conditions, Number, comparable_groups, read_conditions
from robustok_core.runs.files import read_json
from robustok_core.values.images import to_uint8
from robustok_report.made_sections import made_parts
from robustok_report.meanings import meaning_of
from robustok_report.sections.reconstructions import as_pixels, spread_rows
from robustok_toolkit.array_files import read_array
from robustok_toolkit.image_files import open_images
from robustok_toolkit.report_parts import Lines, Part, Pictures, Pixels, Section, Series, Text
from robustok_toolkit.reported_run import ReportedRun, ReportedStage
from robustok_toolkit.sample_files import INDEX

_COLUMNS, _CLASSES = 10, 20


def samples(run: ReportedRun) -> Section | None:
    """A row of samples for each class, and the results of several guidance scales where the recipe has them."""
    if "samples" not in [name for stage in run.stages for name in stage.entry.get("makes", [])]:
        return None
    parts = [*made_parts(partial(_pictures, run), "the samples", run.missing), *guidance_sweep(run)]
    return Section("Samples", parts, why="What the generator draws for each class, decoded by the tokenizer.")


def _pictures(run: ReportedRun) -> list[Part]:
    folder = run.artifact("samples")
    rows, which = by_class(folder)
    return [Pictures(f"Guidance {guidance_of(folder):g}, {which}", rows)]


def by_class(folder: Path, columns: int = _COLUMNS) -> tuple[dict[str, list[Pixels]], str]:
    """The first samples of each class, or of classes evenly spread, by class; and, in words, which these are."""
    images = open_images(folder / "samples.npz")
    names = [str(name) for name in read_json(folder / INDEX).get("class_names", [])]
    rows = {}
    found = images.labels.unique().tolist()
    shown = [found[number] for number in spread_rows(_CLASSES, len(found))]
    for label in shown:
        chosen = (images.labels == label).nonzero().flatten()[:columns].tolist()
        rows[_class_name(names, label)] = as_pixels(to_uint8(images.load(chosen).images))
    of = "each class" if len(shown) == len(found) else f"{len(shown)} of {len(found):,} classes"
    return rows, f"up to {columns} samples of {of}"


def _class_name(names: Sequence[str], label: int) -> str:
    """The name of a class, with its label where another one is called alike."""
    if label >= len(names):
        return str(label)
    return names[label] if names.count(names[label]) == 1 else f"{names[label]} ({label})"


def guidance_of(folder: Path) -> float:
    """The guidance scale that samples were made with."""
    guidance = read_json(folder / INDEX).get("guidance", {})
    return float(guidance.get("scale", 1.0)) if isinstance(guidance, Mapping) else 1.0


def guidance_sweep(run: ReportedRun) -> list[Part]:
    """Curves over the guidance scale for each number that several stages measured at different scales.

    Points of one curve differ in nothing else: another number of samples, reference or sampler makes another curve.
    """
    conditions = read_conditions(run.folder)
    stages = {stage.name: scale for stage in run.stages if (scale := _scale(run, conditions, stage)) is not None}
    found: dict[str, list[Number]] = {}
    for name, result in run.results.items():
        stage, _, metric = name.rpartition("/")
        if stage in stages and result.higher_is_better is not None and math.isfinite(result.value):
            found.setdefault(metric, []).append(Number(conditions, name, result))
    return [part for metric, numbers in found.items() for part in _curves(metric, numbers, stages)]


def _scale(run: ReportedRun, conditions: Conditions, stage: ReportedStage) -> float | None:
    """The guidance scale of the samples that a stage measured; None if it measured none."""
    needs = getattr(run.registry.find("stage", stage.use), "needs", ())  # of a plugin that may not be installed
    guidance = conditions.samplers.get(stage.name, {}).get("guidance", {})
    scale = guidance.get("scale", 1.0) if isinstance(guidance, Mapping) else None
    return float(scale) if "samples" in needs and isinstance(scale, (int, float)) else None


def _curves(metric: str, numbers: Sequence[Number], scales: Mapping[str, float]) -> list[Part]:
    meaning = meaning_of(metric)
    series, left_out = [], []
    for group in comparable_groups([numbers], may_differ=(GUIDANCE_SCALE,)):
        points: dict[float, float] = {}
        stages: list[str] = []
        for number in (numbers[place] for place in group):
            stage = number.name.rpartition("/")[0]
            if (scale := scales[stage]) in points:  # measured twice
                left_out.append(number.name)
                continue
            points[scale] = number.result.value * meaning.factor
            stages.append(stage)
        if len(points) > 1:
            series.append(Series(", ".join(stages), sorted(points), [points[at] for at in sorted(points)]))
        elif len(numbers) > 1:
            left_out += [f"{stage}/{metric}" for stage in stages]
    if not series:
        return []
    unit = f" [{meaning.unit}]" if meaning.unit else ""
    chart = Lines(f"{meaning.name} over guidance", series, x="guidance scale", y=f"{meaning.name}{unit}", markers=True)
    why = "measured otherwise than the others, or twice at one scale"
    return [chart, *([Text(f"Left out, {why}: {', '.join(left_out)}.", muted=True)] if left_out else [])]


def latents_of(folder: Path) -> Any:
    """The latents of samples, memory-mapped: codes (n, N), or vectors (n, N, D)."""
    name = "codes.npy" if (folder / "codes.npy").is_file() else "vectors.npy"
    return read_array(folder / name, mapped=True)
