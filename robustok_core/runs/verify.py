"""Compares everything in a run's folder with what was recorded when it was written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.runs.files import read_json
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.folder import is_artifact
from robustok_core.runs.history import RECIPE_FILE
from robustok_core.runs.inputs import find_input
from robustok_core.runs.intact import artifact_damage
from robustok_core.runs.manifest import DAMAGED, MANIFEST, damage_of
from robustok_core.runs.results import RESULTS_FILE, read_results
from robustok_core.runs.run_record import COPY, RUN_FILE, is_run, read_copy, read_run

_GOOD = "good"


@frozen(kw_only=True)
class Verified:
    """What was compared, and what was found; `damaged` is whether anything is wrong with it."""

    path: Path
    what: str
    damaged: bool = False


def verified(path: Path) -> Iterator[Verified]:
    """Compares an artifact, or a run with its artifacts, its checkpoints and what it loaded.

    Raises:
        RobustokError: if it is neither an artifact nor a run.
    """
    if is_artifact(path):
        yield _artifact(path)
    elif is_run(path):
        yield from _run(path)
    else:
        raise RobustokError("this is not a run folder", where=str(path), hint="name the folder of a run or an artifact")


def _run(run: Path) -> Iterator[Verified]:
    try:
        record = read_run(run)
    except RobustokError as error:
        yield Verified(path=run / RUN_FILE, what=f"{error.what}; {error.hint}", damaged=True)
        record = read_copy(run) or {"stages": {}, "current": {}}
    else:
        yield Verified(path=run / RUN_FILE, what=_GOOD)
        if "checksum" in read_json(run / RUN_FILE) and read_copy(run) is None:
            yield Verified(path=run / COPY, what="it is missing or damaged", damaged=True)
        yield from _of_recipe(run, record)
    expected = _expected(run, record)
    for folder in sorted({*expected, *_folders(run / "artifacts")}):
        yield _artifact(folder)
    for manifest in sorted((run / "checkpoints").rglob(f"*{MANIFEST}")):
        if not any(part.startswith(DAMAGED) for part in manifest.relative_to(run).parts):
            yield _manifest(manifest)
    for name in record.get("inputs", {}):
        yield _input(run, record, name)


def _expected(run: Path, record: Mapping[str, Any]) -> list[Path]:
    """The artifacts of the current recipe's finished stages."""
    stages = ((fingerprint, record["stages"].get(f"{name}-{fingerprint}")) for name, fingerprint in _current(record))
    return [
        run / "artifacts" / f"{name}-{fingerprint}"
        for fingerprint, entry in stages
        if entry is not None and entry["state"] == "done"
        for name in entry.get("makes", [])
    ]


def _current(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(record.get("current", {}).items())


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if not path.name.startswith(".")] if parent.is_dir() else []


def _of_recipe(run: Path, record: Mapping[str, Any]) -> Iterator[Verified]:
    """recipe.toml and results.json, of which run.json records the hash and the numbers."""
    if (recorded := record.get("recipe")) is not None:
        try:
            unchanged = fingerprint_of((run / RECIPE_FILE).read_text(encoding="utf-8")) == recorded
        except (OSError, ValueError):
            unchanged = False
        what = _GOOD if unchanged else "it was changed since the run wrote it"
        yield Verified(path=run / RECIPE_FILE, what=what, damaged=not unchanged)
    stages = [record["stages"].get(f"{name}-{fingerprint}", {}) for name, fingerprint in _current(record)]
    finished = bool(stages) and all(entry.get("state") == "done" for entry in stages)
    if finished or os.path.lexists(run / RESULTS_FILE):
        try:
            read_results(run)
        except RobustokError as error:
            yield Verified(path=run / RESULTS_FILE, what=error.what, damaged=True)
        else:
            yield Verified(path=run / RESULTS_FILE, what=_GOOD)


def _artifact(folder: Path) -> Verified:
    damage = artifact_damage(folder)
    if damage is not None:
        return Verified(path=damage.file, what=damage.what, damaged=True)
    unknown = "it has no manifest (an earlier version made it), so damage would not be noticed"
    return Verified(path=folder, what=_GOOD if (folder / MANIFEST).is_file() else unknown)


def _manifest(manifest: Path) -> Verified:
    damage = damage_of(manifest)
    if damage is not None:
        return Verified(path=damage.file, what=damage.what, damaged=True)
    return Verified(path=manifest.parent if manifest.name == MANIFEST else manifest, what=_GOOD)


def _input(run: Path, record: Mapping[str, Any], name: str) -> Verified:
    try:
        return _artifact(find_input(run, record, name))
    except RobustokError as error:
        return Verified(path=Path(error.where or run), what=error.what, damaged=True)
