"""Curves of training: losses, learning rates, gradient norms, throughput."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustok_toolkit.report_parts import Lines, Section, Series
from robustok_toolkit.reported_run import ReportedRun

#: Figures by title: how the names of their values in metrics.jsonl end or begin, and the label of the axis.
_FIGURES: Mapping[str, tuple[str, str]] = {
    "Loss": ("loss", "loss"),
    "Learning rate": ("learning_rate", "learning rate"),
    "Gradient norm": ("gradient_norm", "L2 norm"),
    "Throughput": ("per_second", "per second"),
}
_NOT_DRAWN = ("stage", "fingerprint", "step", "epoch")


def training(run: ReportedRun) -> Section | None:
    """The curves of each training, in the order of the stages."""
    parts = [
        Lines(f"{name}: {title}", series, x="step", y=label, curves=True)
        for name, lines in trainings(run.log).items()
        for title, label, series in _figures(lines)
    ]
    why = "A training that is healthy has losses that fall and then level off, and a gradient norm without spikes."
    return Section("Training", parts, why=why) if parts else None


def trainings(log: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The lines of each training by the name of its stage, and of its part where a stage has several."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in log:
        if isinstance(line.get("step"), (int, float)):
            part = str(line.get("fingerprint")).partition("-")[2]
            found.setdefault(f"{line.get('stage')} {part}".strip(), []).append(line)
    return found


def curve(lines: Sequence[Mapping[str, Any]], key: str, name: str | None = None) -> Series:
    """One value of a training over its steps."""
    at = [line for line in lines if isinstance(line.get(key), (int, float))]
    return Series(name or key, [line["step"] for line in at], [line[key] for line in at])


def _figures(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, list[Series]]]:
    keys = list(dict.fromkeys(key for line in lines for key, value in line.items() if isinstance(value, (int, float))))
    left = [key for key in keys if key not in _NOT_DRAWN]
    for title, (end, label) in _FIGURES.items():
        chosen = [key for key in left if key.endswith(end) or (end == "loss" and re.fullmatch("loss/[^/]+", key))]
        left = [key for key in left if key not in chosen]
        if chosen:
            yield title, label, [curve(lines, key) for key in chosen]
    if left:
        yield "Others", "", [curve(lines, key) for key in left]
