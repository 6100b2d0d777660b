"""The run folder: artifacts, fingerprints and the lock. Nothing in it is overwritten.

runs/NAME/
recipe.toml      resolved, with every default written out
run.json         each stage's state, time and environment; the fingerprints of the recipe's stages; the recipes before
results.json     the current recipe's results by "stage/metric", see results.py
metrics.jsonl    one line per logged step
artifacts/NAME-FINGERPRINT/     checkpoints/STAGE-FINGERPRINT/     each with a manifest, see manifest.py
history/         recipes and results of earlier recipes, and what was damaged
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, Timeout

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.components import read_artifact
from robustok_core.runs.files import aside, move, remove_leftovers, write_text, writing
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.history import (
    HISTORY,
    RECIPE_COPY,
    RECIPE_FILE,
    changes_between,
    described,
    history_file,
    next_number,
)
from robustok_core.runs.inputs import find_input, input_entry
from robustok_core.runs.intact import check_artifact
from robustok_core.runs.locks import NOT_KEPT_APART, lock_of
from robustok_core.runs.manifest import DAMAGED, MANIFEST, file_record, set_aside
from robustok_core.runs.near_runs import no_run
from robustok_core.runs.provenance import now
from robustok_core.runs.results import RESULTS_FILE, holds_a_part, read_results, tables_of
from robustok_core.runs.run_record import COPY, RUN_FILE, is_run, read_copy, read_run, write_run
from robustok_core.runs.step_log import LOG_FILE, recorded_log
from robustok_core.values.result import Result

_LOCK = ".lock"
#: Keys of the last command in run.json of earlier versions; they are now recorded for each stage.
_OF_THE_LAST_COMMAND = (
    "robustok",
    "python",
    "torch",
    "device",
    "threads",
    "cpus",
    "git_commit",
    "command",
    "time",
    "processes",
)


class RunFolder:
    """A run's folder, opened by one command at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BaseFileLock | None = None
        self._locked: os.stat_result | None = None
        self.record: dict[str, Any] = {"stages": {}, "current": {}}
        #: What there is to say of the folder once it is open, as lines.
        self.notes: list[str] = []

    def open(self) -> None:
        """Takes the folder for this command.

        Raises:
            RobustokError: if another command uses it, or it is not a run folder, or its run.json is damaged.
        """
        if self.path.exists() and not is_run(self.path) and not self._is_empty():
            raise RobustokError(
                "this exists and is not a run folder", where=str(self.path), hint="choose another --out"
            )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
        self._take_lock()
        try:
            for folder in (self.path, self.path / "artifacts", self.path / "checkpoints"):
                remove_leftovers(folder)
            if is_run(self.path):
                self._read()
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> None:
        file = self.path / _LOCK
        with writing(file):
            lock = lock_of(file)
            try:
                if lock is None:
                    self.notes.append(f"{self.path}: {NOT_KEPT_APART}")
                else:
                    lock.acquire(blocking=False)
            except Timeout as error:
                hint = "wait for it, or give this run another name: --set run.name=NAME"
                raise RobustokError("another command is using this folder", where=str(self.path), hint=hint) from error
        self._lock, self._locked = lock, file.stat()

    def _read(self) -> None:
        """Reads run.json; where it is damaged, its copy."""
        try:
            self.record = read_run(self.path)
        except RunError as error:
            copy = read_copy(self.path)
            if copy is None and not self._is_empty():
                raise
            if os.path.lexists(self.path / RUN_FILE):
                set_aside(self.path / RUN_FILE, self.path / HISTORY)
            if copy is not None:
                self.record = copy
                self.notes.append(f"{self.path / RUN_FILE} was damaged ({error.what}); its copy is used")

    def _is_empty(self) -> bool:
        """Whether the folder holds nothing but what a command leaves that is killed before its first record."""
        return self.path.is_dir() and all(map(_before_the_first_record, self.path.iterdir()))

    def close(self) -> None:
        """Releases the folder."""
        if self._lock is not None:
            self._lock.release()
        self._locked = None

    def require_here(self) -> None:
        """Raises RunError if the folder is no longer where this command took it: another run may be there now."""
        try:
            here = self._locked is None or os.path.samestat(self._locked, (self.path / _LOCK).stat())
        except FileNotFoundError:
            here = False
        if not here:
            what = "this folder was moved, removed or replaced while a run wrote to it"
            hint = "move it back, and the same command goes on; or run it with the folder's new place"
            raise RunError(what, where=str(self.path), hint=hint)

    def save(self) -> None:
        """Writes run.json.

        Raises:
            RunError: as `require_here`.
        """
        self.require_here()
        write_run(self.path, self.record)

    def make_current(
        self,
        recipe: str,
        stages: Mapping[str, str],
        makes: Mapping[str, Sequence[str]],
        inputs: Mapping[str, Path],
    ) -> list[str]:
        """Records the folder's current recipe; from then on run.json names that recipe's artifacts and no others.

        A kill during this call leaves a folder that names no artifacts; readers refuse it until the recipe runs again.

        Args:
            recipe: the text of recipe.toml.
            stages: the fingerprint of each stage by name, in order, whether finished or not.
            makes: the artifacts of each stage, by stage name.
            inputs: the folders of the artifacts from [load], by artifact name.

        Returns:
            What the recipe changes in one that was here before, and where the files of that lie, as lines.
        """
        for name, fingerprint in stages.items():
            self.stage(name, fingerprint)["makes"] = list(makes[name])
        entries = {name: input_entry(self.path, folder) for name, folder in inputs.items()}
        names: dict[str, Any] = {"current": dict(stages), "inputs": entries, "recipe": fingerprint_of(recipe)}
        # Fingerprints cover the content of inputs; where these lie may change.
        same = list(self.record["current"].items()) == list(stages.items())
        if same and (renamed := self._renamed(recipe)):
            write_text(self.path / RECIPE_FILE, recipe)
            said = [renamed]
        else:
            said = [] if same and self._holds(RECIPE_FILE, recipe) else self._replace(recipe)
        self._keep_copy(recipe)
        if any(self.record.get(key) != value for key, value in names.items()):
            self.record |= names
            self.save()
        return said

    def _renamed(self, recipe: str) -> str | None:
        """What to say if this recipe is the one in the folder but for the run's name."""
        file = self.path / RECIPE_FILE
        before = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else recipe
        changes = [] if before == recipe else changes_between(before, recipe)
        if len(changes) != 1 or not changes[0].startswith("run.name: "):
            return None
        old, new = changes[0].removeprefix("run.name: ").split(" -> ")
        return f"this run was called {old}; it is {new} now"

    def _keep_copy(self, recipe: str) -> None:
        """Keeps a copy of recipe.toml, which stands in for it where it is damaged."""
        if not self._holds(RECIPE_COPY, recipe):
            write_text(self.path / RECIPE_COPY, recipe)

    def _replace(self, recipe: str) -> list[str]:
        """Moves the files of the recipe before to history/ and writes recipe.toml; says what is different."""
        for old in _OF_THE_LAST_COMMAND:
            self.record.pop(old, None)
        number = self._number()
        before = (self.path / RECIPE_FILE).read_bytes() if (self.path / RECIPE_FILE).is_file() else None
        edited = before is not None and self.record.get("recipe") not in (None, _hash_of(before))
        if self.record["current"]:
            past = {"number": number, "replaced": now()}
            past |= {key: self.record.get(key, {}) for key in ("current", "inputs")}
            self.record["history"] = [*self.record.get("history", []), past]
        self.record |= {"current": {}, "inputs": {}, "recipe": None, "results": None}
        self.save()
        self.set_aside(RESULTS_FILE, number)  # it belongs to the previous recipe
        if not self._holds(RECIPE_FILE, recipe):
            self.set_aside(RECIPE_FILE, number)
            write_text(self.path / RECIPE_FILE, recipe)
        return [] if before is None else self._change(before, recipe, number, edited=edited)

    def _number(self) -> int:
        """The number of the recipe that is replaced now; a call that was killed gave it one already."""
        history = self.record.get("history", [])
        if history and not self.record["current"]:
            number: int = history[-1]["number"]
            if not history_file(self.path, RECIPE_FILE, number).exists():
                return number
        return next_number(self.path, self.record)

    def _change(self, before: bytes, recipe: str, number: int, *, edited: bool) -> list[str]:
        files = [
            file for name in (RECIPE_FILE, RESULTS_FILE) if (file := history_file(self.path, name, number)).exists()
        ]
        said = [f"{self.path / RECIPE_FILE} was edited or damaged since it was written"] if edited else []
        if changes := changes_between(before.decode(errors="replace"), recipe):
            said.append(f"this folder held another recipe: {described(changes)}")
        elif files:
            said.append("the recipe is the same as before, but the data, an input or the code is another")
        if files:
            where = f"  it is kept in {' and '.join(map(str, files))}"
            said.append(f"{where}, and its artifacts are where they were: robustok history {self.path}")
        return said

    def _holds(self, name: str, text: str) -> bool:
        file = self.path / name
        return file.is_file() and file.read_bytes() == text.encode()

    def write_current(self, name: str, text: str) -> None:
        """Writes a file of the current recipe; if an existing one differs, moves that to history/ first."""
        if not self._holds(name, text):
            self.set_aside(name, next_number(self.path, self.record))
            write_text(self.path / name, text)

    def set_damaged_results_aside(self) -> list[str]:
        """Moves a results.json that does not agree with run.json to history/; returns what there is to say of it."""
        file = self.path / RESULTS_FILE
        if not os.path.lexists(file):
            return []
        try:
            read_results(self.path)
        except RobustokError:
            kept = set_aside(file, self.path / HISTORY)
            return [f"{file} was damaged; it is written again, and the damaged one is now {kept}"]
        return []

    def write_results(self, results: Mapping[str, Result]) -> None:
        """Writes results.json; one that differs is moved to history/ first, unless it only lacks later stages."""
        text = json.dumps(tables_of(results), indent=2) + "\n"
        if holds_a_part(self.path / RESULTS_FILE, results):
            write_text(self.path / RESULTS_FILE, text)
        else:
            self.write_current(RESULTS_FILE, text)
        self.record["results"] = fingerprint_of(text)
        self.save()

    def record_log(self) -> None:
        """Records the size and hash of metrics.jsonl; `save` writes them."""
        if (log := recorded_log(self.path / LOG_FILE, self.record.get("log"))) is not None:
            self.record["log"] = dict(log)

    def forget_log(self) -> None:
        """Forgets what was recorded of metrics.jsonl, because lines in it are about to be dropped."""
        if self.record.pop("log", None) is not None:
            self.save()

    def set_aside(self, name: str, number: int) -> None:
        """Moves a file of an earlier recipe to history/ under this number, if there is one."""
        target, kept = self.path / name, history_file(self.path, name, number)
        if os.path.lexists(target):
            if target.is_file():
                self.record["kept"] = {**self.record.get("kept", {}), kept.name: file_record(target)}
            move(target, kept)

    def artifact(self, name: str, fingerprint: str) -> Path:
        """The folder of an artifact."""
        return self.path / "artifacts" / f"{name}-{fingerprint}"

    def checkpoints(self, stage: str, fingerprint: str) -> Path:
        """The folder of a stage's checkpoints."""
        return self.path / "checkpoints" / f"{stage}-{fingerprint}"

    def stage(self, name: str, fingerprint: str) -> dict[str, Any]:
        """A stage's entry in run.json; created if missing."""
        return self.record["stages"].setdefault(f"{name}-{fingerprint}", {"state": "new", "seconds": 0.0})


def is_in_use(run: Path) -> bool:
    """Whether a command uses a run's folder now, as far as the file system has locks to tell."""
    file = run / _LOCK
    if not file.is_file() or (lock := lock_of(file)) is None:
        return False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _before_the_first_record(path: Path) -> bool:
    """Whether a path in a run's folder may be there before its first record is complete."""
    if path.name == HISTORY and path.is_dir():  # a record that a kill left half-written was set aside
        return all(kept.name.startswith(f"{DAMAGED}{RUN_FILE}") for kept in path.iterdir())
    records = (RUN_FILE, COPY)
    return path.name in (*records, _LOCK, *(aside(path.with_name(name)).name for name in records))


def _hash_of(text: bytes) -> str:
    return fingerprint_of(text.decode(errors="replace"))


def find_artifact(path: Path, name: str) -> Path:
    """The folder of an artifact: `path` itself, or the last one that the run's recipe makes, or the run's [load] entry.

    Raises:
        RobustokError: if there is no such artifact, or it is not finished, or one of its files is damaged.
    """
    if is_artifact(path):
        check_artifact(path)
        kind = read_artifact(path).kind
        if kind != name:
            raise RobustokError(f"this holds a {kind}, not a {name}", where=str(path))
        return path
    folder = _artifact_of_run(path, name)
    check_artifact(folder)
    return folder


def is_artifact(path: Path) -> bool:
    """Whether a folder holds an artifact, or what is left of one."""
    return (path / "component.json").is_file() or (path / MANIFEST).is_file()


def finished_artifacts(run: Path, name: str) -> list[Path]:
    """The folders of all finished artifacts of a name in a run: the one from [load], then those that its recipe makes.

    Raises:
        RobustokError: if this is not a run, or an artifact from [load] is not where it was.
    """
    record = _record_of(run)
    loaded = [find_input(run, record, name)] if name in record.get("inputs", {}) else []
    return [*loaded, *(folder for done, folder in _made(run, record, name) if done)]


def _artifact_of_run(path: Path, name: str) -> Path:
    record = _record_of(path)
    candidates = _made(path, record, name)
    if not candidates and name in record.get("inputs", {}):
        return find_input(path, record, name)
    if candidates and candidates[-1][0]:
        return candidates[-1][1]
    hint = "let the run finish first" if candidates else "its recipe makes none"
    own = {f"{stage}-{fingerprint}" for stage, fingerprint in record.get("current", {}).items()}
    others = (entry for key, entry in record["stages"].items() if key not in own and entry["state"] == "done")
    if any(name in entry.get("makes", []) for entry in others):
        hint += f"; `robustok history {path}` lists those of earlier recipes of this folder"
    if earlier := [folder for done, folder in candidates if done]:
        hint += f", or name the {name} of an earlier stage: {earlier[-1]}"
    raise RobustokError(f"this run has no finished {name}", where=str(path), hint=hint)


def _record_of(path: Path) -> dict[str, Any]:
    if not is_run(path):
        raise no_run(path)
    return read_run(path)


def _made(path: Path, record: Mapping[str, Any], name: str) -> list[tuple[bool, Path]]:
    """The artifacts of a name that a run's recipe makes, in the order of its stages, and whether each is finished."""
    return [
        (record["stages"][f"{stage}-{fingerprint}"]["state"] == "done", path / "artifacts" / f"{name}-{fingerprint}")
        for stage, fingerprint in record.get("current", {}).items()
        if name in record["stages"].get(f"{stage}-{fingerprint}", {}).get("makes", [])
    ]
