"""The run folder: artifacts, fingerprints and the lock. Nothing in it is overwritten.

runs/NAME/
recipe.toml      resolved, with every default written out
run.json         each stage's state, time and environment; the fingerprints of the recipe's stages
results.json     the current recipe's results by "stage/metric", see results.py
metrics.jsonl    one line per logged step
artifacts/NAME-FINGERPRINT/     checkpoints/STAGE-FINGERPRINT/     history/
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from robustok_core.errors import RobustokError
from robustok_core.runs.files import aside, read_json, remove_leftovers, write_json, write_text, writing

RUN_FILE, RECIPE_FILE = "run.json", "recipe.toml"


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
        self._lock = FileLock(path / ".lock")
        self.record: dict[str, Any] = {"stages": {}, "current": {}}

    def open(self) -> None:
        """Takes the folder for this command.

        Raises:
            RobustokError: if another command uses it, or it is not a run folder.
        """
        foreign = self.path.exists() and not (self.path / RUN_FILE).exists()
        if foreign and not (self.path.is_dir() and all(_left_by_a_kill(p) for p in self.path.iterdir())):
            raise RobustokError(
                "this exists and is not a run folder", where=str(self.path), hint="choose another --out"
            )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            hint = "wait for it, or give this run another name: --set run.name=NAME"
            raise RobustokError("another command is using this folder", where=str(self.path), hint=hint) from error
        for folder in (self.path, self.path / "artifacts", self.path / "checkpoints"):
            remove_leftovers(folder)
        if (self.path / RUN_FILE).exists():
            self.record = read_json(self.path / RUN_FILE)

    def close(self) -> None:
        """Releases the folder."""
        self._lock.release()

    def save(self) -> None:
        """Writes run.json."""
        write_json(self.path / RUN_FILE, self.record)

    def make_current(
        self,
        recipe: str,
        stages: Mapping[str, str],
        makes: Mapping[str, Sequence[str]],
        inputs: Mapping[str, str],
    ) -> None:
        """Records the folder's current recipe; from then on run.json names that recipe's artifacts and no others.

        A kill during this call leaves a folder that names no artifacts; readers refuse it until the recipe runs again.

        Args:
            recipe: the text of recipe.toml.
            stages: the fingerprint of each stage by name, in order, whether finished or not.
            makes: the artifacts of each stage, by stage name.
            inputs: the paths of the artifacts from [load], by artifact name.
        """
        for name, fingerprint in stages.items():
            self.stage(name, fingerprint)["makes"] = list(makes[name])
        names: dict[str, Any] = {"current": dict(stages), "inputs": dict(inputs)}
        named_before = [list(self.record.get(key, {}).items()) for key in names]
        if self._holds(RECIPE_FILE, recipe) and named_before == [list(table.items()) for table in names.values()]:
            return
        for old in _OF_THE_LAST_COMMAND:
            self.record.pop(old, None)
        self.record |= {"current": {}, "inputs": {}}
        self.save()
        self.set_aside("results.json")  # it belongs to the previous recipe
        self.write_current(RECIPE_FILE, recipe)
        self.record |= names
        self.save()

    def _holds(self, name: str, text: str) -> bool:
        file = self.path / name
        return file.exists() and file.read_text(encoding="utf-8") == text

    def write_current(self, name: str, text: str) -> None:
        """Writes a file of the current recipe; if an existing one differs, moves that to history/ first."""
        if not self._holds(name, text):
            self.set_aside(name)
            write_text(self.path / name, text)

    def set_aside(self, name: str) -> None:
        """Moves a file of an earlier recipe to history/, if there is one."""
        target, history = self.path / name, self.path / "history"
        if target.exists():
            with writing(history):
                history.mkdir(exist_ok=True)
                candidates = (history / f"{target.stem}-{number}{target.suffix}" for number in itertools.count(1))
                target.rename(next(candidate for candidate in candidates if not candidate.exists()))

    def artifact(self, name: str, fingerprint: str) -> Path:
        """The folder of an artifact."""
        return self.path / "artifacts" / f"{name}-{fingerprint}"

    def checkpoints(self, stage: str, fingerprint: str) -> Path:
        """The folder of a stage's checkpoints."""
        return self.path / "checkpoints" / f"{stage}-{fingerprint}"

    def stage(self, name: str, fingerprint: str) -> dict[str, Any]:
        """A stage's entry in run.json; created if missing."""
        return self.record["stages"].setdefault(f"{name}-{fingerprint}", {"state": "new", "seconds": 0.0})


def _left_by_a_kill(path: Path) -> bool:
    """Whether this may be a leftover of a command killed before it wrote run.json."""
    return path.name in (".lock", aside(path.with_name(RUN_FILE)).name)


def find_artifact(path: Path, name: str) -> Path:
    """The folder of an artifact: `path` itself, or the last one that the run's recipe makes, or the run's [load] entry.

    Raises:
        RobustokError: if there is no such artifact, or it is not finished.
    """
    if (path / "component.json").is_file():
        kind = read_json(path / "component.json").get("kind")
        if kind != name:
            raise RobustokError(f"this holds a {kind}, not a {name}", where=str(path))
        return path
    if not (path / RUN_FILE).is_file():
        hint = "name the folder of a run, or of an artifact in it"
        raise RobustokError("this is not a run folder", where=str(path), hint=hint)
    record = read_json(path / RUN_FILE)
    candidates = [
        (record["stages"][f"{stage}-{fingerprint}"]["state"] == "done", path / "artifacts" / f"{name}-{fingerprint}")
        for stage, fingerprint in record.get("current", {}).items()
        if name in record["stages"].get(f"{stage}-{fingerprint}", {}).get("makes", [])
    ]
    if not candidates and name in record.get("inputs", {}):
        return Path(record["inputs"][name])
    if candidates and candidates[-1][0]:
        return candidates[-1][1]
    hint = "let the run finish first"
    if earlier := [folder for done, folder in candidates if done]:
        hint += f", or name the {name} of an earlier stage: {earlier[-1]}"
    raise RobustokError(f"this run has no finished {name}", where=str(path), hint=hint)


def next_free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist."""
    others = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], others) if not candidate.exists())
