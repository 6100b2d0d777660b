"""The run folder: what each stage made, its fingerprint, and the lock. Nothing in it is overwritten.

runs/NAME/
recipe.toml      resolved, every default written out
run.json         each stage's state, time, and what it was made with; the fingerprints of the recipe's stages
results.json     "stage/metric": what results.py writes, of the current recipe
metrics.jsonl    a line for each logged step
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
from robustok_core.runs.files import aside, read_json, write_json, write_text, writing

RUN_FILE, RECIPE_FILE = "run.json", "recipe.toml"


#: What run.json said of the last command alone, before it said so of every stage.
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
            RobustokError: where another command works in it, or it is no run folder.
        """
        foreign = self.path.exists() and not (self.path / RUN_FILE).exists()
        if foreign and not (self.path.is_dir() and all(_left_by_a_kill(p) for p in self.path.iterdir())):
            raise RobustokError("this exists and is no run folder", where=str(self.path), hint="choose another --out")
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            hint = "wait for it, or give this run another name: --set run.name=NAME"
            raise RobustokError("another command works in this folder", where=str(self.path), hint=hint) from error
        if (self.path / RUN_FILE).exists():
            self.record = read_json(self.path / RUN_FILE)

    def close(self) -> None:
        """Gives the folder back."""
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
        """Records which recipe this folder belongs to: from here on it names that recipe's artifacts and no others.

        A kill in between leaves a folder that names no artifact, so readers refuse it until the recipe runs again.

        Args:
            recipe: the text of recipe.toml.
            stages: the fingerprint of each stage by name, in their order, run or not.
            makes: the artifacts of each stage, by its name.
            inputs: the paths of the artifacts that [load] gives, by name.
        """
        for name, fingerprint in stages.items():
            self.stage(name, fingerprint)["makes"] = list(makes[name])
        names: dict[str, Any] = {"current": dict(stages), "inputs": dict(inputs)}
        named_before = [list(self.record.get(key, {}).items()) for key in names]
        if self._holds(RECIPE_FILE, recipe) and named_before == [list(found.items()) for found in names.values()]:
            return
        for old in _OF_THE_LAST_COMMAND:
            self.record.pop(old, None)
        self.record |= {"current": {}, "inputs": {}}
        self.save()
        self.set_aside("results.json")  # it belongs to what was there
        self.write_current(RECIPE_FILE, recipe)
        self.record |= names
        self.save()

    def _holds(self, name: str, text: str) -> bool:
        file = self.path / name
        return file.exists() and file.read_text(encoding="utf-8") == text

    def write_current(self, name: str, text: str) -> None:
        """Writes a file of the current recipe; one that differs is first moved to history/."""
        if not self._holds(name, text):
            self.set_aside(name)
            write_text(self.path / name, text)

    def set_aside(self, name: str) -> None:
        """Moves a file of an earlier recipe to history/, where there is one."""
        target, history = self.path / name, self.path / "history"
        if target.exists():
            with writing(history):
                history.mkdir(exist_ok=True)
                places = (history / f"{target.stem}-{number}{target.suffix}" for number in itertools.count(1))
                target.rename(next(place for place in places if not place.exists()))

    def artifact(self, name: str, fingerprint: str) -> Path:
        """The folder of an artifact."""
        return self.path / "artifacts" / f"{name}-{fingerprint}"

    def checkpoints(self, stage: str, fingerprint: str) -> Path:
        """The folder of a stage's checkpoints."""
        return self.path / "checkpoints" / f"{stage}-{fingerprint}"

    def stage(self, name: str, fingerprint: str) -> dict[str, Any]:
        """A stage's entry in run.json, made where there is none."""
        return self.record["stages"].setdefault(f"{name}-{fingerprint}", {"state": "new", "seconds": 0.0})


def _left_by_a_kill(path: Path) -> bool:
    """Whether a command that was killed before it wrote run.json may have left this."""
    return path.name in (".lock", aside(path.with_name(RUN_FILE)).name)


def find_artifact(path: Path, name: str) -> Path:
    """The folder of an artifact: `path` itself, or the last one that a run's recipe makes, or that [load] gave it.

    Raises:
        RobustokError: where there is none, or it is not made yet.
    """
    if (path / "component.json").is_file():
        kind = read_json(path / "component.json").get("kind")
        if kind != name:
            raise RobustokError(f"this holds a {kind}, not a {name}", where=str(path))
        return path
    if not (path / RUN_FILE).is_file():
        hint = "name the folder of a run, or of an artifact in it"
        raise RobustokError("this is no run folder", where=str(path), hint=hint)
    record = read_json(path / RUN_FILE)
    made = [
        (record["stages"][f"{stage}-{fingerprint}"]["state"] == "done", path / "artifacts" / f"{name}-{fingerprint}")
        for stage, fingerprint in record.get("current", {}).items()
        if name in record["stages"].get(f"{stage}-{fingerprint}", {}).get("makes", [])
    ]
    if not made and name in record.get("inputs", {}):
        return Path(record["inputs"][name])
    if made and made[-1][0]:
        return made[-1][1]
    hint = "let the run finish first"
    if earlier := [folder for done, folder in made if done]:
        hint += f", or name the one that it begins with: {earlier[-1]}"
    raise RobustokError(f"this run has no finished {name}", where=str(path), hint=hint)


def next_free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist."""
    others = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], others) if not candidate.exists())
