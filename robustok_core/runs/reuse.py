"""Finished stages of other runs: what has the same fingerprint need not be made again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustok_core.errors import RobustokError, RunError
from robustok_core.recipe.recipe import NamedStage
from robustok_core.runs.files import new_folder, remove_folder
from robustok_core.runs.folder import RunFolder
from robustok_core.runs.intact import artifact_damage
from robustok_core.runs.run_record import is_run, read_run
from robustok_core.runs.step_log import LOG_FILE, take_lines

_PLACES = "name the folder of a run, or one that holds such folders"


def runs_at(places: Sequence[Path]) -> list[Path]:
    """The runs that these folders are or hold.

    Raises:
        RobustokError: if a place is not a folder, or holds no run.
    """
    found: list[Path] = []
    for place in places:
        if not place.is_dir():
            what = f"{place} is a file" if place.exists() else f"there is no such folder: {place}"
            raise RobustokError(what, where="--reuse", hint=_PLACES)
        held = runs_in(place)
        if not held:
            raise RobustokError(f"{place} is no run, and holds none", where="--reuse", hint=_hint(place))
        found += held
    return found


def runs_in(place: Path) -> list[Path]:
    """The runs that a folder is or holds; none if it is not there."""
    if is_run(place):
        return [place]
    return sorted(path for path in place.iterdir() if is_run(path)) if place.is_dir() else []


def _hint(place: Path) -> str:
    """The folder below that holds runs, such as that of a study, if there is one."""
    below = sorted(path.parent.parent for path in place.glob("*/*/run.json"))
    return f"did you mean {below[0]}?" if below else _PLACES


def take_finished(
    folder: RunFolder, stages: Sequence[NamedStage], fingerprints: Mapping[str, str], others: Sequence[Path]
) -> list[str]:
    """Takes what other runs made in stages of the same fingerprint, their results and their lines of metrics.jsonl.

    Fingerprints cover everything that shapes a result, so the stage would make the same here. Every file is compared
    with its hash first. Files are linked where the file system can, because nothing in a run's folder is overwritten.

    Args:
        folder: the run that takes those of its `stages` that it has not finished. fingerprints: by stage name.
        others: the folders of the other runs, which may be running; those that cannot be read are passed over.

    Returns:
        A line for each stage that was taken.
    """
    records = {}
    for other in others:
        if other.resolve() != folder.path.resolve():
            try:
                records[other] = read_run(other)
            except RunError:
                continue
    said = []
    for stage in stages:
        fingerprint = fingerprints[stage.name]
        if folder.stage(stage.name, fingerprint)["state"] == "done":
            continue
        for other, record in records.items():
            entry = record["stages"].get(f"{stage.name}-{fingerprint}", {})
            if entry.get("state") == "done" and _take(folder, stage, fingerprint, entry, other):
                said.append(f"{stage.name}: done before, in {other}")
                break
    return said


def _take(folder: RunFolder, stage: NamedStage, fingerprint: str, entry: Mapping[str, Any], other: Path) -> bool:
    """Takes one stage; False if what the other run made is not there any more, or damaged."""
    source = RunFolder(other)
    artifacts = {
        source.artifact(name, fingerprint): folder.artifact(name, fingerprint) for name in stage.spec.factory.makes
    }
    if any(artifact_damage(artifact) is not None for artifact in artifacts):
        return False
    for artifact, target in artifacts.items():
        try:
            with new_folder(target) as aside:
                _copy(artifact, aside)
        except RunError:
            if artifact_damage(artifact) is not None:  # it went away meanwhile
                return False
            raise
    folder.forget_log()
    take_lines(other / LOG_FILE, folder.path / LOG_FILE, fingerprint)
    folder.record_log()
    maker = entry.get("taken_from") or str(other.resolve())
    folder.record["stages"][f"{stage.name}-{fingerprint}"] = {**entry, "taken_from": maker}
    folder.save()
    remove_folder(folder.checkpoints(stage.name, fingerprint))
    return True


def _copy(artifact: Path, folder: Path) -> None:
    for source in sorted(artifact.rglob("*")):
        target = folder / source.relative_to(artifact)
        if source.is_dir():
            target.mkdir()
        else:
            _link(source, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
