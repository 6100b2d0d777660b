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
from robustok_core.runs.history import HISTORY, RECIPE_COPY, RECIPE_FILE
from robustok_core.runs.inputs import find_input
from robustok_core.runs.intact import artifact_damage
from robustok_core.runs.manifest import DAMAGED, MANIFEST, damage_of, difference
from robustok_core.runs.near_runs import no_run
from robustok_core.runs.results import RESULTS_FILE, read_results
from robustok_core.runs.run_record import COPY, RUN_FILE, FileRecord, is_run, read_copy, read_run
from robustok_core.runs.step_log import LOG_FILE, log_damage, wrong_lines

_GOOD = "good"


@frozen(kw_only=True)
class Verified:
    """What was compared, and what was found; `damaged` is whether anything is wrong with it."""

    path: Path
    what: str
    damaged: bool = False


def verified(path: Path) -> Iterator[Verified]:
    """Compares an artifact, or a run with its artifacts, checkpoints, log, history and what it loaded.

    Raises:
        RobustokError: if it is neither an artifact nor a run.
    """
    if is_artifact(path):
        yield _artifact(path)
    elif is_run(path):
        yield from _run(path)
    else:
        raise no_run(path)


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
    yield from _log(run, record)
    for file in sorted({*_folders(run / HISTORY), *(run / HISTORY / name for name in record.get("kept", {}))}):
        yield _past(file, record)
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
        unchanged = _same_text(run / RECIPE_FILE, recorded)
        what = _GOOD if unchanged else "it was changed since the run wrote it"
        yield Verified(path=run / RECIPE_FILE, what=what, damaged=not unchanged)
        if os.path.lexists(copy := run / RECIPE_COPY) and not _same_text(copy, recorded):
            yield Verified(path=copy, what="it is not a copy of the recipe that the run wrote", damaged=True)
    stages = [record["stages"].get(f"{name}-{fingerprint}", {}) for name, fingerprint in _current(record)]
    finished = bool(stages) and all(entry.get("state") == "done" for entry in stages)
    if finished or os.path.lexists(run / RESULTS_FILE):
        try:
            read_results(run)
        except RobustokError as error:
            yield Verified(path=run / RESULTS_FILE, what=error.what, damaged=True)
        else:
            yield Verified(path=run / RESULTS_FILE, what=_GOOD)


def _same_text(file: Path, recorded: str) -> bool:
    try:
        return fingerprint_of(file.read_text(encoding="utf-8")) == recorded
    except (OSError, ValueError):
        return False


def _log(run: Path, record: Mapping[str, Any]) -> Iterator[Verified]:
    """metrics.jsonl: its content up to the end of the last stage, and that each line is JSON."""
    file = run / LOG_FILE
    recorded = record.get("log")
    if recorded is None and not os.path.lexists(file):
        return
    if recorded is not None and (what := log_damage(file, recorded)) is not None:
        yield Verified(path=file, what=what, damaged=True)
    elif wrong := wrong_lines(file):
        yield Verified(path=file, what=f"line {wrong[0]} is no JSON object ({len(wrong)} such lines)", damaged=True)
    elif recorded is None or recorded["size"] < file.stat().st_size:
        part = "its hash" if recorded is None else f"the hash of what follows byte {recorded['size']:,}"
        yield Verified(path=file, what=f"{_GOOD}, as far as is known: {part} is not recorded, each line is JSON")
    else:
        yield Verified(path=file, what=_GOOD)


def _past(file: Path, record: Mapping[str, Any]) -> Verified:
    """A file in history/."""
    if file.name.startswith(DAMAGED):
        return Verified(path=file, what="it was set aside as damaged; not compared")
    if (recorded := record.get("kept", {}).get(file.name)) is None:
        return Verified(path=file, what="no hash of it is recorded, so damage would not be noticed")
    what = difference(file, FileRecord(**recorded))
    return Verified(path=file, what=what or _GOOD, damaged=what is not None)


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
