"""Samples by class, and what guidance does to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustok_core.errors import RobustokError
from robustok_core.runs.files import read_json
from robustok_core.values.images import to_uint8
from robustok_core.values.result import Result
from robustok_report.meanings import meaning_of
from robustok_report.sections.reconstructions import as_pixels, spread_rows
from robustok_toolkit.array_files import read_array
from robustok_toolkit.image_files import open_images
from robustok_toolkit.report_parts import Lines, Part, Pictures, Pixels, Section, Series
from robustok_toolkit.reported_run import ReportedRun
from robustok_toolkit.sample_files import INDEX

_COLUMNS, _CLASSES = 10, 20


def samples(run: ReportedRun) -> Section | None:
    """A row of samples for each class, and the results of several guidance scales where the recipe has them."""
    if "samples" not in [name for stage in run.stages for name in stage.entry.get("makes", [])]:
        return None
    folder = run.artifact("samples")
    parts: list[Part] = [Pictures(f"Guidance {guidance_of(folder):g}", by_class(folder))]
    try:
        parts += _sweep(run)
    except RobustokError as error:  # samples of an earlier stage; the pictures of the last one are there
        run.missing.append(f"results over the guidance scale: {error}")
    return Section("Samples", parts, why="What the generator draws for each class, decoded by the tokenizer.")


def by_class(folder: Path, columns: int = _COLUMNS) -> dict[str, list[Pixels]]:
    """The first samples of each class, or of classes evenly spread, by class."""
    images = open_images(folder / "samples.npz")
    names = [str(name) for name in read_json(folder / INDEX).get("class_names", [])]
    rows = {}
    found = images.labels.unique().tolist()
    for label in (found[number] for number in spread_rows(_CLASSES, len(found))):
        chosen = (images.labels == label).nonzero().flatten()[:columns].tolist()
        name = names[label] if label < len(names) else str(label)
        rows[name] = as_pixels(to_uint8(images.load(chosen).images))
    return rows


def guidance_of(folder: Path) -> float:
    """The guidance scale that samples were made with."""
    guidance = read_json(folder / INDEX).get("guidance", {})
    return float(guidance.get("scale", 1.0)) if isinstance(guidance, Mapping) else 1.0


def _sweep(run: ReportedRun) -> list[Part]:
    """A curve over the guidance scale for each number that several stages measured at different scales."""
    scale: float | None = None
    found: dict[str, dict[float, float]] = {}
    for stage in run.stages:
        if "samples" in stage.entry.get("makes", []) and stage.done:
            scale = guidance_of(run.folder / "artifacts" / f"samples-{stage.fingerprint}")
        elif scale is not None:
            for name, result in _results_of(run, stage.name).items():
                if result.higher_is_better is not None:
                    found.setdefault(name, {})[scale] = result.value
    return [
        Lines(
            f"{meaning_of(name).name} over guidance",
            [Series(name, sorted(values), [values[at] for at in sorted(values)])],
            x="guidance scale",
            y=meaning_of(name).name,
            markers=True,
        )
        for name, values in found.items()
        if len(values) > 1
    ]


def _results_of(run: ReportedRun, stage: str) -> Mapping[str, Result]:
    prefix = f"{stage}/"
    return {name.removeprefix(prefix): one for name, one in run.results.items() if name.startswith(prefix)}


def latents_of(folder: Path) -> Any:
    """The latents of samples, memory-mapped: codes (n, N), or vectors (n, N, D)."""
    name = "codes.npy" if (folder / "codes.npy").is_file() else "vectors.npy"
    return read_array(folder / name, mapped=True)
